"""Frames: from the coordinates of the data to those of a nerfstudio data parser, and back.

A data parser may turn, centre and scale the poses it reads. What it returns still shows the same cameras, so the
transform between the two frames can be recovered from any set of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dac_nerfstudio.scene.views import Views, listing, viewing_directions

BLOCK = 2**20
"""The number of pairs of views whose distances are computed together."""


class Transform(NamedTuple):
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

    def inverse(self) -> Transform:
        """The transform back."""
        return Transform(
            1 / self.scale, self.rotation.T, -(self.rotation.T @ np.asarray(self.translation)) / self.scale
        )


def align(from_poses: np.ndarray, to_poses: np.ndarray) -> Transform:
    """The similarity that takes cameras in one frame to the same cameras in another.

    The rotation comes from the orientations (their mean relative rotation, projected on SO(3)), so that one camera, or
    several on a line, suffice. Scale and translation come from the centres; scale is 1 where the centres of either
    frame coincide, because then nothing determines it.

    Args:
        from_poses: camera-to-world matrices [views, 3, 4] in the first frame.
        to_poses: those of the same cameras, in the same order, in the second frame.

    Returns:
        `Transform`, which unpacks into scale, rotation [3, 3] and translation [3].
    """
    from_poses, to_poses = np.asarray(from_poses, dtype=np.float64), np.asarray(to_poses, dtype=np.float64)
    u, _, vt = np.linalg.svd(np.einsum("nij,nkj->ik", to_poses[:, :, :3], from_poses[:, :, :3]))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    from_centres, to_centres = from_poses[:, :, 3], to_poses[:, :, 3]
    from_spread, to_spread = spread(from_centres), spread(to_centres)
    scale = to_spread / from_spread if from_spread > 0 and to_spread > 0 else 1.0
    translation = to_centres.mean(axis=0) - scale * rotation @ from_centres.mean(axis=0)
    return Transform(scale, rotation, translation)


def difference(recorded: Views, found: Views) -> str:
    """How the views of a partition differ from those of the data, in words; empty if they do not."""
    missing = sorted(set(recorded.names) - set(found.names))
    added = sorted(set(found.names) - set(recorded.names))
    parts = []
    if missing:
        parts.append(f"the data lacks {listing(missing)}")
    if added:
        parts.append(f"the partition lacks {listing(added)}")
    if not parts:
        # Scenes of one data set share their file names (train/r_0.png, ...), so names alone do not tell them apart.
        index = {name: i for i, name in enumerate(found.names)}
        poses = found.camera_to_worlds[[index[name] for name in recorded.names]]
        poses = align(poses, recorded.camera_to_worlds).apply(poses)
        change = np.abs(poses - recorded.camera_to_worlds).max(axis=1)  # [views, 4]: three axes and the centre
        change[:, 3] /= spread(recorded.centres) or 1.0
        moved = np.flatnonzero(change.max(axis=1) > 1e-4)
        if len(moved):
            parts.append(f"the names agree, but not the cameras of {listing([recorded.names[i] for i in moved])}")
    return "; ".join(parts)


def view_distances(from_poses: np.ndarray, to_poses: np.ndarray, unit: float) -> np.ndarray:
    """How far views are apart: |c - c'| / unit + |d - d'|.

    c are camera centres and d unit viewing directions, so the second term runs from 0 (parallel) to 2 (opposite). With
    the `spread` of the training cameras as unit, both terms are of one size and the result is free of the data's units.

    Args:
        from_poses: [a, 3, 4].
        to_poses: [b, 3, 4].
        unit: length to measure centres in; 0, for cameras that all stand on one spot, counts as 1.

    Returns:
        Distances [a, b].
    """
    from_directions, to_directions = viewing_directions(from_poses), viewing_directions(to_poses)
    distances = np.empty((len(from_poses), len(to_poses)))
    # Some rows at a time: differences take three times the space of distances.
    rows = max(1, BLOCK // max(1, len(to_poses)))
    for start in range(0, len(from_poses), rows):
        some = slice(start, start + rows)
        centres = np.linalg.norm(from_poses[some, None, :, 3] - to_poses[None, :, :, 3], axis=2)
        directions = np.linalg.norm(from_directions[some, None] - to_directions[None], axis=2)
        distances[some] = centres / (unit or 1.0) + directions
    return distances


def spread(centres: np.ndarray) -> float:
    """Root mean square distance of points [views, 3] from their mean, in their units; 0 where that is noise."""
    size = float(np.sqrt(((centres - centres.mean(axis=0)) ** 2).sum(axis=1).mean()))
    # Poses are single precision: equal centres may differ in the seventh digit, and a unit must be no rounding error.
    return size if size > 1e-6 * np.abs(centres).max() else 0.0


class Axis(NamedTuple):
    """The up axis of a scene: a point in its middle, and which way is up."""

    origin: np.ndarray
    """[3]."""
    up: np.ndarray
    """[3], of length 1."""

    def upright(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] relative to the origin and with z along the axis; x stays as near to the scene's x as it
        can. With up = +z, nothing is turned."""
        x = np.array([1.0, 0.0, 0.0]) if abs(self.up[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
        x = x - (x @ self.up) * self.up
        x /= np.linalg.norm(x)
        return (points - self.origin) @ np.stack([x, np.cross(self.up, x), self.up], axis=1)


def find_axis(views: Views) -> Axis:
    """The axis round which views are arranged.

    For upright data that is +z through the origin. Otherwise up is the mean of the cameras' own up directions, and the
    middle is the point nearest to all optical axes (least squares), or the mean of the camera centres where the axes do
    not meet in front of most cameras.
    """
    if views.upright:
        return Axis(np.zeros(3), np.array([0.0, 0.0, 1.0]))
    up = views.camera_to_worlds[:, :, 1].mean(axis=0)
    length = np.linalg.norm(up)
    up = up / length if length > 1e-3 else np.array([0.0, 0.0, 1.0])
    # As single as the poses: a partition keeps it so, and sectors must not move when it is read again.
    return Axis(*(part.astype(np.float32).astype(np.float64) for part in (find_middle(views), up)))


def find_middle(views: Views) -> np.ndarray:
    """The point [3] that the cameras look at, see `find_axis`."""
    met = where_axes_meet(views.camera_to_worlds)
    return met[0] if met is not None and (met[1] > 0).mean() > 0.5 else views.centres.mean(axis=0)


def where_axes_meet(camera_to_worlds: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The point [3] nearest to the optical axes of cameras [views, 3, 4], and the cosine [views] of the angle between
    each axis and the direction to that point; None for axes that are nearly parallel."""
    centres, directions = camera_to_worlds[:, :, 3], viewing_directions(camera_to_worlds)
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]  # what of a vector is off the optical axis
    total = across.sum(axis=0)
    # The smallest eigenvalue is 0 for parallel axes, and two thirds of the number of views for all-round ones.
    if np.linalg.eigvalsh(total)[0] < 1e-3 * len(centres):
        return None
    middle = np.linalg.solve(total, np.einsum("nij,nj->i", across, centres))
    away = np.linalg.norm(middle - centres, axis=1)
    return middle, ((middle - centres) * directions).sum(axis=1) / np.maximum(away, np.finfo(float).tiny)
