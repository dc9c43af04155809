"""What is wrong with photos, masks and poses: a sentence for each."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from dac_nerfstudio.scene.photos import (
    IMAGE_SUFFIXES,
    UPRIGHT,
    PhotoError,
    Shape,
    check_mask,
    in_pixels,
    photo_shape,
    read_mask,
    read_photo,
)
from dac_nerfstudio.scene.views import IMAGE_FOLDER, listing

TOLERANCE = 0.01
"""How far axes of a camera may be from unit length and right angles: poses are often rounded."""


def missing_photos(paths: Sequence[Path]) -> list[str]:
    """Sentences on photos or masks that are not there, and why a data parser may look for them there."""
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    sentences = []
    for folder, photos in folders.items():
        hint, names = why_missing(photos[0]) or _elsewhere(photos), listing([photo.name for photo in photos], 3)
        if not os.path.isdir(folder):
            sentences.append(f"There is no folder {folder}, which is to hold {len(photos)} files: {names}.{hint}")
        elif hint and len(photos) > 1:
            sentences.append(f"{folder} lacks {len(photos)} files: {names}.{hint}")
        else:
            sentences += [f"{photo} is missing.{hint}" for photo in photos]
    return sentences


def _elsewhere(photos: Sequence[Path]) -> str:
    """Where files of the names of all these photos are, which are to lie in one folder; empty if nowhere near."""
    folder = photos[0].parent
    outer = folder if os.path.isdir(folder) else folder.parent
    for place in (outer, *sorted(outer.glob("*/"))):
        # The photos of other splits of Blender's format have the same names, and are others.
        if place.name not in ("train", "val", "test") and all(os.path.exists(place / photo.name) for photo in photos):
            return f" {place} has files of such names: if they are meant, correct the paths, or link the folder."
    return ""


def why_missing(path: Path) -> str:
    """Why a data parser looks for a photo where it is not, and what to do; empty where that is not known."""
    if "\\" in str(path):
        return " Its path has backslashes, which separate folders on Windows alone: write / in their place."
    if IMAGE_FOLDER.fullmatch(path.parent.name) and path.parent.name != "images" and os.path.isdir(path.parent):
        if any(path.parent.glob(f"*/**/{path.name}")):
            return (
                f" nerfstudio looks for smaller photos in {path.parent} itself, without the sub-folders of the large "
                "ones. Move them up, with names of their own."
            )
    inner = Path(path.stem)
    if inner.suffix.lower() in IMAGE_SUFFIXES and os.path.exists(path.with_name(path.stem)):
        way = "leave the suffix out" if path.suffix == inner.suffix else "save it as PNG and leave the suffix out"
        return f" {path.stem} is there, but nerfstudio adds {path.suffix} to the names of this format: {way}."
    if os.path.islink(path):
        return f" It is a link to {os.readlink(path)}, which is not there."
    others = path.parent.iterdir() if os.path.isdir(path.parent) else ()
    alike = sorted(other.name for other in others if _plain(other.stem) == _plain(path.stem))
    way = "the names differ in their suffix, in capitals or in how accents are encoded"
    return f" {alike[0]} is there: {way}." if alike else ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower()


def pose_problem(pose: np.ndarray) -> str | None:
    """What is wrong with a camera-to-world matrix [3, 4]; None if nothing is."""
    if not np.isfinite(pose).all():
        return "has a pose that is not finite"
    axes = pose[:, :3].T
    lengths = np.linalg.norm(axes, axis=1)
    volume = float(np.linalg.det(axes))
    if lengths.min() < 1e-6 or abs(volume) < 1e-3 * np.prod(lengths):
        return "has a pose whose rotation is singular: its axes lie in a plane"
    if volume < 0:
        return "has a pose that is mirrored: its axes are left-handed"
    if np.abs(lengths - 1).max() > TOLERANCE:
        return f"has a pose whose axes are {lengths[np.abs(lengths - 1).argmax()]:.3g} long and should be 1"
    if np.abs(axes @ axes.T - np.eye(3)).max() > 2 * TOLERANCE:
        return "has a pose whose axes are not at right angles"
    return None


def photo_problems(
    photos: Sequence[Path], sizes: Sequence[tuple[int, int]] | None, alike: bool = False, thorough: bool = False
) -> list[str]:
    """What is wrong with photos, a sentence for each.

    Args:
        sizes: width and height that each one's camera says; None where that is not known.
        alike: whether all have to be of one size, as in Blender's format, where nothing but the photos says it and the
            first sets every camera's focal length.
    """
    problems: list[str] = []
    shapes: dict[Path, Shape] = {}
    for path, camera in zip(photos, sizes or repeat(None)):
        try:
            shapes[path] = photo_shape(path, camera)
            if thorough:
                read_photo(path)
        except PhotoError as error:
            problems.append(str(error))
    if alike and shapes:
        problems += _odd_ones(shapes)
    return problems


def _odd_ones(shapes: dict[Path, Shape]) -> list[str]:
    problems, first = [], next(iter(shapes))
    (most, _), *_ = Counter(shape.size for shape in shapes.values()).most_common()
    for path, shape in shapes.items():
        if shape.orientation != UPRIGHT and (path == first or shape.turned != most or shape.size == most):
            problems.append(
                f"{path} is marked by EXIF to be turned, and whether its pose is that of the turned photo is not "
                "known. Turn its pixels, or take the mark away."
            )
        elif shape.size != most and shape.turned != most:
            problems.append(
                f"{path} has {in_pixels(shape.size)}, others beside it {in_pixels(most)}. "
                "Resize it, or take its frame out."
            )
    return problems


def mask_problems(
    masks: Sequence[Path], sizes: Sequence[tuple[int, int]], thorough: bool = False, needed: bool = True
) -> list[str]:
    """What is wrong with masks, a sentence for each; and one if all of them leave nothing to see.

    Args:
        masks: their files, which are there.
        needed: whether there has to be something to see.
    """
    problems, seen = [], not masks or not needed
    for path, camera in zip(masks, sizes):
        try:
            check_mask(path, camera)
            if thorough or not seen:
                seen = bool(read_mask(path, camera).any()) or seen
        except PhotoError as error:
            problems.append(str(error))
    if not seen and not problems:
        problems.append(f"All {len(masks)} masks are black, from {masks[0]} on: they leave no pixel to train on.")
    return problems
