"""Who looks planes up, and what happens when a fast backend does not work."""

import sys
import warnings

import pytest
import torch
from torch import Tensor

from dac_nerfstudio.kplanes.backends import cpu_kernels
from dac_nerfstudio.kplanes.backends.trial import Case
from dac_nerfstudio.kplanes.lookup import case_of, choose, example, lookup
from dac_nerfstudio.kplanes.planes import kernel_problem
from dac_nerfstudio.kplanes.regularizers import squared_differences


def test_the_fast_lookup_is_chosen_for_regular_planes_in_single_precision() -> None:
    points = torch.zeros(2, 3)
    planes = torch.zeros(3, 4, 4, 8)
    assert choose([planes, torch.zeros(3, 2, 2, 8)], points) == "cpu"
    irregular = {
        "double precision": ([planes.double()], points.double()),
        "mixed precision": ([planes], points.double()),
        "a resolution of 1": ([planes, torch.zeros(3, 1, 1, 8)], points),
        "channels that differ": ([planes, torch.zeros(3, 4, 4, 4)], points),
        "channels not last": ([torch.zeros(3, 8, 4, 4).permute(0, 2, 3, 1)], points),
    }
    assert {what: choose(*tensors) for what, tensors in irregular.items()} == dict.fromkeys(irregular, "reference")


def test_every_type_number_of_channels_and_scales_and_gradient_is_tried_by_itself() -> None:
    planes, points = torch.zeros(3, 4, 4, 8, requires_grad=True), torch.zeros(2, 3)

    def case(scales: list[Tensor], points: Tensor = points) -> Case:
        found = case_of(scales, points)
        assert found is not None
        return found

    different = [
        case([planes]),
        case([planes, planes]),
        case([planes.detach()]),
        case([planes], torch.zeros(2, 3, requires_grad=True)),
        case([torch.zeros(3, 4, 4, 16, requires_grad=True)]),
    ]
    assert len(set(different)) == len(different)
    with torch.no_grad():
        assert case([planes]) == case([planes.detach()])
    # Kernels do not depend on how many points and rows there are.
    assert case([planes]) == case([torch.zeros(3, 9, 9, 8, requires_grad=True)], torch.zeros(5, 3))


@pytest.mark.parametrize("gradients", [(False, False), (True, False), (False, True), (True, True)])
def test_the_example_has_what_the_case_asks_for(gradients: tuple[bool, bool]) -> None:
    case = Case("lookup", "cpu", "cpu", torch.float32, torch.float32, 8, 3, *gradients)
    results = example(case, "reference")
    shapes = [(3, 2, 2, 8)] * (3 * gradients[0]) + [(2, 3)] * gradients[1]
    assert [tuple(result.shape) for result in results] == [(2, 24), *shapes]
    assert all(result.abs().min() > 0 for result in results[:1]) and all(result.any() for result in results)


def test_the_trial_leaves_the_random_numbers_alone(untried: None) -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        assert choose([torch.rand(3, 9, 9, 8)], torch.zeros(20, 3)) == "cpu"
    torch.set_rng_state(state)
    assert choose([torch.zeros(3, 9, 9, 8, requires_grad=True)], torch.zeros(20, 3)) == "cpu"
    assert torch.equal(torch.get_rng_state(), state)


def test_without_numba_one_warning_says_what_to_install(monkeypatch: pytest.MonkeyPatch, untried: None) -> None:
    scales, points = [torch.rand(3, 9, 9, 8)], torch.rand(20, 3)
    expected = lookup(scales, points, "reference")
    monkeypatch.delattr("dac_nerfstudio.kplanes.backends.cpu")
    monkeypatch.setitem(sys.modules, "dac_nerfstudio.kplanes.backends.cpu", None)
    with pytest.warns(UserWarning, match="^numba is not installed here .* pip install --upgrade numba$") as caught:
        torch.testing.assert_close(lookup(scales, points), expected)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lookup(scales, points)
        # Nor does anything else that numba would be needed for.
        lookup([*scales, *scales], points.requires_grad_())
        squared_differences(scales[0])


def test_a_kernel_that_gets_it_wrong_is_not_used_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, untried: None
) -> None:
    monkeypatch.setattr(cpu_kernels, "differentiate_planes", lambda *arguments: None)
    planes, points = torch.rand(3, 9, 9, 8, requires_grad=True), torch.rand(20, 3)
    with pytest.warns(UserWarning, match=r"^numba gets the lookup .*1 x 8 channels\) with the gradient of planes"):
        assert choose([planes], points) == "reference"
    assert choose([planes.detach()], points) == "cpu"
    assert kernel_problem("cpu", [(8, 1)]) is not None


def test_the_kernels_of_this_machine_work() -> None:
    assert kernel_problem("cpu", [(32, 3), (8, 1)]) is None


def test_a_device_without_kernels_is_said() -> None:
    problem = kernel_problem("meta", [(8, 1)])
    assert problem == "There are no fast kernels for meta: plain PyTorch looks the planes up."
