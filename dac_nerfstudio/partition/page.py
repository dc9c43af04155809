"""The page of a partition: one HTML file to turn the cameras in, to look up how alike views are, and to see all photos.

It holds all that it needs and fetches nothing. Whatever comes from the data is text to it, never markup or program.
"""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.partition.contacts import (
    FAINT,
    FONT,
    INK,
    SHADES,
    border_views,
    colour,
    counted,
    darkest,
    heading,
    in_order,
    lost_photos,
    marker,
    pyramid_length,
    reach,
    small_photo,
    swatch,
    upright_cameras,
)
from dac_nerfstudio.partition.divide import LEAST_EXCESS
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.similarity import Similarity
from dac_nerfstudio.partition.strategies import STRATEGIES
from dac_nerfstudio.partition.views import Views

PHOTO = (160, 96)
"""Photos fit into so many pixels."""
JPEG_QUALITY = 70
SYMBOLS = {"o": "circle", "s": "square", "^": "x", "D": "diamond"}
"""plotly's names for matplotlib's markers, as far as it has them in space."""


def write_page(
    partition: Partition, path: Path, similarity: Similarity | None = None, test: Views | None = None
) -> None:
    """Writes a partition as a self-contained HTML page, in one step: a reader finds all of it or none.

    What was asked for and made, how good it is, the cameras in space, how alike the views are, and all photos. What is
    not known is left out.

    Args:
        partition: what to show.
        path: where to write the page.
        similarity: of the partition's views, in their order. Views on a border of their group are then marked.
        test: views that are shown hollow, in the colour of the group that would answer for them.

    Raises:
        PartitionError: the similarity is not one of these views.
    """
    from plotly.offline import get_plotlyjs

    border = border_views(partition, similarity)
    figures = {"scene": space_figure(partition, similarity, test)}
    body = [_header(partition), _quality(partition)]
    body.append(_figure("Cameras in space", "scene", "Point at a camera to see its photo.", partition))
    if similarity is not None:
        figures["matrix"] = similarity_figure(partition, similarity)
        title = f"How alike views are ({similarity.kind})"
        body.append(_figure(title, "matrix", "Point at two views to see their photos.", partition))
    body.append(_photos(partition, border))
    # Nothing in a JSON text can then end the element that holds it.
    data = json.dumps({"figures": figures, "order": in_order(partition).tolist()}, allow_nan=False)
    data = data.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    text = TEMPLATE.format(
        title=escape(heading(partition)),
        style=STYLE,
        body="\n".join(body),
        plotly=get_plotlyjs(),
        data=data,
        program=PROGRAM,
    )
    with atomic_write(Path(path)) as temporary:
        # A file name may be no valid Unicode.
        temporary.write_bytes(text.encode("utf-8", "xmlcharrefreplace"))


def _header(partition: Partition) -> str:
    settings, about = partition.settings, partition.about
    made = f"{heading(partition)}, from {counted(len(partition.views), 'view')}"
    if settings["similarity"] is not None:
        made += f" and their {settings['similarity']}"
    facts = [("Made", made), ("Partition", partition.fingerprint)]
    if about.get("asked"):
        facts.insert(0, ("Asked for", ", ".join(f"{key} {value}" for key, value in about["asked"].items())))
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    parts = [f"<h1>{escape(heading(partition))}</h1>", f"<dl>{rows}</dl>"]
    if about.get("notes"):
        notes = "".join(f"<li>{escape(str(note))}</li>" for note in about["notes"])
        parts.append(f'<ul class="notes">{notes}</ul>')
    return "\n".join(parts)


def _quality(partition: Partition) -> str:
    quality = partition.about.get("quality")
    if not quality:
        return ""
    home = dict(zip(partition.views.names, partition.homes.tolist(), strict=True))
    on_border = Counter(home[name] for name in quality["border"])
    groups = range(1, partition.num_groups + 1)
    columns = [
        ("views", quality["sizes"]),
        ("similarity within", quality["within"]),
        ("similarity to others", quality["between"]),
        ("views on a border", [on_border[group] for group in groups]),
    ]
    test = quality["test"]
    if test:
        columns.append(("test views", test["views"]))
        columns.append(("their mean distance", test["mean_distance"]))
        columns.append(("largest distance", test["largest_distance"]))
    head = "".join(f"<th>{name}</th>" for name, _ in columns)
    rows = [f"<tr><th></th>{head}</tr>"]
    for group in groups:
        cells = "".join(f"<td>{_cell(values[group - 1])}</td>" for _, values in columns)
        rows.append(f"<tr><th>{swatch(group)}group {group}</th>{cells}</tr>")
    parts = ["<h2>Quality</h2>", f'<div class="wide"><table>{"".join(rows)}</table></div>']
    if partition.num_groups > 1:
        parts.append(f"<p>{_verdict(partition, quality)}</p>")
    if test:
        parts.append(
            "<p>The distance of a test view is that to the nearest view of the group that answers for it: between the "
            "cameras, in units of their spread, plus that between their viewing directions, from 0 (parallel) to 2 "
            "(opposite).</p>"
        )
    return "\n".join(parts)


def _verdict(partition: Partition, quality: dict[str, Any]) -> str:
    modularity, null = quality["modularity"], quality["featureless_modularity"]
    excess = modularity - null
    same = "strategy" if partition.settings["strategy"] in STRATEGIES else "division"
    meaning = (
        "The groups follow what is in the scene."
        if excess >= LEAST_EXCESS
        else "That is little: the groups follow where cameras stand rather than what is in the scene."
    )
    return (
        f"Modularity by {escape(quality['similarity'])} is <b>{modularity:.3f}</b>; in a featureless scene, where "
        f"every place looks alike to the same cameras, the same {same} reaches <b>{null:.3f}</b>. Neighbours are alike "
        f"whatever they see, so only the difference, {excess:+.3f}, is due to the scene itself. {meaning}"
    )


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _figure(title: str, name: str, hint: str, partition: Partition) -> str:
    """The place of one of plotly's figures, and beside it that of photos of what is pointed at, if any are known."""
    photos = f'<div class="picked" id="{name}-photos"><p>{hint}</p></div>' * (partition.views.photos is not None)
    return f'<h2>{escape(title)}</h2>\n<div class="figure"><div id="{name}"></div>{photos}</div>'


def _photos(partition: Partition, border: np.ndarray) -> str:
    views = partition.views
    if views.photos is None:
        return ""
    order, lost, parts = in_order(partition), 0, []
    for group in range(1, partition.num_groups + 1):
        members = [index for index in order if partition.homes[index] == group]
        parts.append(f"<h3>{swatch(group)}group {group} · {counted(len(members), 'view')}</h3>")
        parts.append('<div class="sheet">')
        for index in members:
            photo = _data_url(views.photos[index])
            lost += photo is None
            name = escape(views.names[index])
            mark = '<i class="border"></i>' if border[index] else ""
            title = f"{name}, group {group}" + (", on a border" if border[index] else "")
            picture = (
                '<div class="lost"></div>' if photo is None else f'<img loading="lazy" alt="{name}" src="{photo}">'
            )
            parts.append(
                f'<figure id="view-{index}" title="{title}" style="--ink:{colour(group)}">{picture}{mark}'
                f"<figcaption>{name}</figcaption></figure>"
            )
        parts.append("</div>")
    remarks = ["Group by group, once round the scene's up axis."]
    if border.any():
        remarks.append('<span class="legend"><i class="border"></i></span> marks views on a border of their group.')
    remarks.append("Click one to find its camera.")
    if lost:
        remarks.append(f"{lost_photos(lost)}.")
    return "\n".join([f"<h2>Photos</h2>\n<p>{' '.join(remarks)}</p>", *parts])


def _data_url(path: Path) -> str | None:
    photo = small_photo(path, *PHOTO)
    if photo is None:
        return None
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def space_figure(partition: Partition, similarity: Similarity | None, test: Views | None) -> dict[str, Any]:
    """plotly's figure of the cameras in space, scaled to a reach of 1: pyramids and tips per group, then test views.

    The tips carry the indices of their views as `customdata`; the last trace rings the one that was clicked.
    """
    views, unit = partition.views, reach(partition.views.centres)
    cameras = upright_cameras(views, partition.axis, pyramid_length(views))
    tips, corners = cameras.centres / unit, cameras.corners / unit
    texts = _hover_texts(partition, similarity)
    traces = [_ground(np.concatenate([tips, corners.reshape(-1, 3)]))]
    for group in range(1, partition.num_groups + 1):
        members = np.flatnonzero(partition.homes == group)
        shared = {"type": "scatter3d", "legendgroup": str(group), "name": f"group {group}"}
        line = {"color": colour(group), "width": 2}
        traces.append(
            {
                **shared,
                **_coordinates(np.concatenate([_wires(tips[i], corners[i]) for i in members])),
                "mode": "lines",
                "line": line,
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
        traces.append(
            {
                **shared,
                **_coordinates(tips[members]),
                "mode": "markers",
                "marker": {"color": colour(group), "size": 3, "symbol": SYMBOLS[marker(group)]},
                "text": [texts[i] for i in members],
                "customdata": members.tolist(),
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    if test is not None:
        routed = partition.route(test.camera_to_worlds)
        traces.append(
            {
                "type": "scatter3d",
                **_coordinates(partition.axis.upright(test.centres) / unit),
                "mode": "markers",
                "name": "test views",
                "marker": {"color": [colour(group) for group in routed], "size": 3, "symbol": "circle-open"},
                "opacity": 0.6,
                "text": [
                    f"{escape(name, quote=False)}<br>test view, answered by group {group}"
                    for name, group in zip(test.names, routed, strict=True)
                ],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    traces.append(
        {
            "type": "scatter3d",
            **_coordinates(np.empty((0, 3))),
            "mode": "markers",
            "marker": {"color": INK, "size": 16, "symbol": "circle-open"},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    )
    hidden = {"visible": False}
    layout = {
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "font": {"family": FONT, "color": INK},
        "hoverlabel": {"bgcolor": "white", "font": {"color": INK}},
        "legend": {
            "orientation": "h",
            "x": 0.5,
            "xanchor": "center",
            "y": 0,
            "yanchor": "top",
            "itemsizing": "constant",
        },
        "scene": {
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "camera": {"eye": {"x": 0.7, "y": -1.15, "z": 0.75}, "center": {"x": 0, "y": 0, "z": -0.12}},
        },
    }
    return {"data": traces, "layout": layout}


def _coordinates(points: np.ndarray) -> dict[str, list]:
    """Points [n, 3]; a row that is not finite interrupts a line."""
    columns = np.round(points, 4).T.tolist()
    return {key: [None if value != value else value for value in column] for key, column in zip("xyz", columns)}


def _wires(tip: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The edges of a pyramid as one line [11, 3], with an interruption at its end."""
    a, b, c, d = base
    return np.stack([tip, a, b, tip, c, d, tip, d, a, b, c, np.full(3, np.nan)])


def _ground(seen: np.ndarray) -> dict[str, Any]:
    """A circle under all points [n, 3], and the axis."""
    radius = np.linalg.norm(seen[:, :2], axis=1).max()
    floor, top = min(0.0, seen[:, 2].min()), max(0.0, seen[:, 2].max())
    turn = np.linspace(0, 2 * np.pi, 73)
    circle = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], axis=1)
    gap = np.full((1, 3), np.nan)
    line = np.concatenate(
        [[0, 0, floor] + share * radius * circle for share in (0.5, 1)] + [gap, [[0, 0, floor], [0, 0, top]]]
    )
    line = np.insert(line, len(circle), np.nan, axis=0)
    look = {"mode": "lines", "line": {"color": FAINT, "width": 1.5}, "hoverinfo": "skip", "showlegend": False}
    return {"type": "scatter3d", **_coordinates(line), **look}


def _hover_texts(partition: Partition, similarity: Similarity | None) -> list[str]:
    """What is told of each view; plotly reads simple markup, but no `&quot;`."""
    border = border_views(partition, similarity)
    texts = [
        f"<b>{escape(name, quote=False)}</b><br>group {home}{', on its border' if ringed else ''}"
        for name, home, ringed in zip(partition.views.names, partition.homes, border, strict=True)
    ]
    if similarity is None:
        return texts
    member = partition.homes[:, None] == np.arange(1, partition.num_groups + 1)  # [views, groups]
    others = similarity.values - np.eye(len(member))
    means = others @ member / np.maximum(member.sum(axis=0) - member, 1)
    own = means[member]
    for index, text in enumerate(texts):
        texts[index] = f"{text}<br>similarity to its group: {own[index]:.3f}"
    if partition.num_groups > 1:
        rivals = np.where(member, -1.0, means)
        for index, (rival, value) in enumerate(zip(rivals.argmax(axis=1) + 1, rivals.max(axis=1), strict=True)):
            texts[index] += f"<br>to group {rival}, the next: {value:.3f}"
    return texts


def similarity_figure(partition: Partition, similarity: Similarity) -> dict[str, Any]:
    """plotly's figure of the similarity, its rows and columns as `in_order` has them."""
    order = in_order(partition)
    values = similarity.values[order][:, order]
    names = [escape(partition.views.names[i], quote=False) for i in order]
    count = len(names)
    ends = np.cumsum(np.bincount(partition.homes)[1:]) - 0.5
    shapes = []
    for group, (first, last) in enumerate(zip([-0.5, *ends[:-1]], ends, strict=True), start=1):
        bar = {"type": "rect", "fillcolor": colour(group), "line": {"width": 0}}
        width = 0.02 * count
        near, far = count - 0.5 + 0.4 * width, count - 0.5 + 1.4 * width
        shapes.append({**bar, "x0": first, "x1": last, "y0": near, "y1": far})
        shapes.append({**bar, "x0": -0.5 - 1.4 * width, "x1": -0.5 - 0.4 * width, "y0": first, "y1": last})
    for end in ends[:-1]:
        for ink, thickness in (("white", 3), (INK, 1)):  # seen on light and on dark
            line = {"type": "line", "line": {"color": ink, "width": thickness}}
            shapes.append({**line, "x0": end, "x1": end, "y0": -0.5, "y1": count - 0.5})
            shapes.append({**line, "x0": -0.5, "x1": count - 0.5, "y0": end, "y1": end})
    # Names as categories, so that hovering tells them; numbers on such an axis are places.
    axis = {"type": "category", "showticklabels": False, "showgrid": False, "ticks": "", "constrain": "domain"}
    outside = 0.03 * count
    layout = {
        "margin": {"l": 0, "r": 0, "t": 30, "b": 10},
        "font": {"family": FONT, "color": INK},
        "hoverlabel": {"bgcolor": "white", "font": {"color": INK}},
        "plot_bgcolor": "white",
        "xaxis": {**axis, "range": [-0.5 - outside, count - 0.5]},
        "yaxis": {**axis, "range": [count - 0.5 + outside, -0.5], "scaleanchor": "x"},
        "shapes": shapes,
    }
    heatmap = {
        "type": "heatmap",
        "z": np.round(values, 3).tolist(),
        "x": names,
        "y": names,
        "zmin": 0,
        "zmax": darkest(values),
        "colorscale": [[i / (len(SHADES) - 1), shade] for i, shade in enumerate(SHADES)],
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "hovertemplate": "%{y}<br>%{x}<br>similarity %{z:.3f}<extra></extra>",
    }
    return {"data": [heatmap], "layout": layout}


STYLE = f"""
body {{ margin: 0 auto; max-width: 1080px; padding: 1.5rem 1rem 4rem; background: white; color: {INK};
  font: 16px/1.5 {FONT}; }}
h1 {{ font-size: 1.7rem; font-weight: 600; line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.2rem; font-weight: 600; margin: 2.5rem 0 .6rem; }}
h3 {{ font-size: 1rem; font-weight: 600; margin: 1.4rem 0 .5rem; }}
p {{ max-width: 46rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0; }}
dt {{ color: #777; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
.notes {{ margin: 1rem 0 0; padding: .7rem 1rem .7rem 2rem; background: #F6F6F4; border-left: 3px solid {FAINT}; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .9rem; text-align: right; border-bottom: 1px solid #E4E4E4; }}
th {{ font-weight: 600; white-space: nowrap; }}
tr:first-child th {{ font-weight: 400; color: #777; white-space: normal; vertical-align: bottom; }}
th:first-child {{ text-align: left; padding-left: 0; }}
.swatch {{ display: inline-block; width: .8em; height: .8em; margin-right: .5em; border-radius: 50%; }}
img, .lost {{ display: block; height: 84px; border: 3px solid var(--ink); border-radius: 3px; }}
.figure {{ display: flex; align-items: center; gap: 1rem; }}
#scene, #matrix {{ flex: 1 1 0; min-width: 0; height: 620px; }}
.picked {{ flex: 0 0 240px; color: #777; }}
.picked figure {{ margin-bottom: 1rem; }}
.picked figcaption {{ font-size: .8rem; overflow-wrap: anywhere; }}
.picked img {{ height: auto; zoom: 1.5; }}
.sheet {{ display: flex; flex-wrap: wrap; gap: 6px; }}
.sheet figcaption {{ display: none; }}
.sheet figure {{ cursor: pointer; }}
.lost {{ width: 84px; background: repeating-linear-gradient(45deg, #FFF 0 6px, #EEE 6px 12px); }}
figure {{ position: relative; margin: 0; }}
.border {{ position: absolute; left: 8px; top: 8px; width: 8px; height: 8px; border-radius: 50%;
  background: var(--ink, white); border: 2px solid white; box-shadow: 0 0 0 1.5px {INK}; }}
.legend {{ position: relative; display: inline-block; width: 1.3em; height: .8em; }}
.legend .border {{ left: 2px; top: 0; }}
@media (max-width: 760px) {{
  .figure {{ flex-direction: column; align-items: stretch; }}
  #scene, #matrix {{ flex: none; height: 75vw; }}
  .picked {{ display: flex; flex-wrap: wrap; gap: .8rem; flex: none; min-height: 185px; justify-content: center; }}
  .sheet img, .lost {{ height: 56px; border-width: 2px; }}
  th, td {{ padding: .3rem .5rem; }}
}}
"""

PROGRAM = """
const { figures, order } = JSON.parse(document.getElementById("data").textContent);
const config = { responsive: true, displaylogo: false };
const scene = document.getElementById("scene");

function show(place, views) {
  document.getElementById(place)?.replaceChildren(...views.map(view => {
    const copy = document.getElementById("view-" + view).cloneNode(true);
    copy.removeAttribute("id");
    return copy;
  }));
}

let ringed;
function ring(view) {
  if (view === ringed) return;  // plotly tells of a click again whenever it draws while the button is down
  ringed = view;
  for (const { customdata, x, y, z } of figures.scene.data) {
    const at = (customdata || []).indexOf(view);
    if (at >= 0) Plotly.restyle(scene, { x: [[x[at]]], y: [[y[at]]], z: [[z[at]]] }, [figures.scene.data.length - 1]);
  }
}

function pick(view) {
  show("scene-photos", [view]);
  ring(view);
}

Plotly.newPlot(scene, figures.scene.data, figures.scene.layout, config).then(() => {
  const seen = event => event.points[0].customdata;
  scene.on("plotly_hover", event => seen(event) !== undefined && show("scene-photos", [seen(event)]));
  scene.on("plotly_click", event => seen(event) !== undefined && pick(seen(event)));
});
if (figures.matrix) {
  const matrix = document.getElementById("matrix");
  Plotly.newPlot(matrix, figures.matrix.data, figures.matrix.layout, config).then(() => {
    matrix.on("plotly_hover", event => show("matrix-photos", event.points[0].pointIndex.map(place => order[place])));
  });
}
document.querySelectorAll(".sheet figure").forEach(photo => photo.addEventListener("click", () => {
  pick(Number(photo.id.slice("view-".length)));
  scene.scrollIntoView({ behavior: "smooth" });
}));
"""

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{plotly}</script>
<script type="application/json" id="data">{data}</script>
<script>{program}</script>
</body>
</html>
"""
