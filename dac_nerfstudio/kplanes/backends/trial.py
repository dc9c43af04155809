"""Whether a fast backend works on this machine, tried with small tensors before it is relied on.

Numba and Triton compile a kernel when it is first used, once for every type, number of channels and gradient asked for.
Each of these is tried by itself, so that one that fails is replaced by plain PyTorch before training depends on it.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Callable, List, Literal, Optional, Set, Tuple

import torch
from torch import Tensor

Backend = Literal["reference", "cpu", "triton"]
COMPILERS = {"cpu": "numba", "triton": "triton"}
"""The package that each of the fast backends needs."""


@dataclass(frozen=True)
class Case:
    """What a backend compiles kernels for."""

    operation: Literal["lookup", "total variation", "sampling of rays", "layers of a network"]
    backend: Literal["cpu", "triton"]
    device: str
    planes: torch.dtype
    points: torch.dtype
    channels: int
    scales: int
    planes_gradient: bool
    points_gradient: bool

    def __str__(self) -> str:
        if not self.channels:
            return f"the {self.operation} on {self.device}"
        wanted = [what for what in ("planes", "points") if getattr(self, f"{what}_gradient")]
        gradients = f"with the gradient of {' and '.join(wanted)}" if wanted else "without gradients"
        planes, points = (str(dtype).removeprefix("torch.") for dtype in (self.planes, self.points))
        apart = "" if planes == points else f", points in {points}"
        return (
            f"the {self.operation} of planes in {planes} ({self.scales} x {self.channels} channels{apart}) {gradients} "
            f"on {self.device}"
        )


Example = Callable[[Case, Backend], List[Tensor]]
"""Results, gradients among them, of small tensors as in the case; in float32 throughout for the reference."""


@contextmanager
def _untraced() -> Iterator[None]:
    """Nothing traces this thread. nerfstudio's viewer breaks a rendering off by an exception from a trace function: it
    says nothing of a kernel, and compiling under a trace takes many times as long."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)


@lru_cache(maxsize=None)
@_untraced()
def failure(case: Case, example: Example) -> Optional[Exception]:
    """What goes wrong, or None. The first call of a process compiles the kernels or loads them from their cache."""
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(torch.device(case.device).type, enabled=False),
        ):
            results, expected = example(case, case.backend), example(case, "reference")
        for one, other in zip(results, expected, strict=True):
            torch.testing.assert_close(one, other.to(one.dtype))
    except Exception as error:  # whatever a compiler, a driver or a kernel can raise
        return error.with_traceback(None)
    return None


def works(case: Case, example: Example) -> bool:
    """Whether a backend gets the example right. If not, one warning for each kind of failure says what is wrong."""
    error = failure(case, example)
    if error is None:
        return True
    if (case.backend, type(error)) not in _warned:
        _warned.add((case.backend, type(error)))
        warnings.warn(explain(case, error), stacklevel=2)
    return False


_warned: Set[Tuple[str, type]] = set()
"""Backends, and kinds of errors, of which a warning was printed."""


def explain(case: Case, error: Exception) -> str:
    """What failed, what happens instead, and what to do about it."""
    compiler = COMPILERS[case.backend]
    if isinstance(error, ImportError):
        what = f"{compiler} is not installed here"
    elif isinstance(error, AssertionError):
        what = f"{compiler} gets {case} wrong"
    else:
        what = f"{compiler} cannot do {case}"
    remedy = _triton_remedy(error) if case.backend == "triton" else f"pip install --upgrade {compiler}"
    said = next((line for line in str(error).splitlines() if line.strip()), "no more is known")
    return (
        f"{what} ({type(error).__name__}: {said}). Plain PyTorch does it instead, more slowly. To be faster: {remedy}"
    )


def _triton_remedy(error: Exception) -> str:
    """Triton has its own compiler for the GPU, but needs the machine's for C to call what that makes."""
    if isinstance(error, ImportError):
        return "install PyTorch anew, whose wheels for CUDA on Linux bring the triton that fits them"
    if isinstance(error, FileNotFoundError) or "C compiler" in str(error):
        return "install a C compiler, which Triton calls its kernels by: apt-get install gcc, or set CC to one"
    if isinstance(error, subprocess.CalledProcessError):
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            return "install Python's headers, which Triton calls its kernels by: apt-get install python3-dev"
        return f"see why the C compiler failed: {error.cmd[0] if isinstance(error.cmd, list) else error.cmd}"
    return "bring PyTorch, with the triton that it came with, and the driver up to date"
