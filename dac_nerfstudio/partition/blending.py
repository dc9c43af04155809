"""Blending: how much each group's expert has to say at a camera.

Routing, one group for each camera, is the limit of a weighting. Soft weights let experts agree across a border, and
average what they got wrong independently; how sharp they should be is a question of the scene, answered on held-out
views.
"""

from __future__ import annotations

import numpy as np

from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.strategies import sector_centres
from dac_nerfstudio.scene.frames import spread, view_distances


def nearness(partition: Partition, camera_to_worlds: np.ndarray) -> np.ndarray:
    """How near each camera is to each group; the largest is the group that `Partition.route` names, ties aside.

    Under the strategy `azimuth` that is the cosine of the angle between the camera, seen from the axis' origin, and the
    middle of the sector at the height of the origin, from -1 to 1: a camera straight above is equally near to all.
    Otherwise it is the negative distance to the nearest view of the group, by `view_distances`.

    Args:
        camera_to_worlds: poses [cameras, 3, 4] in the data's own frame.

    Returns:
        [cameras, groups], free of the data's units.
    """
    camera_to_worlds = np.asarray(camera_to_worlds, dtype=np.float64)
    groups = partition.num_groups
    if partition.settings["strategy"] == "azimuth":
        places = partition.axis.upright(camera_to_worlds[:, :, 3])
        angles = sector_centres(groups)
        lengths = np.linalg.norm(places, axis=1, keepdims=True)
        return places[:, :2] @ np.stack([np.cos(angles), np.sin(angles)]) / np.where(lengths > 0, lengths, 1.0)
    unit = spread(partition.views.centres)
    distances = view_distances(camera_to_worlds, partition.views.camera_to_worlds, unit)
    return -np.stack([distances[:, partition.homes == group].min(axis=1) for group in range(1, groups + 1)], axis=1)


def blending_weights(partition: Partition, camera_to_worlds: np.ndarray, sharpness: float) -> np.ndarray:
    """Weights over the groups' experts: softmax(sharpness x nearness).

    Args:
        camera_to_worlds: poses [cameras, 3, 4] in the data's own frame.
        sharpness: from 0, the plain average of all experts, to infinity, each camera answered by its group's alone.

    Returns:
        [cameras, groups]; each row sums to 1.
    """
    if not sharpness >= 0:
        raise ValueError(f"The sharpness of blending is {sharpness}; expected a number from 0 up.")
    if np.isinf(sharpness):
        return np.eye(partition.num_groups)[partition.route(camera_to_worlds) - 1]
    scores = sharpness * nearness(partition, camera_to_worlds)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
