"""The report of a scene as one HTML page, which holds all that it shows and fetches nothing.

Whatever comes from data and run folders is text to it, never markup. It runs no program.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from dac_nerfstudio.partition import INTERACTIVE, PICTURE
from dac_nerfstudio.partition.contacts import FAINT, FONT, INK, counted, heading, swatch
from dac_nerfstudio.report.charts import curves_chart, gain_chart
from dac_nerfstudio.report.curves import courses
from dac_nerfstudio.report.methods import TITLES
from dac_nerfstudio.report.pictures import Comparison, coloured, compare, extremes, partition_picture, png, small
from dac_nerfstudio.report.planes import PLANES, read_planes, scale_of, shrunk
from dac_nerfstudio.report.runs import SceneRuns
from dac_nerfstudio.report.tables import (
    Grid,
    cost_grid,
    gain_grid,
    group_grid,
    headline,
    remarks,
    score_grid,
    view_grid,
)
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.units import signed

ERRORS, LENGTHS = "magma", "viridis"
"""matplotlib's colour schemes for error maps and for lengths of features."""


def page(results: Dict[str, Any], scene: SceneRuns) -> str:
    """The text of the page of a scene.

    Args:
        results: what ``results.figures`` made of ``scene``.
        scene: whose run folders are read for curves and pictures.
    """
    sections = [
        _scores(results),
        _groups(results, scene),
        _gain(results),
        _crops(results, scene),
        _curves(scene),
        _planes(scene),
        _costs(results),
        _again(results),
        _views(results),
    ]
    return document(f"{results['scene']}: report", [_header(results), *sections])


def document(title: str, body: Sequence[str]) -> str:
    """A whole page of these parts."""
    return TEMPLATE.format(title=escape(title), style=STYLE, body="\n".join(body))


def grid_html(grid: Grid, group_column: Optional[int] = None) -> str:
    """A table as HTML; ``group_column`` has numbers of groups, which get their colour."""
    head = "".join(f'<th scope="col">{_heading(text)}</th>' for text in grid.headings)
    rows = []
    for number, (first, *cells) in enumerate(grid.rows):
        marks = grid.best[number] if grid.best else [False] * len(cells)
        shown = []
        for column, (cell, mark) in enumerate(zip(cells, marks), start=1):
            text = escape(cell)
            if column == group_column and cell.isdigit():
                text = f"{swatch(int(cell))}{text}"
            shown.append(f"<td>{f'<b>{text}</b>' if mark else text}</td>")
        rows.append(f'<tr><th scope="row">{escape(first)}</th>{"".join(shown)}</tr>')
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )  # fmt: skip


def _heading(text: str) -> str:
    named = re.fullmatch(r"group (\d+)", text)
    return f"{swatch(int(named[1])) if named else ''}{escape(text)}"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def listed(lines: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def section(title: str, *parts: str) -> str:
    return "\n".join([f"<section><h2>{escape(title)}</h2>", *filter(None, parts), "</section>"])


def _header(results: Dict[str, Any]) -> str:
    facts = f"run {results['run']} · seed {results['seed']} · {counted(results['groups'], 'group')}"
    return "\n".join(
        [
            f"<h1>{escape(results['scene'])}</h1>",
            f'<p class="facts">{escape(facts)}</p>',
            f'<p class="headline">{escape(headline(results))}</p>',
            listed(remarks(results)),
        ]
    )


def _scores(results: Dict[str, Any]) -> str:
    text = (
        "Means over the test views. An arrow points to where a score is better; the best of the models of one size is "
        "bold. Experts are several models, each scored on the test views of its own group. Steps and time of the "
        "fine-tuned student include its distillation, but not its experts."
    )
    return section("Scores", grid_html(score_grid(results)), paragraph(text))


def _groups(results: Dict[str, Any], scene: SceneRuns) -> str:
    picture = partition_picture(scene.folder / PICTURE)
    parts = []
    if picture is None:
        parts.append(paragraph(f"{heading(scene.partition)}; partition {results['partition']}."))
        parts.append(paragraph(f"There is no picture of the partition ({PICTURE}). Make it: dac split --data …"))
    else:
        image = f'<img class="partition" alt="The partition: cameras and photos by group" src="{picture}">'
        parts.append(f'<div class="wide">{image}</div>')
        if (scene.folder / INTERACTIVE).exists():
            parts.append(
                paragraph(f"{INTERACTIVE}, beside the folder of this report, has it to turn and to look up views.")
            )
    parts.append("<h3>Scores per group</h3>")
    grids = [
        f"<div><h4>{escape(SCORES[score].heading)}</h4>{grid_html(group_grid(results, score))}</div>"
        for score in results["scores"]
    ]
    return section("Groups", *parts, f'<div class="tables">{"".join(grids)}</div>')


def _gain(results: Dict[str, Any]) -> str:
    title = "Whom it helps: gain per view"
    if results["gain"] is None:
        return section(title, paragraph("There is no gain to show: it takes both baseline and fine-tuned student."))
    gain = results["gain"]
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
    details = _folded("As a table", gain_grid(results))
    return section(title, paragraph(text), _chart(gain_chart(results)), details)


def _folded(summary: str, views: Grid) -> str:
    """A table of views that opens when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{grid_html(views, 1)}</details>"


def _chart(svg: str) -> str:
    return f'<div class="wide"><div class="chart">{svg}</div></div>'


def _crops(results: Dict[str, Any], scene: SceneRuns) -> str:
    title = "Side by side"
    if results["gain"] is None:
        return section(title, paragraph("Pictures are compared only with both baseline and fine-tuned student."))
    baseline, student = scene.scored("dac-baseline")[0], scene.scored("dac-finetune")[0]
    parts, lost = [], 0
    for caption, views in zip(("Largest gains", "Largest losses"), extremes(results["gain"]["views"])):
        shown = [compare(view, baseline, student) for view in views]
        lost += shown.count(None)
        found = [one for one in shown if one is not None]
        if found:
            parts.append(f"<h3>{caption}</h3>")
            parts += [_comparison(one) for one in found]
        elif not views:
            parts.append(paragraph("No view gains." if caption == "Largest gains" else "No view loses."))
    if lost:
        if any("pair" in view for run in (baseline, student) for view in (run.evaluation or {})["views"]):
            why = "their files are gone. Delete evaluation.json of baseline and fine-tuned student, and run the same"
        else:
            why = "these runs were scored before pictures were kept. Run the same"
        parts.append(paragraph(f"Pictures are missing: {why} dac run again, which scores them and trains nothing."))
    else:
        text = (
            "The square in which baseline and student differ most in squared error. Error maps: mean absolute "
            "difference from the photo, black for none, on one scale for both."
        )
        parts.insert(0, paragraph(text))
    return section(title, *parts)


def _comparison(one: Comparison) -> str:
    errors = {
        name: one.crop(one.error(image)) for name, image in (("baseline", one.baseline), ("student", one.student))
    }
    most = max(0.02, float(np.quantile(np.concatenate([error.ravel() for error in errors.values()]), 0.995)))
    pictures = [
        (small(one.photo, 240, one.box), "whole photo", "whole"),
        (png(one.crop(one.photo)), "photo", ""),
        (png(one.crop(one.baseline)), "baseline", ""),
        (png(one.crop(one.student)), "student", ""),
        *((png(coloured(error, 0, most, ERRORS)), f"error of the {name}", "") for name, error in errors.items()),
    ]
    name = escape(one.name)
    cells = "".join(
        f'<figure><img class="{kind or "crop"}" alt="{name}: {text}" src="{address}"><figcaption>{text}</figcaption>'
        "</figure>"
        for address, text, kind in pictures
    )
    mark = swatch(one.group) if one.group else ""
    told = f"group {one.group} · {signed(one.gain)} dB · brightest error: {most:.2f}"
    return f'<p class="view">{mark}<b>{name}</b> · {told}</p><div class="crops">{cells}</div>'


def _curves(scene: SceneRuns) -> str:
    found, missing = courses(scene)
    if not found:
        text = "There are no learning curves: no run folder holds a tensorboard file (--vis tensorboard writes them)."
        return section("Learning curves", paragraph(text))
    text = (
        "Experts that started from a trunk begin where it ended. "
        "The student's curve is distillation followed by fine-tuning, parted by a dotted line. Its clock starts with "
        "distillation, after the experts. The loss of distillation is the distance from the experts' answers, that of "
        "all others the distance from the photos; PSNR is against photos throughout. Evaluation rays come from "
        "all validation views, for experts too."
    )
    return section("Learning curves", paragraph(text), listed(missing), _chart(curves_chart(found)))


def _planes(scene: SceneRuns) -> str:
    title = "Planes"
    models = [("baseline", "dac-baseline"), ("student", "dac-finetune")]
    if scene.only("dac-finetune") is None and scene.only("dac-distill") is not None:
        models[1] = ("student, distilled", "dac-distill")
    read: List[tuple[str, np.ndarray]] = []
    lines = []
    for name, method in models:
        run = scene.only(method)
        if run is None:
            lines.append(f"There is no {name}, so there are no planes of it.")
            continue
        planes, why = read_planes(run.folder)
        if planes is None:
            lines.append(f"{name.capitalize()}: {why}")
            continue
        read.append((name, planes))
        if not run.stage.complete:
            lines.append(f"The planes of the {name} are of a run that {run.problem}.")
    if not read:
        return section(title, listed(lines))
    cells = []
    for number, axes in enumerate(PLANES):
        low, high = scale_of([planes[number] for _, planes in read])
        for name, planes in read:
            # Pictures begin at the top, planes at their lower end.
            image = coloured(shrunk(planes[number])[::-1], low, high, LENGTHS)
            label = f"{name}, {axes}"
            cells.append(
                f'<figure><img class="crop" alt="{label} plane" src="{png(image)}"><figcaption>{label} · {low:.2f} to '
                f"{high:.2f}</figcaption></figure>"
            )
    # One row per model: the cells are in the order of the planes.
    ordered = [cells[len(read) * plane + model] for model in range(len(read)) for plane in range(len(PLANES))]
    side = read[0][1].shape[1]
    text = (
        f"Lengths of the feature vectors on the finest planes ({side} x {side}), from dark (short) to light (long), on "
        "one scale per plane. The scene is seen along the axis that a plane lacks."
    )
    return section(title, paragraph(text), listed(lines), f'<div class="planes">{"".join(ordered)}</div>')


def _costs(results: Dict[str, Any]) -> str:
    text = "Experts: time and parameters of all together, peak memory of the one that had most. "
    if not any(costs["peak_memory"] for costs in results["costs"].values()):
        text += "These runs did not record their peak memory."
    else:
        text += (
            "Peak memory is what the process held at most while it trained, what it had imported included; a dash "
            "where it was not recorded."
        )
    return section("Costs", grid_html(cost_grid(results)), paragraph(text))


def _again(results: Dict[str, Any]) -> str:
    versions = " · ".join(f"{name} {version}" for name, version in results["versions"].items())
    parts = [paragraph(versions)]
    if results["commands"]:
        parts.append(f"<pre>{escape(chr(10).join(results['commands']))}</pre>")
        text = "All settings of a stage are in its stage.json and config.yml. A --config file is not repeated here."
    else:
        text = "What to type was not recorded; all settings of a stage are in its stage.json and config.yml."
    return section("To repeat it", *parts, paragraph(text))


def _views(results: Dict[str, Any]) -> str:
    parts = [_folded(SCORES[score].heading, view_grid(results, score)) for score in results["scores"]]
    missing = [TITLES[method] for method in results["missing"]]
    remark = f"Not among them: {', '.join(missing)}." if missing else ""
    return section("Every test view", paragraph(remark) if remark else "", *parts)


STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 0 auto; max-width: 1080px; padding: 1.5rem 1rem 4rem; background: white; color: {INK};
  font: 16px/1.5 {FONT}; }}
h1 {{ font-size: 1.8rem; font-weight: 600; line-height: 1.2; margin: .5rem 0 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; font-weight: 600; margin: 3rem 0 .6rem; }}
h3 {{ font-size: 1rem; font-weight: 600; margin: 1.8rem 0 .5rem; }}
h4 {{ font-size: .9rem; font-weight: 600; margin: 1.2rem 0 .2rem; color: #666; }}
p {{ max-width: 46rem; margin: .7rem 0; overflow-wrap: anywhere; }}
.facts {{ color: #666; margin-top: .2rem; }}
.headline {{ font-size: 1.15rem; }}
.notes {{ max-width: 44rem; margin: 1rem 0; padding: .7rem 1rem .7rem 2rem; background: #F6F6F4;
  border-left: 3px solid {FAINT}; overflow-wrap: anywhere; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0; }}
th, td {{ padding: .32rem .85rem; text-align: right; border-bottom: 1px solid #E4E4E4; white-space: nowrap; }}
th[scope=row] {{ font-weight: 400; }}
thead th {{ font-weight: 400; color: #666; vertical-align: bottom; }}
th:first-child, .tables th:first-child {{ text-align: left; padding-left: 0; }}
.tables {{ display: flex; flex-wrap: wrap; gap: 0 2.5rem; }}
.tables > div {{ max-width: 100%; }}
.tables table {{ font-size: .88rem; }}
.tables th, .tables td {{ padding: .32rem .4rem; }}
.swatch {{ display: inline-block; width: .75em; height: .75em; margin-right: .45em; border-radius: 50%; }}
.chart {{ min-width: 680px; }}
.chart svg {{ display: block; width: 100%; height: auto; }}
.chart text {{ font-family: {FONT} !important; }}
.partition {{ display: block; width: 100%; min-width: 760px; height: auto; }}
figure {{ margin: 0; min-width: 0; }}
figcaption {{ font-size: .8rem; color: #666; margin-top: .15rem; }}
.crops {{ display: grid; grid-template-columns: repeat(6, 1fr); gap: 8px; align-items: start; }}
.planes {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; max-width: 860px; }}
.crop {{ display: block; width: 100%; image-rendering: pixelated; border-radius: 2px; }}
.whole {{ display: block; width: 100%; border-radius: 2px; }}
.view {{ margin: 1.1rem 0 .35rem; }}
details {{ margin: .6rem 0; }}
summary {{ cursor: pointer; }}
pre {{ background: #F6F6F4; padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }}
@media (max-width: 760px) {{
  .crops {{ grid-template-columns: repeat(3, 1fr); }}
  th, td {{ padding: .3rem .5rem; }}
}}
@media print {{ .wide {{ overflow: visible; }} section {{ break-inside: avoid-page; }} }}
"""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
