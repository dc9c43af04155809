"""The plane lookup against loops and against nerfstudio's."""

import math

import pytest
import torch
from nerfstudio.field_components.encodings import KPlanesEncoding
from torch import Tensor

from dac_nerfstudio.kplanes.lookup import interpolate_planes
from dac_nerfstudio.kplanes.planes import MultiScalePlanes


def bilinear_by_hand(plane: Tensor, column: float, row: float) -> Tensor:
    """Features [C] of a plane [R, R, C] (row first) at coordinates in [-1, 1], held at the border."""
    last = plane.shape[0] - 1
    x, y = (min(max((coordinate + 1) / 2 * last, 0.0), last) for coordinate in (column, row))
    left, top = min(math.floor(x), last - 1), min(math.floor(y), last - 1)
    right_share, bottom_share = x - left, y - top
    above = plane[top, left] * (1 - right_share) + plane[top, left + 1] * right_share
    below = plane[top + 1, left] * (1 - right_share) + plane[top + 1, left + 1] * right_share
    return above * (1 - bottom_share) + below * bottom_share


def lookup_by_hand(planes: Tensor, points: Tensor) -> Tensor:
    rows = []
    for x, y, z in points.tolist():
        xy, xz, yz = planes
        rows.append(bilinear_by_hand(xy, x, y) * bilinear_by_hand(xz, x, z) * bilinear_by_hand(yz, y, z))
    return torch.stack(rows)


@pytest.mark.parametrize("resolution", [2, 3, 7])
def test_lookup_is_bilinear_inside_and_outside(resolution: int) -> None:
    torch.manual_seed(resolution)
    planes = torch.rand(3, resolution, resolution, 4, dtype=torch.float64)
    # Half of the points lie outside of [-1, 1] along at least one axis, one far outside.
    points = torch.rand(60, 3, dtype=torch.float64) * 2.6 - 1.3
    points[0] = torch.tensor([5.0, -3.0, 0.2])
    torch.testing.assert_close(
        interpolate_planes(planes, points), lookup_by_hand(planes, points), rtol=1e-12, atol=1e-12
    )


def test_lookup_at_grid_points_returns_the_product_of_the_stored_features() -> None:
    resolution = 5
    planes = torch.rand(3, resolution, resolution, 2, dtype=torch.float64)
    numbers = torch.cartesian_prod(*[torch.arange(resolution)] * 3)
    i, j, k = numbers.T
    stored = planes[0, j, i] * planes[1, k, i] * planes[2, k, j]
    points = numbers.double() * 2 / (resolution - 1) - 1
    torch.testing.assert_close(interpolate_planes(planes, points), stored, rtol=1e-12, atol=1e-12)


def test_lookup_equals_nerfstudios_encoding_in_values_and_gradients() -> None:
    torch.manual_seed(0)
    resolution, features = 6, 5
    encoding = KPlanesEncoding((resolution,) * 3, features, reduce="product")
    # nerfstudio holds [C, row, column] for each plane, ours [row, column, C].
    planes = torch.stack([plane.detach().permute(1, 2, 0) for plane in encoding.plane_coefs]).requires_grad_()
    points = torch.rand(40, 3) * 2.4 - 1.2
    ours, theirs = interpolate_planes(planes, points), encoding(points)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    expected = torch.stack([plane.grad.permute(1, 2, 0) for plane in encoding.plane_coefs])
    torch.testing.assert_close(planes.grad, expected)


def test_gradients_of_the_lookup_are_those_of_finite_differences() -> None:
    torch.manual_seed(1)
    planes = torch.rand(3, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    # Inside of cells, where the lookup is differentiable in the points as well.
    points = torch.tensor(
        [[0.3, -0.4, 0.7], [-0.6, 0.2, -0.9], [0.55, 0.85, -0.15]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(interpolate_planes, (planes, points))


def test_scales_are_concatenated_in_order_and_start_in_their_range() -> None:
    planes = MultiScalePlanes((3, 6), 4, init_range=(0.1, 0.5))
    points = torch.rand(10, 3) * 2 - 1
    features = planes(points)
    assert features.shape == (10, 8) and planes.out_dim == 8
    torch.testing.assert_close(features[:, :4], interpolate_planes(planes.scales[0], points))
    torch.testing.assert_close(features[:, 4:], interpolate_planes(planes.scales[1], points))
    for scale in planes.scales:
        assert 0.1 <= scale.min() < 0.2 and 0.4 < scale.max() <= 0.5
