"""The fair study: its page is that of its figures, and no rival was tuned over more settings than the baseline."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
fair = importlib.import_module("fair")
FIGURES = json.loads((ROOT / "docs" / "fair.json").read_text("utf8"))


def test_the_page_has_the_tables_of_the_figures() -> None:
    page = fair.PAGE.read_text("utf8")
    assert page == fair.with_tables(page, FIGURES), "make it again: python benchmarks/fair.py page"


@pytest.mark.parametrize("name", FIGURES)
def test_no_student_was_tuned_over_more_trainings_than_its_baseline(name: str) -> None:
    scene = FIGURES[name]
    assert len(scene.get("trained", {}).get("student tried", ())) < len(scene["tuned"])


@pytest.mark.parametrize("name", FIGURES)
def test_no_setting_that_was_tried_gives_the_baseline_more_than_the_gain_that_counts(name: str) -> None:
    scene = FIGURES[name]
    key = lambda entry: tuple(entry[name] for name in fair.NAMES)  # noqa: E731
    best = next(entry for entry in scene["tuned"] if key(entry) == tuple(scene["baseline"][n] for n in fair.NAMES))
    assert max(entry["val"] for entry in scene["tuned"]) <= best["val"] + fair.GAIN


def test_psnr_is_the_mean_over_views_and_averaged_pictures_are_scored_as_one() -> None:
    photos = np.zeros((2, 4, 4, 3), np.float32)
    pictures = photos + np.array([0.1, 0.01], np.float32)[:, None, None, None]
    assert fair.psnr(pictures, photos) == pytest.approx(30.0, abs=1e-3)  # of 20 and 40 dB
    both = {f"{split}_photos": photos for split in ("val", "test")}
    runs = [
        fair.Run(Path(), {}, {"val": photos + error, "test": photos + error / 10, **both})
        for error in (np.float32(0.3), np.float32(-0.1))
    ]
    assert fair.averaged(runs) == {"val": pytest.approx(20.0, abs=1e-3), "test": pytest.approx(40.0, abs=1e-3)}
