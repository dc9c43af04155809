"""The flight past the test cameras."""

import numpy as np
import pytest
import torch
from cameras import ring_of

from dac_nerfstudio.launch.video import KEYS, flight


def ring(count: int) -> torch.Tensor:
    """Cameras on a circle of radius 4 that look at its middle, in random order."""
    degrees = 360 * np.random.default_rng(0).permutation(count) / count
    return torch.from_numpy(ring_of(degrees, height=0.0).camera_to_worlds).float()


def test_a_ring_is_gone_round_once_at_an_even_speed() -> None:
    path = flight(ring(16), 40).numpy()
    assert path.shape == (40, 3, 4)
    angles = np.unwrap(np.arctan2(path[:, 1, 3], path[:, 0, 3]))
    steps = np.abs(np.diff([*angles, angles[0] + np.sign(angles[1] - angles[0]) * 2 * np.pi]))
    # A sixteenth of a pose between two cameras is what an even step may be off by.
    np.testing.assert_allclose(steps, 2 * np.pi / 40, atol=2 * np.pi / 16 / 14)
    radius = np.linalg.norm(path[:, :, 3], axis=1)
    assert radius.min() > 3.9 and radius.max() < 4.001, "on the chords between the cameras"


def test_every_pose_is_a_rotation_that_looks_at_the_middle() -> None:
    path = flight(ring(12), 30).numpy()
    np.testing.assert_allclose(np.linalg.det(path[:, :, :3]), 1, atol=1e-5)
    towards = -path[:, :, 3] / np.linalg.norm(path[:, :, 3], axis=1, keepdims=True)
    assert ((-path[:, :, 2] * towards).sum(axis=1) > 0.999).all()


@pytest.mark.parametrize(("views", "frames"), [(1, 3), (2, 6), (200, 120), (200, 5)])
def test_a_flight_has_the_frames_that_it_was_asked_for(views: int, frames: int) -> None:
    path = flight(ring(views), frames)
    assert path.shape == (frames, 3, 4) and path.isfinite().all()
    if views == 1:
        torch.testing.assert_close(path, ring(1).expand(3, 3, 4))
    assert KEYS < 200, "past some of many cameras"
