"""The plane lookup, by whichever implementation is fastest for the tensors at hand.

Shapes used throughout: a *scale* is ``[3, R, R, C]``, the planes xy, xz and yz with channels last, so that the C
features of a grid corner lie side by side in memory. Points are in [-1, 1]^3. Corners of a plane lie at -1 and 1
(``align_corners``); a point outside takes the border's value, and a coordinate that is NaN counts as -1.
"""

from __future__ import annotations

from importlib import import_module
from typing import List, Literal, Optional, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dac_nerfstudio.kplanes.backends.trial import Backend, Case, works

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""(column axis, row axis) of each plane: xy, xz, yz."""
HALF_OR_SINGLE = (torch.float16, torch.bfloat16, torch.float32)


def interpolate_planes(
    planes: Float[Tensor, "3 R R C"], points: Float[Tensor, "points 3"]
) -> Float[Tensor, "points C"]:
    """Product over the three planes of the bilinear interpolation at each point's projection.

    K-Planes, arXiv 2301.10241, eq. 1 and 2. The plain implementation that all others are held against.
    """
    points = points.nan_to_num(nan=-1.0)  # grid_sample does the same on CUDA, but reads beyond the planes on the CPU
    coordinates = torch.stack([torch.stack((points[:, c], points[:, r]), dim=-1) for c, r in PLANE_AXES])
    features = F.grid_sample(
        planes.permute(0, 3, 1, 2),
        coordinates[:, None],  # [3, 1, points, 2]
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
    return import_module(f"dac_nerfstudio.kplanes.backends.{backend}").lookup(scales, points)


def choose(scales: Sequence[Tensor], points: Tensor) -> Backend:
    """The fastest backend for these tensors that works here."""
    case = case_of(scales, points)
    return case.backend if case is not None and works(case, example) else "reference"


def case_of(scales: Sequence[Tensor], points: Tensor) -> Optional[Case]:
    """What the fastest backend would have to be compiled for, or None where only the reference will do."""
    first = scales[0]
    regular = all(
        scale.device == points.device
        and scale.dtype == first.dtype
        and scale.shape[3] == first.shape[3]
        and scale.shape[1] == scale.shape[2] >= 2
        and scale.is_contiguous()
        for scale in scales
    )
    backend: Literal["cpu", "triton"]
    if regular and points.is_cuda and first.dtype in HALF_OR_SINGLE and points.dtype in HALF_OR_SINGLE:
        backend = "triton"
    elif regular and points.device.type == "cpu" and first.dtype == points.dtype == torch.float32:
        backend = "cpu"
    else:
        return None
    learning = torch.is_grad_enabled()
    return Case(
        operation="lookup",
        backend=backend,
        device=str(points.device),
        planes=first.dtype,
        points=points.dtype,
        channels=first.shape[3],
        scales=len(scales),
        planes_gradient=learning and any(scale.requires_grad for scale in scales),
        points_gradient=learning and points.requires_grad,
    )


def example(case: Case, backend: Backend) -> List[Tensor]:
    """Features of two points, and their gradients as far as the case asks for them."""
    shape, device = (3, 2, 2, case.channels), case.device
    numbers = torch.linspace(0.1, 0.9, 12 * case.channels, device=device).view(shape)
    scales = [(numbers / number).to(case.planes) for number in range(1, case.scales + 1)]
    points = torch.linspace(-0.9, 1.1, 6, device=device).view(2, 3).to(case.points)
    if backend == "reference":
        scales, points = [scale.float() for scale in scales], points.float()
    wanted = [scale.requires_grad_() for scale in scales if case.planes_gradient]
    wanted += [points.requires_grad_()] if case.points_gradient else []
    features = lookup(scales, points, backend)
    upstream = torch.linspace(0.5, 1, features.numel(), device=device).to(case.planes).to(features.dtype)
    gradients = torch.autograd.grad(features, wanted, upstream.view_as(features)) if wanted else ()
    return [features.detach(), *gradients]
