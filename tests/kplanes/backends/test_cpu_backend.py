"""The CPU's kernels, lookup and total variation, against the plain PyTorch ones."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dac_nerfstudio.kplanes.backends import cpu_kernels, running
from dac_nerfstudio.kplanes.lookup import lookup
from dac_nerfstudio.kplanes.regularizers import squared_differences


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Even small tensors are shared among threads; torch's threads are put back."""
    monkeypatch.setattr(running, "MIN_WORK", 0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def make_scales(channels: int, resolutions: tuple[int, ...] = (2, 3, 9)) -> list[Tensor]:
    torch.manual_seed(channels)
    return [torch.rand(3, r, r, channels).requires_grad_() for r in resolutions]


def make_points(count: int = 300) -> Tensor:
    """Inside and outside of the planes, on corners, and at the very border."""
    special = torch.tensor(
        [[-1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [0.5, -0.25, 0.75], [1e30, -1e30, 0]]
    )
    beyond = torch.tensor([[torch.inf, -torch.inf, 0.3]])
    return torch.cat((special, beyond, torch.rand(count, 3) * 2.6 - 1.3))


def values_and_gradients(scales: list[Tensor], points: Tensor, backend: str | None) -> list[Tensor]:
    points = points.clone().requires_grad_()
    features = lookup(scales, points, backend)  # type: ignore[arg-type]
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    return [features.detach(), *torch.autograd.grad((features * weights).sum(), [points, *scales])]


@pytest.mark.parametrize("channels", [1, 5, 6, 12, 16])
def test_cpu_equals_the_reference_in_values_and_gradients(channels: int, shared: None) -> None:
    scales, points = make_scales(channels), make_points()
    ours = values_and_gradients(scales, points, "cpu")
    theirs = values_and_gradients(scales, points, "reference")
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [8, 20])
def test_results_do_not_depend_on_threads(channels: int, shared: None) -> None:
    scales, points = make_scales(channels), make_points()
    results = []
    for threads in (1, 2, 7, 20):  # with 20 there are more than planes
        torch.set_num_threads(threads)
        results.append(values_and_gradients(scales, points, "cpu"))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_nan_counts_as_the_lower_border(backend: str) -> None:
    scales = make_scales(8)
    points = torch.tensor([[torch.nan, 0.2, 0.3], [0.1, torch.nan, torch.nan]] * 5)
    with_nan = values_and_gradients(scales, points, backend)
    at_border = values_and_gradients(scales, points.nan_to_num(nan=-1.0), backend)
    torch.testing.assert_close(with_nan, at_border)


def test_points_may_be_a_view_and_the_features_gradient_expanded() -> None:
    scales, wide = make_scales(8), torch.rand(50, 6) * 2 - 1
    points = wide[:, ::2]
    assert not points.is_contiguous()
    ours, theirs = lookup(scales, points, "cpu"), lookup(scales, points, "reference")
    torch.testing.assert_close(ours, theirs)
    # The gradient of a sum is one number, expanded.
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), scales), torch.autograd.grad(theirs.sum(), scales))


def test_no_points_give_no_features_and_gradients_of_zero() -> None:
    scales = make_scales(4)
    features = lookup(scales, torch.zeros(0, 3), "cpu")
    assert features.shape == (0, 12)
    for gradient, scale in zip(torch.autograd.grad(features.sum(), scales), scales, strict=True):
        assert torch.equal(gradient, torch.zeros_like(scale))


def test_only_the_gradients_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_run(*args: object) -> None:
        raise AssertionError("the gradient of the points was not asked for")

    scales, points = make_scales(8), make_points()
    scales[1].requires_grad_(False)
    monkeypatch.setattr(cpu_kernels, "differentiate_points", must_not_run)
    lookup(scales, points, "cpu").sum().backward()
    assert scales[1].grad is None and points.grad is None
    expected = torch.autograd.grad(lookup(scales, points, "reference").sum(), [scales[0], scales[2]])
    torch.testing.assert_close((scales[0].grad, scales[2].grad), expected)


def test_points_have_a_gradient_where_planes_have_none() -> None:
    scales = [scale.detach() for scale in make_scales(8)]
    points = make_points().requires_grad_()
    ours, theirs = (torch.autograd.grad(lookup(scales, points, b).sum(), points) for b in ("cpu", "reference"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_backward_pass_through_changed_planes_is_refused() -> None:
    scales = make_scales(8)
    features = lookup(scales, make_points(), "cpu")
    with torch.no_grad():
        scales[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        features.sum().backward()


IMPORTING = """
import sys, warnings
warnings.simplefilter("ignore")
import dac_nerfstudio.methods
assert "numba" not in sys.modules, "importing the methods imported numba"
"""

UNWRITABLE = """
import numba.core.caching, torch
numba.core.caching.CacheImpl._locator_classes = []  # nowhere to write to
from dac_nerfstudio.kplanes.lookup import choose
assert choose([torch.rand(3, 4, 4, 8)], torch.rand(5, 3)) == "cpu"
"""

FORKING = """
import os, torch
from dac_nerfstudio.kplanes.backends import running
from dac_nerfstudio.kplanes.lookup import lookup

torch.set_num_threads(2)
planes, points, upstream = torch.rand(3, 40, 40, 8, requires_grad=True), torch.rand(20_000, 3), torch.rand(20_000, 8)

def result():
    features = lookup([planes], points, "cpu")
    (gradient,) = torch.autograd.grad(features, planes, upstream)
    return features.detach().numpy().tobytes() + gradient.numpy().tobytes()

expected = result()
assert running._threads._pool is not None, "several threads were to work before the fork"
child = os.fork()
if child == 0:
    os._exit(0 if result() == expected else 1)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("channels", [1, 5, 6, 12, 16])
@pytest.mark.parametrize("resolution", [2, 7])
def test_fast_squared_differences_equal_the_reference_with_any_number_of_threads(
    channels: int, resolution: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(running, "MIN_WORK", 0)
    scale = torch.randn(3, resolution, resolution, channels, requires_grad=True)
    expected = squared_differences(scale, "reference")
    (expected_gradient,) = torch.autograd.grad(0.7 * expected, scale)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            value = squared_differences(scale, "cpu")
            found.append((value.detach(), *torch.autograd.grad(0.7 * value, scale)))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found[0], (expected.detach(), expected_gradient))
    for value, gradient in found[1:]:
        assert torch.equal(value, found[0][0]) and torch.equal(gradient, found[0][1])


@pytest.mark.parametrize("program", [IMPORTING, UNWRITABLE, FORKING], ids=["importing", "unwritable cache", "fork"])
def test_in_a_process_of_its_own(program: str) -> None:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
