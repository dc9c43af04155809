"""Cameras where no photo was taken, between and around the training cameras.

A new camera stands in the triangle of a training camera and two of its neighbours, or beyond it, made larger about its
centre, and so it looks: whatever the capture, an orbit or a walk. Where photos are few, much of what is asked of a
student lies beyond their hull, and between photos alone it does not learn what its teachers know of that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dac_nerfstudio.scene.frames import spread, view_distances

NEIGHBOURS = 4
"""Nearest training cameras, of which two and their centre make a triangle."""
REACH = 3.0
"""How much larger it is made: what bonsai's validation views preferred, narrowly."""


class Novel(NamedTuple):
    """New cameras."""

    camera_to_worlds: Float[np.ndarray, "cameras 3 4"]
    like: Int[np.ndarray, "cameras"]
    """The training camera that each has its lens and image size from."""


class NovelCameras:
    """Places new cameras between given ones and around them.

    Args:
        camera_to_worlds: poses [views, 3, 4] of the training cameras.
        reach: how much larger the triangle is made; 1 is between the cameras.
    """

    def __init__(self, camera_to_worlds: Float[np.ndarray, "views 3 4"], reach: float = REACH) -> None:
        self.reach = reach
        self.poses = np.asarray(camera_to_worlds, dtype=np.float64)
        distances = view_distances(self.poses, self.poses, spread(self.poses[:, :, 3]))
        np.fill_diagonal(distances, np.inf)
        count = min(NEIGHBOURS, len(self.poses) - 1)
        self.neighbours = np.argsort(distances, axis=1, kind="stable")[:, :count]

    def draw(self, count: int, generator: np.random.Generator) -> Novel:
        """New cameras: a function of the generator's state."""
        centre = generator.integers(len(self.poses), size=count)
        if self.neighbours.shape[1] == 0:  # one photo alone
            return Novel(self.poses[centre], centre)
        picks = generator.random((count, self.neighbours.shape[1])).argsort(axis=1)[:, :2]
        corners = np.concatenate((centre[:, None], np.take_along_axis(self.neighbours[centre], picks, axis=1)), axis=1)
        even = 1 / corners.shape[1]
        shares = even + self.reach * (generator.dirichlet(np.ones(corners.shape[1]), size=count) - even)
        return Novel(between(self.poses[corners], shares), centre)


def between(
    camera_to_worlds: Float[np.ndarray, "n corners 3 4"], shares: Float[np.ndarray, "n corners"]
) -> Float[np.ndarray, "n 3 4"]:
    """Poses between others or beyond: the mean of their positions, and the rotation nearest to the mean of theirs.

    Args:
        camera_to_worlds: the poses that each result lies between.
        shares: how near it is to each, of sum 1; below 0 it is beyond the others.
    """
    mean = np.einsum("nc,ncij->nij", shares, camera_to_worlds)
    u, _, vt = np.linalg.svd(mean[:, :, :3])
    # The nearest rotation, not a reflection, in the Frobenius norm (orthogonal Procrustes).
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return np.concatenate((u @ vt, mean[:, :, 3:]), axis=2)
