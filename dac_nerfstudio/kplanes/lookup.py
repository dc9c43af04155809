"""The plane lookup, by whichever implementation is fastest for the tensors at hand.

Shapes used throughout: a *scale* is ``[3, R, R, C]``, the planes xy, xz and yz with channels last, so that the C
features of a grid corner lie side by side in memory. Points are in [-1, 1]^3. Corners of a plane lie at -1 and 1
(``align_corners``); a point outside takes the border's value, and a coordinate that is NaN counts as -1.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Literal, Optional, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""(column axis, row axis) of each plane: xy, xz, yz."""
Backend = Literal["reference", "cpu", "triton"]
COMPILERS = {"cpu": "numba", "triton": "triton"}
"""The package that each of the fast backends needs."""
HALF_OR_SINGLE = (torch.float16, torch.bfloat16, torch.float32)


def interpolate_planes(
    planes: Float[Tensor, "3 R R C"], points: Float[Tensor, "points 3"]
) -> Float[Tensor, "points C"]:
    """Product over the three planes of the bilinear interpolation at each point's projection.

    K-Planes, arXiv 2301.10241, eq. 1 and 2. The plain implementation that all others are held against.
    """
    columns, rows = zip(*PLANE_AXES)
    points = points.nan_to_num(nan=-1.0)  # grid_sample does the same on CUDA, but reads beyond the planes on the CPU
    coordinates = torch.stack((points[:, columns], points[:, rows]), dim=-1)  # [points, 3, 2]
    features = F.grid_sample(
        planes.permute(0, 3, 1, 2),
        coordinates.transpose(0, 1)[:, None],
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )  # [3, C, 1, points]
    xy, xz, yz = features[:, :, 0]
    return (xy * xz * yz).transpose(0, 1)


def lookup(
    scales: Sequence[Float[Tensor, "3 R R C"]], points: Float[Tensor, "points 3"], backend: Optional[Backend] = None
) -> Float[Tensor, "points SC"]:
    """Features of points: ``interpolate_planes`` of each scale, concatenated. Differentiable once in planes and points.

    Args:
        backend: who computes it; by default the fastest that works for these tensors.
    """
    backend = choose(scales, points) if backend is None else backend
    if backend == "reference":
        return torch.cat([interpolate_planes(planes, points) for planes in scales], dim=-1)
    # Imported late: both bring a compiler with them.
    if backend == "cpu":
        from dac_nerfstudio.kplanes.backends import cpu

        return cpu.lookup(scales, points)
    from dac_nerfstudio.kplanes.backends import triton

    return triton.lookup(scales, points)


def choose(scales: Sequence[Tensor], points: Tensor) -> Backend:
    """The fastest backend for these tensors that works here."""
    first = scales[0]
    regular = all(
        scale.device == points.device
        and scale.dtype == first.dtype
        and scale.shape[3] == first.shape[3]
        and scale.shape[1] == scale.shape[2] >= 2
        and scale.is_contiguous()
        for scale in scales
    )
    if not regular:
        return "reference"
    backend: Backend = "reference"
    if points.is_cuda and first.dtype in HALF_OR_SINGLE and points.dtype in HALF_OR_SINGLE:
        backend = "triton"
    elif points.device.type == "cpu" and first.dtype == points.dtype == torch.float32:
        backend = "cpu"
    return backend if backend == "reference" or works(backend, str(points.device)) else "reference"


@lru_cache(maxsize=None)
def works(backend: Literal["cpu", "triton"], device: str) -> bool:
    """Whether a backend gets a small example right. If not, one warning says why, and what to install.

    The first call of a process compiles the kernels or loads them from their cache on disk.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            planes = torch.linspace(0.1, 0.9, 3 * 2 * 2 * 8, device=device).view(3, 2, 2, 8).requires_grad_()
            points = torch.linspace(-0.9, 1.1, 6, device=device).view(2, 3)
            features = lookup([planes], points, backend)
            (gradient,) = torch.autograd.grad(features.sum(), planes)
            expected = interpolate_planes(planes, points)
            (expected_gradient,) = torch.autograd.grad(expected.sum(), planes)
        torch.testing.assert_close((features, gradient), (expected, expected_gradient))
    except Exception as problem:
        what = "is not installed" if isinstance(problem, ImportError) else "does not work"
        warnings.warn(
            f"{COMPILERS[backend]} {what} here ({type(problem).__name__}: {problem}), so the planes are looked up by "
            f"plain PyTorch. To have the fast lookup: pip install --upgrade {COMPILERS[backend]}",
            stacklevel=2,
        )
        return False
    return True
