from __future__ import annotations

import numpy as np
import pytest

from dac_nerfstudio.partition import PartitionError, azimuth, sector_centres

CENTRES = {
    1: [180],
    2: [90, 270],
    3: [60, 180, 300],
    4: [45, 135, 225, 315],
    5: [36, 108, 180, 252, 324],
    6: [30, 90, 150, 210, 270, 330],
}


def at(degrees: list[float] | np.ndarray, dtype: type = np.float64) -> np.ndarray:
    angles = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    return np.stack([3 * np.cos(angles), 3 * np.sin(angles), np.ones_like(angles)], axis=1).astype(dtype)


@pytest.mark.parametrize("groups", CENTRES)
def test_sector_centres_are_those_of_the_table(groups: int) -> None:
    np.testing.assert_allclose(np.rad2deg(sector_centres(groups)), CENTRES[groups], rtol=1e-12)


@pytest.mark.parametrize("groups", CENTRES)
def test_a_camera_at_each_centre_belongs_to_that_sector(groups: int) -> None:
    assert azimuth(at(CENTRES[groups]), groups).tolist() == list(range(1, groups + 1))


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


def test_no_sectors_is_an_error() -> None:
    with pytest.raises(PartitionError, match="Cannot make 0 sectors"):
        sector_centres(0)
