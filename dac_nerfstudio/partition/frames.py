"""Frames: from the coordinates of the data to those of a nerfstudio data parser, and back.

A data parser may turn, centre and scale the poses it reads. What it returns still shows the same cameras, so the
transform between the two frames can be recovered from any set of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dac_nerfstudio.partition.views import PartitionError


class Similarity(NamedTuple):
    """The transform x -> scale * rotation @ x + translation."""

    scale: float
    rotation: np.ndarray
    """[3, 3], determinant +1."""
    translation: np.ndarray
    """[3], in the units of the target frame."""

    def apply(self, camera_to_worlds: np.ndarray) -> np.ndarray:
        """Takes poses [views, 3, 4] to the target frame. Orientations are turned, not scaled."""
        turned = self.rotation @ camera_to_worlds[:, :, :3]
        centres = self.scale * camera_to_worlds[:, :, 3] @ self.rotation.T + self.translation
        return np.concatenate([turned, centres[:, :, None]], axis=2)

    def inverse(self) -> Similarity:
        """The transform back."""
        return Similarity(
            1 / self.scale, self.rotation.T, -(self.rotation.T @ np.asarray(self.translation)) / self.scale
        )


def align(from_poses: np.ndarray, to_poses: np.ndarray) -> Similarity:
    """The similarity that takes cameras in one frame to the same cameras in another.

    The rotation comes from the orientations (their mean relative rotation, projected on SO(3)), so that one camera, or
    several on a line, suffice. Scale and translation come from the centres; scale is 1 where the centres of either
    frame coincide, because then nothing tells it.

    Args:
        from_poses: camera-to-world matrices [views, 3, 4] in the first frame.
        to_poses: those of the same cameras, in the same order, in the second frame.

    Returns:
        `Similarity`, which unpacks into scale, rotation [3, 3] and translation [3].

    Raises:
        PartitionError: the shapes differ, are not [views, 3, 4], or there are no views.
    """
    from_poses, to_poses = np.asarray(from_poses, dtype=np.float64), np.asarray(to_poses, dtype=np.float64)
    if from_poses.shape != to_poses.shape or from_poses.shape[1:] != (3, 4) or len(from_poses) == 0:
        raise PartitionError(
            f"Cannot align poses of shapes {from_poses.shape} and {to_poses.shape}; both must be [views, 3, 4], with "
            "the same cameras in the same order."
        )
    u, _, vt = np.linalg.svd(np.einsum("nij,nkj->ik", to_poses[:, :, :3], from_poses[:, :, :3]))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    from_centres, to_centres = from_poses[:, :, 3], to_poses[:, :, 3]
    from_spread, to_spread = _spread_above_noise(from_centres), _spread_above_noise(to_centres)
    scale = to_spread / from_spread if from_spread > 0 and to_spread > 0 else 1.0
    translation = to_centres.mean(axis=0) - scale * rotation @ from_centres.mean(axis=0)
    return Similarity(scale, rotation, translation)


def spread(centres: np.ndarray) -> float:
    """Root mean square distance of points [views, 3] from their mean, in their units."""
    return float(np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _spread_above_noise(centres: np.ndarray) -> float:
    # Data parsers return float32: equal centres may differ in the seventh digit, and scale would be a ratio of noise.
    size = spread(centres)
    return size if size > 1e-6 * np.abs(centres).max() else 0.0
