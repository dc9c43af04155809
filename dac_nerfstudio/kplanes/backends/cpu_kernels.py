"""Numba kernels of the plane lookup and of total variation. Import late: this imports numba and LLVM.

Every kernel works on a range of points or rows, without the GIL and without threads of its own, so that the caller
decides on these (``dac_nerfstudio.kplanes.backends.running``). The inner loops run over channels in explicit SIMD:
``Lanes`` is a vector of as many float32 as the tuple ``width`` is long, which divides the number of channels. LLVM
does not vectorise the plain loops well: it cannot know that the arrays do not overlap.

Arrays are C-contiguous float32, planes and their gradients [3, R, R, C] with R >= 2. Numba checks no bounds; whatever
the coordinates, NaN included, cells lie within the planes.
"""

from __future__ import annotations

import operator
from typing import Any, Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from dac_nerfstudio.kplanes.backends.compiling import kernel

FLOAT = ir.FloatType()
FLOAT_BYTES = 4
FUSE = ("contract",)
"""LLVM's only fast-math flag in use: a multiplication and an addition may become one instruction."""


class Lanes(types.Type):
    """Type of a SIMD vector of float32."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Lanes({count})")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(FLOAT, fe_type.count))


def _pointer(builder: ir.IRBuilder, address: ir.Value, lanes: Lanes) -> ir.Value:
    return builder.inttoptr(address, ir.VectorType(FLOAT, lanes.count).as_pointer())


@intrinsic
def load(typingctx: Any, address: types.Type, width: types.UniTuple) -> Any:
    """The lanes at an address."""
    lanes = Lanes(width.count)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load(_pointer(builder, args[0], lanes), align=FLOAT_BYTES)

    return lanes(types.intp, width), generate


@intrinsic
def store(typingctx: Any, address: types.Type, value: Lanes) -> Any:
    """Write lanes to an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        builder.store(args[1], _pointer(builder, args[0], value), align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(types.intp, value), generate


@intrinsic
def broadcast(typingctx: Any, number: types.Type, width: types.UniTuple) -> Any:
    """Lanes that all hold one number."""
    lanes = Lanes(width.count)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        undefined = ir.Constant(ir.VectorType(FLOAT, lanes.count), ir.Undefined)
        first = builder.insert_element(undefined, args[0], cgutils.int32_t(0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(cgutils.int32_t, lanes.count), None))

    return lanes(types.float32, width), generate


@intrinsic
def total(typingctx: Any, value: Lanes) -> Any:
    """Sum over lanes: of their two halves, then of the halves of these; a lane left over comes last."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        result, count = args[0], value.count
        odd = []
        while count > 1:
            if count % 2:
                odd.append(builder.extract_element(result, cgutils.int32_t(count - 1)))
            count //= 2
            halves = [ir.Constant(ir.VectorType(cgutils.int32_t, count), [*range(at, at + count)]) for at in (0, count)]
            low, high = (builder.shuffle_vector(result, result, half) for half in halves)
            result = builder.fadd(low, high)
        result = builder.extract_element(result, cgutils.int32_t(0))
        for lane in odd:
            result = builder.fadd(result, lane)
        return result

    return types.float32(value), generate


def _elementwise(operation: Callable[..., Any], instruction: str) -> None:
    """Give lanes an operator."""

    @intrinsic
    def apply(typingctx: Any, left: Lanes, right: Lanes) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            return getattr(builder, instruction)(*args, flags=FUSE)

        return left(left, right), generate

    @overload(operation)
    def resolve(left, right):
        if isinstance(left, Lanes) and isinstance(right, Lanes):
            return lambda left, right: apply(left, right)
        return None


_elementwise(operator.add, "fadd")
_elementwise(operator.sub, "fsub")
_elementwise(operator.mul, "fmul")


@njit(inline="always")
def locate(coordinate, last):
    """Cell, share of its upper corner, and derivative of the grid coordinate, for a plane of ``last + 1`` corners.

    Outside of [-1, 1] the border's corner counts, with derivative 0; NaN lies at the lower border.
    """
    slope = np.float32(0.5) * np.float32(last)
    position = (coordinate + np.float32(1)) * slope
    if not position > np.float32(0):
        return 0, np.float32(0), np.float32(0)
    if position >= np.float32(last):
        return last - 1, np.float32(1), np.float32(0)
    cell = int(position)
    return cell, position - np.float32(cell), slope


@njit(inline="always")
def corner_weights(column_share, row_share):
    """Bilinear weights of the corners (row, column) = (0, 0), (0, 1), (1, 0), (1, 1) of a cell."""
    left, above = np.float32(1) - column_share, np.float32(1) - row_share
    return left * above, column_share * above, left * row_share, column_share * row_share


@njit(inline="always")
def broadcast_weights(column_share, row_share, width):
    a, b, c, d = corner_weights(column_share, row_share)
    return broadcast(a, width), broadcast(b, width), broadcast(c, width), broadcast(d, width)


@njit(inline="always")
def blend(corner, column, row, weights, width):
    """Weighted sum of the lanes at ``corner`` and those a column, a row, and both further on."""
    result = load(corner, width) * weights[0]
    result = load(corner + column, width) * weights[1] + result
    result = load(corner + row, width) * weights[2] + result
    return load(corner + row + column, width) * weights[3] + result


@njit(inline="always")
def cells(x, y, z, column, row, plane, width):
    """Where a point lies in the planes xy, xz and yz: offset of its cell's first corner, and the corners' weights.

    Args:
        x, y, z: its coordinates, as `locate` gives them.
        column, row, plane: bytes from one to the next.
    """
    xy = y[0] * row + x[0] * column, broadcast_weights(x[1], y[1], width)
    xz = plane + z[0] * row + x[0] * column, broadcast_weights(x[1], z[1], width)
    yz = 2 * plane + z[0] * row + y[0] * column, broadcast_weights(y[1], z[1], width)
    return xy, xz, yz


@njit(inline="always")
def interpolants(base, xy, xz, yz, column, row, width):
    """Lanes of the three planes in these cells."""
    a = blend(base + xy[0], column, row, xy[1], width)
    b = blend(base + xz[0], column, row, xz[1], width)
    c = blend(base + yz[0], column, row, yz[1], width)
    return a, b, c


@kernel
def interpolate(planes, points, out, offset, start, stop, width):
    """Write the features of points ``start`` to ``stop`` to ``out[:, offset : offset + C]``."""
    last, channels = planes.shape[1] - 1, planes.shape[3]
    column = channels * FLOAT_BYTES
    row = (last + 1) * column
    plane, base = (last + 1) * row, planes.ctypes.data
    for i in range(start, stop):
        x, y, z = locate(points[i, 0], last), locate(points[i, 1], last), locate(points[i, 2], last)
        xy, xz, yz = cells(x, y, z, column, row, plane, width)
        target = out.ctypes.data + (i * out.shape[1] + offset) * FLOAT_BYTES
        for k in range(0, column, len(width) * FLOAT_BYTES):
            a, b, c = interpolants(base + k, xy, xz, yz, column, row, width)
            store(target + k, a * b * c)


@njit(inline="always")
def add_to_corners(target, column, row, weights, g, width):
    """Add lanes to the corners of a cell, each times its weight."""
    store(target, g * weights[0] + load(target, width))
    store(target + column, g * weights[1] + load(target + column, width))
    store(target + row, g * weights[2] + load(target + row, width))
    store(target + row + column, g * weights[3] + load(target + row + column, width))


@kernel
def differentiate_planes(planes, points, upstream, offset, gradient, begin, end, one, width):
    """Add the planes' gradient in their channels ``begin`` to ``end`` to ``gradient``.

    Each number sums its points in their order, by whichever calls the planes and channels are covered.

    Args:
        upstream: gradient of the features, whose columns ``offset : offset + C`` are these planes'.
        one: the only plane whose gradient is wanted, or -1 for all three.
    """
    last, channels = planes.shape[1] - 1, planes.shape[3]
    column = channels * FLOAT_BYTES
    row = (last + 1) * column
    plane = (last + 1) * row
    base, out = planes.ctypes.data, gradient.ctypes.data
    for i in range(len(points)):
        x, y, z = locate(points[i, 0], last), locate(points[i, 1], last), locate(points[i, 2], last)
        xy, xz, yz = cells(x, y, z, column, row, plane, width)
        source = upstream.ctypes.data + (i * upstream.shape[1] + offset) * FLOAT_BYTES
        for k in range(begin * FLOAT_BYTES, end * FLOAT_BYTES, len(width) * FLOAT_BYTES):
            g = load(source + k, width)
            a, b, c = interpolants(base + k, xy, xz, yz, column, row, width)
            if one < 0 or one == 0:
                add_to_corners(out + xy[0] + k, column, row, xy[1], g * b * c, width)
            if one < 0 or one == 1:
                add_to_corners(out + xz[0] + k, column, row, xz[1], g * a * c, width)
            if one < 0 or one == 2:
                add_to_corners(out + yz[0] + k, column, row, yz[1], g * a * b, width)


@njit(inline="always")
def slopes(corner, column, row, column_share, row_share, g, along, down, width):
    """``along`` and ``down`` plus ``g`` times the interpolation's derivative in the shares of column and row."""
    a, b = load(corner, width), load(corner + column, width)
    c, d = load(corner + row, width), load(corner + row + column, width)
    one = broadcast(np.float32(1), width)
    along = g * ((b - a) * (one - row_share) + (d - c) * row_share) + along
    down = g * ((c - a) * (one - column_share) + (d - b) * column_share) + down
    return along, down


@kernel
def differentiate_points(planes, points, upstream, offset, gradient, start, stop, width):
    """Add the gradient of points ``start`` to ``stop`` that these planes give them to ``gradient`` [points, 3]."""
    last, channels = planes.shape[1] - 1, planes.shape[3]
    column = channels * FLOAT_BYTES
    row = (last + 1) * column
    plane, base = (last + 1) * row, planes.ctypes.data
    nothing = broadcast(np.float32(0), width)
    for i in range(start, stop):
        x, y, z = locate(points[i, 0], last), locate(points[i, 1], last), locate(points[i, 2], last)
        xy, xz, yz = cells(x, y, z, column, row, plane, width)
        xs, ys, zs = broadcast(x[1], width), broadcast(y[1], width), broadcast(z[1], width)
        source = upstream.ctypes.data + (i * upstream.shape[1] + offset) * FLOAT_BYTES
        in_x, in_y, in_z = nothing, nothing, nothing
        for k in range(0, column, len(width) * FLOAT_BYTES):
            a, b, c = interpolants(base + k, xy, xz, yz, column, row, width)
            g = load(source + k, width)
            in_x, in_y = slopes(base + xy[0] + k, column, row, xs, ys, g * b * c, in_x, in_y, width)
            in_x, in_z = slopes(base + xz[0] + k, column, row, xs, zs, g * a * c, in_x, in_z, width)
            in_y, in_z = slopes(base + yz[0] + k, column, row, ys, zs, g * a * b, in_y, in_z, width)
        gradient[i, 0] += total(in_x) * x[2]
        gradient[i, 1] += total(in_y) * y[2]
        gradient[i, 2] += total(in_z) * z[2]


@kernel
def squared_differences(planes, sums, start, stop, width):
    """Sums of squared differences of rows ``start`` to ``stop``, counted through the planes, into ``sums`` [3 R, 2]:
    to the next row (0 for a plane's last), and of neighbours along the row."""
    size, channels = planes.shape[1], planes.shape[3]
    column = channels * FLOAT_BYTES
    row = size * column
    step = len(width) * FLOAT_BYTES
    for i in range(start, stop):
        base = planes.ctypes.data + i * row
        down, along = broadcast(np.float32(0), width), broadcast(np.float32(0), width)
        if (i + 1) % size != 0:
            for k in range(base, base + row, step):
                difference = load(k + row, width) - load(k, width)
                down = difference * difference + down
        for k in range(base, base + row - column, step):
            difference = load(k + column, width) - load(k, width)
            along = difference * difference + along
        sums[i, 0], sums[i, 1] = total(down), total(along)


@njit(inline="always")
def neighbour_differences(base, begin, end, before, column, row, above, below, scale, target, width):
    """Write ``scale`` times the sum of differences to the neighbours that exist, for the bytes ``begin`` to ``end``."""
    for k in range(begin, end, len(width) * FLOAT_BYTES):
        here = load(base + k, width)
        result = broadcast(np.float32(0), width)
        if before:
            result = result + (here - load(base + k - column, width))
        if k + column < row:
            result = result + (here - load(base + k + column, width))
        if above:
            result = result + (here - load(base + k - row, width))
        if below:
            result = result + (here - load(base + k + row, width))
        store(target + k, result * scale)


@kernel
def differentiate_squares(planes, factor, gradient, start, stop, width):
    """Gradient of ``factor`` times the sum of all ``squared_differences``, rows ``start`` to ``stop``."""
    size, channels = planes.shape[1], planes.shape[3]
    column = channels * FLOAT_BYTES
    row = size * column
    scale = broadcast(np.float32(2) * factor, width)
    for i in range(start, stop):
        base, target = planes.ctypes.data + i * row, gradient.ctypes.data + i * row
        above, below = i % size != 0, (i + 1) % size != 0
        neighbour_differences(base, 0, column, False, column, row, above, below, scale, target, width)
        neighbour_differences(base, column, row, True, column, row, above, below, scale, target, width)
