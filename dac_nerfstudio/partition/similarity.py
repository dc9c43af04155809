"""How alike views are, two by two: by the points they share, by the space they see, by what the photos look like.

Every similarity is a matrix [views, views], symmetric, in [0, 1], with 1 on the diagonal, and does not change when the
scene is turned, shifted or scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dac_nerfstudio.partition.sampling import representatives, sample_of
from dac_nerfstudio.scene.frames import find_middle, spread, view_distances
from dac_nerfstudio.scene.views import PartitionError, Views, listing

SIMILARITIES = ("covisibility", "frustum", "appearance")
"""The names that `measure` understands."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike views are."""

    kind: str
    """One of `SIMILARITIES`."""
    values: np.ndarray
    """[views, views] float64, symmetric, in [0, 1], with 1 on the diagonal."""
    sample: np.ndarray | None = None
    """[views] indices, in rising order, of the views among those of a larger scene; None where they are all."""

    def indices(self, views: int) -> np.ndarray:
        """The indices of its views among the `views` of the scene.

        Raises:
            PartitionError: it is a similarity of another number of views.
        """
        if self.sample is not None and self.sample[-1] < views:
            return self.sample
        if len(self.values) != views:
            raise PartitionError(
                f"The similarity is of {len(self.values)} views, but the partition has {views}; measure it for "
                "partition.views."
            )
        return np.arange(views)


def measure(views: Views, kind: str = "auto") -> Similarity:
    """The similarity of views; of a sample of them (`sample_of`) where they are many.

    Args:
        views: with tracks for `covisibility`, with photos for `appearance`.
        kind: one of `SIMILARITIES`, or `auto`: covisibility where tracks are known, otherwise frustum overlap.

    Raises:
        PartitionError: what it is measured by is not known of the views.
    """
    if kind == "auto":
        kind = "frustum" if views.tracks is None else "covisibility"
    known = {"covisibility": covisibility, "frustum": frustum_overlap, "appearance": appearance}
    if kind not in known:
        raise PartitionError(f"Unknown similarity '{kind}'; choose one of: auto, {', '.join(SIMILARITIES)}.")
    sample = sample_of(len(views))
    values = known[kind](representatives(views, sample))
    return Similarity(kind, values, None if len(sample) == len(views) else sample)


def covisibility(views: Views) -> np.ndarray:
    """Shared 3D points: |A & B| / sqrt(|A| |B|) for the sets of points of two photos (Salton's cosine).

    Dividing by the geometric mean keeps photos with many points from being everyone's neighbour, which the plain count
    makes of them, without making one of every photo with few, as dividing by the smaller set would; and unlike
    |A & B| / |A | B| it still calls a photo that a larger one contains a close relative of it.

    Raises:
        PartitionError: no tracks are known.
    """
    if views.tracks is None:
        raise PartitionError(
            "Covisibility needs the 3D points that photos share, and no COLMAP model was found beside the data. Choose "
            "another similarity: --similarity frustum"
        )
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(views)), [len(points) for points in views.tracks])
    columns = np.unique(np.concatenate(views.tracks), return_inverse=True)[1]
    seen = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(views), columns.max(initial=-1) + 1))
    return _normalised((seen @ seen.T).toarray())


PLACES, FACINGS = 48, 4
"""Surface elements that `frustum_overlap` puts in front of every camera: points times normals."""
NEAREST, FARTHEST = 0.5, 2.0
"""How far ahead of its camera a surface element lies, in multiples of the scene's size."""
BLOCK = 2**24
"""Pairs of a view and a surface element that are compared at a time: memory does not grow with their number."""


def frustum_overlap(views: Views) -> np.ndarray:
    """The share of the scene that two cameras both see, from poses and intrinsics alone.

    Where nothing is known of the surfaces, they might be anywhere: points are spread through the frustum of every
    camera, from half to twice the median distance between cameras and what they look at, each as a small surface with
    a random normal. A camera sees one if it lies in its frustum and faces it: cameras on opposite sides look at one
    place, but not at the same surfaces. What two cameras both see is then counted and normalised as `covisibility` is.
    The points are fixed in the cameras' own frames, so that the result turns, shifts and scales with the scene.
    """
    poses, intrinsics = views.camera_to_worlds, views.intrinsics
    size = float(np.median(np.linalg.norm(views.centres - find_middle(views), axis=1)))
    # Cameras in one place look at nothing but each other, and any size will do.
    size = size if size > 1e-6 * np.abs(views.centres).max() else 1.0
    random = np.random.default_rng(0)
    fx, fy, cx, cy, width, height = intrinsics.T[:, :, None]  # each [views, 1]
    across, down, depth = random.random((3, PLACES))
    depth = NEAREST * size * (FARTHEST / NEAREST) ** depth
    points = np.stack([(across * width - cx) / fx, (cy - down * height) / fy, -np.ones((len(views), PLACES))], axis=-1)
    points = points * depth[:, None]  # [views, places, 3], in the cameras' frames
    normals = random.normal(size=(PLACES * FACINGS, 3))
    rotations, centres = poses[:, :, :3], poses[:, :, 3]
    points = (points @ rotations.transpose(0, 2, 1) + centres[:, None]).reshape(-1, 3)
    points = np.repeat(points, FACINGS, axis=0)  # [elements, 3]
    normals = (normals @ rotations.transpose(0, 2, 1)).reshape(-1, 3)
    shared = np.zeros((len(views), len(views)))
    blocks = -(-len(views) * len(points) // BLOCK)
    for some_points, some_normals in zip(np.array_split(points, blocks), np.array_split(normals, blocks)):
        seen = np.empty((len(views), len(some_points)), dtype=np.float32)
        for view in range(len(views)):
            away = some_points - centres[view]
            x, y, z = (away @ rotations[view]).T
            ahead = np.maximum(-z, 1e-9)
            column, row = fx[view] * x / ahead + cx[view], cy[view] - fy[view] * y / ahead
            inside = (column >= 0) & (column <= width[view]) & (row >= 0) & (row <= height[view])
            in_reach = -z <= FARTHEST * size  # what is behind has been projected far outside
            seen[view] = inside & in_reach & ((away * some_normals).sum(axis=1) < 0)
        shared += seen @ seen.T
    return _normalised(shared)


def _normalised(shared: np.ndarray) -> np.ndarray:
    """Counts of what views share [views, views] -> the cosine; a view that sees nothing is like itself alone."""
    own = np.maximum(shared.diagonal(), 1)
    # The root of the product, not the product of roots: of equal counts it is exact.
    values = np.clip(shared / np.sqrt(np.outer(own, own)), 0, 1)
    np.fill_diagonal(values, 1)
    return values


THUMBNAIL, CELLS = 64, 4
"""Photos are compared at this many pixels a side, in this many cells a side."""
SHADES, DIRECTIONS = 4, 8
"""Bins of a cell's histograms: per colour channel, and of the directions of edges."""
FAINT = 0.01
"""Change of brightness from pixel to pixel below which an edge is noise."""


def appearance(views: Views) -> np.ndarray:
    """What photos look like: histograms of colours and of edge directions on a grid of cells, compared cell by cell.

    The coefficient of Bhattacharyya of the histograms, sum(sqrt(p q)), averaged over cells; half of it is colour, half
    edges. It sees composition and light, not depth: use it where poses are too coarse to tell views apart.

    Raises:
        PartitionError: a photo is missing or cannot be read.
    """
    roots = np.stack([np.sqrt(_histograms(photo)) for photo in _readable(views)])
    values = np.clip(roots @ roots.T, 0, 1)
    np.fill_diagonal(values, 1)
    return (values + values.T) / 2


def _readable(views: Views) -> list[np.ndarray]:
    """Thumbnails [pixels, pixels, 3] in [0, 1]."""
    from PIL import Image

    from dac_nerfstudio.scene.photos import BROKEN, in_colour

    if views.photos is None:
        raise PartitionError("Appearance needs the photos, and these views do not say where theirs are.")
    thumbnails, broken = [], []
    for path in views.photos:
        try:
            with Image.open(path) as photo:
                photo.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # lets JPEG skip most of the decoding
                small = in_colour(photo, path).convert("RGBA").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
            pixels = np.asarray(small, dtype=np.float64) / 255
            thumbnails.append(pixels[:, :, :3] * pixels[:, :, 3:] + 1 - pixels[:, :, 3:])
        except BROKEN:
            broken.append(str(path))
    if broken:
        raise PartitionError(f"These photos are missing or cannot be read: {listing(broken)}. Put them back.")
    return thumbnails


def _histograms(pixels: np.ndarray) -> np.ndarray:
    """All histograms of a thumbnail in one vector that sums to 1."""
    shades = np.minimum((pixels * SHADES).astype(int), SHADES - 1)
    colour = (shades * [SHADES * SHADES, SHADES, 1]).sum(axis=2)
    vertical, horizontal = np.gradient(pixels.mean(axis=2))
    direction = np.arctan2(vertical, horizontal) % np.pi / np.pi * DIRECTIONS
    edges = np.minimum(direction.astype(int), DIRECTIONS - 1)
    strength = np.hypot(horizontal, vertical)
    rows = np.arange(THUMBNAIL) * CELLS // THUMBNAIL
    cell = rows[:, None] * CELLS + rows
    found = []
    plain = FAINT * (THUMBNAIL // CELLS) ** 2 / DIRECTIONS  # a cell without edges has all directions alike
    for labels, bins, weights, least in (
        (colour, SHADES**3, np.ones_like(strength), 0.0),
        (edges, DIRECTIONS, strength, plain),
    ):
        counts = np.bincount((cell * bins + labels).ravel(), weights.ravel(), CELLS * CELLS * bins) + least
        counts = counts.reshape(CELLS * CELLS, bins)
        found.append((counts / counts.sum(axis=1, keepdims=True) / (2 * CELLS * CELLS)).ravel())
    return np.concatenate(found)


def featureless(similarity: np.ndarray, views: Views) -> np.ndarray:
    """The same cameras in a scene where every place looks alike: the null model of a division.

    On an orbit, neighbours are alike and groups of neighbours look like communities, whatever is in the scene. What is
    left of a similarity when it is explained by the distance between views alone (`view_distances`, the best falling
    function of it, by isotonic regression) says what that is worth.

    Returns:
        Another similarity [views, views].
    """
    from sklearn.isotonic import isotonic_regression

    values = np.eye(len(views))
    if len(views) == 1:
        return values  # no pairs, nothing to explain
    poses = views.camera_to_worlds
    distances = view_distances(poses, poses, spread(views.centres))
    upper = np.triu_indices(len(views), k=1)
    # Pairs equally far apart, as there are many of on a regular orbit, get one value, whatever their order.
    _, step, pairs = np.unique(distances[upper].round(4), return_inverse=True, return_counts=True)
    means = np.bincount(step, similarity[upper]) / pairs
    explained = isotonic_regression(means, sample_weight=pairs.astype(np.float64), increasing=False)
    values[upper] = np.clip(explained[step], 0, 1)
    return np.maximum(values, values.T)
