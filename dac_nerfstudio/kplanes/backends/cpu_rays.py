"""Runs numba's kernels along rays. See ``dac_nerfstudio.kplanes.backends.along_rays``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dac_nerfstudio.kplanes.backends import ray_kernels as kernels
from dac_nerfstudio.kplanes.backends.running import array_of, run_ranges, threads_for, width_of


def run(kernel: Callable[..., None], *arguments: Any) -> None:
    """A kernel for all rays, the first axis of the first tensor; the largest says how many threads it is worth."""
    tensors = [one for one in arguments if isinstance(one, Tensor)]
    arrays = [array_of(one) if isinstance(one, Tensor) else one for one in arguments]
    work = threads_for(max(one.numel() for one in tensors))
    run_ranges(lambda start, stop: kernel(*arrays, start, stop), 0, len(tensors[0]), work)


positions = partial(run, kernels.positions)
differentiate_opacities = partial(run, kernels.differentiate_opacities)
composite = partial(run, kernels.composite)
differentiate_composite = partial(run, kernels.differentiate_composite)
resample = partial(run, kernels.resample)
excess = partial(run, kernels.excess)


def opacities(density: Tensor, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the way back needs, opacities and weights."""
    passed = distances.diff().mul_(density).neg_().exp_()
    alphas, weights = torch.empty_like(passed), torch.empty_like(passed)
    run(kernels.opacities, passed, alphas, weights)
    return passed, alphas, weights


def products(features: Tensor, head: Tensor, *others: Tensor) -> None:
    run(kernels.products, features, head, *others, width_of(len(head)))


def differentiate_products(features: Tensor, head: Tensor, *others: Tensor) -> None:
    run(kernels.differentiate_products, features, head, *others, width_of(len(head)))
