"""Photos as colours of eight bits: how each kind of picture file is read, and which way up.

A file's pixels become RGB, or RGBA where it knows transparency, where its meaning is clear: palettes, single bits,
sixteen bits, grey with and without alpha, CMYK. Others are refused by name.

A tag of EXIF says how a camera was held. Tools that find poses take pixels as they are stored, COLMAP among them, so a
photo is turned only where its camera is of the turned size.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from dac_nerfstudio.errors import PhotoError

UPRIGHT = 1
"""EXIF's number for a photo that is not turned."""
SIDEWAYS = (5, 6, 7, 8)
"""EXIF's numbers for photos whose sides change places when they are turned upright."""
ORIENTATION = 0x0112
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".exr", ".tif", ".tiff", ".webp")
BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for files that are damaged, none, or that claim to be huge."""


class Shape(NamedTuple):
    """How large a photo is, and which way up it is stored."""

    size: tuple[int, int]
    """Width and height as stored, in pixels."""
    orientation: int
    """EXIF's number; 1 is upright."""

    @property
    def turned(self) -> tuple[int, int]:
        """Width and height once the photo is turned as EXIF says."""
        return self.size[::-1] if self.orientation in SIDEWAYS else self.size

    def is_turned_for(self, size: tuple[int, int]) -> bool:
        """Whether the photo has to be turned for a camera of a width and height."""
        return fits(self.turned, size) and not fits(self.size, size)


def fits(size: tuple[int, int], camera: tuple[int, int]) -> bool:
    """Whether a photo is of its camera's size, or a pixel larger: where photos were made smaller, halves of pixels were
    rounded this way and that, and nerfstudio rounds down."""
    return all(0 <= here - there <= 1 for here, there in zip(size, camera))


def photo_shape(path: Path, size: tuple[int, int] | None = None) -> Shape:
    """Reads a photo's header alone. ``size``, width and height, is what its camera says, if that is known.

    Raises:
        PhotoError: the file is missing, is no picture, of a kind whose colours are not clear, or of another size.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # no file can have such a name
        raise PhotoError(f"{path} is missing.") from None
    shape = _shape_of(path, status.st_mtime_ns, status.st_size)
    if size is not None and not fits(shape.turned, size) and not fits(shape.size, size):
        raise _of_another_size(path, shape.size, size)
    return shape


@lru_cache(maxsize=65536)  # a plan's stages look at one scene, one after the other
def _shape_of(path: Path, changed: int, length: int) -> Shape:
    with _opened(path) as photo:
        _check_mode(photo, path)
        return _shape(photo)


def read_photo(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """A photo as RGB or RGBA.

    Args:
        size: width and height that its camera says; as stored without it.

    Raises:
        PhotoError: the file is missing, damaged, of a kind whose colours are not clear, or of another size.
    """
    shape = photo_shape(path, size)
    with _opened(path) as photo:
        try:
            if size is not None and shape.is_turned_for(size):
                return in_colour(ImageOps.exif_transpose(photo), path)
            return in_colour(photo, path)
        except BROKEN as error:
            raise error if isinstance(error, PhotoError) else _unreadable(path, error) from None


def check_mask(path: Path, size: tuple[int, int]) -> None:
    """Reads a mask's header alone.

    Raises:
        PhotoError: the file is missing, is no picture, or of another size than its camera's.
    """
    with _opened(path) as mask:
        if not fits(mask.size, size):
            raise PhotoError(f"{path} has {in_pixels(mask.size)}, its camera {in_pixels(size)}. Resize it.")


def read_mask(path: Path, size: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """Where a mask is not black, [height, width]. Colours count as grey, and what is transparent as black.

    Args:
        size: width and height that its camera says.
        scale: make it smaller by this factor.

    Raises:
        PhotoError: the file is missing, damaged, or of another size.
    """
    check_mask(path, size)
    with _opened(path) as mask:
        try:
            if scale != 1.0:
                mask = mask.resize((int(mask.width * scale), int(mask.height * scale)), Image.Resampling.NEAREST)
            if len(mask.getbands()) == 1 and mask.mode != "P":
                return np.asarray(mask) != 0
            whole = mask.convert("LA" if mask.mode == "La" else "RGBA").convert("RGBA")
            return (np.asarray(whole.convert("L")) != 0) & (np.asarray(whole.getchannel("A")) != 0)
        except BROKEN as error:
            raise _unreadable(path, error) from None


def in_colour(photo: Image.Image, path: Path) -> Image.Image:
    """An opened picture as RGB, or RGBA where it knows transparency.

    Raises:
        PhotoError: what its numbers mean is not clear.
    """
    _check_mode(photo, path)
    if photo.mode.startswith("I"):
        # Sixteen bits, of which Pillow itself would keep what exceeds 255 as white.
        numbers = np.asarray(photo, dtype=np.uint32)
        photo = Image.fromarray(((numbers + 128) // 257).astype(np.uint8))
    if photo.mode in ("RGB", "RGBA") and "transparency" not in photo.info:
        return photo.copy()
    transparent = photo.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in photo.info
    if photo.mode == "La":
        photo = photo.convert("LA")
    return photo.convert("RGBA" if transparent else "RGB")


def in_pixels(size: tuple[int, int]) -> str:
    """A width and a height in words."""
    return f"{size[0]} x {size[1]} pixels"


def _of_another_size(path: Path, size: tuple[int, int], camera: tuple[int, int]) -> PhotoError:
    found = f"{path} has {in_pixels(size)}, its camera {in_pixels(camera)}."
    if fits(size[::-1], camera):
        return PhotoError(f"{found} Turn it by 90 degrees.")
    return PhotoError(
        f"{found} Resize it, or scale its camera's size, focal lengths and principal point alike; if it was cropped, "
        "take the whole one."
    )


def _opened(path: Path) -> Image.Image:
    if not path.is_file():
        what = "is missing" if not path.exists() else "is no regular file"  # to open a pipe would be to wait for ever
        raise PhotoError(f"{path} {what}.")
    try:
        if path.stat().st_size == 0:
            raise PhotoError(f"{path} is empty: it has no bytes.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # for large photos, which may be wanted
            return Image.open(path)
    except BROKEN as error:
        raise error if isinstance(error, PhotoError) else _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> PhotoError:
    reason = str(error).replace(repr(str(path)), "it").replace(str(path), "it")
    head, way = b"", "Copy it again, or save it as PNG or JPEG."
    with suppress(OSError), path.open("rb") as file:
        head = file.read(12)
    if head.startswith(b"version http"):
        way = "It is a pointer of Git LFS: git lfs pull"
    elif isinstance(error, Image.DecompressionBombError):
        way = "It is larger than Pillow opens: take smaller copies, such as those of --downscale 8."
    elif head[4:8] == b"ftyp":
        way = "It is HEIC or AVIF, whatever its name says: save it as PNG or JPEG."
    return PhotoError(f"{path} cannot be read as a photo ({reason}). {way}")


def _shape(photo: Image.Image) -> Shape:
    # Asked for EXIF that is not in its header, Pillow reads a whole PNG in search of it.
    known = photo.format != "PNG" or "exif" in photo.info
    try:
        orientation = photo.getexif().get(ORIENTATION, UPRIGHT) if known else UPRIGHT
    except BROKEN:  # a damaged tag says nothing
        orientation = UPRIGHT
    return Shape(photo.size, orientation if orientation in range(1, 9) else UPRIGHT)


def _check_mode(photo: Image.Image, path: Path) -> None:
    sixteen = photo.mode.startswith("I;16") or (photo.mode == "I" and photo.format in ("PNG", "PPM", None))
    if sixteen or photo.mode in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"):
        return
    raise PhotoError(
        f"{path} holds numbers of Pillow's mode {photo.mode}, and which of them are black and white is not known. Save "
        "it as PNG or JPEG."
    )
