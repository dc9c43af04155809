"""Pictures for the page: views where the student gains and loses most, and what wraps any picture into the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np
from PIL import Image, ImageDraw

from dac_nerfstudio.report.results import ViewGain
from dac_nerfstudio.report.runs import Run
from dac_nerfstudio.runs.layout import PAIRS
from dac_nerfstudio.style import address

VIEWS = 3
"""How many of the largest gains are shown, and of the largest losses."""
WIPED = 8
"""Views to wipe between baseline and student on, at most."""
SMALLEST_CROP, LARGEST_CROP = 48, 224
"""Sides of the crops, in pixels; in between two fifths of the photo's shorter side, and at most half of a small one."""

RED = (213, 94, 0)


@dataclass(frozen=True)
class Comparison:
    """One view: photo, baseline and student, all [height, width, 3] bytes, and where to look."""

    name: str
    group: Optional[int]
    gain: float
    photo: np.ndarray
    baseline: np.ndarray
    student: np.ndarray
    box: Tuple[int, int, int]
    """Top, left and side of the square where the errors of the two differ most."""

    def crop(self, image: np.ndarray) -> np.ndarray:
        top, left, side = self.box
        return image[top : top + side, left : left + side]

    def error(self, image: np.ndarray) -> np.ndarray:
        """[height, width] mean absolute difference from the photo, in [0, 1]."""
        return np.abs(image.astype(np.float64) - self.photo).mean(axis=2) / 255


def extremes(views: List[ViewGain]) -> Tuple[List[ViewGain], List[ViewGain]]:
    """The views of largest gain and of largest loss, the most extreme first; views as ``results`` sorts them."""
    gains = [view for view in views if view.gain > 0][:VIEWS]
    losses = [view for view in reversed(views) if view.gain < 0][:VIEWS]
    return gains, losses


def spread(views: List[ViewGain]) -> List[ViewGain]:
    """Views evenly from the first to the last, those included."""
    numbers = np.unique(np.linspace(0, len(views) - 1, min(WIPED, len(views))).round().astype(int))
    return [views[number] for number in numbers]


def compare(view: ViewGain, baseline: Run, student: Run) -> Optional[Comparison]:
    """A view with its pictures, or None where they were not kept."""
    one, other = (_pair(run, view.name) for run in (baseline, student))
    if one is None or other is None or one[1].shape != other[1].shape:
        return None
    photo, before, after = one[0], one[1], other[1]
    return Comparison(view.name, view.group, view.gain, photo, before, after, _where(photo, before, after, view.gain))


def _pair(run: Run, name: str) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """Photo and rendering."""
    views = (run.evaluation or {}).get("views", [])
    pair = next((view.get("pair") for view in views if view["name"] == name), None)
    if not isinstance(pair, str):
        return None
    # A name alone: a record that came from elsewhere reaches nothing but its own folder.
    path = run.folder / PAIRS / Path(pair).name
    try:
        with Image.open(path) as file:
            both = np.asarray(file.convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None
    half = both.shape[1] // 2
    return both[:, :half], both[:, half : 2 * half]


def _where(photo: np.ndarray, baseline: np.ndarray, student: np.ndarray, gain: float) -> Tuple[int, int, int]:
    """The square that gains, or loses, most squared error."""
    height, width = photo.shape[:2]
    shorter = min(height, width)
    side = max(1, min(SMALLEST_CROP, shorter // 2), min(LARGEST_CROP, 2 * shorter // 5))
    before, after = (((image.astype(np.float64) - photo) ** 2).sum(axis=2) for image in (baseline, student))
    better = (before - after) if gain > 0 else (after - before)
    table = np.zeros((height + 1, width + 1))
    table[1:, 1:] = better.cumsum(axis=0).cumsum(axis=1)
    sums = table[side:, side:] - table[:-side, side:] - table[side:, :-side] + table[:-side, :-side]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(top), int(left), side


def coloured(values: np.ndarray, low: float, high: float, scheme: str) -> np.ndarray:
    """Numbers [height, width] in one of matplotlib's colour schemes, as bytes [height, width, 3]."""
    from matplotlib import colormaps

    return colormaps[scheme](np.clip((values - low) / (high - low), 0, 1), bytes=True)[..., :3]


def png(image: np.ndarray) -> str:
    """An image [height, width, 3] of bytes, exactly, as an address that holds it."""
    return address(Image.fromarray(np.ascontiguousarray(image)), "PNG", optimize=True)


def whole(image: np.ndarray, side: int) -> str:
    """An image as a WebP of at most ``side`` pixels a side."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    return address(picture, "WEBP", quality=88, method=4)


def small(image: np.ndarray, side: int, box: Tuple[int, int, int]) -> str:
    """An image as a JPEG of at most ``side`` pixels a side, with a square drawn into it."""
    # Small photos are enlarged first: the square's line is thin beside their pixels.
    times = max(1, side // max(image.shape[:2]))
    top, left, length = (value * times for value in box)
    picture = Image.fromarray(boxed(enlarged(image, times), (top, left, length)))
    picture.thumbnail((side, side))
    return address(picture, "JPEG", quality=85)


def boxed(image: np.ndarray, box: Tuple[int, int, int]) -> np.ndarray:
    """An image with a square drawn into it, given by its top, its left and its side."""
    picture = Image.fromarray(image)
    top, left, side = box
    thick = max(1, min(image.shape[:2]) // 150)
    ImageDraw.Draw(picture).rectangle((left, top, left + side - 1, top + side - 1), None, RED, thick)
    return np.asarray(picture)


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """An image whose pixels stay visible: each becomes a square."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def partition_picture(path: Path) -> Optional[str]:
    """The picture of a partition, in a format that needs a fraction of the space; None where there is none."""
    try:
        with Image.open(path) as file:
            return address(file.convert("RGB"), "WEBP", quality=88, method=4)
    except (OSError, SyntaxError, ValueError):
        return None
