"""Reading views from the files that come with the data: Blender's format, nerfstudio's, and COLMAP's models.

Splits are made as nerfstudio's data parsers make them by default, so that what is divided is what is trained on.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dac_nerfstudio.errors import SplitError
from dac_nerfstudio.scene.frames import difference
from dac_nerfstudio.scene.views import PartitionError, Views, listing, view_name

T = TypeVar("T")
SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".exr", ".tif", ".tiff", ".webp")
MODEL_FOLDERS = ("colmap/sparse/0", "sparse/0")
"""Where a COLMAP model lies in a scene's folder, in the order in which they are looked for."""
IMAGE_FOLDERS = ("images", "images_2", "images_4", "images_8")
"""Where the photos of a COLMAP model lie, in the order in which they are looked for."""
BLENDER_FILE = re.compile(r"transforms_(train|val|test)\.json")
TRAIN_SHARE = 0.9
"""Share of the frames of a `transforms.json` without lists of splits."""
EVAL_INTERVAL = 8
"""One in so many photos of a COLMAP model without lists of splits is for evaluation."""


def read_views(data: Path, split: str = "train", skip_missing: bool = False) -> Views:
    """Reads the cameras of one split of a scene, in the order of its files.

    Three layouts are known: Blender's (`transforms_train.json`, `transforms_val.json`, `transforms_test.json`),
    nerfstudio's (`transforms.json`) and COLMAP's (`images/` beside `colmap/sparse/0` or `sparse/0`), looked for in this
    order; name a JSON file to have that one. A COLMAP model beside a `transforms.json` adds its tracks.

    Lists in the data say which frames belong to a split (`train_filenames` in `transforms.json`, `train_list.txt`
    beside a COLMAP model). Without them it is as in nerfstudio: 90 % of a `transforms.json`, evenly spaced in the order
    of the names, or seven of eight photos of a COLMAP model are for training, the others for both `val` and `test`.
    Lens distortion plays no part in dividing and is not read.

    Args:
        data: the folder of the scene, or the JSON file in it.
        split: `train`, `val` or `test`.
        skip_missing: leave out views whose photo is not there. The others stay in the split that they are in.

    Raises:
        PartitionError: the folder or its poses are missing, or a file is not what it should be.
    """
    views, chosen = _read_scene(Path(data), split)
    if skip_missing:
        chosen = [i for i in chosen if views.photos is None or views.photos[i].is_file()]
        if not chosen:
            raise PartitionError(f"None of the photos of the split '{split}' is there. Put them back into {data}.")
    return views.select(chosen)


def read_test_views(data: Path, skip_missing: bool = False) -> Views | None:
    """The test views of a scene, if its files list any."""
    try:
        return read_views(data, "test", skip_missing)
    except PartitionError:
        return None


def left_out(data: Path, views: Views) -> list[str]:
    """A sentence on the training views that a scene's files list beyond the given ones, if there are any."""
    names = [name for name in read_views(data).names if name not in set(views.names)]
    return [f"Left out, as their photos are not there: {listing(names)}."] if names else []


def as_recorded(data: Path, parsed: Views) -> Views:
    """The views that a data parser has read, as the data's own files know them: in their frame, with tracks.

    Args:
        data: what the data parser was given.
        parsed: the training views as it returned them, perhaps turned, shifted and scaled.

    Returns:
        The same views in the order of the files, which `read_views` keeps, too: groups are numbered by it. Or `parsed`,
        where the files are of a layout unknown here, or hold other cameras.
    """
    try:
        views, _ = _read_scene(Path(data), "train")
    except PartitionError:
        return parsed
    if not set(parsed.names) <= set(views.names):
        return parsed
    recorded = views.select([i for i, name in enumerate(views.names) if name in set(parsed.names)])
    return parsed if difference(recorded, parsed) else recorded


def find_model(data: Path) -> Path | None:
    """The folder of the COLMAP model of a scene, if it has one."""
    for folder in MODEL_FOLDERS:
        if any((data / folder / f"images.{suffix}").is_file() for suffix in ("txt", "bin")):
            return data / folder
    return None


class Recorded(NamedTuple):
    """The cameras of a split as its files tell of them, whether they can be used or not."""

    path: Path
    """The JSON file, or the folder of a COLMAP model."""
    files: tuple[str, ...]
    """Photos of all frames, as the file names them."""
    poses: np.ndarray
    """[frames, 3, 4]."""
    photos: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...] | None = None
    """Width and height of each frame's camera; None where nothing but the photos says it."""
    problems: tuple[str, ...] = ()
    """Why frames that are left out here cannot be read."""
    chosen: tuple[int, ...] = ()
    """Which of the frames belong to the split."""
    frames: tuple[dict[str, Any], ...] = ()
    """What a JSON file says of each."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views."""
        return tuple(view_name(file) for file in self.files)


def read_splits(data: Path) -> dict[str, Recorded | PartitionError]:
    """The cameras of all splits, judged by nobody; in place of what cannot be read, why (`SplitError`: there is none).

    Raises:
        PartitionError: nothing can be read.
    """
    path = poses_file(data, "train")
    if is_blender(path):
        return {split: _attempted(_blender_split, path.with_name(f"transforms_{split}.json")) for split in SPLITS}
    if path.is_dir():
        model, photos = _read_colmap(data, path)
        recorded = Recorded(path, model.names, model.camera_to_worlds, photos)
        recorded = recorded._replace(sizes=_sizes(model.intrinsics, recorded))
        choose = partial(_colmap_split, data, path, model.names)
    else:
        meta = _read_json(path)
        recorded = _frames(meta, path)
        recorded = recorded._replace(sizes=_sizes(_intrinsics(meta, recorded), recorded))
        choose = partial(_split_indices, meta, recorded.files, path)
    return {split: _attempted(lambda split: recorded._replace(chosen=tuple(choose(split))), split) for split in SPLITS}


def is_blender(path: Path) -> bool:
    """Whether a file of poses is of Blender's format."""
    return BLENDER_FILE.fullmatch(path.name) is not None


def _attempted(read: Callable[[T], Recorded], of: T) -> Recorded | PartitionError:
    try:
        return read(of)
    except PartitionError as error:
        return error


def _blender_split(path: Path) -> Recorded:
    if not path.is_file():
        raise SplitError(f"There is no {path}.")
    meta = _read_json(path)
    _blender_angle(meta, path)
    recorded = _frames(meta, path)
    return recorded._replace(chosen=tuple(range(len(recorded.files))))


def _sizes(intrinsics: np.ndarray, recorded: Recorded) -> tuple[tuple[int, int], ...]:
    """Width and height of each camera.

    Raises:
        PartitionError: a camera has none, or no focal length.
    """
    usable = np.isfinite(intrinsics).all(axis=1) & (intrinsics[:, [0, 1, 4, 5]] > 0).all(axis=1)
    if not usable.all():
        names = [name for name, good in zip(recorded.names, usable, strict=True) if not good]
        raise PartitionError(
            f"{recorded.path} gives these a focal length or image size that is not a positive number: {listing(names)}."
        )
    return tuple((int(width), int(height)) for width, height in intrinsics[:, 4:])


def _frames(meta: dict[str, Any], path: Path) -> Recorded:
    """All frames of a JSON file that can be read."""
    frames = meta.get("frames")
    if not isinstance(frames, list) or not frames:
        raise PartitionError(f'{path} has no frames; expected a non-empty list "frames", one entry per image.')
    files, poses, read, problems = [], [], [], []
    for number, frame in enumerate(frames):
        try:
            file = _frame_file(frame, number, path)
            poses.append(_frame_pose(frame, file, path))
            files.append(file)
            read.append(frame)
        except PartitionError as error:
            problems.append(str(error))
    if is_blender(path):
        files = [file if file.lower().endswith(IMAGE_SUFFIXES) else f"{file}.png" for file in files]
    photos = tuple(path.parent / file for file in files)
    stacked = np.array(poses).reshape(-1, 3, 4)
    return Recorded(path, tuple(files), stacked, photos, problems=tuple(problems), frames=tuple(read))


def _read_scene(data: Path, split: str) -> tuple[Views, Sequence[int]]:
    """All views of the file that holds a split, and which of them belong to it."""
    path = poses_file(data, split)
    if path.is_dir():
        model, photos = _read_colmap(data, path)
        return replace(model, photos=photos), _colmap_split(data, path, model.names, split)
    meta = _read_json(path)
    recorded, blender = _frames(meta, path), is_blender(path)
    if recorded.problems:
        raise PartitionError(recorded.problems[0])
    if blender:
        chosen: Sequence[int] = range(len(recorded.files))
        intrinsics = np.tile(_blender_intrinsics(meta, recorded.photos[0], path), (len(recorded.names), 1))
    else:
        chosen, intrinsics = _split_indices(meta, recorded.files, path, split), _intrinsics(meta, recorded)
    try:
        views = Views(recorded.names, recorded.poses, intrinsics, upright=blender, photos=recorded.photos)
    except PartitionError as error:
        raise PartitionError(f"{path}: {error}") from None
    return (views if blender else _with_tracks(views, path.parent)), chosen


def _with_tracks(views: Views, data: Path) -> Views:
    """Tracks from a COLMAP model beside a `transforms.json`, if it knows all views by name."""
    from dac_nerfstudio.scene.colmap import read_model

    folder = find_model(data)
    if folder is None:
        return views
    try:
        model = read_model(folder)
    except PartitionError as error:
        warnings.warn(f"{error} Going on without the 3D points that it lists.", stacklevel=4)
        return views
    assert model.tracks is not None
    tracks = {view_name(name): points for name, points in zip(model.names, model.tracks, strict=True)}
    if not set(views.names) <= set(tracks):
        return views
    return replace(views, tracks=tuple(tracks[name] for name in views.names))


def _read_colmap(data: Path, folder: Path) -> tuple[Views, tuple[Path, ...]]:
    """A scene's COLMAP model, and where its photos ought to be."""
    from dac_nerfstudio.scene.colmap import read_model

    model = read_model(folder)
    if not all(map(_is_path, model.names)):
        raise PartitionError(f"{folder} names a photo as no file can be called. Copy the whole model again.")
    present = next((data / name for name in IMAGE_FOLDERS if (data / name).is_dir()), data / IMAGE_FOLDERS[0])
    photos = tuple(present / name for name in model.names)
    missing = [name for name, photo in zip(model.names, photos, strict=True) if not photo.is_file()]
    if missing:
        warnings.warn(
            f"{present} lacks {len(missing)} of the {len(photos)} photos of {folder}: {listing(missing)}. "
            "Training needs them, unless they are left out: --skip-missing",
            stacklevel=4,
        )
    known = set(model.names)
    unknown = sorted(
        name
        for path in (present.rglob("*") if present.is_dir() else ())
        if path.suffix.lower() in IMAGE_SUFFIXES and (name := path.relative_to(present).as_posix()) not in known
    )
    if unknown:
        warnings.warn(
            f"{folder} has no pose for {len(unknown)} of the photos in {present}: {listing(unknown)}. They stay out.",
            stacklevel=4,
        )
    return model, photos


def _colmap_split(data: Path, folder: Path, names: tuple[str, ...], split: str) -> list[int]:
    path = data / f"{split}_list.txt"
    if path.is_file():
        wanted = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line]
        unknown = sorted(set(wanted) - set(names))
        if unknown:
            raise PartitionError(
                f"{path} lists {len(unknown)} photos that {folder} does not know: {listing(unknown)}. Take them off "
                "the list."
            )
        chosen = [i for i, name in enumerate(names) if name in set(wanted)]
    elif any((data / f"{other}_list.txt").is_file() for other in ("train", "test", "validation")):
        raise SplitError(f"{data} has lists of splits, but no {path.name}. Add it, one name of a photo a line.")
    else:
        chosen = [i for i in range(len(names)) if (i % EVAL_INTERVAL != 0) == (split == "train")]
    if not chosen:
        kind = PartitionError if path.is_file() else SplitError
        raise kind(f"{folder} has no photo for the split '{split}'; list some in {path.name}.")
    return chosen


def poses_file(data: Path, split: str) -> Path:
    """The file that holds the poses of a split, or the folder of a COLMAP model.

    Raises:
        PartitionError: there is none.
    """
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
    model = find_model(data)
    if model is not None:
        return model
    names = [path.name for path in looked_for] + (list(MODEL_FOLDERS) if data.is_dir() else [])
    raise PartitionError(
        f"No camera poses for split '{split}' in {looked_for[0].parent}: looked for {' and '.join(names)}. Photos get "
        "poses with `ns-process-data images --data <photos> --output-dir <folder>`; then give that folder: --data "
        "<folder>."
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise PartitionError(f"{path} is nested deeper than any scene. Restore the file or make it anew.") from None
    except (ValueError, OSError) as error:
        raise PartitionError(f"{path} is not valid JSON ({error}). Restore the file or make it anew.") from None
    if not isinstance(meta, dict):
        raise PartitionError(f"{path} holds a JSON {type(meta).__name__}; expected an object in braces.")
    return meta


def _frame_file(frame: Any, number: int, path: Path) -> str:
    """The image of a frame, relative to the data folder where it lies inside."""
    file = frame.get("file_path") if isinstance(frame, dict) else None
    if not isinstance(file, str) or not file or not _is_path(file):
        raise PartitionError(f'{path}: entry {number} of "frames" (from 0) has no "file_path".')
    folder = path.parent.absolute()
    return Path(file).relative_to(folder).as_posix() if Path(file).is_relative_to(folder) else file


def _is_path(name: str) -> bool:
    """Whether a file may be called so: not with a null byte, nor with half of a character."""
    return "\0" not in name and not any("\ud800" <= character <= "\udfff" for character in name)


def _frame_pose(frame: dict[str, Any], file: str, path: Path) -> np.ndarray:
    if "transform_matrix" not in frame:
        raise PartitionError(f'{path}: the frame of {file} has no "transform_matrix"; add it or remove the frame.')
    try:
        matrix = np.array(frame["transform_matrix"], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise PartitionError(f'{path}: "transform_matrix" of {file} is not a matrix of 4 x 4 (or 3 x 4) numbers.')
    return matrix[:3]


def _number(value: Any, field: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PartitionError(f'{path}: "{field}" is {value!r}; expected a number.')
    try:
        return float(value)
    except OverflowError:
        raise PartitionError(f'{path}: "{field}" is larger than any number of a camera.') from None


def _blender_angle(meta: dict[str, Any], path: Path) -> float:
    """Horizontal field of view in radians."""
    if "camera_angle_x" not in meta:
        raise PartitionError(f'{path} has no "camera_angle_x" (horizontal field of view in radians).')
    angle = _number(meta["camera_angle_x"], "camera_angle_x", path)
    if not 0 < angle < math.pi:
        raise PartitionError(f'{path}: "camera_angle_x" is {angle}; expected radians between 0 and pi.')
    return angle


def _blender_intrinsics(meta: dict[str, Any], first: Path, path: Path) -> list[float]:
    """Intrinsics [6] shared by all frames: the file has only the field of view, so the first image gives the size."""
    angle = _blender_angle(meta, path)
    from dac_nerfstudio.scene.photos import PhotoError, photo_shape  # here: a transforms.json needs no image library

    try:
        width, height = photo_shape(first).size
    except PhotoError as error:
        raise PartitionError(f"Cannot read the size of {first}, the first image of {path}: {error}") from None
    focal = 0.5 * width / math.tan(0.5 * angle)
    return [focal, focal, width / 2, height / 2, width, height]


def _intrinsics(meta: dict[str, Any], recorded: Recorded) -> np.ndarray:
    """Intrinsics [frames, 6] of the frames of a `transforms.json`."""
    frames = zip(recorded.frames, recorded.files, strict=True)
    return np.array([_frame_intrinsics(frame, meta, file, recorded.path) for frame, file in frames]).reshape(-1, 6)


def _frame_intrinsics(frame: dict[str, Any], meta: dict[str, Any], file: str, path: Path) -> list[float]:
    """Intrinsics [6] of a frame of a `transforms.json`; as in nerfstudio, a global value wins over the frame's."""
    values = []
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        source = meta if key in meta else frame
        if key not in source:
            raise PartitionError(f'{path} has no "{key}", neither globally nor in the frame of {file}; add it.')
        values.append(_number(source[key], key, path))
    return values


def _split_indices(meta: dict[str, Any], files: Sequence[str], path: Path, split: str) -> list[int]:
    """Which frames belong to the split."""
    listed = [key for key in ("train_filenames", "val_filenames", "test_filenames") if key in meta]
    key = f"{split}_filenames"
    if not listed:
        # As nerfstudio's data parser does by default, so that what is divided here is what it trains on.
        by_name = sorted(range(len(files)), key=lambda i: files[i])
        count = len(files)
        train = set(np.linspace(0, count - 1, math.ceil(TRAIN_SHARE * count), dtype=int).tolist())
        chosen = sorted(i for place, i in enumerate(by_name) if (place in train) == (split == "train"))
        if not chosen:
            raise SplitError(f'{path} has too few frames for a split "{split}". Add the list "{key}" to it.')
        return chosen
    if key not in listed:
        found = f"only {' and '.join(listed)}"
        raise SplitError(f'{path} has no views for split "{split}": {found}. Add "{key}" to it.')
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
