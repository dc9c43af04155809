"""The picture of a partition: its cameras, how alike its views are, who draws from which view, and photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.partition.contacts import (
    Space,
    border_views,
    darkest,
    heading,
    in_order,
    lost_photos,
    ordered_similarity,
    reach,
    small_photo,
    space_of,
    upright_cameras,
)
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.similarity import Similarity
from dac_nerfstudio.partition.strategies import sector_centres
from dac_nerfstudio.scene.views import Views
from dac_nerfstudio.style import FAINT, INK, SHADES, colour, counted, marker

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d.axes3d import Axes3D
    from PIL.Image import Image

DOTS = 110
"""Dots per inch; all lengths below are inches."""
WIDTH, PANEL, PHOTO, LABELS = 16.0, 5.4, 1.1, 1.4
"""Of the picture; height of a panel of cameras and of a row of photos; room for the names of groups beside photos."""
MOST_PHOTOS = 10
"""Of a group."""


def plot_partition(
    partition: Partition, path: Path, similarity: Similarity | None = None, test: Views | None = None
) -> None:
    """Draws a partition as a PNG, in one step: a reader finds all of it or none.

    Cameras in space and from above, in the colours of their home groups; how alike the views are; the membership
    matrix, unless every view belongs to its home alone; and some photos of every group. What is not known is left out.

    Args:
        partition: what to draw.
        path: where to write the picture.
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
    rows = [PANEL, *([0.5 + 0.35 * groups] if shared else []), *([PHOTO * groups] if photos else [])]
    figure = Figure(figsize=(WIDTH, sum(rows) + 1.6 + 0.4 * len(rows)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), 2 if similarity is None else 3, height_ratios=rows)
    _write_title(figure, partition, lost)
    space = space_of(partition, similarity, test)
    _draw_in_space(figure.add_subplot(grid[0, 0], projection="3d"), partition, space)
    _draw_from_above(figure.add_subplot(grid[0, 1]), partition, test, border)
    if similarity is not None:
        _draw_similarity(figure.add_subplot(grid[0, 2]), partition, similarity)
    _draw_legend(figure, groups, test is not None, bool(border.any()))
    if shared:
        _draw_membership(figure.add_subplot(grid[1, :]), partition)
    if photos:
        _draw_photos(figure.add_subplot(grid[-1, :]), partition, photos, border)
    return figure


def _write_title(figure: Figure, partition: Partition, lost: int) -> None:
    quality = partition.about.get("quality")
    lines = [f"{heading(partition)}  ·  partition {partition.fingerprint}"]
    if quality and partition.num_groups > 1:
        lines.append(
            f"modularity {quality['modularity']:.3f} by {quality['similarity']}, "
            f"{quality['featureless_modularity']:.3f} if every place looked alike"
        )
    if lost:
        lines.append(lost_photos(lost))
    # Names may contain dollars, which would be read as formulas.
    title = figure.suptitle("\n".join(lines), color=INK, fontsize=15, linespacing=1.5)
    title.set_parse_math(False)


def _draw_legend(figure: Figure, groups: int, has_test: bool, has_border: bool) -> None:
    from matplotlib.lines import Line2D

    styles: dict[str, dict[str, Any]] = {
        f"group {group}": {"marker": marker(group), "color": colour(group)} for group in range(1, groups + 1)
    }
    if has_border:
        styles["on a border"] = {"marker": "o", "markersize": 9, "color": "white", "markeredgecolor": INK}
    if has_test:
        styles["test view"] = {"marker": "o", "markersize": 4.5, "color": "white", "markeredgecolor": colour(1)}
    handles = [Line2D([], [], linestyle="", label=label, **{"markersize": 7, **s}) for label, s in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=10, fontsize=12, labelcolor=INK, frameon=False)


def _decorate(axes: Axes, title: str) -> None:
    axes.set_title(title, color=INK, fontsize=14, pad=10)
    axes.tick_params(colors=INK, labelsize=11, length=0)
    axes.spines[:].set_color(FAINT)


def _draw_in_space(axes: Axes3D, partition: Partition, space: Space) -> None:
    from matplotlib.colors import to_rgba
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    faces, edges = [], []
    for tip, base, group in zip(space.cameras.centres, space.cameras.corners, partition.homes[space.shown]):
        faces += [base] + [np.stack([tip, base[i], base[i - 1]]) for i in range(4)]
        edges += [to_rgba(colour(group), 0.85)] * 5
    # One collection for all: its faces are sorted by depth.
    fills = [(*edge[:3], 0.14) for edge in edges]
    axes.add_collection3d(Poly3DCollection(faces, facecolors=fills, edgecolors=edges, linewidths=0.7))
    if len(space.test):
        colours = [colour(group) for group in space.answering]
        axes.scatter(*space.test.T, s=14, facecolors="none", edgecolors=colours, linewidths=0.8, depthshade=False)
    # The ground under the cameras, and the axis that all is turned about.
    radius, floor, top = space.radius, space.floor, space.top
    turn = np.linspace(0, 2 * np.pi, 121)
    for share in (0.5, 1.0):
        x, y = share * radius * np.cos(turn), share * radius * np.sin(turn)
        axes.plot(x, y, np.full_like(x, floor), color=FAINT, linewidth=0.7, zorder=0)
    axes.plot([0, 0], [0, 0], [floor, top], color=FAINT, linewidth=0.7, linestyle=(0, (5, 4)), zorder=0)
    tall = max(top - floor, 0.2 * radius)
    axes.set(xlim=(-radius, radius), ylim=(-radius, radius), zlim=(floor, floor + tall))
    axes.set_box_aspect((2 * radius, 2 * radius, tall), zoom=1.3)
    axes.view_init(elev=30, azim=-60)
    axes.set_axis_off()
    axes.set_title("Cameras in space", color=INK, fontsize=14, pad=10)


def _draw_from_above(axes: Axes, partition: Partition, test: Views | None, border: np.ndarray) -> None:
    views = partition.views
    centres = views.centres if test is None else np.concatenate([views.centres, test.centres])
    centres = partition.axis.upright(centres)[:, :2]
    by_azimuth = partition.settings["strategy"] == "azimuth"
    # Sectors meet at the origin, so the picture is then centred on it; otherwise on the cameras.
    middle = np.zeros(2) if by_azimuth else (centres.min(axis=0) + centres.max(axis=0)) / 2
    far = (float(np.abs(centres).max()) or 1.0) if by_azimuth else reach(centres)
    if by_azimuth and partition.num_groups > 1:
        for angle in sector_centres(partition.num_groups) - np.pi / partition.num_groups:
            x, y = 3 * far * np.cos(angle), 3 * far * np.sin(angle)
            axes.plot([0, x], [0, y], color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    if test is not None:
        hidden = np.zeros(len(test), dtype=bool)
        _draw_cameras(axes, partition, test, partition.route(test.camera_to_worlds), hidden, 0.12 * far, hollow=True)
    _draw_cameras(axes, partition, views, partition.homes, border, 0.12 * far, hollow=False)
    half = 1.2 * far * np.array([-1, 1])
    axes.set(aspect="equal", xlim=middle[0] + half, ylim=middle[1] + half)
    _decorate(axes, "Cameras from above")
    axes.locator_params(nbins=7)


def _draw_cameras(
    axes: Axes, partition: Partition, views: Views, groups: np.ndarray, ringed: np.ndarray, arrow: float, hollow: bool
) -> None:
    cameras = upright_cameras(views, partition.axis, arrow)
    for group in np.unique(groups):
        chosen, ink = groups == group, colour(group)
        places, arrows = cameras.centres[chosen, :2], arrow * cameras.directions[chosen, :2]
        axes.quiver(
            *places.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.003, color=ink,
            alpha=0.3 if hollow else 0.8, zorder=2,
        )  # fmt: skip
        x_ringed, y_ringed = cameras.centres[chosen & ringed, :2].T
        axes.scatter(x_ringed, y_ringed, s=88, c="white", edgecolors=INK, linewidths=1, zorder=4)
        look: dict[str, Any] = {"s": 16, "facecolors": "white", "edgecolors": ink, "linewidths": 1.0, "zorder": 3}
        if not hollow:
            look = {"s": 38, "facecolors": ink, "edgecolors": "white", "linewidths": 0.7, "zorder": 5}
        axes.scatter(*places.T, marker=marker(group), **look)


def _draw_similarity(axes: Axes, partition: Partition, similarity: Similarity) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    order, values = ordered_similarity(partition, similarity)
    count, sizes = len(values), np.bincount(partition.homes[order], minlength=partition.num_groups + 1)[1:]
    shades = LinearSegmentedColormap.from_list("similarity", SHADES)
    image = axes.imshow(values, cmap=shades, vmin=0, vmax=darkest(values), interpolation="nearest")
    ends, width = np.cumsum(sizes), 0.025 * count
    for group, (size, end) in enumerate(zip(sizes, ends, strict=True), start=1):
        start = end - size - 0.5
        for corner, sides in (((-0.5 - 1.4 * width, start), (width, size)), ((start, count - 0.1), (size, width))):
            bar = Rectangle(corner, *sides, facecolor=colour(group), clip_on=False)  # beside the matrix
            axes.add_artist(bar)
        if end < count:
            for ink, thickness in (("white", 2.4), (INK, 0.8)):  # seen on light and on dark
                axes.axvline(end - 0.5, color=ink, linewidth=thickness)
                axes.axhline(end - 0.5, color=ink, linewidth=thickness)
    axes.set(xticks=[], yticks=[])
    _decorate(axes, f"How alike views are ({similarity.kind})")
    scale = axes.figure.colorbar(image, ax=axes, shrink=0.8, aspect=40)
    scale.ax.tick_params(colors=INK, labelsize=11, length=0)
    scale.outline.set_visible(False)


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
    axes.set_yticks(range(partition.num_groups), labels, color=INK, fontsize=11)
    axes.set_xticks([])
    for border in np.cumsum(sizes)[:-1] - 0.5:
        axes.axvline(border, color=FAINT, linewidth=0.8)
    for border in np.arange(1, partition.num_groups) - 0.5:
        axes.axhline(border, color=FAINT, linewidth=0.8)


def _choose_photos(partition: Partition) -> tuple[dict[int, Image], int]:
    """Photos of views evenly spread over their group, by index; and how many files are of no use."""
    views = partition.views
    if views.photos is None:
        return {}, 0
    order, photos, lost = in_order(partition), {}, sum(not path.is_file() for path in views.photos)
    for group in range(1, partition.num_groups + 1):
        found = [index for index in order if partition.homes[index] == group and views.photos[index].is_file()]
        shown = min(MOST_PHOTOS, len(found))
        # The middles of equal parts of the group, not their ends, which are views on a border.
        for index in (found[(2 * place + 1) * len(found) // (2 * shown)] for place in range(shown)):
            photo = small_photo(views.photos[index], 3 * int(PHOTO * DOTS), int(PHOTO * DOTS))
            if photo is None:
                lost += 1
            else:
                photos[index] = photo
    return photos, lost


def _draw_photos(axes: Axes, partition: Partition, photos: dict[int, Image], border: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    gap = 0.1
    for group, size in enumerate(_sizes(partition), start=1):
        ink, top = colour(group), (group - 1) * PHOTO
        shown = [index for index in photos if partition.homes[index] == group]
        widths = np.array([photos[index].width / photos[index].height for index in shown])
        # A row of wide photos is made smaller as a whole.
        room = WIDTH - 1.0 - LABELS - gap * len(shown)
        height = min(PHOTO - gap, room / max(widths.sum(), 1.0))
        left = LABELS
        for index, width in zip(shown, height * widths, strict=True):
            axes.imshow(photos[index], extent=(left, left + width, top + height, top))
            axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=ink, linewidth=2.2))
            if border[index]:
                axes.scatter(left + 0.14, top + 0.14, s=88, c="white", edgecolors=INK, linewidths=1, zorder=4)
                axes.scatter(left + 0.14, top + 0.14, s=38, c=ink, marker=marker(group), zorder=5)
            left += width + gap
        label = f"group {group}\n{counted(size, 'view')}"
        axes.text(0, top + PHOTO / 2, label, color=INK, fontsize=11.5, va="center")
    axes.set_axis_off()
    axes.set_title("Photos, group by group, once round the scene's up axis", color=INK, fontsize=14, pad=10)
    axes.set(xlim=(0, WIDTH - 1.0), ylim=(partition.num_groups * PHOTO, 0), aspect="equal", anchor="W")


def _sizes(partition: Partition) -> np.ndarray:
    return np.bincount(partition.homes, minlength=partition.num_groups + 1)[1:]
