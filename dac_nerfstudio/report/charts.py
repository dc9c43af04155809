"""The gain of each view as a chart."""

from __future__ import annotations

import base64
import io
from typing import List, Optional, Sequence

import numpy as np

from dac_nerfstudio.report.results import Gain
from dac_nerfstudio.report.runs import TITLES
from dac_nerfstudio.style import FAINT, INK, colour
from dac_nerfstudio.units import signed

NAMED_VIEWS = 48
"""Bars of no more views have their names below them."""


def gain_chart(gain: Gain, before: Sequence[float]) -> str:
    """Gain of each view, sorted, in the colours of the groups; beside it against the baseline's PSNR in each of them.
    An SVG, as an address that holds it."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    views = gain.views
    gains = np.array([view.gain for view in views])
    inks = [_ink(view.group) for view in views]
    names = short_names([view.name for view in views])
    named = len(views) <= NAMED_VIEWS
    longest = max(map(len, names)) if named else 0
    figure = Figure(figsize=(9.6, 3.4 + 0.075 * longest), layout="constrained")
    bars, points = figure.subplots(1, 2, width_ratios=(2.1, 1))
    bars.bar(range(len(views)), gains, color=inks, width=0.8)
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
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}
    bars.legend(handles=[*handles, mean], **place, frameon=False, fontsize=9, ncols=5)
    points.scatter(before, gains, c=inks, s=20, linewidths=0.5, edgecolors="white")
    points.set(xlabel=f"PSNR of the {TITLES[gain.over]}, dB", ylabel="gain, dB")
    low, high = min(0.0, gains.min()), max(0.0, gains.max())
    room = 0.12 * (high - low) or 0.1
    for axes in (bars, points):
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_ylim(low - room, high + room)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(which="both", colors=INK, length=0, labelsize=8.5)
        axes.xaxis.label.set(color=INK, size=9.5)
        axes.yaxis.label.set(color=INK, size=9.5)
        axes.grid(axis="y", color="#ECECEC", linewidth=0.8)
        axes.set_axisbelow(True)
    file = io.BytesIO()
    # The same bytes for the same figure.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gain"}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def short_names(names: List[str]) -> List[str]:
    """Names without the folder and the ending that all share, as far as they stay different; at most 24 letters."""
    stems = [name.rsplit("/", 1)[-1].rsplit(".", 1)[0] for name in names]
    shown = stems if len(set(stems)) == len(names) else names
    return [name if len(name) <= 24 else f"…{name[-23:]}" for name in shown]


def _ink(group: Optional[int]) -> str:
    return colour(group) if group else "#888888"
