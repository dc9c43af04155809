"""Folders of results, and what lies in them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from run_folders import Maker


@pytest.fixture
def maker(tmp_path: Path) -> Callable[..., Maker]:
    """Makes an empty folder of results."""

    def make(scene: str = "lego", **settings: Any) -> Maker:
        return Maker(tmp_path / "outputs" / scene, **settings)

    return make


@pytest.fixture
def log_curves() -> Callable[..., None]:
    """Writes a tensorboard file: (step, second, PSNR of training rays) per point."""

    def write(
        run_dir: Path, points: Sequence[tuple[int, float, float]], begun: float = 1000.0, suffix: str = ""
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        run_dir.mkdir(parents=True, exist_ok=True)
        writer = SummaryWriter(str(run_dir), filename_suffix=suffix)
        for step, second, value in points:
            writer.add_scalar("Train Iter (time)", 0.1, step, walltime=begun + second)
            writer.add_scalar("Train Metrics Dict/psnr", value, step, walltime=begun + second)
            writer.add_scalar("Train Loss", 10 ** (-value / 10), step, walltime=begun + second)
        writer.close()

    return write


@pytest.fixture
def whole(maker: Callable, log_curves: Callable) -> Maker:
    """A scene that has everything that a report can show."""
    made = maker().everything()
    for seed, method in enumerate(("dac-baseline", "dac-finetune")):
        made.keep_pairs(made.run_dir(method), lambda number, photo, seed=seed: photo // (2 + (seed + number) % 2))
    for method in ("dac-baseline", "dac-distill", "dac-finetune"):
        log_curves(made.run_dir(method), [(0, 0.0, 10.0), (40, 8.0, 12.0)])
    Image.new("RGB", (40, 20), "red").save(made.folder / "partition.png")
    return made


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a folder of results elsewhere, under the same name."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "elsewhere" / folder.name))

    return copy
