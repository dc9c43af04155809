"""What the pictures of a partition share: colours, the order of views, cameras as pyramids, small photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dac_nerfstudio.partition.frames import Axis
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.quality import on_border
from dac_nerfstudio.partition.similarity import Similarity
from dac_nerfstudio.partition.views import PartitionError, Views, viewing_directions

if TYPE_CHECKING:
    from PIL.Image import Image

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "D")
"""The next one for every round through the palette."""
INK, FAINT = "#333333", "#BBBBBB"
SHADES = ("#FFFFFF", "#D5DDE4", "#7C92A5", "#31485C", "#0D1B26")
"""Of similarities, from the lowest to the highest; no group's colour is among them."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
"""Of pages: whatever the reader's system has."""


def colour(group: int) -> str:
    """`#RRGGBB` of a group, counted from 1."""
    return COLOURS[(group - 1) % len(COLOURS)]


def marker(group: int) -> str:
    """matplotlib's name of a group's marker."""
    return MARKERS[(group - 1) // len(COLOURS) % len(MARKERS)]


def swatch(group: int) -> str:
    """HTML of the dot that stands before a group's name; its size and shape are the page's."""
    return f'<i class="swatch" style="background:{colour(group)}"></i>'


def counted(number: int, noun: str) -> str:
    """`1 view`, `2 views`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    if similarity is None:
        return np.zeros(len(partition.views), dtype=bool)
    if len(similarity.values) != len(partition.views):
        raise PartitionError(
            f"The similarity is of {len(similarity.values)} views, but the partition has {len(partition.views)}; "
            "measure it for partition.views."
        )
    return on_border(similarity.values, partition.homes)


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


class Cameras(NamedTuple):
    """Cameras in coordinates with z up and the middle of the scene at 0, in the units of the data."""

    centres: np.ndarray
    """[views, 3]."""
    directions: np.ndarray
    """[views, 3] unit vectors."""
    corners: np.ndarray
    """[views, 4, 3]: the base of each view's pyramid, whose tip is the centre; round its edge from the top left."""


def upright_cameras(views: Views, axis: Axis, length: float) -> Cameras:
    """Cameras turned upright, with pyramids whose edges from tip to base are `length` long."""
    fx, fy, cx, cy, width, height = views.intrinsics.T
    nothing = np.zeros(len(views))
    x = np.stack([nothing, width, width, nothing], axis=1) - cx[:, None]
    y = cy[:, None] - np.stack([nothing, nothing, height, height], axis=1)
    rays = np.stack([x / fx[:, None], y / fy[:, None], np.full_like(x, -1.0)], axis=2)  # [views, 4, 3], OpenGL axes
    rays *= length / np.linalg.norm(rays, axis=2, keepdims=True)
    poses, centres = views.camera_to_worlds, views.centres
    corners = centres[:, None] + np.einsum("vij,vkj->vki", poses[:, :, :3], rays)
    upright = axis.upright(centres)
    directions = axis.upright(centres + viewing_directions(poses)) - upright
    return Cameras(upright, directions, axis.upright(corners))


def reach(centres: np.ndarray) -> float:
    """Half the longest side of the box round points [views, 2 or 3]; 1 where they coincide."""
    return float(np.ptp(centres, axis=0).max()) / 2 or 1.0


def pyramid_length(views: Views) -> float:
    """The length at which the pyramids of so many cameras are seen well and hide little of each other."""
    return reach(views.centres) * min(0.25, len(views) ** -0.5)


def small_photo(path: Path, width: int, height: int) -> Image | None:
    """A photo on white, scaled to fit into a box of pixels; None where it is missing or cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as photo:
            photo.draft("RGB", (2 * width, 2 * height))  # lets JPEG skip most of the decoding
            small = photo.convert("RGBA")
    # Pillow raises all of them: for damaged files, for odd pixel formats, and for one that claims to be huge.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    small.thumbnail((width, height))
    white = Image.new("RGBA", small.size, "white")
    return Image.alpha_composite(white, small).convert("RGB")


def lost_photos(number: int) -> str:
    """A remark for the reader."""
    return f"{counted(number, 'photo')} not found or not readable"
