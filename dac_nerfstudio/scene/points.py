"""COLMAP's sparse models, read by nerfstudio: which 3D points each photo shows, and how many photos a model has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nerfstudio.data.utils.colmap_parsing_utils import Image, read_images_binary, read_images_text

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.scene.layout import is_model
from dac_nerfstudio.scene.views import view_name


def images_of(model: Path) -> list[Image]:
    """The photos of a model, from the file that nerfstudio's data parser chooses."""
    if (model / "cameras.txt").is_file():
        return list(read_images_text(model / "images.txt").values())
    return list(read_images_binary(model / "images.bin").values())


def tracks_of(model: Path, names: Sequence[str]) -> tuple[np.ndarray, ...] | None:
    """The unique numbers of the 3D points in each view; None where the model does not know all views by name, or
    has points for half of them at most."""
    try:
        images = images_of(model)
    except Exception as error:  # its reader raises whatever a damaged file leads to
        warnings.warn(f"{model} cannot be read ({error}). Going on without the 3D points that it lists.", stacklevel=2)
        return None
    points = {view_name(image.name): image.point3D_ids.astype(np.int64) for image in images}
    if not set(names) <= set(points):
        return None
    # -1 marks a feature that belongs to no point.
    tracks = tuple(np.unique(points[name][points[name] >= 0]) for name in names)
    if sum(map(bool, map(len, tracks))) <= len(names) / 2:
        warnings.warn(f"{model} lists no 3D points for most photos. Going on without them.", stacklevel=2)
        return None
    return tracks


def check_whole(path: Path) -> None:
    """Make sure that images.bin holds all that it counts, before nerfstudio takes memory for it.

    Raises:
        PartitionError: the file ends before.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(int.from_bytes(file.read(8), "little")):
            file.seek(64, 1)
            while file.read(1) not in (b"\0", b""):
                pass
            following = 24 * int.from_bytes(file.read(8), "little")
            if file.tell() + following > size:
                raise PartitionError(f"{path} is truncated or damaged. Copy it again, or make it anew.")
            file.seek(following, 1)


def photos_in(model: Path) -> int:
    """How many photos a model has, from its head alone."""
    if (model / "images.bin").is_file():
        with (model / "images.bin").open("rb") as file:
            head = file.read(8)
        return int.from_bytes(head, "little")
    with (model / "images.txt").open(encoding="utf-8", errors="replace") as lines:
        return sum(not line.startswith("#") for line in lines) // 2


def larger_model(model: Path) -> str:
    """A remark on a model beside this one that has more photos; empty if none has."""
    beside = [folder for folder in model.parent.iterdir() if folder != model and is_model(folder)]
    largest = max(beside, key=photos_in, default=model)
    if photos_in(largest) <= photos_in(model):
        return ""
    return (
        f"{model} is a model of {photos_in(model)} photos, and {largest} one of {photos_in(largest)}: structure from "
        f"motion has fallen apart. To take the larger one, let the two change places, or name it to ns-train: colmap "
        f"--colmap-path {largest.parent.name}/{largest.name}"
    )


def blanks(model: Path) -> str:
    """What to do about names with blanks."""
    return (
        f"{model} has names of photos with blanks, at which nerfstudio ends a name in COLMAP's text files. Make the "
        "model binary (colmap model_converter --output_type BIN) and remove its .txt files, or rename the photos."
    )


def names_have_blanks(model: Path) -> bool:
    """Whether a model in text has a photo whose name has a blank, where nerfstudio ends it."""
    if not (model / "cameras.txt").is_file() or not (model / "images.txt").is_file():
        return False
    with (model / "images.txt").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                if len(line.split()) > 10:
                    return True
                next(lines, None)  # its features
    return False
