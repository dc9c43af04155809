"""The picture of a partition: its cameras, how alike its views are, who draws from which view, and photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.partition.contacts import (
    border_views,
    darkest,
    heading,
    in_order,
    lost_photos,
    ordered_similarity,
    small_photo,
)
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.similarity import Similarity
from dac_nerfstudio.partition.strategies import sector_centres
from dac_nerfstudio.scene.views import Views, viewing_directions
from dac_nerfstudio.style import FAINT, INK, SHADES, colour, counted, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d.axes3d import Axes3D
    from PIL.Image import Image

DOTS = 110
"""Dots per inch."""
WIDTH, PANEL, ROW = 16.0, 5.4, 1.1
"""Inches: of the picture; height of its panels of cameras, and of a row of photos."""
CELL = (150, 110)
"""Pixels of a photo in its row, with some white round it."""
MOST_PHOTOS = 10
"""Of a group."""


def plot_partition(
    partition: Partition, path: Path, similarity: Similarity | None = None, test: Views | None = None
) -> None:
    """Draws a partition as a PNG, in one step: a reader finds all of it or none.

    Cameras in space and from above, in the colours of their home groups; how alike the views are; the membership
    matrix, unless every view belongs to its home alone; and some photos of every group. What is not known is left out.

    Args:
        similarity: of the partition's views, in their order. Views on a border of their group are then ringed.
        test: views drawn hollow, in the colour of the group that would answer for them.

    Raises:
        PartitionError: the similarity is not one of these views.
    """
    figure = draw_partition(partition, similarity, test)
    with atomic_write(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS)


def draw_partition(partition: Partition, similarity: Similarity | None, test: Views | None) -> Figure:
    """The figure that `plot_partition` writes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups, border = partition.num_groups, border_views(partition, similarity)
    photos, lost = _choose_photos(partition)
    shared = bool((partition.membership != (partition.homes == np.arange(1, groups + 1)[:, None])).any())
    rows = [PANEL, *([0.5 + 0.35 * groups] if shared else []), *[ROW for row in photos.values() if row]]
    figure = Figure(figsize=(WIDTH, sum(rows) + 1.6 + 0.2 * len(rows)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), 2 if similarity is None else 3, height_ratios=rows)
    space, above = figure.add_subplot(grid[0, 0], projection="3d"), figure.add_subplot(grid[0, 1])
    _draw_cameras(space, above, partition, test, border)
    # Names may contain dollars, which would be read as formulas.
    figure.suptitle("\n".join(_title(partition, lost)), color=INK, fontsize=15, linespacing=1.5, parse_math=False)
    legend = dict(zip(*reversed(above.get_legend_handles_labels()), strict=True))
    figure.legend(
        legend.values(), legend, loc="outside lower center", ncols=10, fontsize=12, labelcolor=INK, frameon=False
    )
    if similarity is not None:
        _draw_similarity(figure.add_subplot(grid[0, 2]), partition, similarity)
    if shared:
        _draw_membership(figure.add_subplot(grid[1, :]), partition)
    for place, (group, row) in enumerate([item for item in photos.items() if item[1]], start=1 + shared):
        axes = figure.add_subplot(grid[place, :])
        axes.imshow(
            np.hstack([np.asarray(photo) for photo in row]),
            extent=(0, len(row) * CELL[0], 0, CELL[1]),
            interpolation="none",
        )
        axes.set(xlim=(0, MOST_PHOTOS * CELL[0]), anchor="W")
        _decorate(axes, "Photos, group by group, once round the scene's up axis" if place == 1 + shared else "")
        size = _sizes(partition)[group - 1]
        some = f"{len(row)} of " if len(row) < size else ""
        axes.set_yticks([CELL[1] / 2], [f"group {group}\n{some}{counted(size, 'view')}"])
        axes.set_xticks([])
        axes.set_frame_on(False)
    return figure


def _title(partition: Partition, lost: int) -> list[str]:
    quality = partition.about.get("quality")
    lines = [f"{heading(partition)}  ·  partition {partition.fingerprint}"]
    if quality and partition.num_groups > 1:
        lines.append(
            f"modularity {quality['modularity']:.3f} by {quality['similarity']}, "
            f"{quality['featureless_modularity']:.3f} if every place looked alike"
        )
    return [*lines, lost_photos(lost)] if lost else lines


def _decorate(axes: Axes, title: str) -> None:
    axes.set_title(title, color=INK, fontsize=14, pad=10)
    axes.tick_params(colors=INK, labelsize=11, length=0)
    axes.spines[:].set_color(FAINT)


def _draw_cameras(space: Axes3D, above: Axes, partition: Partition, test: Views | None, border: np.ndarray) -> None:
    """Where cameras stand and which way they look, in space and from above."""
    known = [(partition.views, partition.homes, False)]
    if test is not None:
        known.append((test, partition.route(test.camera_to_worlds), True))
    for views, homes, hollow in known:
        centres = partition.axis.upright(views.centres)
        directions = partition.axis.upright(views.centres + viewing_directions(views.camera_to_worlds)) - centres
        for group in np.unique(homes):
            chosen, ink = homes == group, colour(group)
            places, arrows = centres[chosen], directions[chosen]
            look: dict[str, Any] = {"s": 38, "facecolors": ink, "edgecolors": "white", "label": f"group {group}"}
            if hollow:
                look = {"s": 16, "facecolors": "white", "edgecolors": ink, "label": "test view"}
            reach = 0.15 * np.ptp(centres, axis=0).max()
            space.quiver(*places.T, *arrows.T, length=reach, color=ink, linewidth=0.8, alpha=0.6)
            space.scatter(*places.T, marker=marker(group), depthshade=False, **look)
            above.quiver(
                *places[:, :2].T, *arrows[:, :2].T, width=0.003, scale=16, color=ink, alpha=0.3 if hollow else 0.8
            )
            above.scatter(*places[:, :2].T, marker=marker(group), zorder=3 if hollow else 5, **look)
    if border.any():
        x, y, _ = partition.axis.upright(partition.views.centres)[border].T
        above.scatter(x, y, s=88, c="white", edgecolors=INK, zorder=4, label="on a border")
    space.set(aspect="equal", xticks=[], yticks=[], zticks=[])
    (left, right), (bottom, top) = above.get_xlim(), above.get_ylim()
    half = 0.55 * max(right - left, top - bottom) * np.array([-1, 1])
    above.set(aspect="equal", xlim=(left + right) / 2 + half, ylim=(bottom + top) / 2 + half)
    if partition.settings["strategy"] == "azimuth" and partition.num_groups > 1:
        far = 6 * half[1]
        for angle in sector_centres(partition.num_groups) - np.pi / partition.num_groups:
            x, y = far * np.cos(angle), far * np.sin(angle)
            above.plot([0, x], [0, y], color=FAINT, linestyle=(0, (5, 4)), zorder=1)
    _decorate(space, "Cameras in space")
    _decorate(above, "Cameras from above")


def _draw_similarity(axes: Axes, partition: Partition, similarity: Similarity) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    order, values = ordered_similarity(partition, similarity)
    ends = np.cumsum(np.bincount(partition.homes[order], minlength=partition.num_groups + 1)) - 0.5
    shades = LinearSegmentedColormap.from_list("similarity", SHADES)
    image = axes.imshow(values, cmap=shades, vmin=0, vmax=darkest(values), interpolation="nearest")
    for end in ends[1:-1]:
        for ink, thickness in (("white", 2.4), (INK, 0.8)):  # seen on light and on dark
            axes.axvline(end, color=ink, linewidth=thickness)
            axes.axhline(end, color=ink, linewidth=thickness)
    _decorate(axes, f"How alike views are ({similarity.kind})")
    axes.set_yticks((ends[1:] + ends[:-1]) / 2, [f"group {number}" for number in range(1, len(ends))])
    axes.set_xticks([])
    axes.figure.colorbar(image, ax=axes, shrink=0.8, aspect=40).outline.set_visible(False)


def _draw_membership(axes: Axes, partition: Partition) -> None:
    from matplotlib.colors import to_rgb

    weights = partition.membership[:, in_order(partition), None]  # [groups, views, 1]
    groups = range(1, partition.num_groups + 1)
    colours = np.array([to_rgb(colour(group)) for group in groups])[:, None, :]
    axes.imshow(1 - weights * (1 - colours), aspect="auto", interpolation="nearest")
    sizes = _sizes(partition)
    borrowed = (partition.membership > 0).sum(axis=1) - sizes
    labels = [
        f"group {group} · {counted(own, 'view')}" + (f"\n+ {extra} borrowed" if extra else "")
        for group, own, extra in zip(groups, sizes, borrowed, strict=True)
    ]
    _decorate(axes, "What each expert draws from (white: never, full colour: weight 1)")
    axes.set_yticks(range(partition.num_groups), labels)
    axes.set_xticks([])


def _choose_photos(partition: Partition) -> tuple[dict[int, list[Image]], int]:
    """Framed photos of views evenly spread over their group, by group; and how many of these are lost."""
    from PIL import ImageOps

    views = partition.views
    if views.photos is None:
        return {}, 0
    order, rows, lost = in_order(partition), {}, 0
    for group in range(1, partition.num_groups + 1):
        members = order[partition.homes[order] == group]
        shown = min(MOST_PHOTOS, len(members))
        # The middles of equal parts of the group, not their ends, which are views on a border.
        chosen = members[(2 * np.arange(shown) + 1) * len(members) // (2 * shown)]
        found = [small_photo(views.photos[index], *CELL) for index in chosen]
        framed = [ImageOps.expand(photo, 4, colour(group)) for photo in found if photo is not None]
        rows[group] = [ImageOps.pad(photo, (CELL[0] - 6, CELL[1] - 6), color="white") for photo in framed]
        rows[group] = [ImageOps.expand(photo, 3, "white") for photo in rows[group]]
        lost += len(found) - len(framed)
    return rows, lost


def _sizes(partition: Partition) -> np.ndarray:
    return np.bincount(partition.homes, minlength=partition.num_groups + 1)[1:]
