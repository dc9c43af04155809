"""What is computed along each ray, by kernels (``dac_nerfstudio.kplanes.backends.along_rays``) or in plain PyTorch.

Distances, edges, quantiles and backgrounds have no gradient. A ``backend`` is who computes it, by default the fastest
that works for the tensors.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import List, Literal, Optional

import torch
from jaxtyping import Float
from nerfstudio.model_components.losses import EPS, lossfun_outer
from torch import Tensor

from dac_nerfstudio.kplanes.backends import along_rays
from dac_nerfstudio.kplanes.backends.trial import Backend, Case, works

PADDING = 0.01
"""Added to the weight of each bin before the next level is drawn, so that no bin is never looked into."""


@lru_cache(maxsize=None)
def case_on(device: torch.device) -> Optional[Case]:
    """What kernels are compiled for on a device, or None where there are none."""
    if device.type not in ("cpu", "cuda"):
        return None
    backend: Literal["cpu", "triton"] = "cpu" if device.type == "cpu" else "triton"
    return Case("sampling of rays", backend, str(device), torch.float32, torch.float32, 0, 0, True, False)


def choose(*tensors: Tensor) -> Backend:
    """Who is fastest for these tensors, and works here."""
    device = tensors[0].device
    case = case_on(device)
    fit = all(tensor.device == device and tensor.dtype == torch.float32 for tensor in tensors)
    return case.backend if fit and case is not None and works(case, example) else "reference"


def kernels_for(backend: Optional[Backend], *tensors: Tensor) -> Optional[ModuleType]:
    """The kernels of a backend, by default of the fastest; None for plain PyTorch."""
    chosen = backend or choose(*tensors)
    # Imported late: both bring a compiler with them.
    return None if chosen == "reference" else import_module(f"dac_nerfstudio.kplanes.backends.{chosen}_rays")


def positions(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    distances: Float[Tensor, "rays bins_plus_1"],
    backend: Optional[Backend] = None,
) -> Float[Tensor, "rays bins 3"]:
    """Points in the middle of bins whose edges have these distances from the origin."""
    learned = origins.requires_grad or directions.requires_grad  # with their cameras
    kernels = None if learned else kernels_for(backend, origins, directions, distances)
    if kernels is not None:
        return along_rays.positions(kernels, origins, directions, distances)
    middles = (distances[:, 1:] + distances[:, :-1]) / 2
    return torch.addcmul(origins[:, None], directions[:, None], middles[..., None])


def opacities(
    density: Float[Tensor, "rays bins"],
    distances: Float[Tensor, "rays bins_plus_1"],
    backend: Optional[Backend] = None,
) -> tuple[Float[Tensor, "rays bins"], Float[Tensor, "rays bins"]]:
    """Opacity of each bin by itself, and its share of the ray's colour (NeRF, arXiv 2003.08934, eq. 3); ``distances``
    are those of the bins' edges."""
    kernels = kernels_for(backend, density, distances)
    if kernels is not None:
        return along_rays.opacities(kernels, density, distances)
    depth = density * distances.diff()
    alphas = 1 - torch.exp(-depth)
    before = depth[:, :-1].cumsum(dim=-1)
    transmittance = torch.exp(-torch.cat((torch.zeros_like(depth[:, :1]), before), dim=-1))
    return alphas, torch.nan_to_num(alphas * transmittance)


def composite(
    weights: Float[Tensor, "rays samples"],
    colours: Float[Tensor, "rays samples 3"],
    background: Float[Tensor, "3"],
    backend: Optional[Backend] = None,
) -> Float[Tensor, "rays 3"]:
    """Colour of rays whose samples have these shares of it, the background the rest."""
    kernels = kernels_for(backend, weights, colours, background)
    if kernels is not None:
        return along_rays.composite(kernels, weights, colours, background)
    return (weights[..., None] * colours).sum(dim=-2) + background * (1 - weights.sum(dim=-1, keepdim=True))


def products(
    features: Float[Tensor, "rays samples C"],
    head: Float[Tensor, "C"],
    basis: Float[Tensor, "rays 3 C"],
    backend: Optional[Backend] = None,
) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples 3"]]:
    """Scalar products of each sample's features with the head, and with the three vectors of its ray."""
    kernels = kernels_for(backend, features, head, basis)
    if kernels is not None:
        return along_rays.products(kernels, features, head, basis)
    return features @ head, features @ basis.transpose(1, 2)


@torch.no_grad()
def resample(
    edges: Float[Tensor, "rays bins_plus_1"],
    weights: Float[Tensor, "rays bins"],
    quantiles: Float[Tensor, "rays n"],
    backend: Optional[Backend] = None,
) -> Float[Tensor, "rays n"]:
    """Edges of new bins: the inverse at ``quantiles`` of the distribution that is even in each bin and has its weight.

    Weights of 3 and 1 in bins [0, 0.5] and [0.5, 1] have quantiles 0.375 and 0.75 at 0.25 and 0.5 (but for PADDING).

    Args:
        quantiles: of each ray, ascending, in [0, 1].
    """
    kernels = kernels_for(backend, edges, weights, quantiles)
    if kernels is not None:
        return along_rays.resample(kernels, edges, weights, quantiles, PADDING)
    weights = weights + PADDING
    share = weights / weights.sum(dim=-1, keepdim=True)
    cumulative = torch.nn.functional.pad(share.cumsum(dim=-1).clamp(max=1), (1, 0))
    above = torch.searchsorted(cumulative, quantiles, side="right")
    below = (above - 1).clamp(min=0)
    above = above.clamp(max=edges.shape[-1] - 1)
    low, high = cumulative.gather(-1, below), cumulative.gather(-1, above)
    start, end = edges.gather(-1, below), edges.gather(-1, above)
    within = torch.nan_to_num((quantiles - low) / (high - low), 0).clamp(0, 1)
    return start + within * (end - start)


def excess(
    edges: Float[Tensor, "rays samples_plus_1"],
    mass: Float[Tensor, "rays samples"],
    coarse_edges: Float[Tensor, "rays bins_plus_1"],
    coarse: Float[Tensor, "rays bins"],
    backend: Optional[Backend] = None,
) -> Float[Tensor, ""]:
    """How far a coarse histogram falls short of bounding a fine one from above: mip-NeRF 360, arXiv 2111.12077, eq. 13,
    mean over rays and fine bins. The fine one has no gradient."""
    edges, mass = edges.detach(), mass.detach()
    kernels = kernels_for(backend, edges, mass, coarse_edges, coarse)
    if kernels is not None:
        return along_rays.excess(kernels, coarse, coarse_edges, mass, edges, EPS)
    return lossfun_outer(edges, mass, coarse_edges, coarse).mean()


def example(case: Case, backend: Backend) -> List[Tensor]:
    """All that there is along two rays, and the gradients of what their colours are made from."""
    numbers = torch.linspace(0.1, 0.9, 2 * 3 * 8, device=case.device)
    features, basis = numbers.view(2, 3, 8).requires_grad_(), numbers.flip(0).view(2, 3, 8).requires_grad_()
    edges = torch.tensor([[0.0, 0.2, 0.5, 1.0]] * 2, device=case.device)
    places = positions(numbers[:6].view(2, 3), numbers[6:12].view(2, 3), edges, backend)
    density, logits = products(features, basis[0, 0], basis, backend)
    alphas, weights = opacities(density, edges, backend)
    rgb = composite(weights, logits, edges[0, 1:], backend)
    again = resample(edges, weights.detach(), edges[:, :-1] + 0.1, backend)
    short = excess(edges[:, :-1], 2 * alphas[:, :2], edges, weights, backend)
    upstream = torch.linspace(0.5, 1, 6, device=case.device).view(2, 3)
    gradients = torch.autograd.grad((upstream * (rgb + alphas)).sum() + short, (features, basis))
    return [places, alphas.detach(), weights.detach(), rgb.detach(), again, short.detach(), *gradients]
