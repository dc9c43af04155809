"""What the pictures of a partition share: the order of views, small photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.quality import on_border
from dac_nerfstudio.partition.similarity import Similarity
from dac_nerfstudio.style import counted

if TYPE_CHECKING:
    from PIL.Image import Image


def heading(partition: Partition) -> str:
    """What was made, in a line."""
    settings = partition.settings
    extras = "".join(f", {key} {settings[key]:g}" for key in ("overlap", "softness") if settings[key] > 0)
    return f"{counted(partition.num_groups, 'group')} by {settings['strategy']}{extras}"


def border_views(partition: Partition, similarity: Similarity | None) -> np.ndarray:
    """Which views [views] are on the border of their group (see `quality.on_border`); none where nothing is known.

    Raises:
        PartitionError: the similarity is not one of these views.
    """
    border = np.zeros(len(partition.views), dtype=bool)
    if similarity is not None:
        sample = similarity.indices(len(border))
        border[sample] = on_border(similarity.values, partition.homes[sample])
    return border


def ordered_similarity(partition: Partition, similarity: Similarity) -> tuple[np.ndarray, np.ndarray]:
    """Indices of its views as `in_order` has them [shown], and the similarity [shown, shown] in this order."""
    sample = similarity.indices(len(partition.views))
    order = in_order(partition)
    order = order[np.isin(order, sample)]
    places = np.searchsorted(sample, order)
    return order, similarity.values[places][:, places]


def darkest(similarity: np.ndarray) -> float:
    """The value from which on a similarity [views, views] is drawn darkest: few pairs of different views exceed it."""
    others = similarity[~np.eye(len(similarity), dtype=bool)]
    return (float(np.quantile(others, 0.995)) if len(others) else 0.0) or 1.0


def in_order(partition: Partition) -> np.ndarray:
    """Indices [views], group by group, and within a group in the order of the azimuth around the scene's up axis."""
    x, y, _ = partition.axis.upright(partition.views.centres).T
    azimuths = np.arctan2(y, x) % (2 * np.pi)
    ordered = []
    for group in range(1, partition.num_groups + 1):
        members = np.flatnonzero(partition.homes == group)
        members = members[azimuths[members].argsort(kind="stable")]
        # Begin behind the widest gap: a group that lies across azimuth 0 is not torn apart there.
        gaps = np.diff(azimuths[members], prepend=azimuths[members[-1]] - 2 * np.pi)
        ordered.append(np.roll(members, -gaps.argmax()))
    return np.concatenate(ordered)


def small_photo(path: Path, width: int, height: int) -> Image | None:
    """A photo on white, scaled to fit into a box of pixels; None where it is missing or cannot be read."""
    from PIL import Image

    from dac_nerfstudio.scene.photos import BROKEN, in_colour

    try:
        with Image.open(path) as photo:
            photo.draft("RGB", (2 * width, 2 * height))  # lets JPEG skip most of the decoding
            small = in_colour(photo, path).convert("RGBA")
    except BROKEN:
        return None
    small.thumbnail((width, height))
    white = Image.new("RGBA", small.size, "white")
    return Image.alpha_composite(white, small).convert("RGB")


def lost_photos(number: int) -> str:
    """A remark for the reader."""
    return f"{counted(number, 'photo')} not found or not readable"
