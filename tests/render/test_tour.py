"""A round trip past the photos: short, smooth, even, and never far from where photos were taken."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from dac_nerfstudio.partition import view_distances
from dac_nerfstudio.render.tour import KEYS, far_apart, round_trip, tour


def ring(count: int) -> np.ndarray:
    """Cameras on a circle of radius 4 that look at its middle, in random order."""
    angles = 2 * np.pi * np.random.default_rng(0).permutation(count) / count
    back = np.stack((np.cos(angles), np.sin(angles), np.zeros(count)), axis=1)
    up = np.broadcast_to([0.0, 0.0, 1.0], back.shape)
    return np.stack((np.cross(up, back), up, back, 4 * back), axis=2)


def test_a_ring_is_gone_round_once_at_an_even_speed() -> None:
    path = tour(ring(16), 40)
    assert path.shape == (40, 3, 4)
    angles = np.unwrap(np.arctan2(path[:, 1, 3], path[:, 0, 3]))
    steps = np.diff([*angles, angles[0] + np.sign(angles[1] - angles[0]) * 2 * np.pi])
    np.testing.assert_allclose(np.abs(steps), 2 * np.pi / 40, rtol=0.02)
    radius = np.linalg.norm(path[:, :, 3], axis=1)
    assert 3.85 < radius.min() and radius.max() < 4.0, "near the photos, within their hull"


def test_every_pose_is_a_rotation_that_looks_at_the_middle() -> None:
    path = tour(ring(12), 30)
    rotations = path[:, :, :3]
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (30, 3, 3)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    towards = -path[:, :, 3] / np.linalg.norm(path[:, :, 3], axis=1, keepdims=True)
    assert ((-path[:, :, 2] * towards).sum(axis=1) > 0.999).all()


def test_many_photos_give_a_path_past_few_and_a_single_one_a_path_that_rests() -> None:
    poses = ring(200)
    chosen = far_apart(view_distances(poses, poses, 4.0), KEYS)
    assert len(set(chosen.tolist())) == KEYS
    np.testing.assert_allclose(tour(poses[:1], 3), np.repeat(poses[:1], 3, axis=0), atol=1e-9)


def test_the_round_trip_is_the_shortest_there_is() -> None:
    points = np.random.default_rng(1).random((7, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)

    def length(order: tuple[int, ...]) -> float:
        return float(sum(distances[a, b] for a, b in zip(order, (*order[1:], order[0]))))

    best = min(length((0, *rest)) for rest in permutations(range(1, 7)))
    order = tuple(round_trip(distances).tolist())
    assert sorted(order) == list(range(7))
    np.testing.assert_allclose(length(order), best)
