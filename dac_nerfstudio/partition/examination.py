"""Examination of a scene before anything long: every photo opened, every pose judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dac_nerfstudio.partition.reading import is_blender, poses_file, read_recorded
from dac_nerfstudio.partition.views import PartitionError
from dac_nerfstudio.photos import UPRIGHT, PhotoError, Shape, fits, in_pixels, photo_shape

SPLITS = ("train", "val", "test")
MOST = 20
"""Sentences of a message."""
TOLERANCE = 0.01
"""By which axes of a camera may differ from unit length and right angles: poses are often rounded."""


def pose_problem(pose: np.ndarray) -> str | None:
    """Why a camera-to-world matrix [3, 4] is none; None if it is one."""
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


def pose_problems(names: Sequence[str], poses: np.ndarray) -> list[str]:
    """What is wrong with poses [views, 3, 4], a sentence for each view."""
    return [f"{name} {problem}." for name, pose in zip(names, poses, strict=True) if (problem := pose_problem(pose))]


def photo_problems(photos: Sequence[Path], sizes: Sequence[tuple[int, int]] | None) -> list[str]:
    """What is wrong with photos, a sentence for each.

    Args:
        photos: their files.
        sizes: width and height that each one's camera says. None where nothing but the photos says it, as in Blender's
            format, where the first sets every camera's focal length: then most of them say it.
    """
    problems: list[str] = []
    shapes: dict[Path, Shape] = {}
    for path in photos:
        try:
            shapes[path] = photo_shape(path)
        except PhotoError as error:
            problems.append(str(error))
    if sizes is not None:
        cameras = dict(zip(photos, sizes, strict=True))
        for path, shape in shapes.items():
            if not fits(shape.size, cameras[path]) and not shape.is_turned_for(cameras[path]):
                found, expected = in_pixels(shape.size), in_pixels(cameras[path])
                problems.append(f"{path} has {found}, its camera {expected}.")
    elif shapes:
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
            problems.append(f"{path} has {in_pixels(shape.size)}, others beside it {in_pixels(most)}.")
    return problems


def examine(data: Path) -> list[str]:
    """What is wrong with the cameras that a scene's own files tell of, and with photos that alone tell a size.

    All frames are judged, whichever split they belong to: nerfstudio puts a scene in the middle of all its cameras.

    Raises:
        PartitionError: the files are missing or not what they should be.
    """
    problems: list[str] = []
    for split in SPLITS:
        try:
            path = poses_file(data, split)
            if path.is_dir():
                continue  # a COLMAP model's quaternions are rotations
            recorded = read_recorded(path, split)
        except PartitionError:
            if split == "train":
                raise
            continue
        if is_there(split, recorded.photos):
            problems += pose_problems(recorded.names, recorded.poses)
            problems += photo_problems(recorded.photos, None) if is_blender(path) else []
    return list(dict.fromkeys(problems))


def is_there(split: str, photos: Sequence[Path]) -> bool:
    """Whether a scene has a split: many copies of NeRF-synthetic come without their validation views' photos, and
    training can do without."""
    return split == "train" or any(path.exists() for path in photos)


def refuse(problems: Sequence[str], data: Path) -> None:
    """Stop if anything is wrong with a scene.

    Raises:
        PartitionError: something is.
    """
    if problems:
        more = len(problems) - MOST
        lines = [*problems[:MOST], *([f"… and {more} more."] if more > 0 else [])]
        raise PartitionError("\n".join([f"Mend the scene in {data} first:", *lines]))
