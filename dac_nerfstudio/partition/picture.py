"""The picture of a partition: its cameras, how alike its views are, who draws from which view, and photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.partition.contacts import (
    border_views,
    darkest,
    heading,
    in_order,
    lost_photos,
    ordered_similarity,
    pyramid_length,
    reach,
    shown_views,
    small_photo,
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
WIDTH, MARGIN, GAP = 16.0, 0.5, 0.55
LABELS, BETWEEN = 1.9, 0.12
"""Where rows of groups begin, right of their names, and how far photos are apart."""
LEGEND_COLUMNS = 10


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

    groups = partition.num_groups
    border = border_views(partition, similarity)
    order = in_order(partition)
    photos, lost, row = _choose_photos(partition, order)
    handles = _legend_handles(partition, test is not None, bool(border.any()))
    shared = bool((partition.membership != (partition.homes == np.arange(1, groups + 1)[:, None])).any())

    panels, scale = (2, 0.0) if similarity is None else (3, 0.5)
    side = (WIDTH - 2 * MARGIN - (panels - 1) * GAP - scale) / panels
    tall = min(side, 6.0)
    title = 1.35
    below = title + tall + 0.35
    legend = 0.28 * -(-len(handles) // LEGEND_COLUMNS) + 0.2
    strip = max(0.32, min(0.5, 6 / groups)) * groups if shared else 0.0
    sheet = (row + BETWEEN) * groups if photos else 0.0
    tall_all = below + legend + sum(part + 0.75 for part in (strip, sheet) if part) + 0.1

    figure = Figure(figsize=(WIDTH, tall_all), facecolor="white")
    FigureCanvasAgg(figure)

    def box(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left / WIDTH, 1 - (top + height) / tall_all, width / WIDTH, height / tall_all

    _write_title(figure, partition, lost, tall_all)
    shown = shown_views(partition, similarity)
    _draw_in_space(figure.add_axes(box(MARGIN, title, side, tall), projection="3d"), partition, test, shown)
    above = figure.add_axes(box(MARGIN + side + GAP, title, side, tall))
    _draw_from_above(above, partition, test, border)
    if similarity is not None:
        left = MARGIN + 2 * (side + GAP)
        matrix = figure.add_axes(box(left, title, side, tall))
        _draw_similarity(matrix, figure.add_axes(box(left + side + 0.12, title, 0.12, tall)), partition, similarity)
    figure.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - below / tall_all),
        ncols=LEGEND_COLUMNS,
        fontsize=12,
        labelcolor=INK,
        frameon=False,
        borderaxespad=0,
    )
    top = below + legend + 0.55
    if shared:
        _draw_membership(figure.add_axes(box(LABELS, top, WIDTH - LABELS - MARGIN, strip)), partition, order)
        top += strip + 0.75
    if photos:
        axes = figure.add_axes(box(MARGIN, top, WIDTH - 2 * MARGIN, sheet))
        _draw_photos(axes, partition, photos, border, row)
    return figure


def _write_title(figure: Figure, partition: Partition, lost: int, height: float) -> None:
    quality = partition.about.get("quality")
    remarks = []
    if quality and partition.num_groups > 1:
        remarks.append(
            f"modularity {quality['modularity']:.3f} by {quality['similarity']}, "
            f"{quality['featureless_modularity']:.3f} if every place looked alike"
        )
    if lost:
        remarks.append(lost_photos(lost))
    title = f"{heading(partition)}  ·  partition {partition.fingerprint}"
    # Names may contain dollars, which would be read as formulas.
    figure.text(0.5, 1 - 0.4 / height, title, color=INK, fontsize=16, ha="center", va="center", parse_math=False)
    figure.text(
        0.5,
        1 - 0.74 / height,
        "  ·  ".join(remarks),
        color=INK,
        fontsize=12.5,
        ha="center",
        va="center",
        parse_math=False,
    )


def _legend_handles(partition: Partition, has_test: bool, has_border: bool) -> list:
    from matplotlib.lines import Line2D

    def handle(label: str, **style) -> Line2D:
        return Line2D([], [], linestyle="", label=label, **{"marker": "o", "markersize": 7, **style})

    handles = [
        handle(f"group {group}", marker=marker(group), color=colour(group))
        for group in range(1, partition.num_groups + 1)
    ]
    if has_border:
        handles.append(handle("on a border", markersize=9, color="white", markeredgecolor=INK))
    if has_test:
        handles.append(handle("test view", markersize=4.5, color="white", markeredgecolor=colour(1)))
    return handles


def _decorate(axes: Axes, title: str) -> None:
    axes.set_title(title, color=INK, fontsize=14, pad=10)
    axes.tick_params(colors=INK, labelsize=11, length=0)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def _draw_in_space(axes: Axes3D, partition: Partition, test: Views | None, shown: np.ndarray) -> None:
    from matplotlib.colors import to_rgba
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    views = partition.views.select(shown)
    cameras = upright_cameras(views, partition.axis, pyramid_length(views))
    tips, corners = cameras.centres, cameras.corners
    faces, edges = [], []
    for tip, base, group in zip(tips, corners, partition.homes[shown], strict=True):
        faces += [base] + [np.stack([tip, base[i], base[i - 1]]) for i in range(4)]
        edges += [to_rgba(colour(group), 0.85)] * 5
    axes.set_autoscale_on(False)  # limits are set below
    # One collection for all: its faces are sorted by depth.
    fills = [(*edge[:3], 0.14) for edge in edges]
    axes.add_collection3d(Poly3DCollection(faces, facecolors=fills, edgecolors=edges, linewidths=0.7))
    seen = np.concatenate([tips, corners.reshape(-1, 3)])
    if test is not None:
        centres = partition.axis.upright(test.centres)
        colours = [colour(group) for group in partition.route(test.camera_to_worlds)]
        axes.scatter(*centres.T, s=14, facecolors="none", edgecolors=colours, linewidths=0.8, depthshade=False)
        seen = np.concatenate([seen, centres])
    # The ground under the cameras, and the axis that all is turned about.
    radius = float(np.linalg.norm(seen[:, :2], axis=1).max())
    floor = min(0.0, float(seen[:, 2].min()))
    turn = np.linspace(0, 2 * np.pi, 121)
    for share in (0.5, 1.0):
        x, y = share * radius * np.cos(turn), share * radius * np.sin(turn)
        axes.plot(x, y, np.full_like(x, floor), color=FAINT, linewidth=0.7, zorder=0)
    top = max(0.0, float(seen[:, 2].max()))
    axes.plot([0, 0], [0, 0], [floor, top], color=FAINT, linewidth=0.7, linestyle=(0, (5, 4)), zorder=0)
    tall = max(top - floor, 0.2 * radius)
    axes.set(xlim=(-radius, radius), ylim=(-radius, radius), zlim=(floor, floor + tall))
    axes.set_box_aspect((2 * radius, 2 * radius, tall), zoom=1.45)
    axes.view_init(elev=30, azim=-60)
    axes.set_axis_off()
    for artist in axes.get_children():
        artist.set_clip_on(False)  # the frame is not seen, and there is room around it
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
            end = 3 * far * np.array([np.cos(angle), np.sin(angle)])
            axes.plot([0, end[0]], [0, end[1]], color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    if test is not None:
        hidden = np.zeros(len(test), dtype=bool)
        _draw_cameras(axes, partition, test, partition.route(test.camera_to_worlds), hidden, 0.12 * far, hollow=True)
    _draw_cameras(axes, partition, views, partition.homes, border, 0.12 * far, hollow=False)
    half = 1.2 * far * np.array([-1, 1])
    window = axes.get_window_extent()
    axes.set(aspect="equal", xlim=middle[0] + half * window.width / window.height, ylim=middle[1] + half)
    _decorate(axes, "Cameras from above")
    axes.locator_params(nbins=7)


def _draw_cameras(
    axes: Axes,
    partition: Partition,
    views: Views,
    groups: np.ndarray,
    ringed: np.ndarray,
    arrow: float,
    hollow: bool,
) -> None:
    cameras = upright_cameras(views, partition.axis, arrow)
    for group in np.unique(groups):
        chosen = groups == group
        ink, x, y = colour(group), *cameras.centres[chosen, :2].T
        axes.quiver(
            x,
            y,
            *(arrow * cameras.directions[chosen, :2]).T,
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.003,
            color=ink,
            alpha=0.3 if hollow else 0.8,
            zorder=2,
        )
        x_ringed, y_ringed = cameras.centres[chosen & ringed, :2].T
        axes.scatter(x_ringed, y_ringed, s=88, c="white", edgecolors=INK, linewidths=1, zorder=4)
        axes.scatter(
            x,
            y,
            s=16 if hollow else 38,
            marker=marker(group),
            facecolors="white" if hollow else ink,
            edgecolors=ink if hollow else "white",
            linewidths=1.0 if hollow else 0.7,
            zorder=3 if hollow else 5,
        )


def _draw_similarity(axes: Axes, scale: Axes, partition: Partition, similarity: Similarity) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    order, values = ordered_similarity(partition, similarity)
    count, sizes = len(values), np.bincount(partition.homes[order], minlength=partition.num_groups + 1)[1:]
    shades = LinearSegmentedColormap.from_list("similarity", SHADES)
    image = axes.imshow(values, cmap=shades, vmin=0, vmax=darkest(values), interpolation="nearest", aspect="auto")
    ends, width = np.cumsum(sizes), 0.025 * count
    for group, (first, last) in enumerate(zip(np.append(0, ends[:-1]), ends, strict=True), start=1):
        corner, size = first - 0.5, last - first
        bars = (
            Rectangle((-0.5 - 1.4 * width, corner), width, size, facecolor=colour(group)),
            Rectangle((corner, count - 0.5 + 0.4 * width), size, width, facecolor=colour(group)),
        )
        for bar in bars:
            bar.set_clip_on(False)  # they lie beside the matrix
            axes.add_artist(bar)
    for end in ends[:-1] - 0.5:
        for ink, thickness in (("white", 2.4), (INK, 0.8)):  # seen on light and on dark
            axes.axvline(end, color=ink, linewidth=thickness)
            axes.axhline(end, color=ink, linewidth=thickness)
    axes.set(xticks=[], yticks=[])
    _decorate(axes, f"How alike views are ({similarity.kind})")
    axes.figure.colorbar(image, cax=scale)
    scale.tick_params(colors=INK, labelsize=11, length=0)
    scale.locator_params(nbins=6)
    scale.spines[:].set_visible(False)


def _draw_membership(axes: Axes, partition: Partition, order: np.ndarray) -> None:
    from matplotlib.colors import to_rgb

    weights = partition.membership[:, order, None]  # [groups, views, 1]
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


def _choose_photos(partition: Partition, order: np.ndarray) -> tuple[dict[int, Image], int, float]:
    """Photos of views evenly spread over their group, by index; how many files are of no use; and how tall rows are."""
    views, groups = partition.views, partition.num_groups
    space = WIDTH - MARGIN - LABELS + BETWEEN
    aspect = float(np.median(views.intrinsics[:, 4] / views.intrinsics[:, 5]))
    ideal = min(1.1, max(0.5, 10 / groups))
    most = int(np.clip(round(space / (ideal * aspect + BETWEEN)), 4, 12))
    row = min(1.5, (space / most - BETWEEN) / aspect)
    if views.photos is None:
        return {}, 0, row
    photos, lost = {}, sum(not path.is_file() for path in views.photos)
    for group in range(1, groups + 1):
        found = [index for index in order if partition.homes[index] == group and views.photos[index].is_file()]
        shown = min(most, len(found))
        # The middles of equal parts of the group, not their ends, which are views on a border.
        for place in range(shown):
            index = found[(2 * place + 1) * len(found) // (2 * shown)]
            photo = small_photo(views.photos[index], 3 * int(row * DOTS), int(row * DOTS))
            if photo is None:
                lost += 1
            else:
                photos[index] = photo
    return photos, lost, row


def _draw_photos(axes: Axes, partition: Partition, photos: dict[int, Image], border: np.ndarray, row: float) -> None:
    from matplotlib.patches import Rectangle

    start, end = LABELS - MARGIN, WIDTH - 2 * MARGIN
    for group, size in enumerate(_sizes(partition), start=1):
        ink, top = colour(group), (group - 1) * (row + BETWEEN)
        shown = [index for index in photos if partition.homes[index] == group]
        widths = np.array([row * photos[index].width / photos[index].height for index in shown])
        # A row of wider photos than most is made smaller as a whole.
        shrink = min(1.0, (end - start - BETWEEN * (len(shown) - 1)) / max(widths.sum(), row))
        left, height = start, shrink * row
        for index, width in zip(shown, shrink * widths, strict=True):
            axes.imshow(photos[index], extent=(left, left + width, top + height, top))
            frame = Rectangle((left, top), width, height, fill=False, edgecolor=ink, linewidth=2.2)
            axes.add_patch(frame).set_clip_on(False)
            if border[index]:
                axes.scatter(left + 0.14, top + 0.14, s=88, c="white", edgecolors=INK, linewidths=1, zorder=4)
                axes.scatter(left + 0.14, top + 0.14, s=38, c=ink, marker=marker(group), zorder=5)
            left += width + BETWEEN
        axes.text(0, top + row / 2, f"group {group}\n{counted(size, 'view')}", color=INK, fontsize=11.5, va="center")
    axes.set_axis_off()
    axes.set_title("Photos, group by group, once round the scene's up axis", color=INK, fontsize=14, pad=10)
    axes.set(xlim=(0, end), ylim=(partition.num_groups * (row + BETWEEN), 0), aspect="auto")


def _sizes(partition: Partition) -> np.ndarray:
    return np.bincount(partition.homes, minlength=partition.num_groups + 1)[1:]
