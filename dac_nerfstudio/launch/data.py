"""What a scene's data want of ``ns-train``: which kind of method, and which data parser."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Optional, Tuple

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.naming import UNBOUNDED
from dac_nerfstudio.partition import find_model
from dac_nerfstudio.scene.reading import IMAGE_SUFFIXES


def scene_suffix(data: Path) -> str:
    """Which kind of methods a data folder wants: '' for bounded scenes, '-360' for real ones.

    Raises:
        StageError: the folder is not there or of no known layout.
    """
    if not data.exists():
        raise StageError(f"There is no data at {data}. Name a scene's folder: --data PATH")
    if (data / "transforms_train.json").exists():
        return ""
    if data.name == "transforms.json" or (data / "transforms.json").exists() or find_model(data):
        return UNBOUNDED
    if data.name == "transforms_train.json":
        raise StageError(f"Name the scene's folder instead of the file: --data {data.parent}")
    found = ", ".join(sorted(path.name for path in data.iterdir())[:6]) if data.is_dir() else "a file"
    raise StageError(
        f"{data} holds {found or 'nothing'}; expected transforms_train.json (a scene in Blender's format), "
        "transforms.json (nerfstudio's; ns-process-data makes it from photos) or a COLMAP model in colmap/sparse/0 or "
        "sparse/0."
    )


def data_parser(data: Path, suffix: str, downscale: Optional[int]) -> Tuple[str, ...]:
    """The data parser and its flags, at the end of a command of ``ns-train``; none where the method's own will do.

    Raises:
        StageError: there are no photos of that size.
    """
    if not suffix:
        if downscale is not None:
            raise StageError("--downscale is for real photos; a scene in Blender's format has one size of images.")
        return ()
    folder = data.parent if data.is_file() else data
    # nerfstudio would ask on the console whether to make them.
    if downscale not in (None, 1) and not (folder / f"images_{downscale}").is_dir():
        sizes = (
            ", ".join(sorted(path.name for path in folder.glob("images*") if path.is_dir())) or "no folder of images"
        )
        large, small = (shlex.quote(str(folder / name)) for name in ("images", f"images_{downscale}"))
        raise StageError(
            f"{folder} has {sizes}, but no images_{downscale}. Choose another --downscale, or make it: mkdir {small}; "
            f'for photo in {large}/*; do ffmpeg -i "$photo" -q:v 2 -vf scale=iw/{downscale}:ih/{downscale} '
            f'{small}/"${{photo##*/}}"; done'
        )
    flags = () if downscale is None else ("--downscale-factor", str(downscale))
    if data.is_file() or (data / "transforms.json").exists():
        return ("nerfstudio-data", *flags) if flags else ()
    model = find_model(data)
    assert model is not None
    if downscale is None:
        _refuse_large_photos(folder)
    return ("colmap", "--colmap-path", str(model.relative_to(data)), *flags)


LARGEST_SIDE = 1600
"""Pixels. Of a COLMAP model's photos with a longer side nerfstudio takes smaller ones, by a power of two."""


def _refuse_large_photos(folder: Path) -> None:
    """Find out before anything long that nerfstudio would ask on the console whether to make smaller photos.

    Raises:
        StageError: the photos are large and smaller ones are not there.
    """
    from dac_nerfstudio.scene.photos import PhotoError, photo_shape

    images = folder / "images"
    first = next((path for path in sorted(images.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES), images)
    try:
        side = max(photo_shape(first).size)
    except PhotoError:
        return  # reading the views will say what is wrong with the photos
    factor = 1
    while side / factor > LARGEST_SIDE:
        factor *= 2
    if factor > 1 and not (folder / f"images_{factor}").is_dir():
        raise StageError(
            f"The photos in {images} have {side} pixels on their longer side. nerfstudio takes smaller ones where that "
            f"is more than {LARGEST_SIDE}, here from images_{factor}, which is not there. To take them as they are, "
            f"which wants more memory and more steps: --downscale 1. To take smaller ones: put them, 1/{factor} of the "
            f"size and of the same names, into {folder / f'images_{factor}'}."
        )
