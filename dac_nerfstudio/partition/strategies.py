"""Strategies: rules that give each view its home group. Groups are counted from 1.

Each of `kmeans`, `spectral` and `louvain` prepares once and returns a function that divides into any number of groups,
none smaller than `smallest_group` allows. All are deterministic.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np

from dac_nerfstudio.scene.frames import Axis, spread, view_distances
from dac_nerfstudio.scene.views import Views, viewing_directions

STRATEGIES = ("azimuth", "kmeans", "spectral", "louvain")
"""The names that `divide` understands, besides `auto`."""
BY_SIMILARITY = ("spectral", "louvain")
"""Those that divide by how alike views are."""

Grouper = Callable[[int], np.ndarray]
"""Number of groups N -> groups [views], from 1 to N, or to fewer where N cannot be met."""

LEAST_SHARE = 0.5
"""No group gets less than this share of an equal part of the views (azimuth sectors excepted)."""

BORDER_TOLERANCE = 1e-6
"""Two sectors tie within this share of the camera's distance from the origin: poses are often stored as float32."""


def sector_centres(groups: int) -> np.ndarray:
    """Directions of the centres of equal sectors round the up axis +z.

    Sector i, from 0, of N is centred at (2 i + 1) pi / N, as in "Divide and Conquer: Rethinking the Training Paradigm
    of Neural Radiance Fields" (arXiv 2401.16144). For N = 4: 45, 135, 225 and 315 degrees.

    Returns:
        Angles [groups] in radians, counterclockwise from +x.
    """
    return (2 * np.arange(groups) + 1) * np.pi / groups


def azimuth(centres: np.ndarray, groups: int) -> np.ndarray:
    """The sector in which each camera stands (arXiv 2401.16144).

    That is the sector whose unit vector has the largest dot product with the (x, y) of the camera centre. A camera on
    the border of two sectors belongs to the one with the lower number, and one on the up axis to group 1.

    Args:
        centres: camera centres [views, 3], with the origin inside the scene and +z up.
        groups: number of sectors N.

    Returns:
        Groups [views] as integers from 1 to N.
    """
    angles = sector_centres(groups)
    scores = centres[:, :2] @ np.stack([np.cos(angles), np.sin(angles)])  # [views, groups]
    tolerance = BORDER_TOLERANCE * np.linalg.norm(centres, axis=1, keepdims=True)
    # argmax returns the first of several True, which is the lowest group.
    return (scores >= scores.max(axis=1, keepdims=True) - tolerance).argmax(axis=1) + 1


def smallest_group(views: int, groups: int) -> int:
    """The least number of views that a group may have."""
    return max(1, int(LEAST_SHARE * views / groups))


def grouper(strategy: str, views: Views, similarity: np.ndarray, axis: Axis) -> Grouper:
    """What divides views by a strategy; the similarity [views, views] matters to `spectral` and `louvain` alone."""
    if strategy == "azimuth":
        return partial(azimuth, axis.upright(views.centres))
    if strategy == "kmeans":
        return kmeans(views)
    return spectral(similarity) if strategy == "spectral" else louvain(similarity)


def kmeans(views: Views) -> Grouper:
    """K-means on where cameras stand and where they look.

    Features are the camera centre, in units of the cameras' spread, and the unit viewing direction, so that both count
    alike and nothing depends on the units of the data.
    """
    from sklearn.cluster import KMeans

    unit = spread(views.centres) or 1.0
    features = np.concatenate(
        [(views.centres - views.centres.mean(axis=0)) / unit, viewing_directions(views.camera_to_worlds)], axis=1
    )
    closeness = -view_distances(views.camera_to_worlds, views.camera_to_worlds, unit)

    def divide(groups: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fewer distinct poses than groups: seen in the result
            labels = KMeans(groups, n_init=10, random_state=0).fit_predict(features)
        return renumbered(_balanced(labels, closeness, smallest_group(len(views), groups)))

    return divide


def spectral(similarity: np.ndarray) -> Grouper:
    """Spectral clustering ("On Spectral Clustering", Ng, Jordan and Weiss, 2001) on a similarity [views, views]."""
    from sklearn.cluster import SpectralClustering

    # Views that share nothing with the others would make the graph fall apart, on which the method fails.
    affinity = np.maximum(similarity, 1e-4)

    def divide(groups: int) -> np.ndarray:
        if groups in (1, len(similarity)):  # the method needs more views than groups
            return np.arange(len(similarity)) % groups + 1
        model = SpectralClustering(groups, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
        labels = model.fit_predict(affinity)
        return renumbered(_balanced(labels, similarity, smallest_group(len(similarity), groups)))

    return divide


RESOLUTIONS = np.geomspace(0.2, 10, 14)
"""What `louvain` looks for communities at: the higher, the more of them."""
SEEDS = 4
SPARE = 2
"""How many communities too many may be merged."""
NEIGHBOURS = 0.2
"""Share of the other views to which a view has edges, those it is most similar to: the others slow the search down."""


def louvain(similarity: np.ndarray) -> Grouper:
    """Communities of the graph of views ("Fast unfolding of communities in large networks", Blondel et al., 2008).

    The resolution is searched for the asked-for number of communities. Those smaller than allowed are dissolved, their
    views going where they are most similar; of a few too many, those are merged whose union has the highest modularity.
    Of all that come out right, over several seeds, the division with the highest modularity wins. Where no resolution
    gives as many groups as asked for, it is the largest number that one does give.
    """
    import networkx

    views = len(similarity)
    edges = similarity - np.diag(similarity.diagonal())
    faintest = np.sort(edges, axis=1)[:, -max(1, round(NEIGHBOURS * (views - 1)))]
    graph = networkx.from_numpy_array(np.where(edges >= np.minimum(faintest[:, None], faintest), edges, 0.0))
    found: dict[tuple[float, int], np.ndarray] = {}

    def communities(resolution: float, seed: int) -> np.ndarray:
        if (resolution, seed) not in found:
            labels = np.empty(views, dtype=int)
            sets = networkx.community.louvain_communities(graph, resolution=resolution, seed=seed)
            for label, members in enumerate(sets):
                labels[list(members)] = label
            found[resolution, seed] = labels
        return found[resolution, seed]

    def divide(groups: int) -> np.ndarray:
        if groups == 1:
            return np.ones(views, dtype=int)
        least = smallest_group(views, groups)

        def kept(resolution: float, seed: int) -> np.ndarray:
            return _dissolved(communities(resolution, seed), similarity, least)

        counts = np.array([len(np.unique(kept(resolution, 0))) for resolution in RESOLUTIONS])
        wanted = min(groups, counts.max())
        # Where groups share nothing, every resolution may give more than may be spared.
        most = max(wanted + SPARE, counts[counts >= wanted].min())
        right = RESOLUTIONS[(counts >= wanted) & (counts <= most)]
        # The other seeds at a few of them: neighbours give the same division more often than not.
        chosen = right[np.unique(np.linspace(0, len(right) - 1, 3).round().astype(int))]
        candidates = [kept(resolution, 0) for resolution in right]
        candidates += [kept(resolution, seed) for resolution in chosen for seed in range(1, SEEDS)]
        candidates = [_merged(labels, similarity, wanted) for labels in candidates if len(np.unique(labels)) >= wanted]
        return renumbered(max(candidates, key=lambda labels: modularity(similarity, labels)))

    return divide


def modularity(similarity: np.ndarray, homes: np.ndarray) -> float:
    """The weight of edges within groups, less what the degrees alone would give (Newman and Girvan, 2004).

    Args:
        similarity: [views, views]; the diagonal is ignored.
        homes: [views] any labels.
    """
    weights = similarity - np.diag(similarity.diagonal())
    total = weights.sum()
    if total == 0:
        return 0.0
    same = homes[:, None] == homes
    degrees = weights.sum(axis=1)
    return float(((weights - np.outer(degrees, degrees) / total) * same).sum() / total)


def _dissolved(labels: np.ndarray, closeness: np.ndarray, least: int) -> np.ndarray:
    """Groups smaller than `least` are given up, the smallest first, each view going to the group it is closest to; of
    several, to the smallest."""
    labels = labels.copy()
    while True:
        names, sizes = np.unique(labels, return_counts=True)
        if sizes.min() >= least or len(names) == 1:
            return labels
        smallest, *rest = names[sizes.argsort(kind="stable")]
        homeless = np.flatnonzero(labels == smallest)
        means = np.stack([closeness[homeless][:, labels == name].mean(axis=1) for name in rest])
        labels[homeless] = np.array(rest)[means.argmax(axis=0)]


def _merged(labels: np.ndarray, similarity: np.ndarray, groups: int) -> np.ndarray:
    """Groups are merged, two at a time, those first that leave the highest modularity."""
    while len(names := np.unique(labels)) > groups:
        unions = [np.where(labels == b, a, labels) for i, a in enumerate(names) for b in names[i + 1 :]]
        labels = max(unions, key=lambda union: modularity(similarity, union))
    return labels


def _balanced(labels: np.ndarray, closeness: np.ndarray, least: int) -> np.ndarray:
    """While a group is too small, the view that gains most, or loses least, by moving there from a larger one moves."""
    labels = labels.copy()
    while True:
        names, sizes = np.unique(labels, return_counts=True)
        if sizes.min() >= least:
            return labels
        small = names[sizes.argmin()]
        movable = np.flatnonzero(np.isin(labels, names[sizes > least]))
        there = closeness[movable][:, labels == small].mean(axis=1)
        at_home = np.array([closeness[view, labels == labels[view]].mean() for view in movable])
        labels[movable[(there - at_home).argmax()]] = small


def renumbered(labels: np.ndarray) -> np.ndarray:
    """Groups counted from 1 in the order of their first views."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse] + 1
