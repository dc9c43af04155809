"""What is said of a backend that does not work, by what went wrong."""

import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dac_nerfstudio.kplanes.backends.trial import Backend, Case, explain, failure, works

CASE = Case("lookup", "triton", "cuda:0", torch.float16, torch.float32, 32, 3, False, False)
ABOUT = "the lookup of planes in float16 (3 x 32 channels, points in float32) without gradients on cuda:0"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'triton'"),
            "triton is not installed here (ModuleNotFoundError: No module named 'triton'). Plain PyTorch does it "
            "instead, more slowly. To be faster: install PyTorch anew, whose wheels for CUDA on Linux bring the triton "
            "that fits them",
        ),
        (
            RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
            f"triton cannot do {ABOUT} (RuntimeError: Failed to find C compiler. Please specify via CC "
            "environment variable.). Plain PyTorch does it instead, more slowly. To be faster: install a C compiler, "
            "which Triton calls its kernels by: apt-get install gcc, or set CC to one",
        ),
        (
            AssertionError("Tensor-likes are not close!\n\nMismatched elements: 3 / 96"),
            f"triton gets {ABOUT} wrong (AssertionError: Tensor-likes are not close!). Plain PyTorch does it "
            "instead, more slowly. To be faster: bring PyTorch, with the triton that it came with, and the driver up "
            "to date",
        ),
    ],
    ids=["no triton", "no C compiler", "wrong"],
)
def test_the_remedy_is_of_what_failed(error: Exception, message: str) -> None:
    assert explain(CASE, error) == message


@pytest.mark.parametrize("headers", [True, False])
def test_a_c_compiler_that_fails_lacks_pythons_headers_or_is_named(
    headers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    if headers:
        (tmp_path / "Python.h").touch()
    message = explain(CASE, subprocess.CalledProcessError(1, ["gcc", "main.c"]))
    assert message.endswith(
        "see why the C compiler failed: gcc"
        if headers
        else "install Python's headers, which Triton calls its kernels by: apt-get install python3-dev"
    )


def test_a_viewer_that_breaks_a_rendering_off_makes_no_backend_fail(untried: None) -> None:
    """It raises from a trace function, at whatever line of the thread comes next."""

    def example(case: Case, backend: Backend) -> list[Tensor]:
        return [torch.ones(1)]

    def broken_off(frame: Any, event: str, _: object) -> Any:
        if event == "line" and frame.f_code is example.__code__:
            raise InterruptedError
        return broken_off

    before = sys.gettrace()
    sys.settrace(broken_off)
    try:
        assert works(replace(CASE, device="cpu"), example)
        assert sys.gettrace() is broken_off
    finally:
        sys.settrace(before)


def test_one_warning_is_given_for_each_kind_of_failure(untried: None) -> None:
    calls = []

    def broken(case: Case, backend: Backend) -> list[Tensor]:
        calls.append(case)
        raise OSError("out of order") if case.channels < 32 else MemoryError("too much")

    cases = [replace(CASE, device="cpu", channels=channels) for channels in (8, 16, 8, 32)]
    with pytest.warns(UserWarning) as caught:
        assert [works(case, broken) for case in cases] == [False] * 4
    assert ["out of order" in str(one.message) for one in caught] == [True, False]
    # What has failed is not tried again.
    assert calls == [cases[0], cases[1], cases[3]]


def test_results_are_compared_in_the_type_that_they_have(untried: None) -> None:
    def off_by(relative: float) -> object:
        def example(case: Case, backend: Backend) -> list[Tensor]:
            numbers = torch.linspace(1, 2, 50)
            return [numbers if backend == "reference" else (numbers * (1 + relative)).to(case.planes)]

        return example

    half, single = replace(CASE, device="cpu"), replace(CASE, device="cpu", planes=torch.float32)
    assert failure(half, off_by(1e-4)) is None and failure(single, off_by(1e-7)) is None  # type: ignore[arg-type]
    assert isinstance(failure(half, off_by(1e-2)), AssertionError)  # type: ignore[arg-type]
    assert isinstance(failure(single, off_by(1e-4)), AssertionError)  # type: ignore[arg-type]
