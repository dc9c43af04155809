from __future__ import annotations

import numpy as np
import pytest

from dac_nerfstudio.partition import PartitionError, Similarity, align


def random_rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(count, 3, 3)))
    return q * np.linalg.det(q)[:, None, None]  # in three dimensions, the sign of the matrix is that of the determinant


def random_poses(count: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([random_rotations(count, rng), rng.normal(size=(count, 3, 1))], axis=2)


@pytest.mark.parametrize("count", [2, 3, 50])
@pytest.mark.parametrize("seed", range(5))
def test_align_recovers_a_random_similarity(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    poses = random_poses(count, rng)
    true = Similarity(rng.uniform(0.01, 100), random_rotations(1, rng)[0], rng.normal(size=3))
    moved = true.apply(poses)
    scale, rotation, translation = align(poses, moved)
    assert scale == pytest.approx(true.scale)
    np.testing.assert_allclose(rotation, true.rotation, atol=1e-9)
    np.testing.assert_allclose(translation, true.translation, atol=1e-9)
    np.testing.assert_allclose(align(poses, moved).inverse().apply(moved), poses, atol=1e-9)


def test_apply_takes_points_by_scale_rotation_and_translation() -> None:
    quarter_turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # about +z
    pose = np.concatenate([np.eye(3), [[1.0], [0], [0]]], axis=1)[None]
    moved = Similarity(2.0, quarter_turn, np.array([0.0, 0, 5])).apply(pose)
    np.testing.assert_allclose(moved[0], [[0, -1, 0, 0], [1, 0, 0, 2], [0, 0, 1, 5]])


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_scale_is_1_where_centres_coincide(noise: float) -> None:
    rng = np.random.default_rng(0)
    poses = random_poses(4, rng)
    poses[:, :, 3] = [1.0, 2.0, 3.0]
    true = Similarity(1.0, random_rotations(1, rng)[0], np.array([0.5, 0, 0]))
    moved = true.apply(poses)
    moved[:, :, 3] += noise * rng.normal(size=(4, 3))
    scale, rotation, translation = align(poses, moved)
    assert scale == 1.0
    np.testing.assert_allclose(rotation, true.rotation, atol=1e-9)
    np.testing.assert_allclose(translation, true.translation, atol=1e-6)


def test_align_survives_single_precision() -> None:
    rng = np.random.default_rng(1)
    poses = random_poses(30, rng)
    true = Similarity(0.25, random_rotations(1, rng)[0], rng.normal(size=3))
    moved = true.apply(poses).astype(np.float32)
    back = align(poses, moved).inverse().apply(moved.astype(np.float64))
    np.testing.assert_allclose(back, poses, atol=3e-6)


def test_align_rejects_poses_that_cannot_be_paired() -> None:
    poses = random_poses(3, np.random.default_rng(0))
    with pytest.raises(PartitionError, match=r"shapes \(3, 3, 4\) and \(2, 3, 4\); both must be \[views, 3, 4\]"):
        align(poses, poses[:2])
    with pytest.raises(PartitionError, match="Cannot align"):
        align(poses[:0], poses[:0])
