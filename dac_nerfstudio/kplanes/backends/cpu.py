"""The plane lookup and total variation on the CPU: autograd around the numba kernels."""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dac_nerfstudio.kplanes.backends import cpu_kernels as kernels
from dac_nerfstudio.kplanes.backends.running import array_of, empty, run_ranges, run_tasks, threads_for, width_of, zeros

LINE = 16
"""Channels in a line of the cache, on which no two threads should write."""


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, *scales: Tensor) -> Tensor:
        ctx.save_for_backward(points, *scales)
        planes, where = [array_of(scale) for scale in scales], array_of(points)
        channels = planes[0].shape[3]
        out = empty(len(where), channels * len(planes))
        width = width_of(channels)

        def interpolate(start: int, stop: int) -> None:
            for number, scale in enumerate(planes):
                kernels.interpolate(scale, where, out, number * channels, start, stop, width)

        run_ranges(interpolate, 0, len(where), threads_for(out.size))
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        points, *scales = ctx.saved_tensors
        points_wanted, *planes_wanted = ctx.needs_input_grad
        planes, where, features = [array_of(scale) for scale in scales], array_of(points), array_of(upstream[0])
        channels = planes[0].shape[3]
        width = width_of(channels)
        parts = threads_for(features.size)
        gradients = [zeros(scale.shape, parts) if wanted else None for scale, wanted in zip(planes, planes_wanted)]
        points_gradient = np.zeros_like(where) if points_wanted else None
        # What is summed up by one thread: some channels of a scale or, where there are more threads, of a plane.
        lines = [(start, min(start + LINE, channels)) for start in range(0, channels, LINE)]
        targets = [(number, line) for number in reversed(range(len(planes))) if planes_wanted[number] for line in lines]
        one_by_one = parts > len(targets)
        sums = [(*target, plane) for target in targets for plane in (range(3) if one_by_one else (-1,))]

        def add_up(task: int) -> None:
            number, line, plane = sums[task]
            kernels.differentiate_planes(
                planes[number], where, features, number * channels, gradients[number], *line, plane, width
            )

        def differentiate_points(start: int, stop: int) -> None:
            for number, scale in enumerate(planes):
                kernels.differentiate_points(
                    scale, where, features, number * channels, points_gradient, start, stop, width
                )

        run_tasks(add_up, len(sums), parts)
        if points_wanted:
            run_ranges(differentiate_points, 0, len(where), parts)
        return tuple(None if array is None else torch.from_numpy(array) for array in (points_gradient, *gradients))


def lookup(scales: Sequence[Float[Tensor, "3 R R C"]], points: Float[Tensor, "points 3"]) -> Float[Tensor, "points SC"]:
    """``dac_nerfstudio.kplanes.lookup.lookup`` for float32 on the CPU, R >= 2 and the same C in all scales."""
    return _Lookup.apply(points, *scales)


class _MeanSquaredDifferences(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        planes = array_of(scale)
        rows = planes.shape[0] * planes.shape[1]
        sums = np.empty((rows, 2), np.float32)
        width = width_of(planes.shape[3])
        run_ranges(
            lambda start, stop: kernels.squared_differences(planes, sums, start, stop, width),
            0, rows, threads_for(planes.size),
        )  # fmt: skip
        return torch.tensor(sums.sum(dtype=np.float64) / _pairs(scale), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (scale,) = ctx.saved_tensors
        planes = array_of(scale)
        gradient = empty(*planes.shape)
        factor = np.float32(upstream[0].item() / _pairs(scale))
        width = width_of(planes.shape[3])
        run_ranges(
            lambda start, stop: kernels.differentiate_squares(planes, factor, gradient, start, stop, width),
            0, planes.shape[0] * planes.shape[1], threads_for(planes.size),
        )  # fmt: skip
        return torch.from_numpy(gradient)


def _pairs(scale: Tensor) -> int:
    """Neighbours along rows of a plane; as many as along columns."""
    _, size, _, channels = scale.shape
    return size * (size - 1) * channels


def squared_differences(scale: Float[Tensor, "3 R R C"]) -> Float[Tensor, ""]:
    """``dac_nerfstudio.kplanes.regularizers.squared_differences`` for float32 on the CPU and R >= 2."""
    return _MeanSquaredDifferences.apply(scale)
