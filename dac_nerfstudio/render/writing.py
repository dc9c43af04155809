"""Pictures as files, and animations as WebP, small enough for a README."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Sequence

import numpy as np
from PIL import Image

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import atomic_write

MOST_BYTES = 2_000_000
"""Bytes: no animation of a README is larger."""
WIDEST = 960
"""Pixels: no README is wider."""
QUALITIES = (85, 70, 55)
"""Tried in this order, before the pictures are made smaller."""
SMALLEST = 64
"""Pixels of the shorter side below which nothing is left to see."""


def save_png(image: np.ndarray, path: Path) -> None:
    """Write an image of bytes [height, width, 3]."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, "PNG", optimize=True)


def save_webp(frames: Sequence[np.ndarray], path: Path, rate: float, most: int = MOST_BYTES) -> None:
    """Write frames as an endless animation of at most ``most`` bytes: as good, then as large, as that allows.

    Args:
        frames: bytes [height, width, 3] each, of one size.
        path: the file.
        rate: frames per second.
        most: bytes.

    Raises:
        StageError: they do not fit, however small they are made.
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    width, height = pictures[0].size
    factor = min(1.0, WIDEST / width)
    while min(width, height) * factor >= SMALLEST or factor == 1.0:
        size = (round(width * factor), round(height * factor))
        small = [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures] if factor < 1 else pictures
        for quality in QUALITIES:
            file = io.BytesIO()
            small[0].save(
                file, "WEBP", save_all=True, append_images=small[1:], duration=round(1000 / rate), loop=0,
                quality=quality, method=4,
            )  # fmt: skip
            if file.tell() <= most:
                with atomic_write(path) as temporary:
                    temporary.write_bytes(file.getvalue())
                return
        # Bytes go with the area.
        factor *= min(0.9, (most / file.tell()) ** 0.5)
    raise StageError(f"{len(frames)} frames do not fit into {most} bytes ({path}). Ask for fewer: --frames")
