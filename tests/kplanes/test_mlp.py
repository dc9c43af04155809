"""The fast paths of small MLPs against their layers one after the other."""

from typing import Literal

import pytest
import torch
from torch import nn

from dac_nerfstudio.kplanes.backends import cpu_mlp, running
from dac_nerfstudio.kplanes.backends.cpu_mlp import POINTS
from dac_nerfstudio.kplanes.mlp import MLP


@pytest.mark.parametrize("activation", ["ReLU", "None"])
@pytest.mark.parametrize("hidden_layers", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("points", [0, 1, 2 * POINTS + 3])
def test_values_and_gradients_are_those_of_the_layers(
    activation: Literal["ReLU", "None"], hidden_layers: int, bias: bool, points: int
) -> None:
    torch.manual_seed(0)
    mlp = MLP(8, 3, 16, hidden_layers, bias, activation)
    inputs = torch.randn(points, 8, requires_grad=True)
    upstream = torch.randn(points, 3)
    wanted = [inputs, *mlp.parameters()]

    ours, plain = mlp(inputs), nn.Sequential.forward(mlp, inputs)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    for one, other in zip(*(torch.autograd.grad(out, wanted, upstream) for out in (ours, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_an_input_that_wants_no_gradient_gets_none() -> None:
    mlp = MLP(3, 2, 16, 2, bias=True)
    inputs = torch.randn(5, 3)
    mlp(inputs).sum().backward()
    assert inputs.grad is None
    assert all(parameter.grad is not None for parameter in mlp.parameters())


@pytest.mark.parametrize("learning", [True, False])
def test_hidden_layers_are_kept_where_there_is_a_way_back_alone(
    learning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    forward = cpu_mlp.kernels.forward
    monkeypatch.setattr(cpu_mlp.kernels, "forward", lambda *a: (kept.append(a[5].size), forward(*a)))
    mlp = MLP(8, 3, 64, 2, bias=False).requires_grad_(learning)
    mlp(torch.randn(100, 8))
    with torch.no_grad():
        mlp(torch.randn(100, 8))
    assert kept == [128 * 2 * 64 if learning else 0, 0]


def test_what_is_no_number_stays_none() -> None:
    """So that a training that has diverged is found out."""
    mlp, points = MLP(8, 3, 16, 2, bias=True), torch.randn(4, 8)
    points[1, 3] = torch.nan
    assert mlp(points).isnan().all(dim=-1).tolist() == [False, True, False, False]


def test_results_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MIN_WORK", 0)
    torch.manual_seed(0)
    mlp, of_rays, of_samples = MLP(9, 3, 16, 2, True), torch.randn(1001, 4), torch.randn(1001, 13, 5)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        out = mlp.of_rays(of_rays, of_samples)
        found.append([out, *torch.autograd.grad(out.square().sum(), list(mlp.parameters()))])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_double_precision_and_others_go_through_the_layers() -> None:
    mlp = MLP(8, 3, 16, 1, bias=True).double()
    assert mlp(torch.randn(4, 8, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rays", "samples"), [(0, 3), (1, POINTS + 1), (701, 7)])
def test_what_depends_on_the_ray_is_computed_once_for_all_of_its_samples(
    rays: int, samples: int, bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    mlp = MLP(9, 3, 16, 2, bias).to(dtype)
    of_rays = torch.randn(rays, 4, dtype=dtype, requires_grad=True)
    of_samples = torch.randn(rays, samples, 5, dtype=dtype, requires_grad=True)
    upstream = torch.randn(rays, samples, 3, dtype=dtype)
    wanted = [of_rays, of_samples, *mlp.parameters()]

    ours = mlp.of_rays(of_rays, of_samples)
    joined = torch.cat((of_rays[:, None].expand(-1, samples, -1), of_samples), dim=-1)
    plain = nn.Sequential.forward(mlp, joined)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    for one, other in zip(*(torch.autograd.grad(out, wanted, upstream) for out in (ours, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
