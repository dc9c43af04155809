"""The compiled hash grid against nerfstudio's plain PyTorch one."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from nerfstudio.field_components.encodings import HashEncoding
from nerfstudio.field_components.mlp import MLPWithHashEncoding
from torch import Tensor, nn

from dac_nerfstudio.kplanes.backends import running
from dac_nerfstudio.nerfacto import hash_kernels
from dac_nerfstudio.nerfacto.hash_grid import HashGrid, compile_grids


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def grids(levels: int = 3, log2_size: int = 6, features: int = 2, **settings: Any) -> tuple[HashGrid, HashEncoding]:
    """The same grid, compiled and plain, with entries in [-1, 1]."""
    torch.manual_seed(levels)
    plain = HashEncoding(levels, 4, 100, log2_size, features, hash_init_scale=1.0, implementation="torch", **settings)
    compiled = copy.deepcopy(plain)
    compile_grids(compiled)
    assert type(compiled) is HashGrid and type(plain) is HashEncoding
    return compiled, plain


def make_points(count: int = 300) -> Tensor:
    """In the unit cube, on its boundary and on corners of cells, and outside."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.25, 0.3, 0.75, 1.0])] * 3)
    torch.manual_seed(count)
    return torch.cat((corners, torch.rand(count, 3), torch.rand(20, 3) * 6 - 3))


def values_and_gradients(grid: HashEncoding, points: Tensor) -> list[Tensor]:
    points = points.clone().requires_grad_()
    features = grid(points)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    return [features.detach(), *torch.autograd.grad((features * weights).sum(), [points, grid.hash_table])]


@pytest.mark.parametrize("levels, log2_size", [(1, 4), (2, 8), (5, 12), (8, 16)])
@pytest.mark.parametrize("features", [1, 2, 3, 8])
def test_values_and_gradients_equal_the_plain_ones(levels: int, log2_size: int, features: int) -> None:
    compiled, plain = grids(levels, log2_size, features)
    points = make_points()
    ours, theirs = values_and_gradients(compiled, points), values_and_gradients(plain, points)
    for one, other in zip(ours, theirs, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6 * float(other.abs().max()))


def test_results_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MIN_WORK", 0)
    compiled, _ = grids()
    points, results = make_points(), []
    for count in (1, 1, 2, 7):
        torch.set_num_threads(count)
        results.append(values_and_gradients(compiled, points))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_gradients_of_two_lookups_and_of_two_backward_passes_add_up() -> None:
    found = []
    for grid in grids():
        first, second = make_points().chunk(2)
        for _ in range(2):
            (grid(first).square().sum() + grid(second).sin().sum()).backward()
        found.append(grid.hash_table.grad)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_a_gradient_handed_out_is_not_written_to_again() -> None:
    compiled, _ = grids()
    (first,) = torch.autograd.grad(compiled(make_points()).sum(), compiled.hash_table)
    kept = first.clone()
    compiled(make_points()).sum().backward()
    assert torch.equal(first, kept)


def test_points_may_be_a_view_in_any_batch_or_none_at_all() -> None:
    compiled, plain = grids()
    points = torch.rand(4, 5, 6)[..., ::2]
    assert not points.is_contiguous()
    torch.testing.assert_close(compiled(points), plain(points))
    torch.testing.assert_close(compiled(points[0, 0]), plain(points[0, 0]))
    assert compiled(points[:0]).shape == (0, 5, 6)


def test_a_point_that_is_no_number_spoils_only_itself() -> None:
    compiled, _ = grids()
    points = make_points()
    spoilt = torch.cat((points, torch.tensor([[torch.nan, 0.2, 0.3], [torch.inf, -torch.inf, 0.1], [1e30, -1e30, 0]])))
    with torch.inference_mode():
        features = compiled(spoilt)
        assert features[-3:-1].isnan().all()
        assert torch.equal(features[:-3], compiled(points))


def test_only_the_gradients_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_run(*args: object) -> None:
        raise AssertionError("this gradient was not asked for")

    compiled, plain = grids()
    points = make_points()
    with monkeypatch.context() as patch:
        patch.setattr(hash_kernels, "differentiate_points", must_not_run)
        compiled(points).sum().backward()
    monkeypatch.setattr(hash_kernels, "differentiate_table", must_not_run)
    compiled.requires_grad_(False)
    points.requires_grad_()
    ours, theirs = (torch.autograd.grad(grid(points).sum(), points) for grid in (compiled, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        assert not compiled(points).requires_grad


def test_a_second_derivative_is_refused() -> None:
    compiled, _ = grids()
    points = torch.rand(5, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(compiled(points).square().sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_types_are_looked_up_by_nerfstudio(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_run(*args: object) -> None:
        raise AssertionError("the kernels are for single precision")

    monkeypatch.setattr(hash_kernels, "lookup", must_not_run)
    compiled, plain = grids()
    points = make_points()
    assert torch.equal(compiled(points.to(dtype)), plain(points.to(dtype)))
    assert torch.equal(compiled.to(dtype)(points), plain.to(dtype)(points))


def test_all_grids_of_a_model_are_compiled_and_its_state_stays() -> None:
    model = nn.ModuleList([nn.Linear(3, 3), MLPWithHashEncoding(2, 4, 8, 4), HashEncoding(2, 4, 8, 4)])
    before = model.state_dict()
    compile_grids(model)
    assert sum(type(module) is HashGrid for module in model.modules()) == 2
    assert not any(type(module) is HashEncoding for module in model.modules())
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(before[name].data_ptr() == after[name].data_ptr() for name in before)


def test_training_has_the_losses_of_nerfstudios_own() -> None:
    torch.manual_seed(0)
    plain = MLPWithHashEncoding(4, 4, 64, 8, num_layers=2, layer_width=16, out_dim=4)
    compiled = copy.deepcopy(plain)
    compile_grids(compiled)
    points = torch.rand(500, 3)
    colours = (6 * points).sin().prod(dim=-1, keepdim=True).expand(-1, 4)

    def losses(model: nn.Module) -> list[float]:
        optimizer, found = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-8), []
        for _ in range(30):
            loss = (model(points) - colours).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    ours, theirs = losses(compiled), losses(plain)
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours[-1] < 0.7 * ours[0]
