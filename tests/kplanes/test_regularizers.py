"""Total variation and distortion against direct sums and the reference's numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dac_nerfstudio.kplanes.regularizers import distortion, plane_tv, squared_differences


def scales_of(entry: dict[str, Any]) -> list[Tensor]:
    """The fixture's planes [1, C, rows, columns] as ours [planes, rows, columns, C], one plane each."""
    return [torch.tensor(plane).permute(0, 2, 3, 1) for scale in entry["inputs"]["scales"] for plane in scale]


def distortion_by_pairs(weights: Tensor, edges: Tensor) -> Tensor:
    midpoints = (edges[:, 1:] + edges[:, :-1]) / 2
    pairs = weights[:, :, None] * weights[:, None] * (midpoints[:, :, None] - midpoints[:, None]).abs()
    return (pairs.sum(dim=(1, 2)) + (weights**2 * edges.diff(dim=1)).sum(dim=1) / 3).mean()


def test_plane_tv_of_a_small_plane_is_what_is_worked_out_by_hand() -> None:
    # One plane [[0, 1], [3, 7]]: down the rows 3^2 and 6^2, mean 22.5; along the columns 1^2 and 4^2, mean 8.5.
    plane = torch.tensor([[0.0, 1.0], [3.0, 7.0]])[None, :, :, None]
    assert plane_tv([plane]).item() == pytest.approx(31.0)
    # Two flat planes beside it: the mean over three.
    assert plane_tv([torch.cat((plane, torch.ones(2, 2, 2, 1)))]).item() == pytest.approx(31.0 / 3)


@pytest.mark.parametrize("name", ["plane_tv", "plane_tv_multiscale"])
def test_plane_tv_is_the_nerfstudio_plugins_and_the_reference_is_4_times_the_sum(
    reference: dict[str, Any], name: str
) -> None:
    entry = reference[name]
    value = plane_tv(scales_of(entry)).item()
    assert value == pytest.approx(entry["correct"], rel=1e-6)
    assert value == pytest.approx(entry["nerfstudio_plugin"], rel=1e-6)
    assert value == pytest.approx(entry["reference"] / (4 * entry["number_of_planes"]), rel=1e-6)


def test_plane_tv_has_the_references_gradient(reference: dict[str, Any]) -> None:
    entry = reference["plane_tv"]
    planes = [plane.requires_grad_() for plane in scales_of(entry)]
    gradients = torch.autograd.grad(plane_tv(planes), planes)
    expected = [torch.tensor(plane).permute(0, 2, 3, 1) for scale in entry["correct_grad"] for plane in scale]
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_squared_differences_of_planes_in_double_precision_are_the_references() -> None:
    scale = torch.rand(3, 4, 4, 8, dtype=torch.float64, requires_grad=True)
    value = squared_differences(scale)
    assert value.dtype == torch.float64 and torch.equal(value, squared_differences(scale, "reference"))
    assert torch.autograd.gradcheck(squared_differences, scale)


@pytest.mark.parametrize("name", ["distortion", "distortion_euclidean"])
def test_distortion_is_the_fixtures(reference: dict[str, Any], name: str) -> None:
    entry = reference[name]
    weights, edges = (torch.tensor(entry["inputs"][key]) for key in ("weights", "edges"))
    value = distortion(weights, edges).item()
    assert value == pytest.approx(entry["correct"], rel=1e-5)
    # The reference sums over an axis of length 1 and so loses the pairs.
    assert value > 100 * entry["reference"]


def test_distortion_and_its_gradient_equal_those_of_the_double_sum() -> None:
    torch.manual_seed(0)
    weights = torch.rand(6, 20, dtype=torch.float64, requires_grad=True)
    edges = torch.rand(6, 21, dtype=torch.float64).sort(dim=1).values.requires_grad_()
    fast, direct = distortion(weights, edges), distortion_by_pairs(weights, edges)
    torch.testing.assert_close(fast, direct, rtol=1e-12, atol=1e-12)
    gradients = zip(
        torch.autograd.grad(fast, (weights, edges)), torch.autograd.grad(direct, (weights, edges)), strict=True
    )
    for one, other in gradients:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
