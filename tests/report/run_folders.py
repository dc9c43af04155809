"""Run folders as training and scoring leave them, made without either."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cameras import ring_of
from PIL import Image
from scene_folders import edited

from dac_nerfstudio.files import write_json
from dac_nerfstudio.partition import Partition, divide, publish
from dac_nerfstudio.report.results import Results, figures
from dac_nerfstudio.report.runs import read_scene
from dac_nerfstudio.runs.record import Stage

RUN = "quick-seed7"
SIZE = 24
"""Pixels a side of the photos."""
VIEWS = {"test/a.png": 1, "test/b.png": 1, "test/c.png": 2, "test/d.png": 2}
"""Test views and their groups."""
PSNR = {
    "dac-baseline": [20.0, 24.0, 30.0, 28.0],
    "dac-expert": [21.0, 25.0, 29.0, 27.0],
    "dac-distill": [18.0, 20.0, 22.0, 24.0],
    "dac-finetune": [21.5, 24.5, 29.0, 28.0],
}
"""Of the test views."""
STEPS = {"dac-baseline": 150, "dac-expert": 100, "dac-distill": 50, "dac-finetune": 100}
SECONDS = {"dac-baseline": 30.0, "dac-expert": 20.0, "dac-distill": 12.0, "dac-finetune": 25.0}
LEFT_OUT = {"lpips": "no weights."}


def gather(folder: Path, run: str | None = RUN) -> Results:
    """Figures of a folder of results."""
    return figures(read_scene(folder, run))


def picture(seed: int) -> np.ndarray:
    """Something to look at, [SIZE, SIZE, 3] bytes."""
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def better(views: list[dict[str, Any]], ahead: float) -> None:
    """Adds to the PSNR of views."""
    for view in views:
        view["psnr"] += ahead


@dataclass
class Maker:
    """Writes a scene's folder of results."""

    folder: Path
    names: Sequence[str] = tuple(VIEWS)
    """Of the test views, in the order of ``PSNR``."""
    partition: Partition = field(init=False)

    def __post_init__(self) -> None:
        self.partition = divide(ring_of(45 * np.arange(8) + 6), groups=2, strategy="azimuth")
        publish(self.partition, self.folder)

    def run_dir(self, method: str, group: int | None = None, run: str = RUN) -> Path:
        return self.folder / method / (f"group-{group}" if group else "") / run

    def stage(self, method: str, group: int | None = None, **changes: Any) -> Stage:
        record: dict[str, Any] = {
            "method": method,
            "scene": self.folder.name,
            "settings": {"data": {}},
            "seed": 7,
            "total_steps": STEPS[method],
            "partition": self.partition.fingerprint,
            "group": group,
            "inputs": {"student": self.stage("dac-distill").fingerprint} if method == "dac-finetune" else {},
            "steps": STEPS[method],
            "seconds": SECONDS[method],
            "parameters": 1000,
            "versions": {"torch": "2.0"},
            "peak_memory": {"process": 500_000_000},
        }
        return Stage(**{**record, **changes})

    def train(self, method: str, group: int | None = None, run: str = RUN, **changes: Any) -> Path:
        """A trained run; keyword arguments are fields of its record."""
        folder, stage = self.run_dir(method, group, run), self.stage(method, group, **changes)
        stage.save(folder)
        # A record tells what the process that saved it held, which is another number every time.
        write_json(folder / "stage.json", {**vars(stage), "peak_memory": {"process": 500_000_000}})
        return folder

    def score(self, run_dir: Path, scores: Sequence[str] = ("psnr", "ssim", "flip"), **changes: Any) -> None:
        """Scores of a run's views: SSIM is a hundredth of PSNR, FLIP a thousandth."""
        stage = Stage.load(run_dir)
        factors = {"psnr": 1.0, "ssim": 0.01, "ms_ssim": 0.011, "lpips": 0.002, "flip": 0.001}
        views = [
            {
                "name": name,
                "group": group,
                **{score: factors[score] * psnr for score in scores},
                "num_rays_per_sec": 1000.0,
                "fps": 4.0,
            }
            for name, group, psnr in zip(self.names, VIEWS.values(), PSNR[stage.method], strict=True)
            if stage.group in (None, group)
        ]
        content = {
            "format": 2,
            "stage": stage.fingerprint,
            "partition": self.partition.fingerprint,
            "split": "test",
            "most": 40,
            "left_out": LEFT_OUT,
            "views": views,
        }
        write_json(run_dir / "evaluation.json", {**content, **changes})

    def keep_pairs(self, run_dir: Path, change: Callable[[int, np.ndarray], np.ndarray]) -> None:
        """Pictures of a scored run: what ``change`` makes of the number and the photo of each view."""
        content = json.loads((run_dir / "evaluation.json").read_text())
        (run_dir / "test").mkdir()
        for number, view in enumerate(content["views"]):
            view["pair"] = f"{number:04d}.png"
            photo = picture(number)
            pair = np.concatenate([photo, change(number, photo)], axis=1)
            Image.fromarray(pair).save(run_dir / "test" / view["pair"])
        write_json(run_dir / "evaluation.json", content)

    def add_long(self, ahead: float = 2.0) -> Path:
        """A baseline of all steps, scored ``ahead`` dB better than the other; its folder."""
        long = self.train("dac-baseline", run=f"{RUN}-total", total_steps=400, steps=400, seconds=75.0)
        self.score(long)
        return edited(long / "evaluation.json", lambda content: better(content["views"], ahead)).parent

    def everything(self) -> Maker:
        """All methods, trained and scored."""
        for method in PSNR:
            for group in (1, 2) if method == "dac-expert" else (None,):
                self.score(self.train(method, group))
        return self

    def only(self, *methods: str) -> Maker:
        for method in methods:
            self.score(self.train(method))
        return self
