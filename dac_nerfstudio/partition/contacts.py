"""What the pictures of a partition share: the order of views, cameras as pyramids, small photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.quality import on_border
from dac_nerfstudio.partition.sampling import sample_of
from dac_nerfstudio.partition.similarity import Similarity
from dac_nerfstudio.scene.frames import Axis
from dac_nerfstudio.scene.views import Views, viewing_directions
from dac_nerfstudio.style import counted

if TYPE_CHECKING:
    from PIL.Image import Image


def heading(partition: Partition) -> str:
    """What was made, in a line."""
    settings = partition.settings
    extras = "".join(f", {key} {settings[key]:g}" for key in ("overlap", "softness") if settings[key] > 0)
    return f"{counted(partition.num_groups, 'group')} by {settings['strategy']}{extras}"


def border_views(partition: Partition, similarity: Similarity | None) -> np.ndarray:
    """Which views [views] are on the border of their group (see `quality.on_border`); none where nothing is known.

    Raises:
        PartitionError: the similarity is not one of these views.
    """
    border = np.zeros(len(partition.views), dtype=bool)
    if similarity is not None:
        sample = similarity.indices(len(border))
        border[sample] = on_border(similarity.values, partition.homes[sample])
    return border


def shown_views(partition: Partition, similarity: Similarity | None) -> np.ndarray:
    """Indices of the views that are pictured one by one: all, or a sample of many."""
    count = len(partition.views)
    return sample_of(count) if similarity is None else similarity.indices(count)


def ordered_similarity(partition: Partition, similarity: Similarity) -> tuple[np.ndarray, np.ndarray]:
    """Indices of its views as `in_order` has them [shown], and the similarity [shown, shown] in this order."""
    sample = similarity.indices(len(partition.views))
    order = in_order(partition)
    order = order[np.isin(order, sample)]
    places = np.searchsorted(sample, order)
    return order, similarity.values[places][:, places]


def darkest(similarity: np.ndarray) -> float:
    """The value from which on a similarity [views, views] is drawn darkest: few pairs of different views exceed it."""
    others = similarity[~np.eye(len(similarity), dtype=bool)]
    return (float(np.quantile(others, 0.995)) if len(others) else 0.0) or 1.0


def in_order(partition: Partition) -> np.ndarray:
    """Indices [views], group by group, and within a group in the order of the azimuth around the scene's up axis."""
    x, y, _ = partition.axis.upright(partition.views.centres).T
    azimuths = np.arctan2(y, x) % (2 * np.pi)
    ordered = []
    for group in range(1, partition.num_groups + 1):
        members = np.flatnonzero(partition.homes == group)
        members = members[azimuths[members].argsort(kind="stable")]
        # Begin behind the widest gap: a group that lies across azimuth 0 is not torn apart there.
        gaps = np.diff(azimuths[members], prepend=azimuths[members[-1]] - 2 * np.pi)
        ordered.append(np.roll(members, -gaps.argmax()))
    return np.concatenate(ordered)


class Cameras(NamedTuple):
    """Cameras in coordinates with z up and the middle of the scene at 0, in the units of the data."""

    centres: np.ndarray
    """[views, 3]."""
    directions: np.ndarray
    """[views, 3] unit vectors."""
    corners: np.ndarray
    """[views, 4, 3]: the base of each view's pyramid, whose tip is the centre; round its edge from the top left."""


def upright_cameras(views: Views, axis: Axis, length: float) -> Cameras:
    """Cameras turned upright, with pyramids whose edges from tip to base are `length` long."""
    fx, fy, cx, cy, width, height = views.intrinsics.T
    nothing = np.zeros(len(views))
    x = np.stack([nothing, width, width, nothing], axis=1) - cx[:, None]
    y = cy[:, None] - np.stack([nothing, nothing, height, height], axis=1)
    rays = np.stack([x / fx[:, None], y / fy[:, None], np.full_like(x, -1.0)], axis=2)  # [views, 4, 3], OpenGL axes
    rays *= length / np.linalg.norm(rays, axis=2, keepdims=True)
    poses, centres = views.camera_to_worlds, views.centres
    corners = centres[:, None] + np.einsum("vij,vkj->vki", poses[:, :, :3], rays)
    upright = axis.upright(centres)
    directions = axis.upright(centres + viewing_directions(poses)) - upright
    return Cameras(upright, directions, axis.upright(corners))


class Space(NamedTuple):
    """What is drawn of cameras in space: z is up, the middle of the scene at 0, lengths are in units of the data."""

    shown: np.ndarray
    """[shown] indices of the views that are pictured one by one."""
    cameras: Cameras
    """Of these views."""
    test: np.ndarray
    """[test views, 3] centres of the test cameras."""
    answering: np.ndarray
    """[test views] the group that answers for each of them."""
    radius: float
    """Of the ground under all of it, round the up axis."""
    floor: float
    top: float


def space_of(partition: Partition, similarity: Similarity | None, test: Views | None) -> Space:
    """The cameras of a partition as they are drawn in space."""
    shown = shown_views(partition, similarity)
    views = partition.views.select(shown)
    # Long enough for the cameras' pyramids to be seen, short enough not to hide each other.
    cameras = upright_cameras(views, partition.axis, reach(views.centres) * min(0.25, len(views) ** -0.5))
    centres, answering = np.zeros((0, 3)), np.zeros(0, dtype=int)
    if test is not None:
        centres, answering = partition.axis.upright(test.centres), partition.route(test.camera_to_worlds)
    seen = np.concatenate([cameras.centres, cameras.corners.reshape(-1, 3), centres])
    radius = float(np.linalg.norm(seen[:, :2], axis=1).max())
    floor, top = min(0.0, float(seen[:, 2].min())), max(0.0, float(seen[:, 2].max()))
    return Space(shown, cameras, centres, answering, radius, floor, top)


def reach(centres: np.ndarray) -> float:
    """Half the longest side of the box round points [views, 2 or 3]; 1 where they coincide."""
    return float(np.ptp(centres, axis=0).max()) / 2 or 1.0


def small_photo(path: Path, width: int, height: int) -> Image | None:
    """A photo on white, scaled to fit into a box of pixels; None where it is missing or cannot be read."""
    from PIL import Image

    from dac_nerfstudio.scene.photos import BROKEN, in_colour

    try:
        with Image.open(path) as photo:
            photo.draft("RGB", (2 * width, 2 * height))  # lets JPEG skip most of the decoding
            small = in_colour(photo, path).convert("RGBA")
    except BROKEN:
        return None
    small.thumbnail((width, height))
    white = Image.new("RGBA", small.size, "white")
    return Image.alpha_composite(white, small).convert("RGB")


def lost_photos(number: int) -> str:
    """A remark for the reader."""
    return f"{counted(number, 'photo')} not found or not readable"
