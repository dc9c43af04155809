"""Strategies: rules that give each view its home group. Groups are counted from 1."""

from __future__ import annotations

import numpy as np

from dac_nerfstudio.partition.views import PartitionError

STRATEGIES = ("azimuth",)
"""The names that `divide` understands."""

BORDER_TOLERANCE = 1e-6
"""Two sectors tie within this share of the camera's distance from the origin: poses are often stored as float32."""


def sector_centres(groups: int) -> np.ndarray:
    """Directions of the centres of equal sectors round the up axis +z.

    Sector i, from 0, of N is centred at (2 i + 1) pi / N, as in "Divide and Conquer: Rethinking the Training Paradigm
    of Neural Radiance Fields" (arXiv 2401.16144). For N = 4: 45, 135, 225 and 315 degrees.

    Returns:
        Angles [groups] in radians, counterclockwise from +x.
    """
    if groups < 1:
        raise PartitionError(f"Cannot make {groups} sectors; choose a number of groups from 1 up.")
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
