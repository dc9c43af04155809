"""Pictures beside each other, with titles, and as files. Images are bytes [height, width, 3]."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Dict, Iterator, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.report.pictures import RED
from dac_nerfstudio.style import INK

PAPER = "#FFFFFF"
SEAM = 2
"""Width of the line between the two sides of a wipe, in pixels."""
MOST_BYTES, WIDEST = 2_000_000, 960
"""No animation of a README is larger, nor wider in pixels."""
SMALLEST = 64
"""Pixels of the shorter side below which nothing is left to see."""


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    columns: Sequence[str],
    names: Sequence[str] = (),
    marks: Dict[Tuple[int, int], str] | None = None,
) -> np.ndarray:
    """Images of one size in rows and columns, on white.

    Args:
        columns: a title above each column.
        names: a name left of each row, if any.
        marks: colours (#RRGGBB) of the frames round some images, by row and column.
    """
    height, width = rows[0][0].shape[:2]
    font = ImageFont.load_default(max(11, min(height, width) // 16))
    line = round(1.6 * font.getbbox("Ag")[3])
    gap = max(4, min(height, width) // 40)
    left = gap + max((round(font.getlength(name)) + gap for name in names), default=0)
    size = (left + len(columns) * (width + gap), line + len(rows) * (height + gap))
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(columns):
        draw.text((left + column * (width + gap) + width / 2, line / 2), title, INK, font, anchor="mm")
    for row, images in enumerate(rows):
        top = line + row * (height + gap)
        if names:
            draw.text((gap, top + height / 2), names[row], INK, font, anchor="lm")
        for column, image in enumerate(images):
            x = left + column * (width + gap)
            picture.paste(Image.fromarray(image), (x, top))
            colour = (marks or {}).get((row, column))
            if colour is not None:
                thick = max(2, gap // 2)
                box = (x - thick, top - thick, x + width - 1 + thick, top + height - 1 + thick)
                draw.rectangle(box, None, colour, thick)
    return np.asarray(picture)


def close_up(image: np.ndarray, box: Tuple[int, int, int], factor: int) -> np.ndarray:
    """A square of an image (top, left and side), enlarged to the image's shorter side times a factor, on white."""
    top, left, side = box
    height, width = (factor * length for length in image.shape[:2])
    crop = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(ImageOps.pad(crop, (width, height), Image.Resampling.NEAREST, PAPER))


def wipe(left: np.ndarray, right: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """A seam that goes from one side to the other and back: left of it one image, right of it the other."""
    width = left.shape[1]
    for frame in range(frames):
        x = round((0.5 - 0.48 * np.cos(2 * np.pi * frame / frames)) * width)
        image = np.concatenate((left[:, :x], right[:, x:]), axis=1)
        image[:, max(x - SEAM // 2, 0) : x + SEAM // 2] = RED
        yield image


def save_png(image: np.ndarray, path: Path) -> None:
    """Write an image."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG", optimize=True)


def save_webp(frames: Sequence[np.ndarray], path: Path, rate: float, most: int = MOST_BYTES) -> None:
    """Write frames of one size as an endless animation, ``rate`` a second, as large as ``most`` bytes allow.

    Raises:
        StageError: they do not fit, however small they are made.
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    width, height = pictures[0].size
    factor = min(1.0, WIDEST / width)
    while True:
        size = (round(width * factor), round(height * factor))
        first, *others = [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures]
        file = io.BytesIO()
        first.save(
            file, "WEBP", save_all=True, append_images=others, duration=round(1000 / rate), loop=0, quality=75, method=4
        )
        if file.tell() <= most:
            break
        # Bytes go with the area.
        factor *= min(0.9, (most / file.tell()) ** 0.5)
        if min(width, height) * factor < SMALLEST:
            raise StageError(f"{len(frames)} frames do not fit into {most} bytes ({path}). Ask for fewer: --frames")
    with atomic_write(path) as temporary:
        temporary.write_bytes(file.getvalue())
