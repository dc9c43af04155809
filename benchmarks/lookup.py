"""How fast the plane lookup is, beside nerfstudio's.

Each line times one lookup of points in planes of several resolutions, and its gradient in the planes: the backends of
dac_nerfstudio.kplanes.lookup and, as "naive", one nerfstudio KPlanesEncoding per resolution, concatenated. They take
turns; "ratio" is the time of "naive" (forward plus backward) over that of the backend, turn by turn. All figures are
medians with the least and the greatest in brackets.

    python benchmarks/lookup.py --threads 1 2 --json lookup.json
    python benchmarks/lookup.py --device cuda --dtypes float32 float16
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import timing
import torch
import tyro
from nerfstudio.field_components.encodings import KPlanesEncoding
from torch import Tensor

from dac_nerfstudio.kplanes.lookup import Backend, choose, lookup


@dataclass(frozen=True)
class Size:
    resolutions: tuple[int, ...]
    channels: int
    points: int

    def __str__(self) -> str:
        return f"{','.join(map(str, self.resolutions))} x {self.channels}, {self.points:,} points"


SIZES = (
    Size((128,), 8, 262_144),
    Size((32, 64, 128), 16, 65_536),
    Size((128, 256, 512), 32, 32_768),
)
"""A proposal level's, and those of a small and of a full-size field."""


@dataclass
class Options:
    """What to time."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where; on CUDA the Triton kernels are timed, by CUDA's events."""
    dtypes: tuple[Literal["float32", "float16", "bfloat16"], ...] = ("float32",)
    """Types of planes and points. On the CPU only float32 has a fast backend."""
    threads: tuple[int, ...] = (1,)
    """Numbers of CPU threads."""
    points: Literal["uniform", "rays"] = "uniform"
    """Points anywhere, or 64 in a row along each of many lines, as in training."""
    turns: int = 10
    """Timings of each backend."""
    json: Optional[Path] = None
    """Also write all figures to this file."""


def sample_points(size: Size, kind: Literal["uniform", "rays"]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if kind == "uniform":
        return torch.rand(size.points, 3, generator=generator) * 2 - 1
    starts, ends = (torch.rand(size.points // 64, 1, 3, generator=generator) * 2 - 1 for _ in range(2))
    return torch.lerp(starts, ends, torch.linspace(0, 1, 64)[:, None]).reshape(-1, 3)


def measure(size: Size, options: Options, dtype: torch.dtype, threads: int) -> list[dict[str, Any]]:
    """One entry per backend."""
    torch.set_num_threads(threads)
    device = torch.device(options.device)
    points = sample_points(size, options.points).to(device, dtype)
    torch.manual_seed(0)
    encodings = [KPlanesEncoding((r,) * 3, size.channels).to(device, dtype) for r in size.resolutions]
    coefficients = [plane for encoding in encodings for plane in encoding.parameters()]
    scales = [
        torch.stack([p.detach().permute(1, 2, 0) for p in encoding.plane_coefs]).contiguous().requires_grad_()
        for encoding in encodings
    ]
    upstream = torch.randn(len(points), size.channels * len(scales), device=device, dtype=dtype)

    def naive(stage: timing.Stage) -> None:
        with stage("forward"):
            features = torch.cat([encoding(points) for encoding in encodings], dim=-1)
        with stage("backward"):
            torch.autograd.grad(features, coefficients, upstream)

    def ours(backend: Backend) -> Any:
        def run(stage: timing.Stage) -> None:
            with stage("forward"):
                features = lookup(scales, points, backend)
            with stage("backward"):
                torch.autograd.grad(features, scales, upstream)

        return run

    fastest = choose(scales, points)
    backends: tuple[Backend, ...] = ("reference",) if fastest == "reference" else ("reference", fastest)
    contestants = {"naive": naive, **{str(name): ours(name) for name in backends}}
    times = timing.alternate(contestants, options.turns, device)
    slow = times["naive"]["forward"].plus(times["naive"]["backward"])
    return [
        {
            "size": str(size),
            "dtype": str(dtype).removeprefix("torch."),
            "threads": threads,
            "backend": name,
            "forward": spent["forward"],
            "backward": spent["backward"],
            "ratio": slow.over(spent["forward"].plus(spent["backward"])),
        }
        for name, spent in times.items()
    ]


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    entries = [
        entry
        for size in SIZES
        for dtype in options.dtypes
        for threads in options.threads
        for entry in measure(size, options, getattr(torch, dtype), threads)
    ]
    timing.report(f"Plane lookup on {options.device}, ms", options, entries)


if __name__ == "__main__":
    main()
