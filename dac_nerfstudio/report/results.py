"""Figures of a scene's runs, gathered from their records into ``report/results.json`` and a table."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, List, Optional

from rich import box
from rich.table import Table

from dac_nerfstudio.files import write_json
from dac_nerfstudio.partition import listing
from dac_nerfstudio.report.commands import commands
from dac_nerfstudio.report.methods import METHODS, TITLES
from dac_nerfstudio.report.runs import Run, SceneRuns, latest_run, read_scene
from dac_nerfstudio.runs.layout import report_folder
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.units import clock

__all__ = ["figures", "gather", "latest_run", "save", "table"]

FORMAT = 2
BASELINE, STUDENT = "dac-baseline", "dac-finetune"
ALIKE = 1.05
"""Models of which one has no more than so many times the other's parameters are of one size."""


def gather(scene_dir: Path, run: str) -> Dict[str, Any]:
    """Figures of the runs named ``run`` that are finished and scored by the scene's current partition.

    Raises:
        StageError: there are none.
    """
    return figures(read_scene(scene_dir, run))


def figures(scene: SceneRuns) -> Dict[str, Any]:
    """All figures of a scene as JSON.

    Experts count as one method: each test view is scored by its group's expert, steps are those of one expert, seconds
    and parameters those of all together, the seconds with their trunk's. Steps and seconds of a fine-tuned student
    include its distillation. What differs between two runs that are otherwise equal (time, memory) is under ``costs``
    alone. PSNR is infinite where a rendering equals its photo, which JSON cannot say: it is None then, left out of
    means and gains, and noted.
    """
    groups = scene.partition.num_groups
    methods = {method: _figures(runs, groups) for method in METHODS if (runs := scene.scored(method))}
    costs = {method: _costs(scene.scored(method)) for method in methods}
    if STUDENT in methods and scene.distillation is not None:
        methods[STUDENT]["steps"] += scene.distillation.stage.steps
        costs[STUDENT]["seconds"] += scene.distillation.stage.seconds
    if "dac-expert" in methods and scene.trunk is not None:
        costs["dac-expert"]["seconds"] += scene.trunk.stage.seconds
    runs = [run for method in methods for run in scene.scored(method)]
    stage = runs[0].stage
    return {
        "format": FORMAT,
        "scene": stage.scene,
        "run": scene.name,
        "partition": scene.partition.fingerprint,
        "groups": groups,
        "seed": stage.seed,
        "versions": _versions(runs),
        "scores": [score for score in SCORES if any(score in entry["scores"] for entry in methods.values())],
        "left_out": _left_out(scene, methods),
        "missing": scene.missing,
        "notes": _notes(methods, scene),
        "methods": methods,
        "gain": _gain(methods, groups),
        "commands": commands(scene),
        "costs": costs,
    }


def _figures(runs: List[Run], groups: int) -> Dict[str, Any]:
    """One method's entry, from its runs: several for experts, else one."""
    views = _views(runs)
    scores = [score for score in SCORES if views and all(score in view for view in views)]

    def average(score: str, group: Optional[int] = None) -> Optional[float]:
        values = [view[score] for view in views if group in (None, view["group"])]
        return mean([value for value in values if isfinite(value)])

    return {
        "steps": runs[0].stage.steps,
        "parameters": sum(run.stage.parameters for run in runs),
        "scores": {score: average(score) for score in scores},
        "per_group": {score: [average(score, group) for group in range(1, groups + 1)] for score in scores},
        "per_view": {
            view["name"]: {
                "group": view["group"],
                **{score: view[score] if isfinite(view[score]) else None for score in scores},
            }
            for view in sorted(views, key=lambda view: view["name"])
        },
    }


def _costs(runs: List[Run]) -> Dict[str, Any]:
    """What a method took: several values where it has several runs."""
    memory: Dict[str, int] = {}
    for run in runs:
        for name, peak in run.stage.peak_memory.items():
            memory[name] = max(peak, memory.get(name, 0))
    speeds = [view["fps"] for view in _views(runs) if view.get("fps")]
    return {
        "seconds": sum(run.stage.seconds for run in runs),
        "seconds_of_runs": [run.stage.seconds for run in runs],
        "peak_memory": memory,
        "seconds_per_view": mean([1 / fps for fps in speeds]),
    }


def _views(runs: List[Run]) -> List[Dict[str, Any]]:
    return [view for run in runs if run.evaluation for view in run.evaluation["views"]]


def mean(values: List[float]) -> Optional[float]:
    return fmean(values) if values else None


def _gain(methods: Dict[str, Any], groups: int) -> Optional[Dict[str, Any]]:
    """What the fine-tuned student is better by than the baseline, in dB of PSNR, over the views that both have."""
    if BASELINE not in methods or STUDENT not in methods:
        return None
    before, after = (methods[method]["per_view"] for method in (BASELINE, STUDENT))
    views = [
        {"name": name, "group": view["group"], "gain": view["psnr"] - before[name]["psnr"]}
        for name, view in after.items()
        if name in before and None not in (view["psnr"], before[name]["psnr"])
    ]
    if not views:
        return None
    views.sort(key=lambda view: (-view["gain"], view["name"]))
    per_group = [mean([view["gain"] for view in views if view["group"] == group]) for group in range(1, groups + 1)]
    return {
        "mean": fmean(view["gain"] for view in views),
        "better": sum(view["gain"] > 0 for view in views),
        "per_group": per_group,
        "views": views,
    }


def _versions(runs: List[Run]) -> Dict[str, str]:
    """Versions of each package; several where stages were made with different ones."""
    names = sorted({name for run in runs for name in run.stage.versions})
    found = {name: sorted({run.stage.versions[name] for run in runs if name in run.stage.versions}) for name in names}
    return {name: ", ".join(versions) for name, versions in found.items()}


def _left_out(scene: SceneRuns, methods: Dict[str, Any]) -> Dict[str, str]:
    """Why a score is left out, for each that not all methods have."""
    reasons = {}
    for score in SCORES:
        lacking = [method for method, entry in methods.items() if entry["per_view"] and score not in entry["scores"]]
        if not lacking:
            continue
        evaluations = [run.evaluation or {} for method in lacking for run in scene.scored(method)]
        given = [evaluation["left_out"][score] for evaluation in evaluations if score in evaluation.get("left_out", {})]
        old = [evaluation for evaluation in evaluations if "left_out" not in evaluation]
        if given:
            reasons[score] = given[0]
        elif old:
            reasons[score] = "not scored when these runs were. The same dac run again scores them and trains nothing."
        else:
            reasons[score] = "not all views have it."
    return reasons


def _notes(methods: Dict[str, Any], scene: SceneRuns) -> List[str]:
    """What a reader should know before comparing."""
    notes = []
    scored_on = {method: _digests(scene.scored(method)) for method in methods}
    if len({digest for digests in scored_on.values() for digest in digests}) > 1:
        notes.append(
            "The methods were not scored on the same photos: the data or --downscale has changed in between. The same "
            "dac run again scores those anew that it has to."
        )
    exact = {TITLES[m]: [n for n, v in e["per_view"].items() if v["psnr"] is None] for m, e in methods.items()}
    notes += [
        f"{title}: PSNR of {listing(names)} is infinite, as the rendering equals the photo; means are without it."
        for title, names in exact.items()
        if names
    ]
    seen = {method: set(entry["per_view"]) for method, entry in methods.items()}
    if len({frozenset(names) for names in seen.values()}) > 1:
        counts = ", ".join(f"{TITLES[method]}: {len(names)}" for method, names in seen.items())
        notes.append(f"The methods were not scored on the same views ({counts}); gains are over those they share.")
    if STUDENT in methods and scene.distillation is None:
        notes.append(
            "The distilled student that the fine-tuned one started from is not here: steps and time of the fine-tuned "
            "student are without its distillation."
        )
    if "dac-expert" in methods and scene.trunk is not None:
        steps = scene.trunk.stage.steps
        notes.append(f"The experts started from a trunk of {steps} steps on all views, whose time is in theirs.")
    elif any("trunk" in run.stage.inputs for run in scene.scored("dac-expert")):
        notes.append("The experts' trunk is not here, or is not the same for all of them: their time is without it.")
    if BASELINE in methods and STUDENT in methods:
        steps, others = methods[STUDENT]["steps"], methods[BASELINE]["steps"]
        if steps != others:
            notes.append(f"The student was trained for {steps} steps in all, the baseline for {others}.")
        if not of_one_size(methods):
            student, baseline = (methods[method]["parameters"] for method in (STUDENT, BASELINE))
            notes.append(f"The student has {student:,} parameters, the baseline {baseline:,}.")
    return notes


def of_one_size(methods: Dict[str, Any]) -> bool:
    """Whether student and baseline are both there, with about as many parameters: decoders differ a little."""
    counts = [methods[method]["parameters"] for method in (STUDENT, BASELINE) if method in methods]
    return len(counts) == 2 and max(counts) <= ALIKE * min(counts)


def _digests(runs: List[Run]) -> List[str]:
    """Digests of the photos that runs were scored on, as far as recorded."""
    return [run.evaluation["views_of"] for run in runs if run.evaluation and "views_of" in run.evaluation]


def save(results: Dict[str, Any], scene_dir: Path) -> Path:
    """Write ``report/results.json``; its path."""
    path = report_folder(scene_dir) / "results.json"
    write_json(path, results)
    return path


def table(results: Dict[str, Any]) -> Table:
    """The figures as a table that fits a terminal."""
    groups = range(1, results["groups"] + 1)
    sizes = "Baseline and student are of one size. " if of_one_size(results["methods"]) else ""
    shown = Table(
        title=f"{results['scene']}: test views, seed {results['seed']}",
        caption=f"g1 to g{results['groups']}: PSNR on the test views of each group. {sizes}Steps and time of the "
        "fine-tuned student include its distillation.",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("", no_wrap=True)
    for column in ("PSNR", "SSIM", *(f"g{group}" for group in groups), "steps", "time"):
        shown.add_column(column, justify="right", no_wrap=True)
    for method, entry in results["methods"].items():
        per_group = entry["per_group"].get("psnr", [None] * results["groups"])
        shown.add_row(
            TITLES[method],
            *(SCORES[score].text(entry["scores"].get(score)) for score in ("psnr", "ssim")),
            *(SCORES["psnr"].text(value) for value in per_group),
            steps_text(results, method),
            clock(results["costs"][method]["seconds"]),
        )
    return shown


def steps_text(results: Dict[str, Any], method: str) -> str:
    """Steps of a method, those of one expert times their number."""
    many = f"{results['groups']}x" if method == "dac-expert" else ""
    return f"{many}{results['methods'][method]['steps']}"
