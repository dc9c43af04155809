"""How much each group's expert has to say at a camera."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dac_nerfstudio.partition import Partition, blending_weights, divide, nearness
from dac_nerfstudio.scene.views import Views

Ring = Callable[..., Views]
Orbit = Callable[..., np.ndarray]


@pytest.fixture
def orbit(ring: Ring) -> Orbit:
    """Poses of cameras round the scene, the first a little off +x."""
    return lambda count, start=0.7: ring(start + np.linspace(0, 360, count, endpoint=False)).camera_to_worlds


@pytest.fixture(params=["azimuth", "kmeans"])
def partition(request: pytest.FixtureRequest, ring: Ring) -> Partition:
    # Groups of unequal width: the nearest view is not always that of the group that is nearest on average.
    return divide(ring(0.5 + 359 * np.linspace(0, 1, 40) ** 2), 4, strategy=request.param)


def test_weights_are_the_softmax_of_sharpness_times_nearness(partition: Partition, orbit: Orbit) -> None:
    cameras = orbit(97)
    for sharpness in (1.0, 4.0, 16.0):
        expected = np.exp(sharpness * nearness(partition, cameras))
        weights = blending_weights(partition, cameras, sharpness)
        np.testing.assert_allclose(weights, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)
        assert (weights.argmax(axis=1) + 1 == partition.route(cameras)).all()
        alone = blending_weights(partition, cameras[:3], sharpness)
        np.testing.assert_allclose(alone, weights[:3], rtol=1e-9)


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
    assert blending_weights(partition, cameras, 1e5)[clear] == pytest.approx(routed[clear], abs=1e-9)


def test_nearness_is_round_the_scenes_own_axis(ring: Ring, orbit: Orbit, random_transform) -> None:
    views, cameras = ring(0.5 + np.arange(0, 360, 9)), orbit(97)
    turned = replace(views, camera_to_worlds=random_transform(3).apply(views.camera_to_worlds), upright=False)
    partition = divide(turned, 4, "azimuth")
    assert (nearness(partition, cameras).argmax(axis=1) + 1 == partition.route(cameras)).all()


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
    for height in (0.0, 4.0):  # straight above
        lifted[:, 3] = 0, 0, height
        assert (nearness(partition, lifted[None]) == 0).all()


@pytest.mark.parametrize("sharpness", [-1.0, float("nan")])
def test_a_sharpness_that_is_none_is_refused(partition: Partition, orbit: Orbit, sharpness: float) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 up"):
        blending_weights(partition, orbit(3), sharpness)
