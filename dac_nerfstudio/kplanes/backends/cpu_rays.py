"""What is computed along rays on the CPU: autograd around the numba kernels. See ``dac_nerfstudio.kplanes.rays``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dac_nerfstudio.kplanes.backends import ray_kernels as kernels
from dac_nerfstudio.kplanes.backends.running import array_of, run_ranges, threads_for, width_of


def _run(kernel: Callable[..., None], tensors: Sequence[Tensor], *settings: Any) -> None:
    """A kernel for all rays, the first axis of the first tensor; the largest says how many threads it is worth."""
    arrays = [array_of(tensor) for tensor in tensors]
    work = max(array.size for array in arrays)
    run_ranges(lambda start, stop: kernel(*arrays, *settings, start, stop), 0, len(arrays[0]), threads_for(work))


def positions(origins: Tensor, directions: Tensor, distances: Tensor) -> Tensor:
    out = torch.empty(len(distances), distances.shape[1] - 1, 3)
    _run(kernels.positions, (origins, directions, distances, out))
    return out


class _Opacities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, density: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        passed = (density * widths).neg_().exp_()
        alphas, weights = torch.empty_like(passed), torch.empty_like(passed)
        _run(kernels.opacities, (passed, alphas, weights))
        ctx.save_for_backward(passed, weights, widths)
        return alphas, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        gradient = torch.empty_like(ctx.saved_tensors[0])
        _run(kernels.differentiate_opacities, (*ctx.saved_tensors, *upstream, gradient))
        return gradient, None


def opacities(density: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
    return _Opacities.apply(density, widths)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, colours: Tensor, background: Tensor) -> Tensor:
        out = torch.empty(len(weights), 3)
        _run(kernels.composite, (weights, colours, background, out))
        ctx.save_for_backward(weights, colours, background)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        gradients = [torch.empty(one.shape) for one in ctx.saved_tensors[:2]]
        _run(kernels.differentiate_composite, (*ctx.saved_tensors, *upstream, *gradients))
        return (*gradients, None)


def composite(weights: Tensor, colours: Tensor, background: Tensor) -> Tensor:
    return _Composite.apply(weights, colours, background)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, head: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        by_head, by_basis = torch.empty(features.shape[:2]), torch.empty(*features.shape[:2], 3)
        _run(kernels.products, (features, head, basis, by_head, by_basis), width_of(len(head)))
        ctx.save_for_backward(features, head, basis)
        return by_head, by_basis

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, ...]:
        features, head, basis = ctx.saved_tensors
        in_features, in_head, in_basis = (torch.empty(s) for s in (features.shape, basis.shape[::2], basis.shape))
        tensors = features, head, basis, *upstream, in_features, in_head, in_basis
        _run(kernels.differentiate_products, tensors, width_of(len(head)))
        return in_features, in_head.sum(dim=0), in_basis


def products(features: Tensor, head: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    return _Products.apply(features, head, basis)


def resample(edges: Tensor, weights: Tensor, quantiles: Tensor, padding: float) -> Tensor:
    out = torch.empty(quantiles.shape)
    _run(kernels.resample, (edges, weights, quantiles, out), padding)
    return out


class _Excess(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coarse: Tensor, coarse_edges: Tensor, edges: Tensor, mass: Tensor, least: float) -> Tensor:
        sums, slopes = torch.empty(len(mass)), torch.empty(coarse.shape)
        _run(kernels.excess, (coarse, coarse_edges, edges, mass, sums, slopes), np.float32(least))
        ctx.save_for_backward(slopes)
        ctx.count = mass.numel()
        return sums.sum() / ctx.count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        (slopes,) = ctx.saved_tensors
        return slopes * (upstream[0] / ctx.count), None, None, None, None


def excess(edges: Tensor, mass: Tensor, coarse_edges: Tensor, coarse: Tensor, least: float) -> Tensor:
    return _Excess.apply(coarse, coarse_edges, edges, mass, least)
