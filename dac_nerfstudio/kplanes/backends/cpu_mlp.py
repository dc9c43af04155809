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
from dac_nerfstudio.kplanes.backends.running import array_of, run_ranges, run_tasks, threads_for

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
    """Hidden layers are not kept for the way back, but computed again: that is cheaper than to write them to memory and
    to read them from there."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, points: Tensor, shift: Optional[Tensor], *weights: Tensor) -> Tensor:
        ctx.save_for_backward(points, shift, *weights)
        out = np.empty((len(points), len(weights[-1])), np.float32)
        ctx.arguments = arguments = _arguments(points, shift, weights)
        run_ranges(
            lambda start, stop: kernels.forward(*arguments, out, start, stop, WIDTH),
            0,
            len(points),
            threads_for(out.size),
        )
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        points, shift, *weights = ctx.saved_tensors
        in_points = np.empty(points.shape, np.float32) if ctx.needs_input_grad[0] else NONE
        in_shift = NONE if shift is None else np.zeros((len(shift), _padded(shift.shape[1])), np.float32)
        # Each task sums what is its own: results don't depend on threads.
        samples = 1 if shift is None else len(points) // len(shift)
        size = max(POINTS // samples, 1) * samples
        tasks = -(-len(points) // size)
        panels = _panels([array_of(weight) for weight in weights])
        in_weights = np.zeros((tasks, panels.size), np.float32)
        arguments = *ctx.arguments, panels, array_of(upstream[0]), in_points, in_shift

        def differentiate(task: int) -> None:
            begin, end = task * size, min((task + 1) * size, len(points))
            kernels.backward(*arguments, in_weights[task], begin, end, WIDTH)

        run_tasks(differentiate, tasks, threads_for(upstream[0].numel()))
        return (
            torch.from_numpy(in_points) if ctx.needs_input_grad[0] else None,
            None if shift is None else torch.from_numpy(in_shift)[:, : shift.shape[1]],
            *_matrices(in_weights.sum(axis=0), weights),
        )


def _arguments(points: Tensor, shift: Optional[Tensor], weights: Sequence[Tensor]) -> tuple[Any, ...]:
    """Arguments of both kernels."""
    samples = 1 if shift is None else len(points) // len(shift)
    sizes = np.array([points.shape[1], *map(len, weights)])
    transposed = _panels([array_of(weight).T for weight in weights])
    padded = NONE if shift is None else array_of(F.pad(shift.detach(), (0, -shift.shape[1] % LANES)))
    return array_of(points), padded, samples, sizes, transposed


def in_cache(points: Tensor, shift: Optional[Tensor], *weights: Tensor) -> Tensor:
    return _InCache.apply(points, shift, *weights)
