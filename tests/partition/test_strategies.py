from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from dac_nerfstudio.partition import Views, azimuth, find_axis, measure, strategies, view_distances
from dac_nerfstudio.partition.strategies import grouper, kmeans, louvain, smallest_group, spectral
from dac_nerfstudio.scene.frames import spread


def at(degrees: list[float] | np.ndarray, dtype: type = np.float64) -> np.ndarray:
    angles = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    return np.stack([3 * np.cos(angles), 3 * np.sin(angles), np.ones_like(angles)], axis=1).astype(dtype)


def same_groups(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two divisions are the same but for the numbers of the groups."""
    return bool(((a[:, None] == a) == (b[:, None] == b)).all())


@pytest.mark.parametrize("groups", range(1, 13))
def test_azimuth_is_the_sector_in_which_the_angle_falls(groups: int) -> None:
    degrees = np.random.default_rng(0).uniform(0, 360, 500)
    np.testing.assert_array_equal(azimuth(at(degrees), groups), (degrees * groups // 360).astype(int) + 1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("groups", range(2, 13))
def test_a_view_on_a_border_belongs_to_the_lower_group(groups: int, dtype: type) -> None:
    borders = 360 * np.arange(groups) / groups
    # Border 0 is that of groups 1 and N, every other border i that of groups i and i + 1.
    assert azimuth(at(borders, dtype).astype(np.float64), groups).tolist() == [1, *range(1, groups)]


def test_a_camera_on_the_up_axis_belongs_to_group_1() -> None:
    assert azimuth(np.array([[0, 0, 4.0], [-1e-9, -1e-9, 4.0]]), 4).tolist() == [1, 1]


# Strategies that look at more than the azimuth

CLUSTERING = ("kmeans", "spectral", "louvain")


@pytest.fixture
def orbit(ring) -> tuple[Views, np.ndarray]:
    """Cameras all round, and a similarity that falls with their distance: nothing but the gaps tells groups apart."""
    views = ring(np.arange(60) * 6)
    poses = views.camera_to_worlds
    return views, np.exp(-view_distances(poses, poses, spread(views.centres)))


@pytest.mark.parametrize("sizes", [[30, 18, 12], [9, 14, 25, 12]])
@pytest.mark.parametrize("strategy", [spectral, louvain])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_planted_blocks_are_recovered(planted, strategy: Callable, sizes: list[int], noise: float) -> None:
    order = np.random.default_rng(0).permutation(60)
    similarity = planted(sizes, noise=noise)[order][:, order]
    homes = strategy(similarity)(len(sizes))
    assert same_groups(homes, np.repeat(np.arange(len(sizes)), sizes)[order])


def test_kmeans_recovers_clusters_of_cameras_in_any_unit_and_on_one_spot(ring) -> None:
    views = ring(np.array([0, 120, 240])[np.arange(45) % 3] + np.random.default_rng(0).uniform(-20, 20, 45))
    for unit in (1.0, 1000.0, 0.0):
        poses = views.camera_to_worlds * [1, 1, 1, unit] + [0, 0, 0, 0.1]
        assert kmeans(replace(views, camera_to_worlds=poses))(3).tolist() == [1, 2, 3] * 15


def test_a_group_that_is_too_small_takes_the_nearest_views_of_larger_ones(ring, planted) -> None:
    degrees = [*range(0, 40, 2), 100]  # one camera far off, of which nobody makes an expert
    homes = kmeans(ring(degrees))(2)
    assert homes.tolist() == [1] * 16 + [2] * 5
    similarity = planted([18, 3], outside=0.01)
    similarity[18:, 5:7] = similarity[5:7, 18:] = 0.3
    assert np.flatnonzero(spectral(similarity)(2) == 2).tolist() == [5, 6, 18, 19, 20]


@pytest.mark.parametrize("groups", range(1, 9))
@pytest.mark.parametrize("strategy", CLUSTERING)
def test_an_orbit_is_divided_into_as_many_groups_as_asked_for(orbit, strategy: str, groups: int) -> None:
    views, similarity = orbit
    homes = grouper(strategy, views, similarity, find_axis(views))(groups)
    sizes = np.bincount(homes)[1:]
    assert len(sizes) == groups and sizes.min() >= smallest_group(60, groups)
    # Every group is one piece of the ring: as many borders as groups.
    assert (homes != np.roll(homes, 1)).sum() == (groups if groups > 1 else 0)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("strategy", CLUSTERING)
def test_no_group_is_too_small_and_all_are_numbered_by_their_first_view(
    cameras_around, strategy: str, seed: int
) -> None:
    views = cameras_around(40, seed)
    make = partial(grouper, strategy, views, measure(views, "frustum").values, find_axis(views))
    divide = make()
    for groups in (2, 5, 8):
        homes = divide(groups)
        sizes = np.bincount(homes)[1:]
        assert len(sizes) <= groups and sizes.min() >= smallest_group(40, groups)
        _, first = np.unique(homes, return_index=True)
        assert homes[0] == 1 and (np.diff(first) > 0).all()
        # Neither another call nor another number of groups before it plays a part.
        np.testing.assert_array_equal(make()(groups), homes)


@pytest.mark.parametrize("strategy", [spectral, louvain])
def test_views_that_share_nothing_are_no_groups_of_their_own(planted, strategy: Callable) -> None:
    similarity = planted([20, 20, 1, 1], outside=0.0)
    homes = strategy(similarity)(2)
    assert same_groups(homes[:40], np.repeat([0, 1], 20))
    assert set(homes[40:]) <= {1, 2}


# Spectral clustering cannot tell which of many equal pieces belong together, and cuts some.
@pytest.mark.parametrize(
    ("strategy", "pieces"), [(spectral, 2), (spectral, 4), (louvain, 2), (louvain, 7), (louvain, 10)]
)
def test_a_scene_in_pieces_is_divided_along_them(planted, strategy: Callable, pieces: int) -> None:
    groups = min(pieces, 4)
    homes = strategy(planted([8] * pieces, outside=0.0))(groups)
    assert set(homes) == set(range(1, groups + 1))
    assert (homes.reshape(pieces, 8) == homes[::8, None]).all()


@pytest.mark.parametrize("size", [10, 3])
def test_communities_too_many_or_too_small_join_those_most_alike(planted, monkeypatch, size: int) -> None:
    monkeypatch.setattr(strategies, "RESOLUTIONS", np.array([2.0]))
    similarity = planted([10, 10, size])
    similarity[10:20, 20:] = similarity[20:, 10:20] = 0.3
    assert louvain(similarity)(2).tolist() == [1] * 10 + [2] * (10 + size)
