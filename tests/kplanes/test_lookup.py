"""Who looks planes up, and what happens when a fast backend does not work."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch

from dac_nerfstudio.kplanes.backends import cpu_kernels
from dac_nerfstudio.kplanes.lookup import choose, lookup, works


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


def test_the_trial_leaves_the_random_numbers_alone() -> None:
    works.cache_clear()
    state = torch.get_rng_state()
    with torch.no_grad():
        assert works("cpu", "cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_without_numba_one_warning_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    scales, points = [torch.rand(3, 9, 9, 8)], torch.rand(20, 3)
    expected = lookup(scales, points, "reference")
    monkeypatch.delattr("dac_nerfstudio.kplanes.backends.cpu")
    monkeypatch.setitem(sys.modules, "dac_nerfstudio.kplanes.backends.cpu", None)
    works.cache_clear()
    try:
        with pytest.warns(UserWarning, match="^numba is not installed here .* pip install --upgrade numba$") as caught:
            torch.testing.assert_close(lookup(scales, points), expected)
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lookup(scales, points)
    finally:
        works.cache_clear()


def test_a_kernel_that_gets_it_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "scatter", lambda *arguments: None)
    works.cache_clear()
    try:
        with pytest.warns(UserWarning, match="^numba does not work here"):
            assert choose([torch.rand(3, 9, 9, 8)], torch.rand(20, 3)) == "reference"
    finally:
        works.cache_clear()
