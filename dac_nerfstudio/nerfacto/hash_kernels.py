"""The hash grid on the CPU: numba kernels and autograd around them. Import late: this imports numba and LLVM.

As in ``dac_nerfstudio.kplanes.backends``, kernels run without the GIL in as many threads as torch has, and results do
not depend on their number. The features of a table's entry are one SIMD vector, as long as the tuple ``width``.

Arrays are C-contiguous float32: a level's table [entries, features], whose entries are a power of two; points
[points, 3]; features and their gradient ``upstream`` [points, levels x features]. Numba checks no bounds; whatever the
coordinates, entries lie within the table.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from dac_nerfstudio.kplanes.backends.compiling import kernel
from dac_nerfstudio.kplanes.backends.cpu_kernels import FLOAT_BYTES, broadcast, load, store, total
from dac_nerfstudio.kplanes.backends.running import array_of, empty, run_ranges, run_tasks, threads_for, zeros

PRIMES = (1, 2654435761, 805459861)
"""Factors of x, y and z in the hash; nerfstudio's numbers."""


@njit(inline="always")
def locate(coordinate, scale, prime):
    """The hash's terms for the lower and the upper corner, the same on a corner, and the upper corner's share."""
    position = coordinate * scale
    low = np.floor(position)
    return int(low) * prime, int(np.ceil(position)) * prime, position - low


@njit(inline="always")
def cell(points, i, scale, mask, entry):
    """Byte offsets in the table of the corners around a point, x fastest and z slowest, and shares of the upper ones.

    Args:
        mask: entries of the table less one.
        entry: bytes of each.
    """
    x, x1, u = locate(points[i, 0], scale, PRIMES[0])
    y, y1, v = locate(points[i, 1], scale, PRIMES[1])
    z, z1, w = locate(points[i, 2], scale, PRIMES[2])
    a, b, c, d = y ^ z, y1 ^ z, y ^ z1, y1 ^ z1
    below = ((x ^ a) & mask) * entry, ((x1 ^ a) & mask) * entry, ((x ^ b) & mask) * entry, ((x1 ^ b) & mask) * entry
    above = ((x ^ c) & mask) * entry, ((x1 ^ c) & mask) * entry, ((x ^ d) & mask) * entry, ((x1 ^ d) & mask) * entry
    return below + above, u, v, w


@njit(inline="always")
def bilinear(u, v):
    """Weights of the four corners of a cell's side, u fastest."""
    one = np.float32(1)
    return (one - u) * (one - v), u * (one - v), (one - u) * v, u * v


@njit(inline="always")
def blend(base, corners, weights, width):
    """Weighted sum of the entries at a side's four corners."""
    result = load(base + corners[0], width) * broadcast(weights[0], width)
    for k in range(1, 4):
        result = load(base + corners[k], width) * broadcast(weights[k], width) + result
    return result


@kernel
def interpolate(table, points, scale, out, offset, start, stop, width):
    """Write a level's features of points ``start`` to ``stop`` to the columns of ``out`` from ``offset`` on."""
    entry, mask, base = len(width) * FLOAT_BYTES, len(table) - 1, table.ctypes.data
    for i in range(start, stop):
        corners, u, v, w = cell(points, i, scale, mask, entry)
        side = bilinear(u, v)
        below, above = blend(base, corners[:4], side, width), blend(base, corners[4:], side, width)
        result = above * broadcast(w, width) + below * broadcast(np.float32(1) - w, width)
        store(out.ctypes.data + (i * out.shape[1] + offset) * FLOAT_BYTES, result)


@njit(inline="always")
def add_to_corners(base, corners, weights, g, width):
    """Add ``g`` to the entries at a side's four corners, each times its weight."""
    for k in range(4):
        target = base + corners[k]
        store(target, g * broadcast(weights[k], width) + load(target, width))


@kernel
def differentiate_table(points, scale, upstream, offset, gradient, width):
    """Add the gradient of a level's table, whose features are the columns from ``offset`` on, to ``gradient``."""
    entry, mask, base = len(width) * FLOAT_BYTES, len(gradient) - 1, gradient.ctypes.data
    for i in range(len(points)):
        corners, u, v, w = cell(points, i, scale, mask, entry)
        side = bilinear(u, v)
        g = load(upstream.ctypes.data + (i * upstream.shape[1] + offset) * FLOAT_BYTES, width)
        add_to_corners(base, corners[:4], side, g * broadcast(np.float32(1) - w, width), width)
        add_to_corners(base, corners[4:], side, g * broadcast(w, width), width)


@kernel
def differentiate_points(table, points, scale, upstream, offset, gradient, start, stop, width):
    """Add what a level gives to the gradient of points ``start`` to ``stop`` to ``gradient`` [points, 3]."""
    entry, mask, base = len(width) * FLOAT_BYTES, len(table) - 1, table.ctypes.data
    for i in range(start, stop):
        (a, b, c, d, e, f, g, h), u, v, w = cell(points, i, scale, mask, entry)
        x_side, y_side, z_side = bilinear(v, w), bilinear(u, w), bilinear(u, v)
        along_x = blend(base, (b, d, f, h), x_side, width) - blend(base, (a, c, e, g), x_side, width)
        along_y = blend(base, (c, d, g, h), y_side, width) - blend(base, (a, b, e, f), y_side, width)
        along_z = blend(base, (e, f, g, h), z_side, width) - blend(base, (a, b, c, d), z_side, width)
        source = load(upstream.ctypes.data + (i * upstream.shape[1] + offset) * FLOAT_BYTES, width)
        gradient[i, 0] += total(source * along_x) * scale
        gradient[i, 1] += total(source * along_y) * scale
        gradient[i, 2] += total(source * along_z) * scale


def _by_level(table: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """A table's entries by level: [levels, entries, features]."""
    return table.reshape(len(scales), -1, table.shape[1])


def _interpolate(points: np.ndarray, table: np.ndarray, scales: np.ndarray) -> np.ndarray:
    width = (0,) * table.shape[1]
    out = empty(len(points), len(scales) * len(width))

    def work(start: int, stop: int) -> None:
        for number, level in enumerate(_by_level(table, scales)):
            interpolate(level, points, scales[number], out, number * len(width), start, stop, width)

    run_ranges(work, 0, len(points), threads_for(out.size))
    return out


def _points_gradient(points: np.ndarray, table: np.ndarray, scales: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    width = (0,) * table.shape[1]
    gradient = np.zeros_like(points)

    def work(start: int, stop: int) -> None:
        for number, level in enumerate(_by_level(table, scales)):
            offset = number * len(width)
            differentiate_points(level, points, scales[number], upstream, offset, gradient, start, stop, width)

    run_ranges(work, 0, len(points), threads_for(upstream.size))
    return gradient


def _table_gradient(points: np.ndarray, shape: Sequence[int], scales: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    width, parts = (0,) * shape[1], threads_for(upstream.size)
    gradient = zeros(shape, parts)
    levels = _by_level(gradient, scales)

    def work(number: int) -> None:  # a level is summed by one thread, in the order of the points
        differentiate_table(points, scales[number], upstream, number * len(width), levels[number], width)

    run_tasks(work, len(scales), parts)
    return gradient


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, scales: Tensor) -> Tensor:
        # Only the points' gradient needs the table's numbers.
        ctx.save_for_backward(points, table if ctx.needs_input_grad[0] else None, scales)
        ctx.shape = table.shape
        return torch.from_numpy(_interpolate(array_of(points), array_of(table), array_of(scales)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        points, table, scales = ctx.saved_tensors
        where, factors, features = array_of(points), array_of(scales), array_of(upstream[0])
        of_points = of_table = None
        if ctx.needs_input_grad[0]:
            of_points = torch.from_numpy(_points_gradient(where, array_of(table), factors, features))
        if ctx.needs_input_grad[1]:
            of_table = torch.from_numpy(_table_gradient(where, ctx.shape, factors, features))
        return of_points, of_table, None


def lookup(
    points: Float[Tensor, "*bs 3"], table: Float[Tensor, "entries features"], scales: Shaped[Tensor, "levels"]
) -> Float[Tensor, "*bs levels_x_features"]:
    """``HashEncoding.pytorch_fwd`` for float32 on the CPU, differentiable once in points and table.

    Args:
        scales: cells along an axis, by level.
    """
    features = _Lookup.apply(points.reshape(-1, 3), table, scales.float())
    return features.view(*points.shape[:-1], features.shape[1])
