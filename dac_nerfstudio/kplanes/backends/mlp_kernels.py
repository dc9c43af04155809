"""Numba kernels of small multi-layer perceptrons with ReLU: all layers of some points, while they are in the cache.

Matrices are kept in panels: as many columns as a vector has lanes, row by row, one panel after the other. A block of
points is as many panels as it has features. Padded columns and rows are zero, and stay so.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from dac_nerfstudio.kplanes.backends.compiling import kernel
from dac_nerfstudio.kplanes.backends.cpu_kernels import FLOAT, FLOAT_BYTES, Lanes, broadcast, load, store

WIDTH = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
"""Lanes of a vector that this machine has; eight rows of them are summed in its registers at a time."""
ROWS = 8
BLOCK = 128
"""Points whose layers are computed together."""


@intrinsic
def repeat(typingctx: Any, address: types.Type, width: types.UniTuple) -> Any:
    """Lanes that all hold the number at an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        number = builder.load(builder.inttoptr(args[0], FLOAT.as_pointer()))
        undefined = ir.Constant(ir.VectorType(FLOAT, width.count), ir.Undefined)
        first = builder.insert_element(undefined, number, cgutils.int32_t(0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(cgutils.int32_t, width.count), None))

    return Lanes(width.count)(types.intp, width), generate


@njit(inline="always")
def multiply(sums, left, row, step, right, count, width):
    """``sums`` of eight rows plus the products of what lies at ``left`` (``row`` bytes from row to row, ``step`` from
    column to column) with the ``count`` rows of a panel."""
    a, b, c, d, e, f, g, h = sums
    for k in range(count):
        panel = load(right + k * len(width) * FLOAT_BYTES, width)
        at = left + k * step
        a = repeat(at, width) * panel + a
        b = repeat(at + row, width) * panel + b
        c = repeat(at + 2 * row, width) * panel + c
        d = repeat(at + 3 * row, width) * panel + d
        e = repeat(at + 4 * row, width) * panel + e
        f = repeat(at + 5 * row, width) * panel + f
        g = repeat(at + 6 * row, width) * panel + g
        h = repeat(at + 7 * row, width) * panel + h
    return a, b, c, d, e, f, g, h


@njit(inline="always")
def read(at, step, width):
    """Eight rows of lanes."""
    return (
        load(at, width), load(at + step, width), load(at + 2 * step, width), load(at + 3 * step, width),
        load(at + 4 * step, width), load(at + 5 * step, width), load(at + 6 * step, width), load(at + 7 * step, width),
    )  # fmt: skip


@njit(inline="always")
def write(at, step, rows):
    """Store eight rows of lanes."""
    a, b, c, d, e, f, g, h = rows
    store(at, a), store(at + step, b), store(at + 2 * step, c), store(at + 3 * step, d)
    store(at + 4 * step, e), store(at + 5 * step, f), store(at + 6 * step, g), store(at + 7 * step, h)


@njit(inline="always")
def pad(features, width):
    """Columns of as many panels as features fill."""
    return (features + len(width) - 1) // len(width) * len(width)


@njit(error_model="numpy")
def layer(source, target, matrix, used, inside, outside, points, add, width):
    """Put in a block ``target`` of ``outside`` features, or add to it, the product of a block ``source`` with a matrix
    in panels of ``inside`` rows; all but ``used`` of them are zero."""
    row = len(width) * FLOAT_BYTES
    block = BLOCK * row
    zero = broadcast(np.float32(0), width)
    for panel in range(outside // len(width)):
        for point in range(0, points, ROWS):
            at = target + panel * block + point * row
            sums = read(at, row, width) if add else (zero, zero, zero, zero, zero, zero, zero, zero)
            for part in range(0, used, len(width)):
                left = source + part // len(width) * block + point * row
                right = matrix + (panel * inside + part) * row
                sums = multiply(sums, left, row, FLOAT_BYTES, right, min(len(width), used - part), width)
            write(at, row, sums)


@njit(error_model="numpy")
def exchange(block, values, first, count, put, width):
    """Put rows of ``values`` from ``first`` on into a block, with zeros in its other rows and columns, or take them."""
    lanes, columns = len(width), values.shape[1]
    if put:
        block[:] = np.float32(0)
    for panel in range((columns + lanes - 1) // lanes):
        for i in range(count):
            at, start = (panel * BLOCK + i) * lanes, panel * lanes
            if start + lanes <= columns:
                inside = block.ctypes.data + at * FLOAT_BYTES
                outside = values.ctypes.data + ((first + i) * columns + start) * FLOAT_BYTES
                store(inside if put else outside, load(outside if put else inside, width))
            else:
                for k in range(columns - start):
                    if put:
                        block[at + k] = values[first + i, start + k]
                    else:
                        values[first + i, start + k] = block[at + k]


@njit(error_model="numpy")
def set_rows(target, shift, first, count, samples, width):
    """Begin a layer's block with the share that depends on the ray."""
    row = len(width) * FLOAT_BYTES
    for i in range(count):
        of_ray = shift.ctypes.data + min((first + i) // samples, len(shift) - 1) * shift.shape[1] * FLOAT_BYTES
        for panel in range(shift.shape[1] // len(width)):
            store(target + (panel * BLOCK + i) * row, load(of_ray + panel * row, width))


@kernel
def forward(points, shift, samples, sizes, matrices, hidden, out, begin, end, width):
    """Output for points ``begin`` to ``end``.

    Args:
        points: [points, features], the last of which may be a one, for a bias.
        shift: added to the first layer, by ray [rays, width]; none if it is empty, else padded as the layer.
        samples: points of each ray.
        sizes: features of the points, and of each layer.
        matrices: the transposed weights in panels, layer after layer.
        hidden: gets the hidden layers, block after block; or no size, where nobody goes back.
    """
    inputs = np.empty(BLOCK * pad(sizes[0], width), np.float32)
    outputs = np.empty(BLOCK * pad(sizes[-1], width), np.float32)
    inner = BLOCK * pad(sizes[1:-1], width).sum()
    scratch = np.empty(inner if len(hidden) == 0 else 0, np.float32)
    for first in range(begin, end, BLOCK):
        count = min(BLOCK, end - first)
        padded = (count + ROWS - 1) // ROWS * ROWS
        block = (first - begin) // BLOCK * inner
        layers = hidden[block : block + inner] if len(hidden) > 0 else scratch
        exchange(inputs, points, first, count, True, width)
        source, start, offset = inputs.ctypes.data, 0, 0
        for number in range(len(sizes) - 1):
            inside, outside = pad(sizes[number], width), pad(sizes[number + 1], width)
            last = number + 2 == len(sizes)
            result = outputs if last else layers[start : start + BLOCK * outside]
            shifted = number == 0 and len(shift) > 0
            if shifted:
                set_rows(result.ctypes.data, shift, first, padded, samples, width)
            matrix = matrices[offset:].ctypes.data
            layer(source, result.ctypes.data, matrix, sizes[number], inside, outside, padded, shifted, width)
            if not last:
                for i in range(len(result)):
                    result[i] = max(result[i], np.float32(0))
            source, start, offset = result.ctypes.data, start + len(result), offset + inside * outside
        exchange(outputs, out, first, count, False, width)


@kernel
def backward(points, samples, sizes, weights, hidden, upstream, in_points, in_shift, in_weights, begin, end, width):
    """Gradients by points ``begin`` to ``end``: of these and, added, of their rays and of the weights, the latter in
    panels as the weights are here. Gradients of no size are not wanted."""
    lanes, row = len(width), len(width) * FLOAT_BYTES
    most, inner = BLOCK * pad(sizes.max(), width), BLOCK * pad(sizes[1:-1], width).sum()
    inputs = np.empty(BLOCK * pad(sizes[0], width), np.float32)
    gradient, next_gradient = np.empty(most, np.float32), np.empty(most, np.float32)
    for first in range(begin, end, BLOCK):
        count = min(BLOCK, end - first)
        padded = (count + ROWS - 1) // ROWS * ROWS
        exchange(inputs, points, first, count, True, width)
        start, offset = (first - begin) // BLOCK * inner + inner, len(weights)
        exchange(gradient[: BLOCK * pad(sizes[-1], width)], upstream, first, count, True, width)
        for number in range(len(sizes) - 2, -1, -1):
            inside, outside = pad(sizes[number], width), pad(sizes[number + 1], width)
            offset -= inside * outside
            start -= BLOCK * inside
            before = inputs if number == 0 else hidden[start : start + BLOCK * inside]
            source = gradient.ctypes.data
            for panel in range(inside // lanes):
                for j in range(0, sizes[number + 1], ROWS):
                    at = in_weights[offset:].ctypes.data + (panel * outside + j) * row
                    left = source + j // lanes * BLOCK * row + j % lanes * FLOAT_BYTES
                    right = before.ctypes.data + panel * BLOCK * row
                    write(at, row, multiply(read(at, row, width), left, FLOAT_BYTES, row, right, padded, width))
            if number == 0:
                for panel in range(in_shift.shape[1] // lanes):
                    for i in range(count):
                        ray = (first + i) // samples
                        of_ray = in_shift.ctypes.data + (ray * outside + panel * lanes) * FLOAT_BYTES
                        here = load(source + (panel * BLOCK + i) * row, width)
                        store(of_ray, load(of_ray, width) + here)
                if len(in_points) == 0:
                    break
            out = next_gradient[: BLOCK * inside]
            matrix = weights[offset:].ctypes.data
            layer(source, out.ctypes.data, matrix, sizes[number + 1], outside, inside, padded, False, width)
            if number > 0:
                for i in range(len(out)):
                    out[i] = out[i] if before[i] > np.float32(0) else np.float32(0)
            gradient, next_gradient = next_gradient, gradient
        if len(in_points) > 0:
            exchange(gradient, in_points, first, count, False, width)
