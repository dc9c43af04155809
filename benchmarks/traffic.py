"""Bytes that total variation of the planes moves in a training step, by arithmetic.

Every operation, PyTorch's or a Triton kernel, reads its tensors and writes its results; views and empty tensors move
nothing. "times" is over the bytes of the planes. What autograd moves when it adds this gradient to the lookup's is the
same for all, and not counted. No GPU is used: kernels are not launched, only their arguments looked at.

    python benchmarks/traffic.py --resolutions 128 256 512 --channels 32
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import timing
import torch
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dac_nerfstudio.kplanes.backends import triton
from dac_nerfstudio.kplanes.lookup import Backend
from dac_nerfstudio.kplanes.regularizers import squared_differences

KERNELS = ("_sum_squares", "_differentiate_squares")
ALLOCATIONS = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach")


@dataclass
class Options:
    """Which planes."""

    resolutions: tuple[int, ...] = (128, 256, 512)
    """Resolutions of the scales; by default the reference's field's."""
    channels: int = 32
    """Features of a plane."""
    json: Optional[Path] = None
    """Also write all figures to this file."""
    device: Literal["cpu"] = "cpu"
    """Where this runs; nothing is launched on a GPU."""


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write while it is entered."""

    moved = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if not function.is_view and name not in ALLOCATIONS:
            self.moved += tensor_bytes((args, kwargs, result))
        return result

    def __enter__(self) -> Traffic:
        super().__enter__()
        return self


def tensor_bytes(tree: Any) -> int:
    """Bytes of all tensors in nested arguments; where one is expanded, its numbers count once."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    shapes = [[size for size, stride in zip(t.shape, t.stride()) if stride] for t in tensors]
    return sum(tensor.itemsize * math.prod(shape) for tensor, shape in zip(tensors, shapes))


@contextmanager
def counted_kernels(traffic: Traffic) -> Iterator[None]:
    """Triton kernels of total variation move their tensors once each, and compute nothing."""

    class Kernel:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *args, **constants: setattr(traffic, "moved", traffic.moved + tensor_bytes(args))

    kept = {name: getattr(triton, name) for name in KERNELS}
    try:
        for name in KERNELS:
            setattr(triton, name, Kernel())
        yield
    finally:
        for name, kernel in kept.items():
            setattr(triton, name, kernel)


def moved_bytes(scales: list[Tensor], backend: Backend) -> dict[str, int]:
    """Bytes moved for the value and for its gradient, where planes require one."""
    traffic = Traffic()
    with counted_kernels(traffic), traffic:
        value = torch.stack([squared_differences(scale, backend) for scale in scales]).sum()
        forward = traffic.moved
        torch.autograd.grad(value, scales)
    return {"value": forward, "gradient": traffic.moved - forward}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    scales = [torch.zeros(3, r, r, options.channels, device="meta", requires_grad=True) for r in options.resolutions]
    planes = tensor_bytes(scales)
    rows = []
    for backend in ("reference", "triton"):
        moved = moved_bytes(scales, backend)
        total = sum(moved.values())
        rows.append({"backend": backend, "planes": planes, **moved, "total": total, "times": total / planes})
    timing.show("Bytes moved by total variation and its gradient", rows)
    timing.write_results(options.json, options, rows)


if __name__ == "__main__":
    main()
