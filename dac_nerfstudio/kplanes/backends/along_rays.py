"""What is computed along rays by kernels: autograd around them. See ``dac_nerfstudio.kplanes.rays``.

The kernels of a device are a module, ``cpu_rays`` or ``triton_rays``, with the same functions.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def positions(kernels: ModuleType, origins: Tensor, directions: Tensor, distances: Tensor) -> Tensor:
    out = distances.new_empty(len(distances), distances.shape[1] - 1, 3)
    kernels.positions(distances, origins, directions, out)
    return out


class _Opacities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: ModuleType, density: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
        ctx.kernels = kernels
        kept, alphas, weights = kernels.opacities(density, distances)
        ctx.save_for_backward(kept, distances, weights)
        return alphas, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        gradient = torch.empty_like(ctx.saved_tensors[2])
        ctx.kernels.differentiate_opacities(*ctx.saved_tensors, *upstream, gradient)
        return None, gradient, None


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: ModuleType, weights: Tensor, colours: Tensor, background: Tensor) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(weights, colours, background)
        out = weights.new_empty(len(weights), 3)
        kernels.composite(weights, colours, background, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        gradients = [one.new_empty(one.shape) for one in ctx.saved_tensors[:2]]
        ctx.kernels.differentiate_composite(*ctx.saved_tensors, *upstream, *gradients)
        return (None, *gradients, None)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: ModuleType, features: Tensor, head: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        ctx.kernels = kernels
        ctx.save_for_backward(features, head, basis)
        by_head, by_basis = features.new_empty(features.shape[:2]), features.new_empty(*features.shape[:2], 3)
        kernels.products(features, head, basis, by_head, by_basis)
        return by_head, by_basis

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        features, head, basis = ctx.saved_tensors
        gradients = [head.new_empty(shape) for shape in (features.shape, basis.shape[::2], basis.shape)]
        ctx.kernels.differentiate_products(features, head, basis, *upstream, *gradients)
        in_features, in_head, in_basis = gradients  # the head's by ray
        return None, in_features, in_head.sum(dim=0), in_basis


def resample(kernels: ModuleType, edges: Tensor, weights: Tensor, quantiles: Tensor, padding: float) -> Tensor:
    out = edges.new_empty(quantiles.shape)
    kernels.resample(weights, edges, quantiles, out, padding)
    return out


class _Excess(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: ModuleType, coarse: Tensor, coarse_edges: Tensor, mass: Tensor, edges: Tensor, least: float
    ) -> Tensor:
        sums, slopes = mass.new_empty(len(mass)), coarse.new_empty(coarse.shape)
        kernels.excess(coarse, coarse_edges, mass, edges, sums, slopes, least, 1 / max(mass.numel(), 1))
        ctx.save_for_backward(slopes)
        return sums.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        (slopes,) = ctx.saved_tensors
        return None, slopes * upstream[0], None, None, None, None


opacities, composite, products, excess = _Opacities.apply, _Composite.apply, _Products.apply, _Excess.apply
