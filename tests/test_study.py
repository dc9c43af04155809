"""The study: its page says what the results say, is not stale, and validation views can stand in for test views."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from colmap_files import Camera, Photo, write_binary

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import write_json
from dac_nerfstudio.partition import divide, read_test_views, read_views
from dac_nerfstudio.runs.record import Stage

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
study = importlib.import_module("study")

SETTINGS = """
seeds = [1, 2]

[scenes.demo]
about = "A castle."
data = "demo"
preset = "demo"

[arms.dac]
about = "all stages."

[arms.dac.flags.dac-distill]
pipeline.model.distillation.pixel = 0.0

[arms.baseline]
about = "on all views."
kind = "baseline"

[arms.total]
about = "for longer."
kind = "baseline"
count = "total"

[arms.paper]
about = "as in the paper."
trunk = false
one_cosine = false
divide = { groups = 2 }

[arms.restart]
about = "restarted."
kind = "restart"
of = "paper"

[[text]]
title = "What did not help"
text = "Hope."
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(SETTINGS)
    return path


def model(*views: float) -> dict[str, Any]:
    """Scores of two views of group 1 and one of group 2; SSIM is a hundredth of PSNR."""
    return study.score_entry([{"psnr": value, "ssim": value / 100} for value in views], [1, 1, 2])


def invented() -> dict[str, Any]:
    """Two seeds of two arms; the student is ahead by 1 and by 2 dB, and behind on the view c."""

    def stage(steps: int, seconds: float, runs: int = 1) -> dict[str, Any]:
        return {"runs": runs, "steps": steps, "seconds": seconds}

    student = {
        "trunk": stage(40, 5.0),
        "experts": stage(50, 30.0, runs=4),
        "distill": stage(30, 10.0),
        "finetune": stage(70, 20.0),
    }
    dac = {
        seed: {"stages": student, "models": {"experts": model(10, 10, 10), "finetune": model(*views)}}
        for seed, views in {"1": (23.0, 22.0, 18.0), "2": (25.0, 24.0, 17.0)}.items()
    }
    baseline = {
        seed: {"stages": {"baseline": stage(100, 25.0)}, "models": {"baseline": model(20, 20, 20)}} for seed in "12"
    }
    longer = {
        seed: {"stages": {"baseline": stage(340, 85.0)}, "models": {"baseline": model(30, 30, 30)}} for seed in "12"
    }
    scene = {
        "about": "A castle.",
        "preset": "demo",
        "split": "test",
        "machine": {"device": "a laptop", "system": "Linux", "python": "3.11", "versions": {"torch": "2.5"}},
        "views": {"a": 1, "b": 1, "c": 2},
        "arms": {
            "dac": {"about": "all stages.", "kind": "dac", "seeds": dac},
            "baseline": {"about": "on all views.", "kind": "baseline", "seeds": baseline},
            "total": {"about": "for longer.", "kind": "baseline", "seeds": longer},
        },
    }
    return {"scenes": {"demo": scene}}


def test_page_pairs_seeds_and_counts_all_stages(settings: Path) -> None:
    lines = study.page(invented(), study.Study.load(settings)).splitlines()
    # Means of 21 and 22 dB; gains of 1 and 2 dB; 40 + 4 x 50 + 30 + 70 steps and 65 seconds.
    assert "| dac | 21.50 ± 0.71 | 0.215 ± 0.007 | +1.50 ± 0.71 | −8.50 ± 0.71 | 100 / 340 | 1:05 |" in lines
    assert "| baseline | 20.00 ± 0.00 | 0.200 ± 0.000 | – | – | 100 / 100 | 0:25 |" in lines
    assert "| total | **30.00 ± 0.00** | **0.300 ± 0.000** | – | – | 340 / 340 | 1:25 |" in lines
    experts = "| dac: its experts, own views | 10.00 ± 0.00 | 0.100 ± 0.000 | – | – | – / 240 | 0:35 |"
    assert experts in lines
    assert "| dac | 23.50 | 17.50 |" in lines
    assert "| dac | 2 of 3 | a +4.00, b +3.00, c −2.50 | c −2.50, b +3.00, a +4.00 |" in lines
    assert lines[-3:] == ["## What did not help", "", "Hope."]


def test_check_tells_a_stale_page(settings: Path, tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "results.md"
    study.write_results(results, invented())
    assert json.loads(results.read_text()) == invented()
    study.write_page(results, page, settings)
    study.check(results, page, settings)
    page.write_text(page.read_text().replace("21.50", "31.50"))
    with pytest.raises(StageError, match="is stale. Make it again: python benchmarks/study.py page"):
        study.check(results, page, settings)


def test_the_page_in_docs_is_what_its_results_give() -> None:
    results, page = ROOT / "docs" / "results.json", ROOT / "docs" / "results.md"
    if not results.exists() and not page.exists():
        pytest.skip("the study has not been run yet")
    study.check(results, page)


def test_committed_settings_can_be_read() -> None:
    assert {arm.kind for arm in study.Study.load(study.SETTINGS).arms.values()} == {
        "dac", "baseline", "restart",
    }  # fmt: skip


def test_misspelt_settings_are_named(settings: Path) -> None:
    settings.write_text(SETTINGS.replace("kind =", "kid ="))
    with pytest.raises(StageError, match="unexpected keyword argument 'kid'"):
        study.Study.load(settings)


def test_arms_differ_in_what_they_are_to_differ_in(settings: Path, tmp_path: Path) -> None:
    """Steps of the preset demo: 500 of an expert, 300 of distillation, 700 of fine-tuning; here two experts."""
    data = make_demo_scene(tmp_path / "scene", size=8, train=8, val=2, test=3)
    plan = study.Study.load(settings)
    plan.arms["dac"].divide["groups"] = 2
    place = study.Place(plan, "demo", data, tmp_path / "out", "cpu")
    steps, flags = {}, {}
    for arm in plan.arms:
        for job in place.plan(arm, 1).jobs:
            flags[arm, job.name] = job.flags
            if "max-num-iterations" in job.flags:
                steps[arm, job.name] = job.flags["max-num-iterations"]
    assert steps == {
        ("dac", "trunk"): 300,
        ("dac", "expert 1"): 500,
        ("dac", "expert 2"): 500,
        ("dac", "distill"): 300,
        ("dac", "finetune"): 700,
        ("baseline", "baseline"): 1000,
        ("total", "baseline"): 2300,
        ("paper", "expert 1"): 500,
        ("paper", "expert 2"): 500,
        ("paper", "distill"): 300,
        ("paper", "finetune"): 700,
        ("restart", "baseline"): 300,
        ("restart", "finetune"): 700,
    }
    start = flags["restart", "finetune"]["student"]
    assert start == (tmp_path / "out/restart/seed-1/demo/dac-baseline/demo-seed1")
    assert "pipeline.model.distillation.pixel" in flags["dac", "distill"]
    assert "pipeline.model.distillation.pixel" not in flags["dac", "finetune"]
    begin, end = "optimizers.fields.scheduler.begin", "optimizers.fields.scheduler.end"
    for arm in ("dac", "paper", "restart"):
        assert flags[arm, "finetune"][begin] == 0.3
    # Only along one cosine does distillation end where fine-tuning begins.
    assert end in flags["dac", "distill"] and end not in flags["paper", "distill"]
    assert "trunk" in flags["dac", "expert 1"] and "trunk" not in flags["paper", "expert 1"]


def test_validation_views_stand_in_for_test_views(tmp_path: Path) -> None:
    data = make_demo_scene(tmp_path / "scene", size=8, train=4, val=2, test=3)
    assert study.scored_on(data, "test", tmp_path / "no") == data
    for _ in range(2):  # made again, it is the same
        derived = study.scored_on(data, "val", tmp_path / "val")
        assert read_test_views(derived).names == ("val/r_0.png", "val/r_1.png")
        assert read_views(derived).names == read_views(data).names
    assert len(read_test_views(data)) == 3


def test_validation_views_of_a_model_without_lists(tmp_path: Path) -> None:
    names = [f"{number:02d}.png" for number in range(20)]
    data, model_dir = tmp_path / "scene", tmp_path / "scene" / "sparse" / "0"
    model_dir.mkdir(parents=True)
    (data / "images").mkdir()
    for name in names:
        (data / "images" / name).touch()
    write_binary(
        model_dir,
        [Camera()],
        [Photo(number, name, translation=(number, 0.0, 1.0)) for number, name in enumerate(names, 1)],
    )
    derived = {split: study.scored_on(data, split, tmp_path / split) for split in ("val", "test")}
    assert {name[-6:] for name in read_test_views(derived["test"]).names} == {"00.png", "08.png", "16.png"}
    assert {name[-6:] for name in read_test_views(derived["val"]).names} == {"01.png", "12.png"}
    assert read_views(derived["val"]).names == read_views(derived["test"]).names
    assert len(read_views(derived["val"])) == 15


def test_figures_of_other_arms_and_seeds_stay() -> None:
    known = invented()["scenes"]["demo"]
    made = json.loads(json.dumps(known))
    made["arms"] = {"dac": {**made["arms"]["dac"], "seeds": {"3": made["arms"]["dac"]["seeds"].pop("1")}}}
    both = study.combined(known, made, ["baseline", "dac"])
    assert {name: list(arm["seeds"]) for name, arm in both["arms"].items()} == {
        "baseline": ["1", "2"],
        "dac": ["1", "2", "3"],
    }
    assert list(study.combined({**known, "views": {}}, made, ["dac"])["arms"]["dac"]["seeds"]) == ["3"]


def test_shared_experts_count_with_their_trunk(settings: Path, tmp_path: Path) -> None:
    settings.write_text(SETTINGS.replace("[[text]]", '[arms.again]\nabout = "again."\nexperts = "dac"\n\n[[text]]'))
    data = make_demo_scene(tmp_path / "scene", size=8, train=8, val=2, test=3)
    place = study.Place(study.Study.load(settings), "demo", data, tmp_path / "out", "cpu")

    def finish(plan: Any) -> None:
        for job in plan.jobs:
            if job.kind == "train":
                group = job.group
                steps = 100 if group else 10
                Stage(job.method, "demo", {}, 1, steps, "0" * 16, group, steps=steps, seconds=1.0).save(job.run_dir)
                divide(read_views(data), 4, softness=0.3).save(job.run_dir / "partition.json")
                write_json(job.run_dir / "evaluation.json", {"views": [{"name": "a", "group": 1, "psnr": 1.0}]})

    finish(place.plan("dac", 1))
    finish(place.plan("again", 1))
    for arm in ("dac", "again"):
        stages = place.figures(arm, 1)["stages"]
        assert {name: stage["runs"] * stage["steps"] for name, stage in stages.items()} == {
            "trunk": 10, "experts": 400, "distill": 10, "finetune": 10,
        }  # fmt: skip
    assert set(place.figures("again", 1)["models"]) == {"distill", "finetune"}
