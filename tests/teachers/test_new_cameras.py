"""Cameras between the training cameras."""

import numpy as np
import pytest
from cameras import looking_at_origin
from scipy.spatial.transform import Rotation

from dac_nerfstudio.teachers.new_cameras import NovelCameras, between


def orbit(count: int) -> np.ndarray:
    """Poses [count, 3, 4] round the origin at radius 4, some higher than others, that look at it."""
    angles, heights = 2 * np.pi * np.arange(count) / count, 0.3 * (np.arange(count) % 3)
    directions = np.stack((np.cos(angles), np.sin(angles), heights), axis=1)
    centres = 4 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return np.stack([looking_at_origin(centre) for centre in centres])


def test_new_cameras_are_rigid_and_stay_between_the_others() -> None:
    poses = orbit(24)
    placed = NovelCameras(poses, reach=1.0).draw(500, np.random.default_rng(0))
    turns = placed.camera_to_worlds[:, :, :3]
    assert turns @ turns.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (500, 1, 1)), abs=1e-9)
    assert np.linalg.det(turns) == pytest.approx(np.ones(500))
    centres = placed.camera_to_worlds[:, :, 3]
    assert (np.linalg.norm(centres, axis=1) <= 4 + 1e-9).all()
    # Neighbours are near, so that a chord stays close to the sphere.
    assert (np.linalg.norm(centres, axis=1) > 3.2).all()
    # They still look at the middle of the scene, within some degrees.
    looking = -turns[:, :, 2]
    towards = -centres / np.linalg.norm(centres, axis=1, keepdims=True)
    assert np.degrees(np.arccos((looking * towards).sum(axis=1).clip(-1, 1))).max() < 5


def test_new_cameras_fill_the_gaps() -> None:
    """Every direction of the orbit gets some: none is as far from all new cameras as half the step between old ones."""
    poses = orbit(24)
    centres = NovelCameras(poses).draw(500, np.random.default_rng(0)).camera_to_worlds[:, :2, 3]
    angles = np.sort(np.degrees(np.arctan2(centres[:, 1], centres[:, 0])))
    assert np.diff(angles).max() < 7.5


def test_reach_goes_beyond_the_others_by_so_much() -> None:
    poses = orbit(24)
    near, far = (NovelCameras(poses, reach).draw(500, np.random.default_rng(0)) for reach in (1.0, 2.0))
    turns = far.camera_to_worlds[:, :, :3]
    assert turns @ turns.transpose(0, 2, 1) == pytest.approx(np.tile(np.eye(3), (500, 1, 1)), abs=1e-9)
    heights = [placed.camera_to_worlds[:, 2, 3] for placed in (near, far)]
    lowest, highest = poses[:, 2, 3].min(), poses[:, 2, 3].max()
    assert lowest <= heights[0].min() and heights[0].max() <= highest
    assert heights[1].min() < lowest - 0.5 and heights[1].max() > highest + 0.5
    # Twice as far from the centre of the same three photos.
    middle = NovelCameras(poses, 0.0).draw(500, np.random.default_rng(0)).camera_to_worlds[:, :, 3]
    steps = [placed.camera_to_worlds[:, :, 3] - middle for placed in (near, far)]
    assert steps[1] == pytest.approx(2 * steps[0])


def test_halfway_is_halfway() -> None:
    turns = Rotation.from_euler("z", [[10], [50]], degrees=True).as_matrix()
    poses = np.concatenate((turns, np.array([[[0.0], [0], [0]], [[2], [4], [6]]])), axis=2)
    (pose,) = between(poses[None], np.array([[0.5, 0.5]]))
    assert Rotation.from_matrix(pose[:, :3]).as_euler("zyx", degrees=True) == pytest.approx([30, 0, 0], abs=1e-9)
    assert pose[:, 3] == pytest.approx([1, 2, 3])


@pytest.mark.parametrize("count", [1, 2])
def test_few_photos_are_enough(count: int) -> None:
    poses = orbit(24)[:count]
    placed = NovelCameras(poses).draw(10, np.random.default_rng(0))
    assert placed.camera_to_worlds.shape == (10, 3, 4) and np.isfinite(placed.camera_to_worlds).all()
