from dataclasses import replace

import numpy as np
import pytest

from dac_nerfstudio.partition import Axis, Transform, Views, align, find_axis
from dac_nerfstudio.scene.frames import difference, find_middle, spread


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
    true = Transform(rng.uniform(0.01, 100), random_rotations(1, rng)[0], rng.normal(size=3))
    moved = true.apply(poses)
    scale, rotation, translation = align(poses, moved)
    assert scale == pytest.approx(true.scale)
    np.testing.assert_allclose(rotation, true.rotation, atol=1e-9)
    np.testing.assert_allclose(translation, true.translation, atol=1e-9)
    np.testing.assert_allclose(align(poses, moved).inverse().apply(moved), poses, atol=1e-9)


def test_apply_takes_points_by_scale_rotation_and_translation() -> None:
    quarter_turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # about +z
    pose = np.concatenate([np.eye(3), [[1.0], [0], [0]]], axis=1)[None]
    moved = Transform(2.0, quarter_turn, np.array([0.0, 0, 5])).apply(pose)
    np.testing.assert_allclose(moved[0], [[0, -1, 0, 0], [1, 0, 0, 2], [0, 0, 1, 5]])


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_scale_is_1_where_centres_coincide(noise: float) -> None:
    rng = np.random.default_rng(0)
    poses = random_poses(4, rng)
    poses[:, :, 3] = [1.0, 2.0, 3.0]
    true = Transform(1.0, random_rotations(1, rng)[0], np.array([0.5, 0, 0]))
    moved = true.apply(poses)
    moved[:, :, 3] += noise * rng.normal(size=(4, 3))
    scale, rotation, translation = align(poses, moved)
    assert scale == 1.0
    np.testing.assert_allclose(rotation, true.rotation, atol=1e-9)
    np.testing.assert_allclose(translation, true.translation, atol=1e-6)


def test_spread_is_the_root_mean_square_distance_from_the_mean() -> None:
    assert spread(np.array([[0.0, 0, 0], [0, 0, 8]])) == 4.0
    assert spread(np.array([[2.0, 0, 0], [0, 2, 0], [-2, 0, 0], [0, -2, 0]]) + 5.0) == pytest.approx(2.0)


@pytest.mark.parametrize("place", [0.1, 7.3, 1e5])
def test_cameras_in_one_place_have_no_spread(place: float) -> None:
    centres = np.full((4, 3), place)
    centres[::2] *= 1 + 1e-7  # as far as single precision tells them apart
    assert spread(centres) == 0.0
    assert spread(centres * [[1], [1], [1], [1.001]]) > 0.0


def test_equal_views_do_not_differ_and_others_do(ring, random_transform) -> None:
    views = ring([10, 100, 190])
    for unit in (1.0, 0.0):  # all round, and on one spot
        data = replace(views, camera_to_worlds=views.camera_to_worlds * [1, 1, 1, unit] + [0, 0, 0, 0.1])
        for seed in range(3):
            moved = random_transform(seed).apply(data.camera_to_worlds)
            assert difference(data, replace(data, camera_to_worlds=moved).select([2, 0, 1])) == ""
        poses = data.camera_to_worlds.copy()
        poses[1, :, 3] += 0.01
        assert "cameras of" in difference(data, replace(data, camera_to_worlds=poses))
    assert difference(views, views.select([0])) == "the data lacks train/r_1.png, train/r_2.png"
    assert difference(views.select([1]), views) == "the partition lacks train/r_0.png, train/r_2.png"


# The up axis


def test_upright_data_has_its_axis_by_definition(ring) -> None:
    origin, up = find_axis(ring([10, 20]))
    assert origin.tolist() == [0, 0, 0] and up.tolist() == [0, 0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_the_axis_of_an_orbit_is_found_in_any_frame(ring, random_transform, seed: int) -> None:
    views = replace(ring(range(0, 360, 20)), upright=False)
    moved = random_transform(seed)
    origin, up = find_axis(replace(views, camera_to_worlds=moved.apply(views.camera_to_worlds)))
    np.testing.assert_allclose(origin, moved.translation, atol=1e-4)
    np.testing.assert_allclose(up, moved.rotation[:, 2], atol=1e-5)


def test_the_middle_is_where_optical_axes_meet_and_otherwise_that_of_the_cameras(ring) -> None:
    views = ring([0, 90, 180])
    np.testing.assert_allclose(find_middle(views), [0, 0, 0], atol=1e-6)
    mean = views.centres.mean(axis=0)
    outward = views.camera_to_worlds * [-1, 1, -1, 1]  # the axes meet behind all cameras
    parallel = views.camera_to_worlds.copy()
    parallel[:, :, :3] = np.eye(3)
    for poses in (outward, parallel):
        np.testing.assert_allclose(find_middle(replace(views, camera_to_worlds=poses)), mean, atol=1e-12)
    np.testing.assert_array_equal(find_middle(views.select([1])), views.centres[1])


def test_up_is_the_datas_own_where_the_cameras_have_none_in_common() -> None:
    turns = np.array([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [[-1, 0, 0], [0, -1, 0], [0, 0, 1]]])
    poses = np.concatenate([turns, np.zeros((2, 3, 1))], axis=2)
    views = Views(("a", "b"), poses, np.full((2, 6), 8.0), upright=False)
    assert find_axis(views).up.tolist() == [0, 0, 1]


@pytest.mark.parametrize("up", [[0.0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, -1], [0.6, 0, 0.8], [-0.99, 0.141067, 0]])
def test_upright_points_are_turned_about_the_origin_with_z_along_the_axis(up: list[float]) -> None:
    origin, direction = np.array([1.0, -2, 3]), np.array(up) / np.linalg.norm(up)
    axis = Axis(origin, direction)
    np.testing.assert_allclose(axis.upright(origin + 2 * direction), [0, 0, 2], atol=1e-12)
    rotation = axis.upright(origin + np.eye(3))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    if up == [0.0, 0, 1]:
        np.testing.assert_array_equal(rotation, np.eye(3))
