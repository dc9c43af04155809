"""What keeps the planes smooth and the density compact."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Iterable, List, Optional

import torch
from jaxtyping import Float
from torch import Tensor

from dac_nerfstudio.kplanes import lookup
from dac_nerfstudio.kplanes.backends.trial import Backend, Case, works


def plane_tv(scales: Iterable[Float[Tensor, "3 R R C"]]) -> Float[Tensor, ""]:
    """Total variation of feature planes: mean squared difference of neighbours along rows plus along columns,
    averaged over the planes of all scales.

    K-Planes, arXiv 2301.10241, eq. 5. The reference implementation's value is 4 x the sum over planes.
    """
    scales = list(scales)
    return torch.stack([squared_differences(scale) for scale in scales]).sum() / sum(len(scale) for scale in scales)


def squared_differences(scale: Float[Tensor, "P R R C"], backend: Optional[Backend] = None) -> Float[Tensor, ""]:
    """Mean squared difference of neighbours along rows plus along columns of each plane, summed over planes.

    Args:
        backend: who computes it; by default the fastest that works for this tensor.
    """
    if backend is None:
        case = smoothness_case_of(scale)
        backend = case.backend if case is not None and works(case, smoothness_example) else "reference"
    if backend != "reference":
        return import_module(f"dac_nerfstudio.kplanes.backends.{backend}").squared_differences(scale)
    rows = (scale[:, 1:] - scale[:, :-1]).square().mean(dim=(1, 2, 3))
    columns = (scale[:, :, 1:] - scale[:, :, :-1]).square().mean(dim=(1, 2, 3))
    return (rows + columns).sum()


def smoothness_case_of(scale: Float[Tensor, "P R R C"]) -> Optional[Case]:
    """What the fastest backend would have to be compiled for, or None where only the reference will do."""
    case = lookup.case_of([scale], scale) if scale.dtype == torch.float32 else None
    return None if case is None else replace(case, operation="total variation", points_gradient=False)


def smoothness_example(case: Case, backend: Backend) -> List[Tensor]:
    """Total variation of planes of 3 x 3 points, and its gradient if the case asks for it."""
    numbers = torch.linspace(-1, 1, 27 * case.channels, device=case.device).square().view(3, 3, 3, case.channels)
    scale = numbers.requires_grad_(case.planes_gradient)
    value = squared_differences(scale, backend)
    return [value.detach(), *(torch.autograd.grad(0.7 * value, scale) if case.planes_gradient else ())]


def distortion(
    weights: Float[Tensor, "rays samples"], edges: Float[Tensor, "rays samples_plus_1"]
) -> Float[Tensor, ""]:
    """Distortion loss of mip-NeRF 360 (arXiv 2111.12077, eq. 15), mean over rays, in O(samples).

    Args:
        edges: of the samples' bins in normalised ray space [0, 1], ascending.

    The double sum over pairs folds into running sums because midpoints are sorted:
    sum_ij w_i w_j |m_i - m_j| = 2 sum_i w_i (m_i W_i - M_i), with W_i and M_i the sums of w_j and w_j m_j over j < i
    (Sun et al., arXiv 2206.05085).
    """
    midpoints = (edges[:, 1:] + edges[:, :-1]) / 2
    moments = weights * midpoints
    weights_before = weights.cumsum(dim=-1) - weights
    moments_before = moments.cumsum(dim=-1) - moments
    between = 2 * (weights * (midpoints * weights_before - moments_before)).sum(dim=-1)
    within = (weights.square() * edges.diff(dim=-1)).sum(dim=-1) / 3
    return (between + within).mean()
