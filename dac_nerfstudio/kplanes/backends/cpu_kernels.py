"""Numba kernels of the plane lookup and of total variation. Import late: this imports numba and LLVM.

Every kernel works on a range of points or rows, without the GIL and without threads of its own, so that the caller
decides on these (``dac_nerfstudio.kplanes.backends.cpu``). The inner loops run over channels in explicit SIMD:
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
    """Sum over lanes, in ascending order."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        lanes = [builder.extract_element(args[0], cgutils.int32_t(lane)) for lane in range(value.count)]
        result = lanes[0]
        for lane in lanes[1:]:
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


@kernel
def interpolate(planes, points, out, offset, start, stop, width):
    """Write the features of points ``start`` to ``stop`` to ``out[:, offset : offset + C]``."""
    last, channels = planes.shape[1] - 1, planes.shape[3]
    column = channels * FLOAT_BYTES
    row = (last + 1) * column
    xy_plane = planes.ctypes.data
    xz_plane = xy_plane + (last + 1) * row
    yz_plane = xz_plane + (last + 1) * row
    for i in range(start, stop):
        x, x_share, _ = locate(points[i, 0], last)
        y, y_share, _ = locate(points[i, 1], last)
        z, z_share, _ = locate(points[i, 2], last)
        xy, xy_weights = xy_plane + y * row + x * column, broadcast_weights(x_share, y_share, width)
        xz, xz_weights = xz_plane + z * row + x * column, broadcast_weights(x_share, z_share, width)
        yz, yz_weights = yz_plane + z * row + y * column, broadcast_weights(y_share, z_share, width)
        target = out.ctypes.data + (i * out.shape[1] + offset) * FLOAT_BYTES
        for k in range(0, column, len(width) * FLOAT_BYTES):
            a = blend(xy + k, column, row, xy_weights, width)
            b = blend(xz + k, column, row, xz_weights, width)
            c = blend(yz + k, column, row, yz_weights, width)
            store(target + k, a * b * c)


@kernel
def pull_back(planes, points, upstream, offset, pulled, first, start, stop, width):
    """Gradients of the three interpolants of points ``start`` to ``stop``, into ``pulled[point - first]`` [3, C].

    Args:
        upstream: gradient of the features, whose columns ``offset : offset + C`` are these planes'.
    """
    last, channels = planes.shape[1] - 1, planes.shape[3]
    column = channels * FLOAT_BYTES
    row = (last + 1) * column
    xy_plane = planes.ctypes.data
    xz_plane = xy_plane + (last + 1) * row
    yz_plane = xz_plane + (last + 1) * row
    for i in range(start, stop):
        x, x_share, _ = locate(points[i, 0], last)
        y, y_share, _ = locate(points[i, 1], last)
        z, z_share, _ = locate(points[i, 2], last)
        xy, xy_weights = xy_plane + y * row + x * column, broadcast_weights(x_share, y_share, width)
        xz, xz_weights = xz_plane + z * row + x * column, broadcast_weights(x_share, z_share, width)
        yz, yz_weights = yz_plane + z * row + y * column, broadcast_weights(y_share, z_share, width)
        source = upstream.ctypes.data + (i * upstream.shape[1] + offset) * FLOAT_BYTES
        target = pulled.ctypes.data + (i - first) * 3 * column
        for k in range(0, column, len(width) * FLOAT_BYTES):
            a = blend(xy + k, column, row, xy_weights, width)
            b = blend(xz + k, column, row, xz_weights, width)
            c = blend(yz + k, column, row, yz_weights, width)
            g = load(source + k, width)
            store(target + k, g * b * c)
            store(target + column + k, g * a * c)
            store(target + 2 * column + k, g * a * b)


@kernel
def scatter(gradient, plane, points, pulled, first, start, stop, owners, owner, width):
    """Add ``pulled[point - first, plane]`` of points ``start`` to ``stop`` to the corners in those rows of one plane
    that ``owner`` has by ``owners`` [R].

    Each corner sums its points in their order, however many owners there are.
    """
    last, channels = gradient.shape[1] - 1, gradient.shape[3]
    column = channels * FLOAT_BYTES
    row = (last + 1) * column
    column_axis, row_axis = (1 if plane == 2 else 0), (1 if plane == 0 else 2)
    base = gradient.ctypes.data + plane * (last + 1) * row
    for i in range(start, stop):
        r, row_share, _ = locate(points[i, row_axis], last)
        upper, lower = owners[r] == owner, owners[r + 1] == owner
        if not (upper or lower):
            continue
        c, column_share, _ = locate(points[i, column_axis], last)
        weights = broadcast_weights(column_share, row_share, width)
        source = pulled.ctypes.data + ((i - first) * 3 + plane) * column
        target = base + r * row + c * column
        if upper:
            for k in range(0, column, len(width) * FLOAT_BYTES):
                g = load(source + k, width)
                store(target + k, g * weights[0] + load(target + k, width))
                store(target + column + k, g * weights[1] + load(target + column + k, width))
        if lower:
            target += row
            for k in range(0, column, len(width) * FLOAT_BYTES):
                g = load(source + k, width)
                store(target + k, g * weights[2] + load(target + k, width))
                store(target + column + k, g * weights[3] + load(target + column + k, width))


@kernel
def differentiate_points(planes, points, pulled, first, gradient, start, stop, width):
    """Add the gradient of points ``start`` to ``stop`` that these planes give them to ``gradient`` [points, 3]."""
    last, channels = planes.shape[1] - 1, planes.shape[3]
    column = channels * FLOAT_BYTES
    row = (last + 1) * column
    for i in range(start, stop):
        for plane in range(3):
            column_axis, row_axis = (1 if plane == 2 else 0), (1 if plane == 0 else 2)
            c, column_share, column_slope = locate(points[i, column_axis], last)
            r, row_share, row_slope = locate(points[i, row_axis], last)
            source = pulled.ctypes.data + ((i - first) * 3 + plane) * column
            corner = planes.ctypes.data + ((plane * (last + 1) + r) * row + c * column)
            nothing = broadcast(np.float32(0), width)
            left, right, below_left, below_right = nothing, nothing, nothing, nothing
            for k in range(0, column, len(width) * FLOAT_BYTES):
                g = load(source + k, width)
                left = g * load(corner + k, width) + left
                right = g * load(corner + column + k, width) + right
                below_left = g * load(corner + row + k, width) + below_left
                below_right = g * load(corner + row + column + k, width) + below_right
            a, b, c_, d = total(left), total(right), total(below_left), total(below_right)
            along = (b - a) * (np.float32(1) - row_share) + (d - c_) * row_share
            down = (c_ - a) * (np.float32(1) - column_share) + (d - b) * column_share
            gradient[i, column_axis] += along * column_slope
            gradient[i, row_axis] += down * row_slope


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
