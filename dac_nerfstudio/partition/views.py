"""Views: the names and cameras of a scene's images, read from the files that come with the data.

Poses are camera-to-world matrices [3, 4] with OpenGL axes (x right, y up, looking along -z), in the frame and the units
of the data: nothing is centred, turned or scaled here, so that a partition does not depend on a data parser's settings.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".exr", ".tif", ".tiff", ".webp")
BLENDER_FILE = re.compile(r"transforms_(train|val|test)\.json")
TRAIN_SHARE = 0.9
"""Of the frames of a `transforms.json` without lists of splits."""
IMAGE_FOLDER = re.compile(r"images(_\d+)?")


class PartitionError(ValueError):
    """The data, the settings or a partition file cannot be used; the message tells the user why and what to do."""


@dataclass(frozen=True, eq=False)
class Views:
    """The named cameras of one split.

    Poses are kept in single precision and intrinsics to a hundredth of a pixel, which is what data parsers deliver:
    the same views give the same fingerprint, whoever read them.

    Raises:
        PartitionError: the shapes do not fit together, two views share a name, or a number is not usable.
    """

    names: tuple[str, ...]
    """One name per view, see `view_name`."""
    camera_to_worlds: np.ndarray
    """[views, 3, 4] float64, OpenGL axes, in the data's own frame and units."""
    intrinsics: np.ndarray
    """[views, 6] float64: fx, fy, cx, cy, width, height in pixels."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        # Adding 0 turns -0.0 into 0.0, so that equal numbers give equal fingerprints.
        poses = np.asarray(self.camera_to_worlds).astype(np.float32).astype(np.float64)
        object.__setattr__(self, "camera_to_worlds", poses + 0.0)
        object.__setattr__(self, "intrinsics", np.round(np.asarray(self.intrinsics, dtype=np.float64), 2) + 0.0)
        count = len(self.names)
        if count == 0:
            raise PartitionError("There are no views; at least one is needed.")
        for field, expected in (("camera_to_worlds", (count, 3, 4)), ("intrinsics", (count, 6))):
            shape = getattr(self, field).shape
            if shape != expected:
                raise PartitionError(f"{field} has shape {shape}; {count} names need {expected}.")
        if len(set(self.names)) < count:
            duplicates = sorted({name for name in self.names if self.names.count(name) > 1})
            raise PartitionError(f"View names must be unique, but these occur more than once: {listing(duplicates)}.")
        self._require(np.isfinite(self.camera_to_worlds).all(axis=(1, 2)), "a pose that is not finite")
        sizes = self.intrinsics[:, [0, 1, 4, 5]]
        usable = np.isfinite(self.intrinsics).all(axis=1) & (sizes > 0).all(axis=1)
        self._require(usable, "a focal length or image size that is not a positive number")

    def _require(self, usable: np.ndarray, defect: str) -> None:
        if not usable.all():
            names = [self.names[i] for i in np.flatnonzero(~usable)]
            raise PartitionError(f"These views have {defect}: {listing(names)}. Correct or remove them.")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def centres(self) -> np.ndarray:
        """Camera centres [views, 3], in the units of the data."""
        return self.camera_to_worlds[:, :, 3]


def viewing_directions(camera_to_worlds: np.ndarray) -> np.ndarray:
    """Unit vectors [views, 3] along which cameras [views, 3, 4] look."""
    directions = -camera_to_worlds[:, :, 2]
    return directions / np.linalg.norm(directions, axis=1, keepdims=True).clip(min=1e-12)


def listing(names: list[str], most: int = 5) -> str:
    """The names, comma-separated, for an error message; no more than `most` of them."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def view_name(path: str | Path) -> str:
    """The name of a view, from the path of its image relative to the data folder.

    The path with forward slashes, without a leading `./` and without a leading folder `images` or `images_<number>`:
    the same photo keeps its name at every downscale factor. `images_2/a.jpg` is `a.jpg`; `train/r_0.png` stays.
    """
    parts = PurePosixPath(PurePath(path).as_posix()).parts
    if len(parts) > 1 and IMAGE_FOLDER.fullmatch(parts[0]):
        parts = parts[1:]
    return PurePosixPath(*parts).as_posix()


def read_views(data: Path, split: str = "train") -> Views:
    """Reads the cameras of a scene, in the order of its file.

    Two layouts are known: Blender's (`transforms_train.json`, `transforms_val.json`, `transforms_test.json`) and
    nerfstudio's (`transforms.json`). In a folder with both, Blender's is read; name the other file to have that one.
    A `transforms.json` that lists no splits is split as nerfstudio does: 90 % of its frames, evenly spaced in the order
    of their names, are for training, the others for both `val` and `test`. Lens distortion plays no part in dividing
    and is not read.

    Args:
        data: the folder of the scene, or the JSON file in it.
        split: `train`, `val` or `test`.

    Raises:
        PartitionError: the folder or its poses are missing, or the file is not what it should be.
    """
    path = _poses_file(Path(data), split)
    meta = _read_json(path)
    frames = meta.get("frames")
    if not isinstance(frames, list) or not frames:
        raise PartitionError(f'{path} has no frames; expected a non-empty list "frames", one entry per image.')
    files = [_frame_file(frame, number, path) for number, frame in enumerate(frames)]
    poses = np.stack([_frame_pose(frame, file, path) for frame, file in zip(frames, files, strict=True)])
    if BLENDER_FILE.fullmatch(path.name):
        files = [file if file.lower().endswith(IMAGE_SUFFIXES) else f"{file}.png" for file in files]
        intrinsics = np.tile(_blender_intrinsics(meta, files[0], path), (len(files), 1))
        chosen = list(range(len(files)))
    else:
        rows = [_frame_intrinsics(frame, meta, file, path) for frame, file in zip(frames, files, strict=True)]
        intrinsics = np.array(rows)
        chosen = _split_indices(meta, files, split, path)
    try:
        return Views(tuple(view_name(files[i]) for i in chosen), poses[chosen], intrinsics[chosen])
    except PartitionError as error:
        raise PartitionError(f"{path}: {error}") from None


def _poses_file(data: Path, split: str) -> Path:
    if not data.exists():
        raise PartitionError(f"There is no folder or file {data}. Give the folder of the scene: --data <folder>.")
    if data.is_file():
        if not BLENDER_FILE.fullmatch(data.name):
            return data
        looked_for = [data.with_name(f"transforms_{split}.json")]
    else:
        looked_for = [data / f"transforms_{split}.json", data / "transforms.json"]
    for path in looked_for:
        if path.is_file():
            return path
    raise PartitionError(
        f"No camera poses for split '{split}' in {looked_for[0].parent}: looked for "
        f"{' and '.join(path.name for path in looked_for)}. Photos get poses with "
        "`ns-process-data images --data <photos> --output-dir <folder>`; then give that folder: --data <folder>."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PartitionError(f"{path} is not valid JSON ({error}). Restore the file or make it anew.") from None
    if not isinstance(meta, dict):
        raise PartitionError(f"{path} holds a JSON {type(meta).__name__}; expected an object in braces.")
    return meta


def _frame_file(frame: Any, number: int, path: Path) -> str:
    """The image of a frame, relative to the data folder where it lies inside."""
    file = frame.get("file_path") if isinstance(frame, dict) else None
    if not isinstance(file, str) or not file:
        raise PartitionError(f'{path}: entry {number} of "frames" (from 0) has no "file_path".')
    folder = path.parent.absolute()
    return Path(file).relative_to(folder).as_posix() if Path(file).is_relative_to(folder) else file


def _frame_pose(frame: dict[str, Any], file: str, path: Path) -> np.ndarray:
    if "transform_matrix" not in frame:
        raise PartitionError(f'{path}: the frame of {file} has no "transform_matrix"; add it or remove the frame.')
    try:
        matrix = np.array(frame["transform_matrix"], dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise PartitionError(f'{path}: "transform_matrix" of {file} is not a matrix of 4 x 4 (or 3 x 4) numbers.')
    return matrix[:3]


def _number(value: Any, field: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PartitionError(f'{path}: "{field}" is {value!r}; expected a number.')
    return float(value)


def _blender_intrinsics(meta: dict[str, Any], first_file: str, path: Path) -> list[float]:
    """Intrinsics [6] shared by all frames: the file has only the field of view, so the first image gives the size."""
    if "camera_angle_x" not in meta:
        raise PartitionError(f'{path} has no "camera_angle_x" (horizontal field of view in radians).')
    angle = _number(meta["camera_angle_x"], "camera_angle_x", path)
    if not 0 < angle < math.pi:
        raise PartitionError(f'{path}: "camera_angle_x" is {angle}; expected radians between 0 and pi.')
    from PIL import Image  # here, because dividing a transforms.json needs no image library

    image = path.parent / first_file
    try:
        with Image.open(image) as opened:
            width, height = opened.size
    except OSError as error:
        raise PartitionError(f"Cannot read the size of {image}, the first image of {path}: {error}.") from None
    focal = 0.5 * width / math.tan(0.5 * angle)
    return [focal, focal, width / 2, height / 2, width, height]


def _frame_intrinsics(frame: dict[str, Any], meta: dict[str, Any], file: str, path: Path) -> list[float]:
    """Intrinsics [6] of a frame of a `transforms.json`; as in nerfstudio, a global value wins over the frame's."""
    values = []
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        source = meta if key in meta else frame
        if key not in source:
            raise PartitionError(f'{path} has no "{key}", neither globally nor in the frame of {file}; add it.')
        values.append(_number(source[key], key, path))
    return values


def _split_indices(meta: dict[str, Any], files: list[str], split: str, path: Path) -> list[int]:
    """Which frames belong to the split."""
    listed = [key for key in ("train_filenames", "val_filenames", "test_filenames") if key in meta]
    key = f"{split}_filenames"
    if not listed:
        # As nerfstudio's data parser does by default, so that what is divided here is what it trains on.
        by_name = sorted(range(len(files)), key=lambda i: files[i])
        count = len(files)
        train = set(np.linspace(0, count - 1, math.ceil(TRAIN_SHARE * count), dtype=int).tolist())
        chosen = [i for place, i in enumerate(by_name) if (place in train) == (split == "train")]
        if not chosen:
            raise PartitionError(f'{path} has too few frames for a split "{split}". Add the list "{key}" to it.')
        return chosen
    if key not in listed:
        found = f"only {' and '.join(listed)}"
        raise PartitionError(f'{path} has no views for split "{split}": {found}. Add "{key}" to it.')
    if not isinstance(meta[key], list) or not all(isinstance(file, str) for file in meta[key]):
        raise PartitionError(f'{path}: "{key}" must be a list of file names.')
    names = [view_name(file) for file in files]
    wanted = {view_name(_frame_file({"file_path": file}, 0, path)) for file in meta[key]}
    unknown = sorted(wanted - set(names))
    if unknown:
        raise PartitionError(f'{path}: "{key}" names images that have no frame: {listing(unknown)}.')
    if not wanted:
        raise PartitionError(f'{path}: "{key}" is empty; name at least one image.')
    return [i for i, name in enumerate(names) if name in wanted]
