"""How long the whole pipeline takes, beside the naive path's: experts, ensemble, distillation, fine-tuning, baseline.

Ours is `dac run`. The naive path is a shell script's: training and scoring of one stage after the other, each a process
of its own, on the naive model (see naive.py) with torch's default Adam. Both train the generated scene by the preset
`demo` and score the same views; ours alone writes a report. "ratio" is the naive path's time over ours, turn by turn.

    python benchmarks/pipeline.py --devices cpu,cpu --json pipeline.json
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Optional

import timing
import tyro

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.launch.plan import Request, make_plan
from dac_nerfstudio.presets import PRESETS

BESIDE = Path(__file__).parent
SLOW_ADAM = {"optimizers.fields.optimizer.fused": False, "optimizers.proposal-networks.optimizer.fused": False}


@dataclass
class Options:
    """What to time."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    devices: tuple[str, ...] = ("cpu", "cpu,cpu")
    """Devices of dac run: each entry is timed. The naive path has one device, and as many threads as torch takes."""
    turns: int = 1
    """Timings of each path. One takes many minutes."""
    json: Optional[Path] = None
    """Also write all figures to this file."""


def run(command: Sequence[str], log: Path) -> None:
    with log.open("a") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=True)


def naively(scene: Path, folder: Path, device: str) -> None:
    plan = make_plan(Request(scene, folder, "demo", video=False, device=device), PRESETS["demo"])
    program = (sys.executable, str(BESIDE / "naive.py"))
    for job in plan.jobs:
        if job.kind != "train":
            continue
        slow = {} if job.stage == "ensemble" else SLOW_ADAM
        run((*program, "ns-train", *replace(job, flags={**job.flags, **slow}).arguments), folder / "log.txt")
        if job.score_most:
            run((*program, "score", str(job.run_dir / "config.yml")), folder / "log.txt")


def ours(scene: Path, folder: Path, devices: str) -> None:
    where = ("--data", str(scene), "--output-dir", str(folder), "--scene", "demo", "--preset", "demo", "--seed", "42")
    dac = str(Path(sys.executable).parent / "dac")
    run((dac, "run", *where, "--no-video", "--devices", devices), folder / "log.txt")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    paths = {"naive": lambda scene, folder: naively(scene, folder, options.device)}
    for devices in options.devices:
        paths[f"dac run --devices {devices}"] = lambda scene, folder, devices=devices: ours(scene, folder, devices)
    times = {name: timing.Times() for name in paths}
    with tempfile.TemporaryDirectory() as temporary:
        scene = make_demo_scene(Path(temporary) / "scene")
        for turn in range(options.turns):
            for name, path in paths.items():
                folder = Path(temporary) / f"{re.sub('[^a-z]', '-', name)}-{turn}"
                folder.mkdir()
                start = time.perf_counter()
                path(scene, folder)
                times[name].append((time.perf_counter() - start) * 1e3)
    entries = [
        {"path": name, "s": timing.Times(t / 1e3 for t in spent), "ratio": times["naive"].over(spent)}
        for name, spent in times.items()
    ]
    timing.show(f"The demo's pipeline on {options.device}, every stage trained and scored", entries)
    timing.write_results(options.json, options, entries)


if __name__ == "__main__":
    main()
