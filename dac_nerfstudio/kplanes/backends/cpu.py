"""The plane lookup and total variation on the CPU: autograd around the numba kernels.

As many threads work as torch has. They are Python's, not numba's, whose pools neither survive a fork nor bear a second
thread of the program; each runs a kernel that holds no lock. Results don't depend on their number.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Optional, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dac_nerfstudio.kplanes.backends import cpu_kernels as kernels

LANES = (16, 8, 4, 2, 1)
"""Widths of a SIMD vector; the widest that divides the channels is taken. LLVM splits what a machine has not."""
MIN_WORK = 1 << 16
"""Numbers to be written below which one thread is faster than several."""
PIECES = 4
"""Pieces of a range for each thread: one that another program keeps from its core leaves some to the rest."""
LINE = 16
"""Channels in a line of the cache, on which no two threads should write."""


def keep_memory() -> None:
    """Have glibc keep what is freed. After a step nearly all is, and each page given back to Linux costs a fault in the
    next one: in all a third of a small hybrid model's step."""
    trim_threshold, mmap_threshold, most = -1, -3, 1 << 25
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another system's library
        glibc = ctypes.CDLL(None)
        glibc.mallopt(trim_threshold, 1 << 30)
        glibc.mallopt(mmap_threshold, most)


keep_memory()


class _Threads:
    """A pool that grows to what was last asked for, and is made anew in a forked process, which has no threads."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._pool: Optional[ThreadPoolExecutor] = None
        self._size = 0

    def run(self, task: Callable[[int], None], count: int) -> None:
        """``task(0)`` to ``task(count - 1)`` at once, the first of them in the calling thread."""
        if count < 2:
            return task(0)
        with self._lock:
            if self._pool is None or self._size < count - 1:
                self._pool, self._size = ThreadPoolExecutor(count - 1, thread_name_prefix="planes"), count - 1
            others = [self._pool.submit(task, number) for number in range(1, count)]
        task(0)
        for other in others:
            other.result()


_threads = _Threads()


def _parts(work: int) -> int:
    return torch.get_num_threads() if work >= MIN_WORK else 1


def _run_tasks(task: Callable[[int], None], count: int, parts: int) -> None:
    """``task(0)`` to ``task(count - 1)`` by ``parts`` threads, each of which takes the next when it is free."""
    numbers = iter(range(count))

    def work(part: int) -> None:
        for number in numbers:
            task(number)

    _threads.run(work, min(parts, count))


def _run_ranges(task: Callable[[int, int], None], start: int, stop: int, parts: int) -> None:
    """Cover ``start`` to ``stop`` by calls ``task(begin, end)`` in ``parts`` threads."""
    pieces = 1 if parts == 1 else PIECES * parts
    bounds = [start + (stop - start) * piece // pieces for piece in range(pieces + 1)]
    _run_tasks(lambda piece: task(bounds[piece], bounds[piece + 1]), pieces, parts)


def _empty(*shape: int) -> np.ndarray:
    """Uninitialised float32 at the start of a cache line. numpy asks Linux for huge pages, torch does not: 25,000 page
    faults fewer for a gradient of 100 MB."""
    line, count = 64, math.prod(shape) * 4
    raw = np.empty(count + line, np.uint8)
    start = -raw.ctypes.data % line
    return raw[start : start + count].view(np.float32).reshape(shape)


def _width(channels: int) -> tuple[int, ...]:
    """A tuple as long as the SIMD vectors are to be: the kernels are compiled for its type."""
    return (0,) * next(lanes for lanes in LANES if channels % lanes == 0)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, *scales: Tensor) -> Tensor:
        ctx.save_for_backward(points, *scales)
        planes, where = [_array(scale) for scale in scales], _array(points)
        channels = planes[0].shape[3]
        out = _empty(len(where), channels * len(planes))
        width = _width(channels)

        def interpolate(start: int, stop: int) -> None:
            for number, scale in enumerate(planes):
                kernels.interpolate(scale, where, out, number * channels, start, stop, width)

        _run_ranges(interpolate, 0, len(where), _parts(out.size))
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        points, *scales = ctx.saved_tensors
        points_wanted, *planes_wanted = ctx.needs_input_grad
        planes, where, features = [_array(scale) for scale in scales], _array(points), _array(upstream[0])
        channels = planes[0].shape[3]
        width = _width(channels)
        parts = _parts(features.size)
        gradients = [_zeros(scale.shape, parts) if wanted else None for scale, wanted in zip(planes, planes_wanted)]
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

        _run_tasks(add_up, len(sums), parts)
        if points_wanted:
            _run_ranges(differentiate_points, 0, len(where), parts)
        return tuple(None if array is None else torch.from_numpy(array) for array in (points_gradient, *gradients))


def _zeros(shape: Sequence[int], parts: int) -> np.ndarray:
    array = _empty(*shape)
    flat = array.reshape(-1)
    _run_ranges(lambda start, stop: flat[start:stop].fill(0), 0, len(flat), parts)
    return array


def lookup(scales: Sequence[Float[Tensor, "3 R R C"]], points: Float[Tensor, "points 3"]) -> Float[Tensor, "points SC"]:
    """``dac_nerfstudio.kplanes.lookup.lookup`` for float32 on the CPU, R >= 2 and the same C in all scales."""
    return _Lookup.apply(points, *scales)


class _MeanSquaredDifferences(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        planes = _array(scale)
        rows = planes.shape[0] * planes.shape[1]
        sums = np.empty((rows, 2), np.float32)
        width = _width(planes.shape[3])
        _run_ranges(
            lambda start, stop: kernels.squared_differences(planes, sums, start, stop, width),
            0, rows, _parts(planes.size),
        )  # fmt: skip
        return torch.tensor(sums.sum(dtype=np.float64) / _pairs(scale), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (scale,) = ctx.saved_tensors
        planes = _array(scale)
        gradient = _empty(*planes.shape)
        factor = np.float32(upstream[0].item() / _pairs(scale))
        width = _width(planes.shape[3])
        _run_ranges(
            lambda start, stop: kernels.differentiate_squares(planes, factor, gradient, start, stop, width),
            0, planes.shape[0] * planes.shape[1], _parts(planes.size),
        )  # fmt: skip
        return torch.from_numpy(gradient)


def _pairs(scale: Tensor) -> int:
    """Neighbours along rows of a plane; as many as along columns."""
    _, size, _, channels = scale.shape
    return size * (size - 1) * channels


def squared_differences(scale: Float[Tensor, "3 R R C"]) -> Float[Tensor, ""]:
    """``dac_nerfstudio.kplanes.regularizers.squared_differences`` for float32 on the CPU and R >= 2."""
    return _MeanSquaredDifferences.apply(scale)
