"""Small multi-layer perceptrons on the CPU: autograd around the numba kernels. See ``dac_nerfstudio.kplanes.mlp``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dac_nerfstudio.kplanes.backends import mlp_kernels as kernels
from dac_nerfstudio.kplanes.backends.running import array_of, run_tasks, threads_for

LANES = kernels.WIDTH
WIDTH = (0,) * LANES
POINTS = 4096
"""Points, about, whose gradients of the weights are summed by one thread."""
NONE = np.zeros((0, 0), np.float32)


def _padded(size: int) -> int:
    return -(-size // LANES) * LANES


def _panels(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Matrices, padded with zeros, as panels one after the other."""
    shapes = [(_padded(columns) // LANES, _padded(rows), LANES) for rows, columns in (one.shape for one in matrices)]
    panels, start = np.zeros(sum(map(math.prod, shapes)), np.float32), 0
    for matrix, shape in zip(matrices, shapes):
        size, (rows, columns), whole = math.prod(shape), matrix.shape, matrix.shape[1] // LANES
        part = panels[start : start + size].reshape(shape)
        part[:whole, :rows] = matrix[:, : whole * LANES].reshape(rows, whole, LANES).swapaxes(0, 1)
        if columns % LANES:
            part[whole, :rows, : columns % LANES] = matrix[:, whole * LANES :]
        start += size
    return panels


def _matrices(panels: np.ndarray, like: Sequence[Tensor]) -> list[Tensor]:
    """Inverse of ``_panels``."""
    matrices, start = [], 0
    for rows, columns in (tensor.shape for tensor in like):
        part = panels[start : start + _padded(rows) * _padded(columns)]
        full = part.reshape(-1, _padded(rows), LANES).swapaxes(0, 1).reshape(_padded(rows), -1)
        matrices.append(torch.from_numpy(full[:rows, :columns].copy()))
        start += part.size
    return matrices


class _InCache(torch.autograd.Function):
    """Hidden layers are kept for the way back as they lie in the cache: to compute them again takes longer."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, learning: bool, points: Tensor, shift: Optional[Tensor], *weights: Tensor) -> Tensor:
        # Each task has whole rays, and sums what is its own: results don't depend on threads.
        ctx.samples = samples = 1 if shift is None else len(points) // len(shift)
        size = max(POINTS // samples, 1) * samples
        ctx.tasks = [(begin, min(begin + size, len(points))) for begin in range(0, len(points), size)]
        ctx.sizes = sizes = np.array([points.shape[1], *map(len, weights)])
        blocks = -(-min(size, len(points)) // kernels.BLOCK) if learning else 0
        inner = sum(_padded(width) for width in sizes[1:-1])
        hidden = np.empty((len(ctx.tasks), blocks * kernels.BLOCK * inner), np.float32)
        out = torch.empty(len(points), len(weights[-1]))
        padded = NONE if shift is None else array_of(F.pad(shift.detach(), (0, -shift.shape[1] % LANES)))
        matrices = _panels([array_of(weight).T for weight in weights])
        where, target = array_of(points), out.numpy()

        def work(task: int) -> None:
            kernels.forward(where, padded, samples, sizes, matrices, hidden[task], target, *ctx.tasks[task], WIDTH)

        run_tasks(work, len(ctx.tasks), threads_for(target.size))
        ctx.save_for_backward(points, shift, torch.from_numpy(hidden), *weights)
        return out

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        points, shift, hidden, *weights = ctx.saved_tensors
        where, layers, above = array_of(points), array_of(hidden), array_of(upstream[0])
        in_points = np.empty(points.shape, np.float32) if ctx.needs_input_grad[1] else NONE
        in_shift = NONE if shift is None else np.zeros((len(shift), _padded(shift.shape[1])), np.float32)
        panels = _panels([array_of(weight) for weight in weights])
        in_weights = np.zeros((len(ctx.tasks), panels.size), np.float32)

        def work(task: int) -> None:
            kernels.backward(
                where, ctx.samples, ctx.sizes, panels, layers[task], above,
                in_points, in_shift, in_weights[task], *ctx.tasks[task], WIDTH,
            )  # fmt: skip

        run_tasks(work, len(ctx.tasks), threads_for(above.size))
        return (
            None,
            torch.from_numpy(in_points) if ctx.needs_input_grad[1] else None,
            None if shift is None else torch.from_numpy(in_shift)[:, : shift.shape[1]],
            *_matrices(in_weights.sum(axis=0), weights),
        )


def in_cache(points: Tensor, shift: Optional[Tensor], *weights: Tensor) -> Tensor:
    inputs = [one for one in (points, shift, *weights) if one is not None]
    return _InCache.apply(torch.is_grad_enabled() and any(one.requires_grad for one in inputs), points, shift, *weights)
