"""COLMAP's sparse models, binary and text: cameras, poses, and which 3D points each photo shows.

The formats are described at https://colmap.github.io/format.html. Points and distortion are not needed and not read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dac_nerfstudio.partition.views import PartitionError, Views, listing

MODEL_FOLDERS = ("colmap/sparse/0", "sparse/0")
"""Where a model lies in a scene's folder, in the order in which they are looked for."""


class CameraModel(NamedTuple):
    """What is needed of one of COLMAP's camera models: its parameters start with focal lengths and principal point."""

    name: str
    parameters: int
    focal_lengths: int


CAMERA_MODELS = (
    CameraModel("SIMPLE_PINHOLE", 3, 1),
    CameraModel("PINHOLE", 4, 2),
    CameraModel("SIMPLE_RADIAL", 4, 1),
    CameraModel("RADIAL", 5, 1),
    CameraModel("OPENCV", 8, 2),
    CameraModel("OPENCV_FISHEYE", 8, 2),
    CameraModel("FULL_OPENCV", 12, 2),
    CameraModel("FOV", 5, 2),
    CameraModel("SIMPLE_RADIAL_FISHEYE", 4, 1),
    CameraModel("RADIAL_FISHEYE", 5, 1),
    CameraModel("THIN_PRISM_FISHEYE", 12, 2),
)
"""In the order of the numbers by which binary files name them."""


class Photo(NamedTuple):
    """One registered image."""

    number: int
    name: str
    """Path of its file, relative to the folder of images."""
    quaternion: tuple[float, ...]
    """World to camera: w, x, y, z."""
    translation: tuple[float, ...]
    """World to camera: x, y, z."""
    camera: int
    points: np.ndarray
    """Unique numbers of the 3D points found in it."""


def find_model(data: Path) -> Path | None:
    """The folder of the model of a scene, if it has one."""
    for folder in MODEL_FOLDERS:
        if any((data / folder / f"images.{suffix}").is_file() for suffix in ("txt", "bin")):
            return data / folder
    return None


def read_model(folder: Path) -> Views:
    """The registered photos of a model, in the order of their numbers, with tracks. Text wins over binary, as in
    nerfstudio.

    Args:
        folder: holds cameras and images, as .txt or as .bin.

    Raises:
        PartitionError: a file is missing, truncated or not what it should be.
    """
    suffix = "txt" if (folder / "cameras.txt").is_file() else "bin"
    paths = [folder / f"{name}.{suffix}" for name in ("cameras", "images")]
    for path in paths:
        if not path.is_file():
            raise PartitionError(f"{folder} is no COLMAP model: {path.name} is missing. Copy the whole model again.")
    cameras = (_text_cameras if suffix == "txt" else _binary_cameras)(paths[0])
    photos = (_text_photos if suffix == "txt" else _binary_photos)(paths[1])
    if not photos:
        raise PartitionError(f"{paths[1]} lists no photos: structure from motion has registered none.")
    photos = sorted(photos, key=lambda photo: photo.number)
    homeless = [photo.name for photo in photos if photo.camera not in cameras]
    if homeless:
        raise PartitionError(f"{paths[0]} lacks the cameras of {listing(homeless)}. Copy the whole model again.")
    try:
        return Views(
            names=tuple(photo.name for photo in photos),
            camera_to_worlds=np.stack([_camera_to_world(photo, paths[1]) for photo in photos]),
            intrinsics=np.array([cameras[photo.camera] for photo in photos]),
            upright=False,
            tracks=tuple(photo.points for photo in photos),
        )
    except PartitionError as error:
        raise PartitionError(f"{folder}: {error}") from None


def _camera_to_world(photo: Photo, path: Path) -> np.ndarray:
    """Pose [3, 4] with OpenGL axes, in the model's own frame."""
    quaternion = np.array(photo.quaternion)
    length = np.linalg.norm(quaternion)
    if not np.isfinite(length) or length < 1e-6:
        raise PartitionError(f"{path.name}: the rotation of {photo.name} is {photo.quaternion}, which is none.")
    w, x, y, z = quaternion / length
    to_camera = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    centre = -to_camera.T @ np.array(photo.translation)
    # COLMAP's cameras look along +z with y down.
    return np.concatenate([to_camera.T * [1.0, -1.0, -1.0], centre[:, None]], axis=1)


def _intrinsics(model: CameraModel, width: float, height: float, parameters: tuple[float, ...]) -> list[float]:
    fx, fy = parameters[0], parameters[model.focal_lengths - 1]
    cx, cy = parameters[model.focal_lengths : model.focal_lengths + 2]
    return [fx, fy, cx, cy, width, height]


class _Reader:
    """Takes values from the front of a binary file; what is missing at its end is the user's to mend."""

    def __init__(self, path: Path) -> None:
        self.path, self.content, self.at, self.done, self.total = path, path.read_bytes(), 0, 0, 0

    def entries(self) -> Iterator[None]:
        """One turn for each of the entries, whose number comes first."""
        self.total = int(self.take("<Q")[0])
        for self.done in range(self.total):  # noqa: B020
            yield

    def take(self, layout: str) -> tuple[int | float, ...]:
        size = struct.calcsize(layout)
        self.check(size)
        values = struct.unpack_from(layout, self.content, self.at)
        self.at += size
        return values

    def text(self) -> str:
        end = self.content.find(b"\0", self.at)
        self.check(len(self.content) if end < 0 else 0)
        start, self.at = self.at, end + 1
        return self.content[start:end].decode("utf-8", errors="replace")

    def array(self, kind: np.dtype, count: int) -> np.ndarray:
        self.check(count * kind.itemsize)
        values = np.frombuffer(self.content, kind, count, self.at)
        self.at += count * kind.itemsize
        return values

    def check(self, size: int) -> None:
        if self.at + size > len(self.content):
            raise PartitionError(
                f"{self.path} is truncated or damaged: it ends after {self.done} of {self.total} entries. Copy it "
                "again, or make it anew."
            )


def _binary_cameras(path: Path) -> dict[int, list[float]]:
    reader = _Reader(path)
    cameras = {}
    for _ in reader.entries():
        number, model, width, height = reader.take("<iiQQ")
        if not 0 <= model < len(CAMERA_MODELS):
            raise PartitionError(f"{path}: camera {number} is of an unknown model, {model}. Undistort the photos.")
        known = CAMERA_MODELS[int(model)]
        cameras[int(number)] = _intrinsics(known, width, height, reader.take(f"<{known.parameters}d"))
    return cameras


OBSERVATION = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])


def _binary_photos(path: Path) -> list[Photo]:
    reader = _Reader(path)
    photos = []
    for _ in reader.entries():
        number, *pose, camera = reader.take("<i7di")
        name = reader.text()
        (count,) = reader.take("<Q")
        points = reader.array(OBSERVATION, int(count))["point"]
        photos.append(Photo(int(number), name, tuple(pose[:4]), tuple(pose[4:]), int(camera), _seen(points)))
    return photos


def _seen(points: np.ndarray) -> np.ndarray:
    """Unique numbers; -1 marks a feature that belongs to no point."""
    unique = np.unique(points)
    return unique[unique >= 0]


def _rows(path: Path) -> list[tuple[int, str]]:
    """Lines without comments, with their numbers from 1."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if not line.startswith("#")]


def _text_cameras(path: Path) -> dict[int, list[float]]:
    cameras = {}
    known = {model.name: model for model in CAMERA_MODELS}
    for line, row in _rows(path):
        if not row:
            continue
        try:
            number, name, width, height, *parameters = row.split()
            if name not in known:
                raise PartitionError(f"{path}, line {line}: unknown camera model {name}. Undistort the photos.")
            if len(parameters) != known[name].parameters:
                raise ValueError(f"{len(parameters)} parameters where {name} has {known[name].parameters}")
            values = tuple(map(float, parameters))
            cameras[int(number)] = _intrinsics(known[name], float(width), float(height), values)
        except PartitionError:
            raise
        except ValueError as error:
            raise PartitionError(f"{path}, line {line} describes no camera ({error}). Copy the file again.") from None
    return cameras


def _text_photos(path: Path) -> list[Photo]:
    rows = iter(_rows(path))
    photos = []
    for line, row in rows:
        if not row:
            continue
        # Two lines a photo; the second one is empty where no feature was found, and may be missing at the end.
        _, observations = next(rows, (0, ""))
        try:
            number, *pose, camera, name = row.split(maxsplit=9)
            features = observations.split()
            if len(pose) != 7 or len(features) % 3:
                raise ValueError("it is incomplete")
            points = np.array(features[2::3], dtype=np.int64)
            values = tuple(map(float, pose))
            photos.append(Photo(int(number), name, values[:4], values[4:], int(camera), _seen(points)))
        except (ValueError, OverflowError) as error:
            raise PartitionError(f"{path}, line {line} describes no photo ({error}). Copy the file again.") from None
    return photos
