"""Charts as SVG, to stand in a page: gains per view and learning curves."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

import numpy as np

from dac_nerfstudio.report.curves import TAGS, Course
from dac_nerfstudio.report.results import Gain
from dac_nerfstudio.report.runs import BASELINE, LONG, TITLES
from dac_nerfstudio.style import FAINT, INK, colour
from dac_nerfstudio.units import signed

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.6
"""Inches."""
LEGEND_COLUMNS = 6
NAMED_VIEWS = 48
"""Bars of no more views have their names below them."""


def gain_chart(gain: Gain, before: Sequence[float]) -> Markup:
    """Gain of each view, sorted, in the colours of the groups; beside it against what the baseline has.

    Args:
        gain: of the views.
        before: PSNR of the baseline in each of them.
    """
    from matplotlib.patches import Patch

    views = gain.views
    gains = np.array([view.gain for view in views])
    inks = [_ink(view.group) for view in views]
    names = short_names([view.name for view in views])
    named = len(views) <= NAMED_VIEWS
    longest = max(map(len, names)) if named else 0
    figure = _figure(3.4 + 0.075 * longest)
    bars, points = figure.subplots(1, 2, width_ratios=(2.1, 1))
    bars.bar(range(len(views)), gains, color=inks, width=0.8)
    bars.axhline(0, color=INK, linewidth=0.8)
    mean = bars.axhline(
        gain.mean, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"mean {signed(gain.mean)} dB"
    )
    bars.set(ylabel=f"gain over the {TITLES[gain.over]}, dB", xlim=(-0.7, len(views) - 0.3))
    if named:
        bars.set_xticks(range(len(views)), names, rotation=90, fontsize=8, parse_math=False)
    else:
        bars.set_xticks([])
        bars.set_xlabel(f"{len(views)} test views, from the largest gain to the largest loss")
    present = sorted({view.group for view in views if view.group})
    handles = [Patch(color=colour(group), label=f"group {group}") for group in present]
    bars.legend(handles=[*handles, mean], loc="upper right", frameon=False, fontsize=9, ncols=5)
    points.scatter(before, gains, c=inks, s=20, linewidths=0.5, edgecolors="white")
    points.axhline(0, color=INK, linewidth=0.8)
    points.set(xlabel=f"PSNR of the {TITLES[gain.over]}, dB", ylabel="gain, dB")
    for axes in (bars, points):
        low, high = min(0.0, gains.min()), max(0.0, gains.max())
        room = 0.12 * (high - low) or 0.1
        axes.set_ylim(low - room, high + 2 * room)
        _tidy(axes)
    return _svg(figure, "gain")


def curves_chart(courses: List[Course], processor: bool) -> Markup:
    """Each quantity against steps (left) and against time (right), of the processor or by the clock."""
    from matplotlib.lines import Line2D

    labels = {
        "train_psnr": "PSNR of training rays, dB",
        "eval_psnr": "PSNR of evaluation rays, dB",
        "train_loss": "training loss",
    }
    rows = [name for name in TAGS.values() if any(name in part for course in courses for part in course.parts)]
    lines = -(-len(courses) // LEGEND_COLUMNS)
    above, height = 0.1 + 0.22 * lines, 0.6 + 2.5 * len(rows)
    figure = _figure(height, above)
    grid = figure.subplots(len(rows), 2, sharex="col", sharey="row", squeeze=False)
    curves = [curve for course in courses for part in course.parts for curve in part.values()]
    latest = max(curve.seconds[-1] for curve in curves)
    unit, word = next((u, w) for u, w in ((3600, "hours"), (60, "minutes"), (1, "seconds")) if latest > 3 * u or u == 1)
    for name, (left, right) in zip(rows, grid):
        for course in courses:
            for curve in (part[name].thinned() for part in course.parts if name in part):
                # A line of one point is not to be seen.
                style = {**_style(course), "marker": "o" if len(curve.steps) == 1 else ""}
                for drawn, look in ((curve, {**style, "linewidth": 0.6, "alpha": 0.3}), (curve.smoothed(), style)):
                    left.plot(drawn.steps, drawn.values, **look)
                    right.plot(drawn.seconds / unit, drawn.values, **look)
            if course.changes is not None:
                for axes, at in ((left, course.changes[0]), (right, course.changes[1] / unit)):
                    axes.axvline(at, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        left.set_ylabel(labels[name])
        if name == "train_loss":
            left.set_yscale("log")
        for axes in (left, right):
            _tidy(axes)
    grid[-1][0].set_xlabel("steps")
    grid[-1][1].set_xlabel(f"{word} of CPU time" if processor else word)
    handles = [Line2D([], [], label=course.title, **_style(course)) for course in courses]
    # A legend is filled column by column, and read line by line.
    handles = [handle for column in range(LEGEND_COLUMNS) for handle in handles[column::LEGEND_COLUMNS]]
    figure.legend(handles=handles, loc="upper center", ncols=LEGEND_COLUMNS, frameon=False, fontsize=9)
    return _svg(figure, "curves")


def short_names(names: List[str]) -> List[str]:
    """Names without the folder and the ending that all share, as far as they stay different; at most 24 letters."""
    stems = [name.rsplit("/", 1)[-1].rsplit(".", 1)[0] for name in names]
    shown = stems if len(set(stems)) == len(names) else names
    return [name if len(name) <= 24 else f"…{name[-23:]}" for name in shown]


def _ink(group: Optional[int]) -> str:
    return colour(group) if group else "#888888"


def _style(course: Course) -> Dict[str, Any]:
    if course.group:
        return {"color": colour(course.group), "linewidth": 1.1}
    if course.title in (TITLES[BASELINE], TITLES[LONG]):
        return {"color": "#9A9A9A" if course.title == TITLES[BASELINE] else "#666666", "linewidth": 2.2}
    return {"color": INK, "linewidth": 2.0}


def _figure(height: float, above: float = 0.0) -> Figure:
    """A figure that leaves some room at its top free."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - above / height)))
    FigureCanvasSVG(figure)
    return figure


def _tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(which="both", colors=INK, length=0, labelsize=8.5)
    axes.xaxis.label.set(color=INK, size=9.5)
    axes.yaxis.label.set(color=INK, size=9.5)
    axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
    axes.set_axisbelow(True)


def _svg(figure: Figure, name: str) -> Markup:
    """The figure as an element of a page: the same text for the same figure, its marks named by nothing else's."""
    import matplotlib
    from markupsafe import Markup

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids that matplotlib counts are the same in every figure.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    # The page decides about fonts and, within its column, about the size.
    text = re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", text, count=2)
    return Markup(text.strip())
