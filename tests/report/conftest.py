"""Folders of results, and what lies in them."""

import shutil
from collections.abc import Callable
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
def whole(maker: Callable) -> Maker:
    """A scene that has everything that a report can show."""
    made = maker().everything()
    for seed, method in enumerate(("dac-baseline", "dac-finetune")):
        made.keep_pairs(made.run_dir(method), lambda number, photo, seed=seed: photo // (2 + (seed + number) % 2))
    Image.new("RGB", (40, 20), "red").save(made.folder / "partition.png")
    return made


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a folder of results elsewhere, under the same name."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "elsewhere" / folder.name))

    return copy
