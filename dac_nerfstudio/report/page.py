"""The report of a scene as one HTML page, which holds all that it shows and fetches nothing.

Here is what the page shows; `templates/report.html` says where and how. Whatever comes from data and run folders is
text to it, never markup. Its programs, `templates/wipe.js` and `enlarge.js`, read nothing but what it shows.
"""

from __future__ import annotations

from typing import Any, Dict

import numpy as np

from dac_nerfstudio.partition import verdict
from dac_nerfstudio.partition.contacts import heading
from dac_nerfstudio.report.charts import gain_chart
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
from dac_nerfstudio.report.results import Gain, Results
from dac_nerfstudio.report.runs import NAMES, STUDENT, TITLES, SceneRuns
from dac_nerfstudio.report.tables import cost_grid, gain_grid, group_grid, headline, remarks, score_grid, view_grid
from dac_nerfstudio.runs.layout import PARTITION_PAGE, PARTITION_PICTURE
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.style import counted
from dac_nerfstudio.units import signed

ERRORS = "magma"
"""matplotlib's colour scheme for error maps."""
WIPE = 800
"""Pixels along the longer side of pictures to wipe between, at most."""
DARKEST_ERROR = 0.02
"""Error maps that have no larger error are not made any brighter."""


def contents(results: Results, scene: SceneRuns) -> Dict[str, Any]:
    """What the page of a scene shows, and its Markdown."""
    quality, gain = scene.partition.about.get("quality"), results.gain
    return dict(
        title=f"{results.scene}: report",
        results=results,
        headline=headline(results),
        remarks=remarks(results),
        scores=score_grid(results),
        partition=partition_picture(scene.folder / PARTITION_PICTURE),
        partition_file=PARTITION_PICTURE,
        interactive=PARTITION_PAGE if (scene.folder / PARTITION_PAGE).exists() else None,
        made=heading(scene.partition),
        verdict=verdict(quality) if quality else "",
        groups=[(SCORES[score].heading, group_grid(results, score)) for score in results.scores],
        gain=None if gain is None else _gain(gain, results),
        crops=None if gain is None else _crops(gain, scene),
        costs=cost_grid(results),
        memory=any(costs.peak_memory for costs in results.costs.values()),
        missing=[TITLES[method] for method in results.missing],
        views=[(SCORES[score].heading, view_grid(results, score)) for score in results.scores],
    )


def _gain(gain: Gain, results: Results) -> Dict[str, Any]:
    """What is said of the gain, its chart and its table."""
    by_group = ", ".join(
        f"group {number} {signed(value)} dB"
        for number, value in enumerate(gain.per_group, start=1)
        if value is not None
    )
    text = (
        f"PSNR of the fine-tuned student minus that of the {NAMES[gain.over]}, view by view: {signed(gain.mean)} dB on "
        f"average{f' ({by_group})' if by_group else ''}, better on {gain.better or 'none'} of "
        f"{counted(len(gain.views), 'view')}."
    )
    before = results.methods[gain.over].per_view
    chart = gain_chart(gain, [before[view.name]["psnr"] or 0.0 for view in gain.views])
    return {"text": text, "chart": chart, "grid": gain_grid(gain)}


def _crops(gain: Gain, scene: SceneRuns) -> Dict[str, Any]:
    """Pictures of single views.

    Returns:
        `parts`: captions, and views below them. `names`: numbers and names of views to wipe on. `pictures`: number of
        such a view, what is seen of it, and the picture. `missing`: whether the files of some are gone.
    """
    baseline, student = scene.scored(gain.over)[0], scene.scored(STUDENT)[0]
    gains, losses = ([compare(view, baseline, student) for view in views] for views in extremes(gain.views))
    wiped = [one for view in spread(gain.views) if (one := compare(view, baseline, student)) is not None]
    return {
        "parts": [
            ("Largest gains", [_shown(one) for one in gains if one]),
            ("Largest losses", [_shown(one) for one in losses if one]),
        ],
        "names": [(number, f"{one.name} · {signed(one.gain)} dB") for number, one in enumerate(wiped)],
        "pictures": [
            (number, name, whole(getattr(one, name), WIPE))
            for number, one in enumerate(wiped)
            for name in ("photo", "baseline", "student")
        ],
        "missing": None in (*gains, *losses),
    }


def _shown(one: Comparison) -> Dict[str, Any]:
    """A view: address, caption and class of each picture, its error maps as bright as `brightest` is."""
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
