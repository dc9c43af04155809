"""What is computed along rays: kernels against plain PyTorch, and what is known of both.

Triton's are among them where its interpreter runs this file, as ``backends/test_triton_backend.py`` has it do.
"""

import os

import pytest
import torch
from torch import Tensor

from dac_nerfstudio.kplanes import rays
from dac_nerfstudio.kplanes.backends import running
from dac_nerfstudio.kplanes.rays import composite, excess, opacities, positions, products, resample

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS: tuple[rays.Backend, ...] = ("triton" if INTERPRETED else "cpu", "reference")


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rays are shared among so many threads, however few they are."""
    monkeypatch.setattr(running, "MIN_WORK", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)


def both(function, *inputs: Tensor) -> list[list[Tensor]]:  # type: ignore[no-untyped-def]
    """Results and gradients by the kernels and by PyTorch, for the same upstream gradients."""
    found = []
    for backend in BACKENDS:
        results = function(*inputs, backend)
        results = list(results) if isinstance(results, tuple) else [results]
        generator = torch.Generator().manual_seed(1)
        upstream = [torch.randn(one.shape, generator=generator) for one in results]
        wanted = [one for one in inputs if one.requires_grad]
        found.append([*results, *torch.autograd.grad(results, wanted, upstream)])
    return found


def test_points_in_the_middle_of_bins_are_pytorchs(threads: None) -> None:
    torch.manual_seed(0)
    origins, directions, distances = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5, 9).cumsum(dim=-1)
    ours, theirs = (positions(origins, directions, distances, backend) for backend in BACKENDS)
    torch.testing.assert_close(ours, theirs)
    assert positions(origins, directions.clone().requires_grad_(), distances).requires_grad, "of learned cameras"
    assert positions(origins.requires_grad_(), directions, distances).requires_grad


def test_opacities_and_weights_are_pytorchs(threads: None) -> None:
    torch.manual_seed(0)
    density = (torch.randn(7, 9) * 3).exp().requires_grad_()  # from next to nothing to solid
    torch.testing.assert_close(*both(opacities, density, torch.rand(7, 10).cumsum(dim=-1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bin_without_end_stops_all_light(backend: rays.Backend) -> None:
    density = torch.tensor([[0.0, torch.inf, 1.0, 1.0]])
    alphas, weights = opacities(density, torch.tensor([[1.0, 2.0, 3.0, 4.0, 4.0]]), backend)
    torch.testing.assert_close(alphas, torch.tensor([[0.0, 1.0, 1 - torch.e**-1, 0.0]]))
    torch.testing.assert_close(weights, torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    assert opacities(density, torch.zeros(1, 5), backend)[1][0, 1] == 0, "not a number, where there is no width"


def test_colours_of_rays_are_pytorchs(threads: None) -> None:
    torch.manual_seed(0)
    weights, colours = torch.rand(5, 4).requires_grad_(), torch.rand(5, 4, 3).requires_grad_()
    torch.testing.assert_close(*both(composite, weights, colours, torch.rand(3)))
    assert torch.equal(composite(torch.zeros(1, 4), colours[:1], torch.ones(3)), torch.ones(1, 3)), "what is behind"


@pytest.mark.parametrize("channels", [1, 12, 32, 48])
def test_products_are_pytorchs(channels: int, threads: None) -> None:
    torch.manual_seed(0)
    shapes = (5, 19, channels), (channels,), (5, 3, channels)
    torch.testing.assert_close(
        *both(products, *[torch.randn(shape).requires_grad_() for shape in shapes]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_quantiles_of_a_histogram_worked_out_by_hand(backend: rays.Backend) -> None:
    # Nearly all the weight is 3 to 1 in the two bins; PADDING is lost in weights this large.
    edges, weights = torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[3e4, 1e4]])
    found = resample(edges, weights, torch.tensor([[0.0, 0.375, 0.75, 0.875]]), backend)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.25, 0.5, 0.75]]), rtol=1e-5, atol=1e-5)
    # Without any weight all bins count alike.
    torch.testing.assert_close(
        resample(torch.tensor([[0.0, 0.2, 1.0]]), torch.zeros(1, 2), torch.tensor([[0.25, 0.75]]), backend),
        torch.tensor([[0.1, 0.6]]),
    )


def test_quantiles_are_pytorchs(threads: None) -> None:
    torch.manual_seed(0)
    edges = torch.cat((torch.zeros(6, 1), torch.rand(6, 8).cumsum(dim=-1)), dim=-1) / 8
    weights = (torch.randn(6, 8) * 4).exp() * (torch.rand(6, 8) > 0.3)
    quantiles = torch.cat((torch.zeros(6, 1), torch.rand(6, 20).sort().values, torch.ones(6, 1)), dim=-1)
    torch.testing.assert_close(*(resample(edges, weights, quantiles, backend) for backend in BACKENDS))


def test_excess_over_a_coarse_histogram_is_pytorchs(threads: None) -> None:
    torch.manual_seed(0)
    edges, coarse_edges = (torch.rand(6, count).sort().values for count in (20, 8))
    edges[0], coarse_edges[1] = coarse_edges[0, :1].expand(20), edges[1, 6:7].expand(8)  # bins without width
    coarse_edges[2] += 2  # no overlap at all
    mass, coarse = torch.rand(6, 19), (torch.rand(6, 7) / 5).requires_grad_()

    def found(coarse: Tensor, backend: rays.Backend) -> Tensor:
        return excess(edges, mass, coarse_edges, coarse, backend)

    torch.testing.assert_close(*both(found, coarse), rtol=1e-5, atol=1e-6)


def test_who_computes_is_chosen_by_type_and_device() -> None:
    assert rays.choose(torch.zeros(1), torch.zeros(2, 3)) == "cpu"
    cuda = rays.case_on(torch.device("cuda:0"))
    assert cuda is not None and (cuda.backend, cuda.device) == ("triton", "cuda:0")
    assert rays.choose(torch.zeros(1), torch.zeros(1).double()) == "reference"
    assert rays.choose(torch.zeros(1, device="meta")) == "reference"
