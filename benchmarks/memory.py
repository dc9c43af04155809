"""How much memory distillation takes at its peak, beside the training of one expert.

Each is trained for a few steps in a process of its own. On the CPU the figure is the process's greatest resident size
less that after its imports, on CUDA what PyTorch had allocated at most. "ratio" is distillation's over the expert's.

    python benchmarks/memory.py --json memory.json
    python benchmarks/memory.py --device cuda
"""

from __future__ import annotations

import copy
import multiprocessing
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import psutil
import step
import timing
import torch
import tyro

from dac_nerfstudio.demo import make_demo_scene


@dataclass
class Options:
    """What to measure."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    sizes: tuple[Literal["quick", "reference"], ...] = ("reference",)
    """Models."""
    decoders: tuple[Literal["explicit", "hybrid"], ...] = ("explicit",)
    """Decoders."""
    rays: int = 4096
    """Rays per step."""
    groups: int = 4
    """Number of experts that answer in distillation."""
    json: Optional[Path] = None
    """Also write all figures to this file."""


def peak(scene: Path, size: str, decoder: str, stage: str, options: Options) -> float:
    """Megabytes; to be called in a fresh process."""
    before = psutil.Process().memory_info().rss
    device = torch.device(options.device)
    training = step.Training(step.settings(scene, size, decoder, stage, options), options.groups, device)
    for _ in range(training.period):
        training.step(lambda label: nullcontext())
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before / 1e6


def measure(scene: Path, size: str, decoder: str, options: Options, context: str = "spawn") -> dict[str, Any]:
    """Each stage in a process of its own, which multiprocessing starts by ``context``."""
    peaks = {}
    for stage in ("baseline", "expert", "distill"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(context)) as pool:
            peaks[stage] = pool.submit(peak, scene, size, decoder, stage, copy.deepcopy(options)).result()
    figures = {f"{stage}, MB": round(megabytes) for stage, megabytes in peaks.items()}
    return {"size": size, "decoder": decoder, **figures, "ratio": round(peaks["distill"] / peaks["expert"], 2)}


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        scene = make_demo_scene(Path(folder) / "scene")
        entries = [measure(scene, size, decoder, options) for size in options.sizes for decoder in options.decoders]
    timing.report(f"Peak memory with {options.rays} rays on {options.device}", options, entries)


if __name__ == "__main__":
    main()
