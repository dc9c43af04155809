"""The fair study: its page is that of its figures, and no rival was tuned over more settings than the baseline."""

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


def suffix(kind: str) -> str:
    return fair.KINDS[kind].method


def test_the_page_has_the_tables_of_the_figures() -> None:
    page = fair.PAGE.read_text("utf8")
    assert page == fair.with_tables(page, FIGURES), "make it again: python benchmarks/fair.py page"


KINDS = [(name, kind) for name, scene in FIGURES.items() for kind in fair.KINDS if f"tuned{suffix(kind)}" in scene]


@pytest.mark.parametrize("name", FIGURES)
def test_no_student_was_tuned_over_more_trainings_than_its_baseline(name: str) -> None:
    scene = FIGURES[name]
    tried = [entry for key in ("trained", "kinds") for entry in scene.get(key, {}).get("student tried", ())]
    for kind in ("kplanes", "nerfacto"):
        of_kind = [entry for entry in tried if ("decay" in entry) == (kind == "nerfacto")]
        assert not of_kind or len(of_kind) < len(scene[f"tuned{suffix(kind)}"])


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_no_setting_that_was_tried_gives_the_baseline_more_than_the_gain_that_counts(name: str, kind: str) -> None:
    tuned, best = FIGURES[name][f"tuned{suffix(kind)}"], fair.KINDS[kind](**FIGURES[name][f"baseline{suffix(kind)}"])
    chosen = next(entry for entry in tuned if fair.settings_of(entry) == best)
    assert max(entry["val"] for entry in tuned) <= chosen["val"] + fair.GAIN


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
