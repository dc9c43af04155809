"""How good a division is, honestly: every figure beside what it would be worth by itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from dac_nerfstudio.partition.divide import LEAST_EXCESS
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.similarity import Similarity, featureless
from dac_nerfstudio.partition.strategies import BY_SIMILARITY, grouper, modularity
from dac_nerfstudio.scene.frames import spread, view_distances
from dac_nerfstudio.scene.views import Views

BORDER_NEIGHBOURS = 4
"""A view is on the border of its group if one of this many views most similar to it belongs to another group."""


def assess(partition: Partition, similarity: Similarity, test: Views | None = None) -> dict[str, Any]:
    """Figures of a partition, as JSON.

    Args:
        similarity: of the same views, in the same order, or of a sample of them. All but `sizes` and `test` is of its
            views.
        test: views that took no part in dividing.

    Returns:
        `similarity`: the kind it was measured by. `sizes`, `within`, `between`: per group the number of views, and
        their mean similarity to the others of their group and to the views of all other groups (None where there are
        none). `modularity`, and `featureless_modularity`: what the same strategy reaches on the `featureless` scene.
        `border`: names of the views on a border. `test`: per group, the number of test views that it answers for, and
        the mean and the largest distance (`view_distances`, in units of the training cameras' spread) from these to its
        nearest view.
    """
    sample, values, groups = similarity.indices(len(partition.views)), similarity.values, partition.num_groups
    views, homes = partition.views.select(sample), partition.homes[sample]
    others = values - np.diag(values.diagonal())
    within, between = [], []
    for group in range(1, groups + 1):
        inside = homes == group
        pairs = inside.sum() * (inside.sum() - 1)
        within.append(float(others[inside][:, inside].sum() / pairs) if pairs else None)
        between.append(float(values[inside][:, ~inside].mean()) if inside.any() and not inside.all() else None)
    strategy = partition.settings["strategy"]
    null = featureless(values, views)
    # A division made by hand, or by what the null model does not change, is held against itself.
    null_homes = grouper(strategy, views, null, partition.axis)(groups) if strategy in BY_SIMILARITY else homes
    return {
        "similarity": similarity.kind,
        "sizes": np.bincount(partition.homes, minlength=groups + 1)[1:].tolist(),
        "within": within,
        "between": between,
        "modularity": modularity(values, homes),
        "featureless_modularity": modularity(null, null_homes),
        "border": [views.names[i] for i in np.flatnonzero(on_border(values, homes))],
        "test": None if test is None else _reach(partition, test),
    }


def figures_of(partition: Partition) -> list[list[str]]:
    """The figures of `assess` per group as text, one row each after one of headings; none where it was not assessed."""
    quality = partition.about.get("quality")
    if not quality:
        return []
    home = dict(zip(partition.views.names, partition.homes.tolist(), strict=True))
    on_border = Counter(home[name] for name in quality["border"])
    groups, test = range(1, partition.num_groups + 1), quality["test"]
    columns: dict[str, list[Any]] = {
        "": [f"group {group}" for group in groups],
        "views": quality["sizes"],
        "on a border": [on_border[group] for group in groups],
        "alike within": quality["within"],
        "to the others": quality["between"],
    }
    if test:
        columns |= {
            "test views": test["views"], "their distance": test["mean_distance"], "at most": test["largest_distance"],
        }  # fmt: skip
    return [list(columns), *([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))]


def _cell(value: str | float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def verdict(quality: dict[str, Any]) -> str:
    """Whether a division is more than where the cameras stand, in a sentence, from the figures of `assess`."""
    if len(quality["sizes"]) == 1:
        return "There is one group: nothing is divided."
    if quality["modularity"] - quality["featureless_modularity"] >= LEAST_EXCESS:
        return "The groups are the scene's own: views within them are alike beyond where their cameras stand."
    return (
        "These groups follow camera position only: the photos' content plays no part. This is usual, and nothing has "
        "to be done."
    )


def on_border(similarity: np.ndarray, homes: np.ndarray) -> np.ndarray:
    """Which views [views] are on the border of their group."""
    others = similarity - 2 * np.eye(len(similarity))
    nearest = (-others).argsort(axis=1, kind="stable")[:, :BORDER_NEIGHBOURS]
    return (homes[nearest] != homes[:, None]).any(axis=1)


def _reach(partition: Partition, test: Views) -> dict[str, Any]:
    poses = test.camera_to_worlds
    routed = partition.route(poses)
    views = partition.views
    distances = view_distances(poses, views.camera_to_worlds, spread(views.centres))
    distances = np.where(routed[:, None] == partition.homes, distances, np.inf).min(axis=1)
    of = [distances[routed == group] for group in range(1, partition.num_groups + 1)]
    return {
        "views": [len(part) for part in of],
        "mean_distance": [float(part.mean()) if len(part) else None for part in of],
        "largest_distance": [float(part.max()) if len(part) else None for part in of],
    }
