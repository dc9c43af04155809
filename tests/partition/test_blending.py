"""How much each group's expert has to say at a camera."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dac_nerfstudio.partition import Partition, blending_weights, divide, nearness
from dac_nerfstudio.scene.views import Views

Ring = Callable[..., Views]
Orbit = Callable[..., np.ndarray]


@pytest.fixture
def orbit(ring: Ring) -> Orbit:
    """Poses of so many cameras round the scene, the first a little off +x."""
    return lambda count, start=0.7: ring(start + np.linspace(0, 360, count, endpoint=False)).camera_to_worlds


@pytest.fixture(params=["azimuth", "kmeans"])
def partition(request: pytest.FixtureRequest, ring: Ring) -> Partition:
    return divide(ring(0.5 + np.arange(0, 360, 9)), 4, strategy=request.param)


def test_the_nearest_group_is_the_one_that_routing_names(partition: Partition, orbit: Orbit) -> None:
    cameras = orbit(97)
    assert (nearness(partition, cameras).argmax(axis=1) + 1 == partition.route(cameras)).all()


def test_weights_sum_to_one_and_grow_towards_the_own_group(partition: Partition, orbit: Orbit) -> None:
    cameras = orbit(97)
    own = partition.route(cameras) - 1
    before = np.full(97, 0.25)
    for sharpness in (1.0, 4.0, 16.0):
        weights = blending_weights(partition, cameras, sharpness)
        assert weights.shape == (97, 4)
        assert weights.sum(axis=1) == pytest.approx(np.ones(97))
        mine = weights[np.arange(97), own]
        assert (mine > before).all()
        before = mine


def test_sharpness_runs_from_averaging_to_routing(partition: Partition, orbit: Orbit) -> None:
    cameras = orbit(97)
    assert blending_weights(partition, cameras, 0.0) == pytest.approx(np.full((97, 4), 0.25))
    routed = blending_weights(partition, cameras, float("inf"))
    assert (routed.argmax(axis=1) + 1 == partition.route(cameras)).all()
    assert (routed.max(axis=1) == 1).all() and (routed.sum(axis=1) == 1).all()
    # Where no border is near, large is as good as infinite.
    clear = np.sort(nearness(partition, cameras), axis=1)
    clear = clear[:, -1] - clear[:, -2] > 0.1
    assert clear.sum() > 40
    assert blending_weights(partition, cameras, 1e3)[clear] == pytest.approx(routed[clear], abs=1e-9)


def test_blended_weights_do_not_jump_at_a_border(partition: Partition, orbit: Orbit) -> None:
    """Between neighbours on a fine orbit routing jumps by 1, and blending hardly moves."""
    cameras = orbit(2000)
    blended = np.abs(np.diff(blending_weights(partition, cameras, 4.0), axis=0)).max()
    routed = np.abs(np.diff(blending_weights(partition, cameras, float("inf")), axis=0)).max()
    assert blended < 0.02 and routed == 1


def test_a_camera_straight_above_hears_all_sectors_alike(ring: Ring) -> None:
    partition = divide(ring(0.5 + np.arange(0, 360, 9)), 4, strategy="azimuth")
    above = np.array([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4]]])
    assert blending_weights(partition, above, 7.0) == pytest.approx(np.full((1, 4), 0.25))


def test_nearness_is_a_cosine_under_azimuth_however_far_the_camera(ring: Ring) -> None:
    partition = divide(ring(0.5 + np.arange(0, 360, 9)), 4, strategy="azimuth")
    (camera,) = ring([45]).camera_to_worlds
    near, far = camera.copy(), camera.copy()
    near[:2, 3], near[2, 3] = (3.0, 3.0), 0.0  # in the middle of the first sector
    far[:, 3] = 100 * near[:, 3]
    cosines = nearness(partition, np.stack([near, far]))
    np.testing.assert_allclose(cosines, [[1, 0, -1, 0]] * 2, atol=1e-6)
    lifted = near.copy()
    lifted[2, 3] = np.hypot(3, 3)  # 45 degrees above
    np.testing.assert_allclose(nearness(partition, lifted[None]), [[0.5**0.5, 0, -(0.5**0.5), 0]], atol=1e-6)


@pytest.mark.parametrize("sharpness", [-1.0, float("nan")])
def test_a_sharpness_that_is_none_is_refused(partition: Partition, orbit: Orbit, sharpness: float) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 up"):
        blending_weights(partition, orbit(3), sharpness)
