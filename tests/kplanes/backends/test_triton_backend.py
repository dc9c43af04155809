"""The Triton kernels, on machines without a GPU: run by Triton's interpreter, and compiled for CUDA without running."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

BENCHMARKS = str(Path(__file__).parents[3] / "benchmarks")
sys.path.append(BENCHMARKS)
traffic = importlib.import_module("traffic")

INTERPRETED = """
import torch
from dac_nerfstudio.kplanes.lookup import lookup

torch.manual_seed(0)
for channels, dtype, tolerance in (
    (4, torch.float32, 1e-6), (5, torch.float32, 1e-6), (4, torch.float16, 4e-3), (4, torch.bfloat16, 3e-2)
):
    scales = [torch.rand(3, r, r, channels).to(dtype).requires_grad_() for r in (2, 7)]
    special = torch.tensor([[-1.0, 1.0, torch.nan], [torch.inf, -torch.inf, 0.0], [1.0, 1.0, -1.0], [0.0, 1 / 3, 1e30]])
    points = torch.cat((special, torch.rand(26, 3) * 2.6 - 1.3)).requires_grad_()
    ours = lookup(scales, points, "triton")
    assert ours.dtype == dtype
    theirs = lookup([scale.float() for scale in scales], points, "reference")
    torch.testing.assert_close(ours.float(), theirs, rtol=tolerance, atol=tolerance)
    upstream = torch.rand_like(theirs).to(dtype)
    pairs = zip(
        torch.autograd.grad(ours, [points, *scales], upstream),
        torch.autograd.grad(theirs, [points, *scales], upstream.float()),
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)

    # Gradients that nobody asks for, and no points at all.
    scales[0].requires_grad_(False)
    points = points.detach()
    (one,) = torch.autograd.grad(lookup(scales, points, "triton"), scales[1], upstream)
    theirs = lookup([scale.float() for scale in scales], points, "reference")
    (other,) = torch.autograd.grad(theirs, scales[1], upstream.float())
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    (nothing,) = torch.autograd.grad(lookup(scales, points[:0], "triton").sum(), scales[1])
    assert not nothing.any()
"""

SMOOTHNESS = """
import torch
from dac_nerfstudio.kplanes.backends import triton
from dac_nerfstudio.kplanes.regularizers import squared_differences

torch.manual_seed(0)
# Rows within one block, and one that is a little longer.
for resolution, channels in ((2, 8), (7, 16), (9, 5), (33, 32)):
    scale = torch.randn(3, resolution, resolution, channels, requires_grad=True)
    results = {}
    for backend in ("reference", "triton", "cpu"):
        value = squared_differences(scale, backend)
        (gradient,) = torch.autograd.grad(0.7 * value, scale)
        results[backend] = value.detach(), gradient
    torch.testing.assert_close(results["triton"], results["reference"])
    torch.testing.assert_close(results["triton"], results["cpu"])
"""

COMPILED = """
import re, sys
sys.path.append(sys.argv[1])
import registers
from dac_nerfstudio.kplanes.backends import triton

for architecture in (80, 90):
    for name, kernel, stored, constants in registers.cases(registers.Options()):
        compiled = registers.compile_kernel(kernel, architecture, stored, constants)
        used = registers.resources(compiled, architecture)
        assert used["spilt"] == 0 and used["warps"] >= 28, f"{name} on sm_{architecture}: {used}"
        # Sums by atomics have no fixed order: only the lookup's gradient may be summed so.
        atomic = re.search(r"\\b(atom|red)\\.", compiled.asm["ptx"]) is not None
        assert atomic == (kernel is triton._backward), f"{name} has atomics: {atomic}"
"""


@pytest.mark.parametrize(
    "program", [INTERPRETED, SMOOTHNESS, COMPILED], ids=["interpreted", "smoothness interpreted", "compiled"]
)
def test_kernels(program: str) -> None:
    # Triton reads the variable when it is imported, which torch may have done here already.
    environment = {**os.environ, "TRITON_INTERPRET": "0" if program is COMPILED else "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program, BENCHMARKS], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr


def test_total_variation_moves_three_times_the_bytes_of_the_planes() -> None:
    scales = [torch.zeros(3, r, r, 32, device="meta", requires_grad=True) for r in (128, 256, 512)]
    planes = traffic.tensor_bytes(scales)
    moved = {backend: traffic.moved_bytes(scales, backend) for backend in ("reference", "triton")}
    # Forward the planes are read; backward they are read again, and their gradient is written. Programs' sums are few.
    assert moved["triton"]["value"] == pytest.approx(planes, rel=3e-3)
    assert moved["triton"]["gradient"] == pytest.approx(2 * planes, rel=3e-3)
    assert sum(moved["reference"].values()) > 40 * planes
