"""The report of a scene as one HTML page, which holds all that it shows and fetches nothing.

Here is what the page shows; `templates/report.html` says where and how. Whatever comes from data and run folders is
text to it, never markup. Its programs, `templates/wipe.js` and `enlarge.js`, read nothing but what it shows.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np

from dac_nerfstudio.partition import verdict
from dac_nerfstudio.partition.contacts import heading
from dac_nerfstudio.report.charts import curves_chart, gain_chart
from dac_nerfstudio.report.curves import courses
from dac_nerfstudio.report.methods import TITLES
from dac_nerfstudio.report.pictures import (
    Comparison,
    coloured,
    compare,
    extremes,
    partition_picture,
    png,
    small,
    spread,
    whole,
)
from dac_nerfstudio.report.planes import PLANES, read_planes, scale_of, shrunk
from dac_nerfstudio.report.runs import Run, SceneRuns
from dac_nerfstudio.report.tables import (
    cost_grid,
    gain_grid,
    group_grid,
    headline,
    remarks,
    score_grid,
    view_grid,
)
from dac_nerfstudio.runs.layout import PARTITION_PAGE, PARTITION_PICTURE
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.style import counted, render
from dac_nerfstudio.units import signed

ERRORS, LENGTHS = "magma", "viridis"
"""matplotlib's colour schemes for error maps and for lengths of features."""
WIPE = 800
"""Pixels along the longer side of pictures to wipe between, at most."""
DARKEST_ERROR = 0.02
"""Error maps that have no larger error are not made any brighter."""


def page(results: Dict[str, Any], scene: SceneRuns) -> str:
    """The text of the page of a scene.

    Args:
        results: what ``results.figures`` made of ``scene``.
        scene: whose run folders are read for curves and pictures.
    """
    return render(
        "report.html",
        title=f"{results['scene']}: report",
        results=results,
        headline=headline(results),
        remarks=remarks(results),
        scores=score_grid(results),
        groups=_groups(results, scene),
        gain=_gain(results),
        crops=_crops(results, scene),
        curves=_curves(scene),
        planes=_planes(scene),
        costs={
            "grid": cost_grid(results),
            "memory": any(costs["peak_memory"] for costs in results["costs"].values()),
        },
        missing=[TITLES[method] for method in results["missing"]],
        views=[(SCORES[score].heading, view_grid(results, score)) for score in results["scores"]],
    )


def _groups(results: Dict[str, Any], scene: SceneRuns) -> Dict[str, Any]:
    return {
        "picture": partition_picture(scene.folder / PARTITION_PICTURE),
        "file": PARTITION_PICTURE,
        "interactive": PARTITION_PAGE if (scene.folder / PARTITION_PAGE).exists() else None,
        "made": heading(scene.partition),
        "verdict": verdict(quality) if (quality := scene.partition.about.get("quality")) else "",
        "grids": [(SCORES[score].heading, group_grid(results, score)) for score in results["scores"]],
    }


def _gain(results: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    gain = results["gain"]
    if gain is None:
        return None
    by_group = ", ".join(
        f"group {group} {signed(value)} dB"
        for group, value in enumerate(gain["per_group"], start=1)
        if value is not None
    )
    text = (
        f"PSNR of the fine-tuned student less that of the baseline, view by view: {signed(gain['mean'])} dB on average"
        + (f" ({by_group})" if by_group else "")
        + f", better on {gain['better']} of {counted(len(gain['views']), 'view')}."
    )
    return {"text": text, "chart": gain_chart(results), "grid": gain_grid(results)}


def _crops(results: Dict[str, Any], scene: SceneRuns) -> Optional[Dict[str, Any]]:
    if results["gain"] is None:
        return None
    baseline, student = scene.scored("dac-baseline")[0], scene.scored("dac-finetune")[0]
    captions = (("Largest gains", "No view gains."), ("Largest losses", "No view loses."))
    parts, lost = [], 0
    for (caption, nothing), views in zip(captions, extremes(results["gain"]["views"])):
        compared = [compare(view, baseline, student) for view in views]
        lost += compared.count(None)
        parts.append((caption, nothing, views, [_comparison(one) for one in compared if one is not None]))
    return {
        "parts": parts,
        "wipe": _wipe([compare(view, baseline, student) for view in spread(results["gain"]["views"])]),
        "missing": _why_missing(baseline, student) if lost else "",
    }


def _wipe(compared: List[Optional[Comparison]]) -> Optional[Dict[str, Any]]:
    """Views and what to see of them; None where no pictures were kept."""
    ones = [one for one in compared if one is not None]
    shown = [("photo", "photo"), ("baseline", "baseline"), ("student", "student")]
    return (
        {
            "shown": shown,
            "views": [(number, f"{one.name} · {signed(one.gain)} dB") for number, one in enumerate(ones)],
            "pictures": [
                (number, name, whole(getattr(one, name), WIPE)) for number, one in enumerate(ones) for name, _ in shown
            ],
        }
        if ones
        else None
    )


def _why_missing(baseline: Run, student: Run) -> str:
    if any("pair" in view for run in (baseline, student) for view in (run.evaluation or {})["views"]):
        return "their files are gone. Delete evaluation.json of baseline and fine-tuned student, and run the same"
    return "these runs were scored before pictures were kept. Run the same"


def _comparison(one: Comparison) -> Dict[str, Any]:
    errors = {
        name: one.crop(one.error(image)) for name, image in (("baseline", one.baseline), ("student", one.student))
    }
    brightest = float(np.quantile(np.concatenate([error.ravel() for error in errors.values()]), 0.995))
    brightest = max(DARKEST_ERROR, brightest)
    pictures = [
        (small(one.photo, 240, one.box), "whole photo", "whole"),
        (png(one.crop(one.photo)), "photo", "crop"),
        (png(one.crop(one.baseline)), "baseline", "crop"),
        (png(one.crop(one.student)), "student", "crop"),
    ]
    for name, error in errors.items():
        pictures.append((png(coloured(error, 0, brightest, ERRORS)), f"error of the {name}", "crop"))
    return {
        "name": one.name,
        "group": one.group,
        "gain": signed(one.gain),
        "brightest": f"{brightest:.2f}",
        "pictures": pictures,
    }


def _curves(scene: SceneRuns) -> Optional[Dict[str, Any]]:
    found, missing = courses(scene)
    return {"missing": missing, "chart": curves_chart(found)} if found else None


def _planes(scene: SceneRuns) -> Dict[str, Any]:
    models = [("baseline", "dac-baseline"), ("student", "dac-finetune")]
    if scene.only("dac-finetune") is None and scene.only("dac-distill") is not None:
        models[1] = ("student, distilled", "dac-distill")
    read: List[tuple[str, np.ndarray]] = []
    notes = []
    for name, method in models:
        run = scene.only(method)
        if run is None:
            notes.append(f"There is no {name}, so there are no planes of it.")
            continue
        planes, why = read_planes(run.folder)
        if planes is None:
            notes.append(f"{name.capitalize()}: {why}")
            continue
        read.append((name, planes))
        if not run.stage.complete:
            notes.append(f"The planes of the {name} are of a run that {run.problem}.")
    scales = [scale_of([planes[number] for _, planes in read]) for number in range(len(PLANES))] if read else []
    pictures = []
    for name, planes in read:
        for plane, axes, (low, high) in zip(planes, PLANES, scales):
            # Pictures begin at the top, planes at their lower end.
            image = coloured(shrunk(plane)[::-1], low, high, LENGTHS)
            pictures.append((f"{name}, {axes}", low, high, png(image)))
    return {"side": read[0][1].shape[1] if read else None, "notes": notes, "pictures": pictures}
