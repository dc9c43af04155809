"""Figures of a scene's runs, gathered from their records into ``report/results.json`` and a table."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, List, Optional, Tuple

from rich.table import Table

from dac_nerfstudio.stage import Stage, StageError, write_json

METHODS = ("dac-baseline", "dac-expert", "dac-distill", "dac-finetune")
Run = Tuple[Stage, List[Dict[str, Any]]]


def gather(scene_dir: Path, run: str) -> Dict[str, Any]:
    """Figures of the finished and evaluated runs named ``run``.

    Experts count as one method: each test view is scored by its group's expert, steps are those of one expert, seconds
    and parameters those of all together. Steps of a fine-tuned student include its distillation.

    Raises:
        StageError: there are none, or they are of different partitions.
    """
    methods: Dict[str, Any] = {}
    stages: List[Stage] = []
    groups = 0
    for method in METHODS:
        runs = [found for suffix in ("", "-360") for found in _evaluated(scene_dir / f"{method}{suffix}", run)]
        if not runs:
            continue
        stages += [stage for stage, _ in runs]
        views = [view for _, scored in runs for view in scored]
        groups = max([groups, *(view["group"] or 0 for view in views), *(stage.group or 0 for stage, _ in runs)])
        methods[method] = {
            "psnr": fmean(view["psnr"] for view in views),
            "ssim": fmean(view["ssim"] for view in views),
            "steps": runs[0][0].steps,
            "seconds": sum(stage.seconds for stage, _ in runs),
            "parameters": sum(stage.parameters for stage, _ in runs),
            "per_group": views,
            "per_view": {view["name"]: view["psnr"] for view in sorted(views, key=lambda view: view["name"])},
        }
    if not stages:
        raise StageError(f"{scene_dir} holds no finished and evaluated run named {run}. Make one: dac run --data …")
    partitions = {stage.partition for stage in stages}
    if len(partitions) > 1:
        raise StageError(
            f"The runs named {run} in {scene_dir} are of different partitions: {partitions}. dac run again."
        )
    for figures in methods.values():
        figures["per_group"] = [
            _mean_or_none([view["psnr"] for view in figures["per_group"] if view["group"] == group])
            for group in range(1, groups + 1)
        ]
    if "dac-finetune" in methods and "dac-distill" in methods:
        methods["dac-finetune"]["steps"] += methods["dac-distill"]["steps"]
        methods["dac-finetune"]["seconds"] += methods["dac-distill"]["seconds"]
    return {
        "scene": stages[0].scene,
        "partition": stages[0].partition,
        "groups": groups,
        "seed": stages[0].seed,
        "versions": stages[-1].versions,
        "methods": methods,
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
    """Record and scores of the finished runs of a method; several where it has groups."""
    found = []
    for record in sorted([*folder.glob(f"{run}/stage.json"), *folder.glob(f"group-*/{run}/stage.json")]):
        stage = Stage.load(record.parent)
        scores = record.with_name("evaluation.json")
        if stage.complete and scores.exists():
            evaluation = json.loads(scores.read_text("utf8"))
            if evaluation["stage"] == stage.fingerprint:
                found.append((stage, evaluation["views"]))
    return found


def _mean_or_none(values: List[float]) -> Optional[float]:
    return fmean(values) if values else None


def save(results: Dict[str, Any], scene_dir: Path) -> Path:
    """Write ``report/results.json``; its path."""
    path = scene_dir / "report" / "results.json"
    write_json(path, results)
    return path


TITLES = {
    "dac-baseline": "baseline (all views)",
    "dac-expert": "experts on own views",
    "dac-distill": "student, distilled",
    "dac-finetune": "student, fine-tuned",
}


def table(results: Dict[str, Any]) -> Table:
    """The figures as a table for the terminal."""
    shown = Table(title=f"{results['scene']}, test views, seed {results['seed']}, {results['groups']} groups")
    shown.add_column("")
    for column in ("PSNR", "SSIM", *(f"group {group}" for group in range(1, results["groups"] + 1))):
        shown.add_column(column, justify="right")
    for column in ("steps", "time", "parameters"):
        shown.add_column(column, justify="right")
    for method, figures in results["methods"].items():
        per_group = ["–" if value is None else f"{value:.2f}" for value in figures["per_group"]]
        minutes, seconds = divmod(round(figures["seconds"]), 60)
        shown.add_row(
            TITLES[method],
            f"{figures['psnr']:.2f}",
            f"{figures['ssim']:.4f}",
            *per_group,
            f"{results['groups']} x {figures['steps']}" if method == "dac-expert" else str(figures["steps"]),
            f"{minutes}:{seconds:02d}",
            f"{figures['parameters'] / 1e6:.2f} M",
        )
    return shown
