"""The page of a partition: one HTML file to turn the cameras in, to look up how alike views are, and to see all photos.

Here is what it shows; `templates/partition.html` says where, and `partition.js` draws. It holds all that it needs and
fetches nothing. Whatever comes from the data is text to it, never markup or program.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from dac_nerfstudio.files import write_text
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
from dac_nerfstudio.partition.quality import figures_of, verdict
from dac_nerfstudio.partition.sampling import sample_of
from dac_nerfstudio.partition.similarity import Similarity
from dac_nerfstudio.partition.strategies import STRATEGIES
from dac_nerfstudio.scene.frames import Axis
from dac_nerfstudio.scene.views import Views
from dac_nerfstudio.style import SHADES, address, colour, counted, render

PHOTO = (160, 96)
"""Width and height that no photo on the page exceeds, in pixels."""
JPEG_QUALITY = 65
STEPS = 255
"""Similarities are written as whole numbers, a byte each, with this many steps from 0 to 1."""


def write_page(
    partition: Partition, path: Path, similarity: Similarity | None = None, test: Views | None = None
) -> None:
    """Writes a partition as a self-contained HTML page, in one step: a reader finds all of it or none.

    What was asked for and made, how good it is, the cameras in space, how alike the views are, and all photos. What is
    not known is left out. Of a large scene, a sample of the views is shown.

    Args:
        similarity: of the partition's views, in their order. Views on a border of their group are then marked.
        test: views that are shown hollow, in the colour of the group that would answer for them.

    Raises:
        PartitionError: the similarity is not one of these views.
    """
    border = border_views(partition, similarity)
    quality, figures = partition.about.get("quality"), figures_of(partition)
    data: dict[str, Any] = {"scene": space(partition, similarity, test)}
    if similarity is not None:
        data["matrix"] = matrix(partition, similarity)
    text = render(
        "partition.html",
        title=heading(partition),
        facts=_facts(partition),
        notes=list(map(str, partition.notes)),
        groups=range(1, partition.num_groups + 1),
        figures=None if quality is None else {"headings": figures[0], "rows": figures[1:], "best": []},
        quality=quality,
        verdict=_verdict(partition),
        similarity=None if similarity is None else similarity.kind,
        has_photos=partition.views.photos is not None,
        test=test,
        sheets=_sheets(partition, similarity, border),
        any_border=bool(border.any()),
        data=data,
    )
    write_text(Path(path), text)


def _facts(partition: Partition) -> list[tuple[str, str]]:
    settings = partition.settings
    made = f"{heading(partition)}, from {counted(len(partition.views), 'view')}"
    if settings["similarity"] is not None:
        made += f" and their {settings['similarity']}"
    facts = [("Made", made), ("Partition", partition.fingerprint)]
    if partition.asked:
        facts.insert(0, ("Asked for", ", ".join(f"{key} {value}" for key, value in partition.asked.items())))
    return facts


def _verdict(partition: Partition) -> dict[str, Any] | None:
    """What the modularity is worth beside that of a scene without features."""
    quality = partition.about.get("quality")
    if not quality or partition.num_groups == 1:
        return None
    modularity, null = quality["modularity"], quality["featureless_modularity"]
    return {
        "similarity": quality["similarity"],
        "same": "strategy" if partition.settings["strategy"] in STRATEGIES else "division",
        "modularity": modularity,
        "null": null,
        # The difference of the figures as they are shown. Adding 0 takes the sign from -0.
        "excess": f"{round(modularity, 3) - round(null, 3) + 0.0:+.3f}".replace("-", "−"),
        "sentence": verdict(quality),
    }


def _sheets(partition: Partition, similarity: Similarity | None, border: np.ndarray) -> dict[str, Any] | None:
    """Photos group by group; `remark` says how many are lost."""
    views = partition.views
    if views.photos is None:
        return None
    order, shown = in_order(partition), _shown_views(partition, similarity)
    order = order[np.isin(order, shown)]
    groups, lost = [], 0
    for group in range(1, partition.num_groups + 1):
        photos = []
        for index in order[partition.homes[order] == group].tolist():
            photo = small_photo(views.photos[index], *PHOTO)
            lost += photo is None
            photos.append(
                {
                    "index": index,
                    "name": views.names[index],
                    "address": "" if photo is None else address(photo, "JPEG", quality=JPEG_QUALITY),
                    "width": photo.width if photo else 0,
                    "height": photo.height if photo else 0,
                    "border": bool(border[index]),
                }
            )
        groups.append({"number": group, "views": int((partition.homes == group).sum()), "photos": photos})
    return {"groups": groups, "remark": f"{lost_photos(lost)}." if lost else ""}


def space(partition: Partition, similarity: Similarity | None, test: Views | None) -> dict[str, Any]:
    """What the page's program draws of the cameras, with z up, scaled to a reach of 1.

    Returns:
        `views`: per view shown, its index, its group, its words (lines of text), and five points [x, y, z]: tip and
        base of its pyramid. `test`: per test view, its group, its words and its centre. `floor`, `top`, `radius`: of
        the ground under the cameras. `colours`: of the groups.
    """
    shown = _shown_views(partition, similarity)
    views, unit = partition.views.select(shown), reach(partition.views.centres)
    # Long enough for the cameras' pyramids to be seen, short enough not to hide each other.
    points = pyramids(views, partition.axis, reach(views.centres) * min(0.25, len(views) ** -0.5)) / unit
    centres, answering = np.zeros((0, 3)), np.zeros(0, dtype=int)
    if test is not None:
        centres, answering = partition.axis.upright(test.centres) / unit, partition.route(test.camera_to_worlds)
    seen = np.concatenate([points.reshape(-1, 3), centres])
    words = _words(partition, similarity, shown)
    tested = zip(() if test is None else test.names, answering.tolist(), _rounded(centres))
    return {
        "views": [
            {"index": int(index), "group": int(partition.homes[index]), "words": lines, "points": _rounded(pyramid)}
            for index, lines, pyramid in zip(shown, words, points, strict=True)
        ],
        "test": [
            {"group": group, "words": [name, f"test view, answered by group {group}"], "points": [centre]}
            for name, group, centre in tested
        ],
        "radius": _rounded(np.linalg.norm(seen[:, :2], axis=1).max()),
        "floor": _rounded(min(0.0, seen[:, 2].min())),
        "top": _rounded(max(0.0, seen[:, 2].max())),
        "colours": [colour(group) for group in range(1, partition.num_groups + 1)],
    }


def pyramids(views: Views, axis: Axis, length: float) -> np.ndarray:
    """Cameras as pyramids [views, 5, 3] with z up: the tip, and the base from the top left; edges are `length` long."""
    fx, fy, cx, cy, width, height = views.intrinsics.T
    nothing = np.zeros(len(views))
    x = np.stack([nothing, width, width, nothing], axis=1) - cx[:, None]
    y = cy[:, None] - np.stack([nothing, nothing, height, height], axis=1)
    rays = np.stack([x / fx[:, None], y / fy[:, None], np.full_like(x, -1.0)], axis=2)  # [views, 4, 3], OpenGL axes
    rays *= length / np.linalg.norm(rays, axis=2, keepdims=True)
    tips = views.centres[:, None]
    corners = tips + np.einsum("vij,vkj->vki", views.camera_to_worlds[:, :, :3], rays)
    return axis.upright(np.concatenate([tips, corners], axis=1))


def reach(centres: np.ndarray) -> float:
    """Half the longest side of the box round points [views, 3]; 1 where they coincide."""
    return float(np.ptp(centres, axis=0).max()) / 2 or 1.0


def _shown_views(partition: Partition, similarity: Similarity | None) -> np.ndarray:
    """Indices of the views that are pictured one by one: all, or a sample of many."""
    count = len(partition.views)
    return sample_of(count) if similarity is None else similarity.indices(count)


def _rounded(values: Any) -> Any:
    return np.round(values, 4).tolist()


def _words(partition: Partition, similarity: Similarity | None, shown: np.ndarray) -> list[list[str]]:
    """What is said of each view that is shown, line by line."""
    border, homes = border_views(partition, similarity)[shown], partition.homes[shown]
    words = [
        [partition.views.names[index], f"group {home}{', on its border' if ringed else ''}"]
        for index, home, ringed in zip(shown, homes, border, strict=True)
    ]
    if similarity is None:
        return words
    member = homes[:, None] == np.arange(1, partition.num_groups + 1)  # [views, groups]
    others = similarity.values - np.eye(len(member))
    means = others @ member / np.maximum(member.sum(axis=0) - member, 1)
    for lines, own in zip(words, means[member], strict=True):
        lines.append(f"similarity to its group: {own:.3f}")
    if partition.num_groups > 1:
        rivals = np.where(member, -1.0, means)
        for lines, rival, value in zip(words, rivals.argmax(axis=1) + 1, rivals.max(axis=1), strict=True):
            lines.append(f"to group {rival}, the next: {value:.3f}")
    return words


def matrix(partition: Partition, similarity: Similarity) -> dict[str, Any]:
    """What the page's program draws of the similarity.

    Returns:
        `order`: indices of its rows and columns, as `ordered_similarity` has them. `values`: row by row, a byte each,
        in base64; 255 means 1. `darkest`: the value that is drawn darkest. `names`, `groups`: of the rows. `shades`:
        colours from 0 to the darkest.
    """
    order, values = ordered_similarity(partition, similarity)
    return {
        "order": order.tolist(),
        "values": base64.b64encode(np.round(values * STEPS).astype(np.uint8).tobytes()).decode(),
        "darkest": darkest(values),
        "names": [partition.views.names[index] for index in order],
        "groups": partition.homes[order].tolist(),
        "shades": SHADES,
    }
