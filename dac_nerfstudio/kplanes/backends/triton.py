"""The plane lookup and total variation on CUDA: Triton kernels. Import late.

The lookup is fused over the three planes and their product. One launch per scale; a program has ``BLOCK`` points and
all their channels, padded to ``WIDTH``, a power of two. Planes and features are stored in float16, bfloat16 or float32,
and computed with in float32. The planes' gradient is summed by float32 atomics, in no fixed order: like that of
PyTorch's ``grid_sample`` on CUDA, it is not exactly repeatable. Total variation is: each program writes its own sum.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Optional, Sequence

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

NUMBERS_PER_PROGRAM = 512
"""Points times channels. With 4 warps, 4 numbers are a thread's: 16 bytes, as much as a load or a store may have. The
backward pass then takes 70 (sm_80) or 48 (sm_90) registers, so that 28 or 40 warps share a multiprocessor; with 2048
numbers these were 8."""
LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}
"""Fusion of multiplications and additions is asked for because Triton's default is about to change."""
DIFFERENCES_PER_PROGRAM = 1024
"""Numbers of a row of a plane whose differences one program sums up."""


@triton.jit
def _locate(coordinate, last):
    """Cell, share of its upper corner, and derivative of the grid coordinate. The comparisons are such that NaN lies
    at the lower border."""
    position = (coordinate.to(tl.float32) + 1.0) * 0.5 * last
    inside = (position > 0) & (position < last)
    position = tl.where(position > 0, tl.where(position < last, position, last), 0.0)
    cell = tl.minimum(position.to(tl.int32), last - 1)
    return cell, position - cell, tl.where(inside, 0.5 * last, 0.0)


@triton.jit
def _corners(planes, plane: tl.constexpr, column, row, last, channel, mask, CHANNELS: tl.constexpr):
    """Offsets of a cell's corners [BLOCK, WIDTH] and what is stored there: (row, column) = 00, 01, 10, 11."""
    size = last + 1
    cell = (plane * size + row.to(tl.int64)) * size + column
    at = cell[:, None] * CHANNELS + channel[None, :]
    below = at + size * CHANNELS
    a = tl.load(planes + at, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(planes + at + CHANNELS, mask=mask, other=0.0).to(tl.float32)
    c = tl.load(planes + below, mask=mask, other=0.0).to(tl.float32)
    d = tl.load(planes + below + CHANNELS, mask=mask, other=0.0).to(tl.float32)
    return at, below, a, b, c, d


@triton.jit
def _mix(a, b, c, d, column_share, row_share):
    """Bilinear interpolation between four corners."""
    s, t = column_share[:, None], row_share[:, None]
    return (a * (1 - s) + b * s) * (1 - t) + (c * (1 - s) + d * s) * t


@triton.jit(do_not_specialize=["count", "last"])
def _forward(
    planes, points, out, count, last, stride, offset, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, WIDTH)
    there = point < count
    mask = there[:, None] & (channel < CHANNELS)[None, :]
    x, x_share, _ = _locate(tl.load(points + 3 * point, mask=there, other=0.0), last)
    y, y_share, _ = _locate(tl.load(points + 3 * point + 1, mask=there, other=0.0), last)
    z, z_share, _ = _locate(tl.load(points + 3 * point + 2, mask=there, other=0.0), last)
    _, _, a, b, c, d = _corners(planes, 0, x, y, last, channel, mask, CHANNELS)
    features = _mix(a, b, c, d, x_share, y_share)
    _, _, a, b, c, d = _corners(planes, 1, x, z, last, channel, mask, CHANNELS)
    features *= _mix(a, b, c, d, x_share, z_share)
    _, _, a, b, c, d = _corners(planes, 2, y, z, last, channel, mask, CHANNELS)
    features *= _mix(a, b, c, d, y_share, z_share)
    tl.store(out + point[:, None] * stride + offset + channel[None, :], features, mask=mask)


@triton.jit
def _add_gradient(gradient, at, below, g, column_share, row_share, mask, CHANNELS: tl.constexpr, WANTED: tl.constexpr):
    if WANTED:
        s, t = column_share[:, None], row_share[:, None]
        tl.atomic_add(gradient + at, g * (1 - s) * (1 - t), mask=mask, sem="relaxed")
        tl.atomic_add(gradient + at + CHANNELS, g * s * (1 - t), mask=mask, sem="relaxed")
        tl.atomic_add(gradient + below, g * (1 - s) * t, mask=mask, sem="relaxed")
        tl.atomic_add(gradient + below + CHANNELS, g * s * t, mask=mask, sem="relaxed")


@triton.jit
def _slopes(a, b, c, d, g, column_share, row_share):
    """Derivative of the sum over channels of ``g`` times the interpolation: in the shares of column and row."""
    s, t = column_share[:, None], row_share[:, None]
    along = tl.sum(g * ((b - a) * (1 - t) + (d - c) * t), axis=1)
    down = tl.sum(g * ((c - a) * (1 - s) + (d - b) * s), axis=1)
    return along, down


@triton.jit(do_not_specialize=["count", "last"])
def _backward(
    planes,
    points,
    upstream,
    planes_gradient,
    points_gradient,
    count,
    last,
    stride,
    offset,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PLANES: tl.constexpr,
    POINTS: tl.constexpr,
):
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, WIDTH)
    there = point < count
    mask = there[:, None] & (channel < CHANNELS)[None, :]
    x, x_share, x_slope = _locate(tl.load(points + 3 * point, mask=there, other=0.0), last)
    y, y_share, y_slope = _locate(tl.load(points + 3 * point + 1, mask=there, other=0.0), last)
    z, z_share, z_slope = _locate(tl.load(points + 3 * point + 2, mask=there, other=0.0), last)
    xy_at, xy_below, xy_a, xy_b, xy_c, xy_d = _corners(planes, 0, x, y, last, channel, mask, CHANNELS)
    xz_at, xz_below, xz_a, xz_b, xz_c, xz_d = _corners(planes, 1, x, z, last, channel, mask, CHANNELS)
    yz_at, yz_below, yz_a, yz_b, yz_c, yz_d = _corners(planes, 2, y, z, last, channel, mask, CHANNELS)
    xy = _mix(xy_a, xy_b, xy_c, xy_d, x_share, y_share)
    xz = _mix(xz_a, xz_b, xz_c, xz_d, x_share, z_share)
    yz = _mix(yz_a, yz_b, yz_c, yz_d, y_share, z_share)
    g = tl.load(upstream + point[:, None] * stride + offset + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    xy_g, xz_g, yz_g = g * xz * yz, g * xy * yz, g * xy * xz
    _add_gradient(planes_gradient, xy_at, xy_below, xy_g, x_share, y_share, mask, CHANNELS, PLANES)
    _add_gradient(planes_gradient, xz_at, xz_below, xz_g, x_share, z_share, mask, CHANNELS, PLANES)
    _add_gradient(planes_gradient, yz_at, yz_below, yz_g, y_share, z_share, mask, CHANNELS, PLANES)
    if POINTS:
        xy_along, xy_down = _slopes(xy_a, xy_b, xy_c, xy_d, xy_g, x_share, y_share)
        xz_along, xz_down = _slopes(xz_a, xz_b, xz_c, xz_d, xz_g, x_share, z_share)
        yz_along, yz_down = _slopes(yz_a, yz_b, yz_c, yz_d, yz_g, y_share, z_share)
        # No atomics: a point has one program, and the scales' launches follow each other.
        target = points_gradient + 3 * point
        tl.store(target, tl.load(target, mask=there) + (xy_along + xz_along) * x_slope, mask=there)
        tl.store(target + 1, tl.load(target + 1, mask=there) + (xy_down + yz_along) * y_slope, mask=there)
        tl.store(target + 2, tl.load(target + 2, mask=there) + (xz_down + yz_down) * z_slope, mask=there)


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Launches kernels there. Tensors of Triton's interpreter are on the CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def tiling(channels: int, numbers: int) -> tuple[int, int]:
    """Channels with padding, and points per program of as many ``numbers``."""
    width = triton.next_power_of_2(channels)
    return width, max(numbers // width, 1)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, *scales: Tensor) -> Tensor:
        points = points.contiguous()
        ctx.save_for_backward(points, *scales)
        channels = scales[0].shape[3]
        width, block = tiling(channels, NUMBERS_PER_PROGRAM)
        out = scales[0].new_empty(len(points), channels * len(scales))
        programs = triton.cdiv(len(points), block)
        for number, planes in enumerate(scales if programs else ()):
            _forward[(programs,)](
                planes, points, out, len(points), planes.shape[1] - 1, out.shape[1], number * channels,
                CHANNELS=channels, WIDTH=width, BLOCK=block, **LAUNCH,
            )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        points, *scales = ctx.saved_tensors
        points_wanted, *planes_wanted = ctx.needs_input_grad
        features = upstream[0].contiguous()
        channels = scales[0].shape[3]
        width, block = tiling(channels, NUMBERS_PER_PROGRAM)
        points_gradient = torch.zeros_like(points, dtype=torch.float32) if points_wanted else None
        results: list[Optional[Tensor]] = []
        programs = triton.cdiv(len(points), block)
        for number, (planes, wanted) in enumerate(zip(scales, planes_wanted)):
            gradient = torch.zeros_like(planes, dtype=torch.float32) if wanted else None
            if programs:
                _backward[(programs,)](
                    planes, points, features, gradient, points_gradient,
                    len(points), planes.shape[1] - 1, features.shape[1], number * channels,
                    CHANNELS=channels, WIDTH=width, BLOCK=block, PLANES=wanted, POINTS=points_wanted, **LAUNCH,
                )  # fmt: skip
            results.append(None if gradient is None else gradient.to(planes.dtype))
        return (None if points_gradient is None else points_gradient.to(points.dtype), *results)


def lookup(scales: Sequence[Float[Tensor, "3 R R C"]], points: Float[Tensor, "points 3"]) -> Float[Tensor, "points SC"]:
    """``dac_nerfstudio.kplanes.lookup.lookup`` on CUDA, with R >= 2 and the same C and type in all scales.

    Features have the planes' type.
    """
    with on_device(points.device):
        return _Lookup.apply(points, *scales)


@triton.jit
def _row(size, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """A program's row: where it starts, how long it is, the program's numbers of it, and its place in the plane."""
    row = tl.program_id(0)
    length = size * CHANNELS
    return row.to(tl.int64) * length, length, tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), row % size


@triton.jit
def _difference(here, neighbour, mask):
    """What is ``here`` less what is stored at ``neighbour``; 0 where there is none."""
    return tl.where(mask, here - tl.load(neighbour, mask=mask, other=0.0), 0.0)


@triton.jit(do_not_specialize=["size"])
def _sum_squares(planes, sums, size, factor, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    start, length, k, row = _row(size, CHANNELS, BLOCK)
    at = planes + start + k
    here = tl.load(at, mask=k < length, other=0.0)
    along = _difference(here, at + CHANNELS, k + CHANNELS < length)
    down = _difference(here, at + length, k < tl.where(row + 1 < size, length, 0))
    total = tl.sum(along * along + down * down)
    tl.store(sums + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), total * factor)


@triton.jit(do_not_specialize=["size"])
def _differentiate_squares(planes, upstream, gradient, size, factor, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    start, length, k, row = _row(size, CHANNELS, BLOCK)
    at, mask = planes + start + k, k < length
    here = tl.load(at, mask=mask, other=0.0)
    total = _difference(here, at - CHANNELS, mask & (k >= CHANNELS))
    total += _difference(here, at + CHANNELS, k + CHANNELS < length)
    total += _difference(here, at - length, k < tl.where(row > 0, length, 0))
    total += _difference(here, at + length, k < tl.where(row + 1 < size, length, 0))
    tl.store(gradient + start + k, total * (2 * factor * tl.load(upstream)), mask=mask)


class _SquaredDifferences(torch.autograd.Function):
    """Reads the planes once forward; once more, and writes their gradient, backward."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        ctx.save_for_backward(planes)
        grid, size, factor, constants = _rows(planes)
        sums = planes.new_empty(grid)
        _sum_squares[grid](planes, sums, size, factor, **constants)
        return sums.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (planes,) = ctx.saved_tensors
        grid, size, factor, constants = _rows(planes)
        gradient = torch.empty_like(planes)
        _differentiate_squares[grid](planes, upstream[0], gradient, size, factor, **constants)
        return gradient


def _rows(planes: Tensor) -> tuple[tuple[int, int], int, float, dict[str, Any]]:
    """Programs by rows and parts of rows, rows of a plane, one over the differences in a plane along either axis, and
    what the kernels are compiled for."""
    count, size, _, channels = planes.shape
    grid = count * size, triton.cdiv(size * channels, DIFFERENCES_PER_PROGRAM)
    constants = {"CHANNELS": channels, "BLOCK": DIFFERENCES_PER_PROGRAM, **LAUNCH}
    return grid, size, 1 / (size * (size - 1) * channels), constants


def squared_differences(scale: Float[Tensor, "P R R C"]) -> Float[Tensor, ""]:
    """``dac_nerfstudio.kplanes.regularizers.squared_differences`` for float32 on CUDA and R >= 2.

    Raises:
        TypeError: the planes are of another type, which the kernels would misread.
    """
    if scale.dtype != torch.float32:
        raise TypeError(f"Total variation in Triton is for planes in float32, not {scale.dtype}.")
    with on_device(scale.device):
        return _SquaredDifferences.apply(scale)
