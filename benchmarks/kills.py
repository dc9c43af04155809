"""Kill the demo's run again and again, and see that it ends where an undisturbed one does.

    python benchmarks/kills.py --kills 20 --json kills.json

The killed run gets SIGKILL, as all its processes do, at random moments; the same command then goes on. In the end the
results of both are compared: scores of every view of every method, and the weights of the student.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import torch
import tyro

DAC = Path(sys.executable).parent / "dac"


@dataclass
class Arguments:
    """Kill the demo's run again and again, and see that it ends where an undisturbed one does."""

    kills: int = 20
    """How often."""
    between: Tuple[float, float] = (15.0, 45.0)
    """Bounds of the random life of each run, in seconds."""
    folder: Path = Path("outputs/kills")
    """Where both runs' results go."""
    devices: str = "cpu,cpu"
    """As of dac run."""
    seed: int = 0
    """Seed of the moments."""
    json: Optional[Path] = None
    """Write the outcome here."""


def command(folder: Path, devices: str) -> list[str]:
    flags = ("--preset", "demo", "--scene", "demo", "--devices", devices)
    return [str(DAC), "run", "--data", str(folder.parent / "scene"), "--output-dir", str(folder), *flags]


def main(arguments: Arguments) -> None:
    from dac_nerfstudio.scenes import make_demo_scene

    make_demo_scene(arguments.folder / "scene")
    whole, killed = arguments.folder / "whole", arguments.folder / "killed"
    start = time.monotonic()
    subprocess.run(command(whole, arguments.devices), check=True)
    undisturbed = time.monotonic() - start
    moments, lives = random.Random(arguments.seed), []
    for number in range(arguments.kills):
        life = moments.uniform(*arguments.between)
        # A session of its own, all of which is killed.
        process = subprocess.Popen(command(killed, arguments.devices), start_new_session=True)
        try:
            process.wait(timeout=life)
            print(f"Finished before kill {number + 1}.")
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            lives.append(life)
    subprocess.run(command(killed, arguments.devices), check=True)
    outcome = {"kills": len(lives), "lives": lives, "undisturbed_seconds": undisturbed, **compare(whole, killed)}
    print(json.dumps(outcome, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(outcome, indent=2) + "\n")


def compare(whole: Path, killed: Path) -> Dict[str, Any]:
    """The largest differences between two runs' scores and weights."""
    evaluations = sorted(path.relative_to(whole) for path in whole.rglob("evaluation.json"))
    assert evaluations == sorted(path.relative_to(killed) for path in killed.rglob("evaluation.json"))
    psnr = 0.0
    for path in evaluations:
        one, other = (json.loads((folder / path).read_text())["views"] for folder in (whole, killed))
        assert [view["name"] for view in one] == [view["name"] for view in other]
        psnr = max(psnr, max(abs(a["psnr"] - b["psnr"]) for a, b in zip(one, other)))
    weights = 0.0
    for path in sorted(whole.rglob("*.ckpt")):
        one, other = (
            torch.load(folder / path.relative_to(whole), weights_only=True)["pipeline"] for folder in (whole, killed)
        )
        apart = [(one[name].float() - other[name].float()).abs() for name in one if one[name].numel()]
        weights = max(weights, *(float(difference.max()) for difference in apart))
    return {"evaluations": len(evaluations), "largest_psnr_difference": psnr, "largest_weight_difference": weights}


if __name__ == "__main__":
    main(tyro.cli(Arguments))
