"""Runs numba kernels on PyTorch's tensors: the threads that share the work, and the arrays that they read and write.

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
from typing import Callable, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

LANES = (16, 8, 4, 2, 1)
"""Widths of a SIMD vector; the widest that divides the channels is taken. LLVM splits what a machine has not."""
MIN_WORK = 1 << 16
"""Numbers to be written below which one thread is faster than several."""
PIECES = 4
"""Pieces of a range for each thread: one that another program keeps from its core leaves some to the rest."""


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


def threads_for(work: int) -> int:
    """How many threads pay for as many numbers."""
    return torch.get_num_threads() if work >= MIN_WORK else 1


def run_tasks(task: Callable[[int], None], count: int, parts: int) -> None:
    """``task(0)`` to ``task(count - 1)`` by ``parts`` threads, each of which takes the next when it is free."""
    numbers = iter(range(count))

    def work(part: int) -> None:
        for number in numbers:
            task(number)

    _threads.run(work, min(parts, count))


def run_ranges(task: Callable[[int, int], None], start: int, stop: int, parts: int) -> None:
    """Cover ``start`` to ``stop`` by calls ``task(begin, end)`` in ``parts`` threads."""
    pieces = 1 if parts == 1 else PIECES * parts
    bounds = [start + (stop - start) * piece // pieces for piece in range(pieces + 1)]
    run_tasks(lambda piece: task(bounds[piece], bounds[piece + 1]), pieces, parts)


def empty(*shape: int) -> np.ndarray:
    """Uninitialised float32 at the start of a cache line. numpy asks Linux for huge pages, torch does not: 25,000 page
    faults fewer for a gradient of 100 MB."""
    line, count = 64, math.prod(shape) * 4
    raw = np.empty(count + line, np.uint8)
    start = -raw.ctypes.data % line
    return raw[start : start + count].view(np.float32).reshape(shape)


def width_of(channels: int) -> tuple[int, ...]:
    """A tuple as long as the SIMD vectors are to be: the kernels are compiled for its type."""
    return (0,) * next(lanes for lanes in LANES if channels % lanes == 0)


def array_of(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers, C-contiguous; a copy only where they were not."""
    return tensor.detach().contiguous().numpy()


def zeros(shape: Sequence[int], parts: int) -> np.ndarray:
    """Zeros as ``empty`` lays them out, written by ``parts`` threads."""
    array = empty(*shape)
    flat = array.reshape(-1)
    run_ranges(lambda start, stop: flat[start:stop].fill(0), 0, len(flat), parts)
    return array
