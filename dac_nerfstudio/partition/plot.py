"""The picture of a partition: cameras from above, and who draws from which view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dac_nerfstudio.partition.files import atomic_write
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.strategies import sector_centres
from dac_nerfstudio.partition.views import Views, viewing_directions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "D")
"""The next one for every round through the palette."""
INK, FAINT = "#333333", "#BBBBBB"


def plot_partition(partition: Partition, path: Path, test: Views | None = None) -> None:
    """Draws a partition as a PNG, in one step: a reader finds all of it or none.

    On the left the cameras from above (the x, y plane of the data), filled in the colour of their home group, with an
    arrow along the viewing direction; on the right the membership matrix, its columns sorted by home group.

    Args:
        partition: what to draw.
        path: where to write the picture.
        test: views drawn hollow, in the colour of the group that would answer for them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(13, 6.8), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    above, matrix = figure.subplots(1, 2)
    settings = partition.settings
    extras = "".join(f", {key} {settings[key]:g}" for key in ("overlap", "softness") if settings[key] > 0)
    groups = f"{partition.num_groups} group{'s' if partition.num_groups > 1 else ''}"
    figure.suptitle(
        f"{groups} by {settings['strategy']}{extras}  ·  partition {partition.fingerprint}", color=INK, fontsize=14
    )
    _draw_from_above(above, partition, test)
    _draw_membership(matrix, partition)
    with atomic_write(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_from_above(axes: Axes, partition: Partition, test: Views | None) -> None:
    from matplotlib.lines import Line2D

    views = partition.views
    centres = views.centres if test is None else np.concatenate([views.centres, test.centres])
    by_azimuth = partition.settings["strategy"] == "azimuth"
    # Sectors meet at the origin, so the picture is then centred on it; otherwise on the cameras.
    middle = np.zeros(2) if by_azimuth else (centres[:, :2].min(axis=0) + centres[:, :2].max(axis=0)) / 2
    reach = float(np.abs(centres[:, :2] - middle).max()) or 1.0
    if by_azimuth and partition.num_groups > 1:
        for angle in sector_centres(partition.num_groups) - np.pi / partition.num_groups:
            end = 2 * reach * np.array([np.cos(angle), np.sin(angle)])
            axes.plot([0, end[0]], [0, end[1]], color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    if test is not None:
        _draw_cameras(axes, test, partition.route(test.camera_to_worlds), reach, hollow=True)
    _draw_cameras(axes, views, partition.homes, reach, hollow=False)
    axes.set(
        xlim=(middle[0] - 1.2 * reach, middle[0] + 1.2 * reach),
        ylim=(middle[1] - 1.2 * reach, middle[1] + 1.2 * reach),
        aspect="equal",
        xlabel="x",
        ylabel="y",
    )
    axes.set_title("Cameras from above", color=INK, fontsize=12)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], linestyle="", marker=_marker(group), color=_colour(group), label=f"group {group}")
        for group in range(1, partition.num_groups + 1)
    ]
    if test is not None:
        handles.append(Line2D([], [], linestyle="", marker="o", color=INK, markerfacecolor="none", label="test view"))
    # Below the axes, where no number of groups can cover a camera.
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=5, fontsize=9, frameon=False)


def _draw_cameras(axes: Axes, views: Views, groups: np.ndarray, reach: float, hollow: bool) -> None:
    arrows = 0.12 * reach * viewing_directions(views.camera_to_worlds)
    for group in np.unique(groups):
        chosen = groups == group
        colour, x, y = _colour(group), *views.centres[chosen, :2].T
        axes.quiver(
            x,
            y,
            *arrows[chosen, :2].T,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.003,
            color=colour,
            alpha=0.3 if hollow else 0.8,
            zorder=2,
        )
        axes.scatter(
            x,
            y,
            s=16 if hollow else 38,
            marker=_marker(group),
            facecolors="white" if hollow else colour,
            edgecolors=colour if hollow else "white",
            linewidths=1.0 if hollow else 0.7,
            zorder=3 if hollow else 4,
        )


def _draw_membership(axes: Axes, partition: Partition) -> None:
    from matplotlib.colors import to_rgb

    order = np.argsort(partition.homes, kind="stable")
    weights = partition.membership[:, order, None]  # [groups, views, 1]
    groups = range(1, partition.num_groups + 1)
    colours = np.array([to_rgb(_colour(group)) for group in groups])[:, None, :]
    axes.imshow(1 - weights * (1 - colours), aspect="auto", interpolation="nearest")
    sizes = np.bincount(partition.homes, minlength=partition.num_groups + 1)[1:]
    borrowed = (partition.membership > 0).sum(axis=1) - sizes
    labels = [
        f"group {group}\n{own} view{'s' if own > 1 else ''}" + (f"\n+ {extra} borrowed" if extra else "")
        for group, own, extra in zip(groups, sizes, borrowed, strict=True)
    ]
    axes.set_yticks(range(partition.num_groups), labels, color=INK, fontsize=9)
    axes.set_xticks([])
    for border in np.cumsum(sizes)[:-1] - 0.5:
        axes.axvline(border, color=FAINT, linewidth=0.8)
    for border in np.arange(1, partition.num_groups) - 0.5:
        axes.axhline(border, color=FAINT, linewidth=0.8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    axes.set_xlabel(f"{len(partition.views)} training views, sorted by home group", color=INK)
    axes.set_title("What each expert draws from (white: never, full colour: weight 1)", color=INK, fontsize=12)


def _colour(group: int) -> str:
    return COLOURS[(group - 1) % len(COLOURS)]


def _marker(group: int) -> str:
    return MARKERS[(group - 1) // len(COLOURS) % len(MARKERS)]
