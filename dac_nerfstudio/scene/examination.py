"""Examination of a scene before anything long: every photo opened, every pose judged, all that is wrong in one list.

Dividing, training and `dac check --data` share it.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dac_nerfstudio.errors import SplitError
from dac_nerfstudio.scene.photos import UPRIGHT, PhotoError, Shape, fits, in_pixels, photo_shape, read_photo
from dac_nerfstudio.scene.reading import IMAGE_FOLDERS, Recorded, is_blender, read_splits
from dac_nerfstudio.scene.views import PartitionError, listing

MOST = 20
"""Sentences of a message."""
TOLERANCE = 0.01
"""How far axes of a camera may be from unit length and right angles: poses are often rounded."""


@dataclass
class Findings:
    """What an examination has found."""

    problems: list[str] = field(default_factory=list)
    """What keeps a scene from being trained on: a sentence each."""
    missing: list[Path] = field(default_factory=list)
    """Photos that are not there: poses can be divided without them, but not trained on."""
    remarks: list[str] = field(default_factory=list)
    """What may be meant so: a sentence each."""
    views: dict[str, int] = field(default_factory=dict)
    """How many views each split has."""

    @property
    def missing_ones(self) -> list[str]:
        """Photos that are not there, a sentence each."""
        return [f"{photo} is missing." for photo in self.missing]

    @property
    def all_problems(self) -> list[str]:
        """What keeps the scene from being trained on as a whole, and how to do without photos that are not there."""
        way = ["Photos that are not there can be left out: --skip-missing"] if self.missing else []
        return [*way, *self.problems, *self.missing_ones]


def examine(data: Path, thorough: bool = False) -> Findings:
    """Look at a scene's own files.

    All poses are judged, whichever split they belong to: nerfstudio puts a scene in the middle of all its cameras.

    Args:
        data: the folder of the scene, or the JSON file in it.
        thorough: decode photos to the last byte, instead of reading what their headers say.
    """
    found = Findings()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # who divides is warned of photos without poses
            splits = read_splits(data)
    except PartitionError as error:
        found.problems.append(str(error))
        return found
    good = {split: recorded for split, recorded in splits.items() if isinstance(recorded, Recorded)}
    for split, recorded in splits.items():
        if isinstance(recorded, SplitError) and split != "train":
            if split == "test":
                found.remarks.append(f"There are no test views, so nothing will be scored: {recorded}")
        elif isinstance(recorded, PartitionError):
            found.problems.append(str(recorded))
    judged: set[Path] = set()
    for split, recorded in good.items():
        if not is_there(split, recorded.photos):
            found.remarks.append(f"None of the photos of the split {split} is there.")
            continue
        found.views[split] = len(recorded.chosen)
        if recorded.path not in judged:
            judged.add(recorded.path)
            _examine_frames(recorded, found, thorough)
    if "train" in found.views and "test" in found.views:
        found.remarks += _seen_in_training(good["train"], good["test"])
    return found


def _examine_frames(recorded: Recorded, found: Findings, thorough: bool) -> None:
    """Look at all frames of a file."""
    exists = [os.path.exists(photo) for photo in recorded.photos]
    there = [number for number, known in enumerate(exists) if known]
    found.missing += [photo for photo, known in zip(recorded.photos, exists) if not known]
    found.problems += recorded.problems
    twice = [name for name, count in Counter(recorded.names).items() if count > 1]
    if twice:
        found.problems.append(f"{recorded.path} has several frames of these: {listing(twice)}.")
    found.problems += pose_problems(recorded.names, recorded.poses)
    photos = [recorded.photos[number] for number in there]
    # Beside smaller ones a model's cameras are those of the photos that it was made from.
    smaller = any(photo.parent.name in IMAGE_FOLDERS[1:] for photo in photos)
    sizes = None
    if recorded.sizes is not None and not smaller:
        sizes = [recorded.sizes[number] for number in there]
    found.problems += photo_problems(photos, sizes, is_blender(recorded.path), thorough)
    for frame in recorded.frames:
        mask = frame.get("mask_path")
        if isinstance(mask, str) and not os.path.isfile(recorded.path.parent / mask):
            found.problems.append(f"There is no mask {recorded.path.parent / mask}.")


def _seen_in_training(train: Recorded, test: Recorded) -> list[str]:
    """A remark if test views are training views, too."""
    trained = {train.photos[number].resolve() for number in train.chosen}
    tested = [test.files[number] for number in test.chosen if test.photos[number].resolve() in trained]
    if not tested:
        return []
    which = "All" if len(tested) == len(test.chosen) else f"{len(tested)} of {len(test.chosen)}"
    return [
        f"{which} test views are training views ({listing(tested)}): their scores tell how well these are remembered, "
        "and nothing of new views."
    ]


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


def photo_problems(
    photos: Sequence[Path], sizes: Sequence[tuple[int, int]] | None, alike: bool = False, thorough: bool = False
) -> list[str]:
    """What is wrong with photos, a sentence for each.

    Args:
        photos: their files.
        sizes: width and height that each one's camera says; None where that is not known.
        alike: whether all have to be of one size, as in Blender's format, where nothing but the photos says it and the
            first sets every camera's focal length.
        thorough: decode them.
    """
    problems: list[str] = []
    shapes: dict[Path, Shape] = {}
    for path in photos:
        try:
            shapes[path] = photo_shape(path)
            if thorough:
                read_photo(path)
        except PhotoError as error:
            problems.append(str(error))
    for path, camera in zip(photos, sizes or ()):
        shape = shapes.get(path)
        if shape and not fits(shape.size, camera) and not shape.is_turned_for(camera):
            problems.append(f"{path} has {in_pixels(shape.size)}, its camera {in_pixels(camera)}.")
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
            problems.append(f"{path} has {in_pixels(shape.size)}, others beside it {in_pixels(most)}.")
    return problems


def is_there(split: str, photos: Sequence[Path]) -> bool:
    """Whether a scene has a split: many copies of NeRF-synthetic come without their validation views' photos, and
    training can do without."""
    return split == "train" or any(os.path.exists(path) for path in photos)


def refuse(problems: Sequence[str], data: Path) -> None:
    """Stop if anything is wrong with a scene.

    Raises:
        PartitionError: something is.
    """
    if problems:
        more = len(problems) - MOST
        lines = [*problems[:MOST], *([f"… and {more} more; all of them: dac check --data {data}"] if more > 0 else [])]
        raise PartitionError("\n".join([f"Mend the scene in {data} first:", *lines]))
