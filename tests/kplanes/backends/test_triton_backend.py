"""The Triton kernels, on machines without a GPU: run by Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

LOOKUP = """
import torch
from dac_nerfstudio.kplanes.lookup import lookup

# Of a number that is rounded once, relative to it. The kernels read what is stored exactly, and compute in float32 with
# positive weights: the features and the planes' gradients, of positive numbers here, lose no more than that and a few
# roundings in float32.
ROUNDING = {torch.float32: 2**-24, torch.float16: 2**-11, torch.bfloat16: 2**-8}
SINGLE = 2e-6

torch.manual_seed(0)
special = torch.tensor([[-1.0, 1.0, torch.nan], [torch.inf, -torch.inf, 0.0], [1.0, 1.0, -1.0], [0.0, 1 / 3, 1e30]])
points = torch.cat((special, torch.rand(26, 3) * 2.6 - 1.3)).requires_grad_()
for dtype, rounding in ROUNDING.items():
    for channels in (5, 8, 32):
        scales = [torch.rand(3, r, r, channels).to(dtype).requires_grad_() for r in (2, 7)]
        single = [scale.detach().float().requires_grad_() for scale in scales]
        ours, theirs = lookup(scales, points, "triton"), lookup(single, points, "reference")
        assert ours.dtype == dtype
        close = {"rtol": rounding + SINGLE, "atol": SINGLE}
        # The interpreter cuts off what a GPU rounds to bfloat16: twice the error. Gradients are rounded by PyTorch.
        cut = 2 if dtype == torch.bfloat16 else 1
        torch.testing.assert_close(ours.float(), theirs, rtol=cut * rounding + SINGLE, atol=SINGLE)
        upstream = torch.rand_like(theirs).to(dtype)
        of_points, *of_planes = torch.autograd.grad(ours, [points, *scales], upstream, retain_graph=True)
        expected, *of_single = torch.autograd.grad(theirs, [points, *single], upstream.float(), retain_graph=True)
        for one, other in zip(of_planes, of_single):
            assert one.dtype == dtype
            torch.testing.assert_close(one.float(), other, **close)
        # The points' gradient sums differences of either sign in float32, and is not rounded to the planes' type.
        torch.testing.assert_close(of_points, expected, rtol=1e-5, atol=1e-5)

        # Gradients that nobody asks for, and no points at all.
        (one,) = torch.autograd.grad(ours, scales[1], upstream)
        torch.testing.assert_close(one.float(), of_single[1], **close)
        (nothing,) = torch.autograd.grad(lookup(scales, points[:0].detach(), "triton").sum(), scales[1])
        assert not nothing.any()
"""

SMOOTHNESS = """
import torch
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

TRIAL = """
from dataclasses import replace
import torch
from dac_nerfstudio.kplanes import lookup, rays, regularizers
from dac_nerfstudio.kplanes.backends import triton
from dac_nerfstudio.kplanes.backends.trial import Case, failure

single = Case("lookup", "triton", "cpu", torch.float32, torch.float32, 32, 3, True, True)
cases = [
    single,
    replace(single, points_gradient=False),
    replace(single, channels=8, scales=1),
    replace(single, planes=torch.float16),
    replace(single, planes=torch.float16, points=torch.float16),
    replace(single, planes=torch.bfloat16),
]
for case in cases:
    assert failure(case, lookup.example) is None, f"{case}: {failure(case, lookup.example)}"
rest = Case("sampling of rays", "triton", "cpu", torch.float32, torch.float32, 0, 0, True, False)
assert failure(rest, rays.example) is None
smooth = replace(single, operation="total variation")
assert failure(smooth, regularizers.smoothness_example) is None

# Kernels that do nothing are found out, each by the cases that need it.
class Idle:
    def __getitem__(self, grid):
        return lambda *args, **constants: None

failure.cache_clear()
triton._backward = triton._differentiate_squares = Idle()
teacher = replace(single, planes=torch.float16, planes_gradient=False, points_gradient=False)
assert failure(teacher, lookup.example) is None
assert isinstance(failure(single, lookup.example), AssertionError)
assert isinstance(failure(smooth, regularizers.smoothness_example), AssertionError)
triton._forward = Idle()
failure.cache_clear()
assert isinstance(failure(teacher, lookup.example), AssertionError)
"""


ALONG_RAYS = f"""
import pytest
tests = {str(Path(__file__).parents[1] / "test_along_rays.py")!r}
raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", tests]))
"""


@pytest.mark.parametrize(
    "program", [LOOKUP, SMOOTHNESS, TRIAL, ALONG_RAYS], ids=["lookup", "smoothness", "trial", "along rays"]
)
def test_kernels(program: str) -> None:
    # Triton reads the variable when it is imported, which torch may have done here already.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_total_variation_refuses_planes_that_it_would_misread(dtype: torch.dtype) -> None:
    triton = pytest.importorskip("dac_nerfstudio.kplanes.backends.triton")
    with pytest.raises(TypeError, match=f"is for planes in float32, not {dtype}."):
        triton.squared_differences(torch.ones(3, 4, 4, 8, dtype=dtype))
