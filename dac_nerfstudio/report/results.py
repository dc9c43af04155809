"""Figures of a scene's runs, gathered from their records into ``report/results.json`` and a table."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, List, Optional, Tuple

from rich import box
from rich.table import Table

from dac_nerfstudio.partition import Partition
from dac_nerfstudio.stage import Stage, StageError, write_json

METHODS = ("dac-baseline", "dac-expert", "dac-distill", "dac-finetune")
Run = Tuple[Stage, Dict[str, Any]]
"""Record and evaluation of a run."""


def gather(scene_dir: Path, run: str) -> Dict[str, Any]:
    """Figures of the runs named ``run`` that are finished and scored by the scene's current partition.

    Experts count as one method: each test view is scored by its group's expert, steps are those of one expert, seconds
    and parameters those of all together. Steps of a fine-tuned student include its distillation.

    Raises:
        StageError: there are none.
    """
    if not (scene_dir / "partition.json").exists():
        raise StageError(f"{scene_dir} is no folder of results: it holds no partition.json. Make one: dac run --data …")
    partition = Partition.load(scene_dir / "partition.json")
    found = {
        method: [
            scored
            for suffix in ("", "-360")
            for scored in _evaluated(scene_dir / f"{method}{suffix}", run)
            if scored[1]["partition"] == partition.fingerprint
        ]
        for method in METHODS
    }
    stages = [stage for runs in found.values() for stage, _ in runs]
    if not stages:
        raise StageError(
            f"{scene_dir} holds no finished run named {run} that was scored by its current partition. Make one: "
            "dac run --data …"
        )
    groups = partition.num_groups
    if len(found["dac-expert"]) < groups:
        # Some of the experts would be scored on some of the views, beside methods scored on all of them.
        found["dac-expert"] = []
    methods = {method: _figures(runs, groups) for method, runs in found.items() if runs}
    if "dac-finetune" in methods and "dac-distill" in methods:
        for cost in ("steps", "seconds"):
            methods["dac-finetune"][cost] += methods["dac-distill"][cost]
    return {
        "scene": stages[0].scene,
        "partition": partition.fingerprint,
        "groups": groups,
        "seed": stages[0].seed,
        "versions": stages[-1].versions,
        "methods": methods,
    }


def _figures(runs: List[Run], groups: int) -> Dict[str, Any]:
    """One method's entry, from its runs: several for experts, else one."""
    views = [view for _, evaluation in runs for view in evaluation["views"]]

    def psnr(group: int) -> Optional[float]:
        return fmean(values) if (values := [view["psnr"] for view in views if view["group"] == group]) else None

    return {
        # LPIPS is there where its weights are.
        **{score: fmean(view[score] for view in views) for score in ("psnr", "ssim", "lpips") if score in views[0]},
        "steps": runs[0][0].steps,
        "seconds": sum(stage.seconds for stage, _ in runs),
        "parameters": sum(stage.parameters for stage, _ in runs),
        "per_group": [psnr(group) for group in range(1, groups + 1)],
        "per_view": {view["name"]: view["psnr"] for view in sorted(views, key=lambda view: view["name"])},
    }


def latest_run(scene_dir: Path) -> str:
    """Name of the runs of a scene that were worked on last.

    Raises:
        StageError: there are none.
    """
    records = [path for method in METHODS for path in scene_dir.glob(f"{method}*/**/stage.json")]
    if not records:
        raise StageError(f"{scene_dir} holds no runs. Make some: dac run --data …")
    return max(records, key=lambda path: path.stat().st_mtime).parent.name


def _evaluated(folder: Path, run: str) -> List[Run]:
    """The finished and evaluated runs of a method; several where it has groups."""
    found = []
    for record in sorted([*folder.glob(f"{run}/stage.json"), *folder.glob(f"group-*/{run}/stage.json")]):
        stage = Stage.load(record.parent)
        scores = record.with_name("evaluation.json")
        if stage.complete and scores.exists():
            evaluation = json.loads(scores.read_text("utf8"))
            if evaluation["stage"] == stage.fingerprint:
                found.append((stage, evaluation))
    return found


def save(results: Dict[str, Any], scene_dir: Path) -> Path:
    """Write ``report/results.json``; its path."""
    path = scene_dir / "report" / "results.json"
    write_json(path, results)
    return path


TITLES = {
    "dac-baseline": "baseline",
    "dac-expert": "experts, own views",
    "dac-distill": "student, distilled",
    "dac-finetune": "student, fine-tuned",
}


def table(results: Dict[str, Any]) -> Table:
    """The figures as a table that fits a terminal."""
    groups = range(1, results["groups"] + 1)
    shown = Table(
        title=f"{results['scene']}: test views, seed {results['seed']}",
        caption=f"g1 to g{results['groups']}: PSNR on the test views of each group. Baseline and student are of "
        "one size. Steps and time of the fine-tuned student include its distillation.",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("", no_wrap=True)
    for column in ("PSNR", "SSIM", *(f"g{group}" for group in groups), "steps", "time"):
        shown.add_column(column, justify="right", no_wrap=True)
    for method, figures in results["methods"].items():
        per_group = ["–" if value is None else f"{value:.2f}" for value in figures["per_group"]]
        minutes, seconds = divmod(round(figures["seconds"]), 60)
        many = f"{results['groups']}x" if method == "dac-expert" else ""
        shown.add_row(
            TITLES[method],
            f"{figures['psnr']:.2f}",
            f"{figures['ssim']:.3f}",
            *per_group,
            f"{many}{figures['steps']}",
            f"{minutes}:{seconds:02d}",
        )
    return shown
