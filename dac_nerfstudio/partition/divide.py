"""Divide: from views to a partition."""

from __future__ import annotations

from typing import Any

import numpy as np

from dac_nerfstudio.partition.partition import Partition, checked_settings, empty_groups, numbered
from dac_nerfstudio.partition.sampling import followed, sample_of
from dac_nerfstudio.partition.similarity import Similarity, featureless, measure
from dac_nerfstudio.partition.strategies import BY_SIMILARITY, STRATEGIES, Grouper, grouper, modularity, smallest_group
from dac_nerfstudio.scene.frames import Axis, find_axis, spread, view_distances
from dac_nerfstudio.scene.views import PartitionError, Views

DEFAULT_GROUPS = 4
"""The number of groups of the paper."""
MOST_GROUPS = 8
"""`auto` looks no further."""
LEAST_VIEWS = 8
"""`auto` makes no groups that would have fewer views on average."""
LEAST_EXCESS = 0.05
"""Modularity beyond the featureless scene's by which a number of groups stands out."""


def divide(
    views: Views,
    groups: int | str | None = None,
    strategy: str = "auto",
    overlap: float = 0.0,
    softness: float = 0.0,
    similarity: str | Similarity = "auto",
) -> Partition:
    """Divides views into groups.

    Args:
        groups: number of groups N, from 1 to the number of views, or `auto`, see `choose_groups`; by default 4, or
            fewer where so few views have no more.
        strategy: one of `STRATEGIES`, or `auto`: what the paper does where it can be done (azimuth for upright data,
            Louvain where tracks are known), otherwise k-means.
        overlap: F in [0, 1]. Every group of n views also takes, with weight 1, the round(F * n) views outside that are
            nearest to it (by `view_distances`, to the nearest of its own).
        softness: S in [0, 1): the share of an expert's draws that come from other groups' views. These share one
            weight, which cannot exceed 1, so that a small group may stay below S.
        similarity: what `spectral` and `louvain` divide by: a name that `measure` understands, or its result.

    Returns:
        The partition. Its notes say where it is not what was asked for, because no division is.

    Raises:
        PartitionError: a setting is out of range, both overlap and softness are given, a group comes out empty, or the
            views cannot be told apart.
    """
    by_default = groups is None
    groups = min(DEFAULT_GROUPS, len(views)) if groups is None else groups
    asked: dict[str, Any] = {"strategy": strategy, "groups": groups}
    asked["similarity"] = similarity.kind if isinstance(similarity, Similarity) else similarity
    if strategy == "auto":
        strategy = _best_known(views)
    settings = _checked(strategy, groups, overlap, softness, len(views))
    sample = sample_of(len(views))
    values = np.eye(len(sample))  # plays no part unless it is measured
    if groups == "auto" or strategy in BY_SIMILARITY:
        measured = similarity if isinstance(similarity, Similarity) else measure(views, similarity)
        sample, values = measured.indices(len(views)), measured.values
        if strategy in BY_SIMILARITY:
            settings["similarity"] = measured.kind
    axis = find_axis(views)
    group, notes = _grouper_of_all(strategy, views, sample, values, axis)
    if groups == "auto":
        settings["groups"], note = choose_groups(views.select(sample), strategy, values)
        notes.append(note)
    homes = group(settings["groups"])
    if empty_groups(homes, settings["groups"]):
        settings["groups"], note = _fewer_groups(homes, views, strategy, settings["groups"], group, by_default)
        homes = group(settings["groups"])
        notes.append(note)
    notes += _small_groups(homes)
    membership = _membership(homes, views, overlap, softness)
    return Partition(views, homes, membership, settings, axis, {"asked": asked, "notes": notes})


def _best_known(views: Views) -> str:
    """The strategy that `auto` stands for."""
    if views.upright:
        return "azimuth"
    return "kmeans" if views.tracks is None else "louvain"


def _checked(strategy: str, groups: int | str, overlap: float, softness: float, views: int) -> dict[str, Any]:
    """The settings of a partition, with 1 group until `auto` has found how many.

    Raises:
        PartitionError: one is out of range, or they do not go together.
    """
    if strategy not in STRATEGIES:
        raise PartitionError(f"Unknown strategy '{strategy}'; choose one of: auto, {', '.join(STRATEGIES)}.")
    if isinstance(groups, str) and groups != "auto":
        raise PartitionError(f"groups is '{groups}'; expected a number or auto.")
    settings = checked_settings(
        {
            "strategy": strategy,
            "similarity": None,
            "groups": 1 if isinstance(groups, str) else groups,
            "overlap": overlap,
            "softness": softness,
        }
    )
    if overlap > 0 and softness > 0:
        raise PartitionError(f"overlap {overlap} and softness {softness} exclude each other; leave one of them at 0.")
    if settings["groups"] > views:
        raise PartitionError(f"{groups} groups for {views} views; choose a number of groups from 1 to {views}.")
    return settings


def _grouper_of_all(
    strategy: str, views: Views, sample: np.ndarray, similarity: np.ndarray, axis: Axis
) -> tuple[Grouper, list[str]]:
    """What divides all views, by a sample of them where the strategy looks at pairs; and a note where it does."""
    if strategy == "azimuth":
        return grouper(strategy, views, similarity, axis), []
    group = followed(grouper(strategy, views.select(sample), similarity, axis), views, sample)
    if len(sample) == len(views):
        return group, []
    return group, [f"Divided by a sample of {len(sample)} of {len(views)} views; the others follow the nearest."]


def _fewer_groups(
    homes: np.ndarray, views: Views, strategy: str, groups: int, group: Grouper, by_default: bool
) -> tuple[int, str]:
    """How many groups there can be where some came out empty, and a note that says so.

    Raises:
        PartitionError: the number was asked for, and the strategy could have left no group empty with another.
    """
    if strategy == "louvain":
        found = int(homes.max())
        return found, f"No resolution gives {groups} groups; {found} is the nearest number that one does."
    found = next(n for n in range(groups - 1, 0, -1) if not empty_groups(group(n), n))
    if by_default:
        return found, f"{found} groups: with {groups} by {strategy}, some would have no views."
    if spread(views.centres) == 0 and strategy == "azimuth":
        raise PartitionError(
            "All cameras stand in one place, where azimuth cannot tell them apart. Divide them by where they look: "
            "--strategy kmeans"
        )
    raise PartitionError(
        f"With {groups} groups by {strategy}, {numbered(empty_groups(homes, groups))} would have no views. Choose "
        f"fewer groups; {found} is the largest smaller number that leaves none empty."
    )


def choose_groups(views: Views, strategy: str, similarity: np.ndarray) -> tuple[int, str]:
    """The number of groups that the scene itself suggests, and why, in a sentence.

    For every N from 2 to 8 that leaves 8 views a group, the modularity of the division is compared with that of the
    same strategy on the `featureless` scene: the same cameras where every place looks alike. The N with the largest
    excess is chosen if that is at least 0.05; otherwise nothing but the cameras' places tells groups apart, and the
    paper's 4 will do, or as many as leave 8 views a group.
    """
    most = max(1, min(MOST_GROUPS, len(views) // LEAST_VIEWS))
    null, axis = featureless(similarity, views), find_axis(views)
    group, null_group = grouper(strategy, views, similarity, axis), grouper(strategy, views, null, axis)
    excess = {}
    for groups in range(2, most + 1):
        homes, null_homes = group(groups), null_group(groups)
        if not empty_groups(homes, groups):
            excess[groups] = modularity(similarity, homes) - modularity(null, null_homes)
    best = max(excess, key=lambda groups: excess[groups], default=1)
    if excess.get(best, 0.0) >= LEAST_EXCESS:
        return best, f"{best} groups: their modularity exceeds a featureless scene's by {excess[best]:.3f}, the most."
    groups = max(n for n in (1, *excess) if n <= DEFAULT_GROUPS)
    if most == 1:
        return 1, f"1 group: auto divides no fewer than {2 * LEAST_VIEWS} views; found {len(views)}."
    if most < DEFAULT_GROUPS:
        return groups, f"{groups} groups: {len(views)} views are too few for more, at {LEAST_VIEWS} or more in each."
    return groups, f"{groups} groups by default: the photos favour no number from 2 to {most}, which is usual."


def _small_groups(homes: np.ndarray) -> list[str]:
    sizes = np.bincount(homes)[1:]
    least = smallest_group(len(homes), len(sizes))
    return [
        f"Group {group} has only {size} of {len(homes)} views; its expert will know little of the scene."
        for group, size in enumerate(sizes, start=1)
        if size < least
    ]


def _membership(homes: np.ndarray, views: Views, overlap: float, softness: float) -> np.ndarray:
    """Weights [groups, views]: 1 at home, and what overlap or softness adds."""
    membership = (homes == np.arange(1, homes.max() + 1)[:, None]).astype(np.float64)
    if overlap > 0:
        return _with_overlap(membership, views, overlap)
    return _with_softness(membership, softness) if softness > 0 else membership


def _with_overlap(membership: np.ndarray, views: Views, overlap: float) -> np.ndarray:
    poses, unit = views.camera_to_worlds, spread(views.centres)
    widened = membership.copy()
    for row, own in zip(widened, membership > 0, strict=True):
        outside = np.flatnonzero(~own)
        distances = view_distances(poses[outside], poses[own], unit).min(axis=1)
        nearest_first = outside[distances.argsort(kind="stable")]
        row[nearest_first[: round(overlap * int(own.sum()))]] = 1.0
    return widened


def _with_softness(membership: np.ndarray, softness: float) -> np.ndarray:
    own = membership.sum(axis=1, keepdims=True)
    outside = membership.shape[1] - own
    # Solves outside * w / (own + outside * w) = softness. A single group has nothing outside to weigh.
    weight = softness / (1 - softness) * own / np.maximum(outside, 1)
    return np.where(membership > 0, membership, np.minimum(weight, 1.0))
