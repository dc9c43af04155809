"""The Triton kernels, on machines without a GPU: run by Triton's interpreter, and compiled for CUDA without running."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

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

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from dac_nerfstudio.kplanes.backends import triton as ours

def compile(kernel, stored, **flags):
    width, block = ours._tiling(32)
    constants = {"CHANNELS": 32, "WIDTH": width, "BLOCK": block, **flags}
    types = {
        **dict.fromkeys(("planes", "upstream", "out"), "*" + stored),
        **dict.fromkeys(("points", "planes_gradient", "points_gradient"), "*fp32"),
        **dict.fromkeys(("count", "last", "stride", "offset"), "i32"),
        **dict.fromkeys(constants, "constexpr"),
    }
    signature = {name: types[name] for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["cubin"]

for stored in ("fp32", "fp16"):
    compile(ours._forward, stored)
    compile(ours._backward, stored, PLANES=True, POINTS=True)
"""


@pytest.mark.parametrize("program", [INTERPRETED, COMPILED], ids=["interpreted", "compiled"])
def test_kernels(program: str) -> None:
    # Triton reads the variable when it is imported, which torch may have done here already.
    environment = {**os.environ, "TRITON_INTERPRET": "1" if program is INTERPRETED else "0", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
