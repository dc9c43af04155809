"""COLMAP's sparse models, binary and text: cameras, poses, and which 3D points each photo shows.

The formats are described at https://colmap.github.io/format.html. nerfstudio reads binary files, once it is known that
they are whole. Text is read here, because nerfstudio ends a photo's name at the first blank in it, takes a line that is
cut off for a whole one, and does not say which line is wrong. Points and distortion are not needed.

This module imports nerfstudio's reader, so that it is imported where a model is read and not before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from nerfstudio.data.utils.colmap_parsing_utils import (
    CAMERA_MODEL_IDS,
    CAMERA_MODEL_NAMES,
    Camera,
    Image,
    read_cameras_binary,
    read_images_binary,
    read_next_bytes,
)

from dac_nerfstudio.scene.views import PartitionError, Views, listing

ONE_FOCAL_LENGTH = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
"""Camera models whose parameters start with one focal length, not two; the principal point follows."""
OBSERVATION_BYTES = 24
"""A feature's part of images.bin: x, y and the number of its point."""


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
    photos = sorted(photos, key=lambda photo: photo.id)
    homeless = [photo.name for photo in photos if photo.camera_id not in cameras]
    if homeless:
        raise PartitionError(f"{paths[0]} lacks the cameras of {listing(homeless)}. Copy the whole model again.")
    try:
        return Views(
            names=tuple(photo.name for photo in photos),
            camera_to_worlds=np.stack([_camera_to_world(photo, paths[1]) for photo in photos]),
            intrinsics=np.array([_intrinsics(cameras[photo.camera_id]) for photo in photos]),
            upright=False,
            tracks=tuple(_seen(photo) for photo in photos),
        )
    except PartitionError as error:
        raise PartitionError(f"{folder}: {error}") from None


def _camera_to_world(photo: Image, path: Path) -> np.ndarray:
    """Pose [3, 4] with OpenGL axes, in the model's own frame."""
    length = np.linalg.norm(photo.qvec)
    if not np.isfinite(length) or length < 1e-6:
        rotation = tuple(photo.qvec.tolist())
        raise PartitionError(f"{path.name}: the rotation of {photo.name} is {rotation}, which is none.")
    to_camera = photo._replace(qvec=photo.qvec / length).qvec2rotmat()
    centre = -to_camera.T @ photo.tvec
    # COLMAP's cameras look along +z with y down.
    return np.concatenate([to_camera.T * [1.0, -1.0, -1.0], centre[:, None]], axis=1)


def _intrinsics(camera: Camera) -> list[float]:
    focal_lengths = 1 if camera.model in ONE_FOCAL_LENGTH else 2
    fx, fy = camera.params[0], camera.params[focal_lengths - 1]
    cx, cy = camera.params[focal_lengths : focal_lengths + 2]
    return [fx, fy, cx, cy, camera.width, camera.height]


def _seen(photo: Image) -> np.ndarray:
    """Unique numbers of the points found in a photo; -1 marks a feature that belongs to none."""
    unique = np.unique(photo.point3D_ids.astype(np.int64))
    return unique[unique >= 0]


def _binary_cameras(path: Path) -> dict[int, Camera]:
    def skip(file: BinaryIO) -> int:
        number, model, _, _ = read_next_bytes(file, 24, "iiQQ")
        if model not in CAMERA_MODEL_IDS:
            raise PartitionError(f"{path}: camera {number} is of an unknown model, {model}. Undistort the photos.")
        return 8 * CAMERA_MODEL_IDS[model].num_params

    _check_whole(path, skip)
    try:
        return read_cameras_binary(path)
    except AssertionError:
        raise PartitionError(f"{path} has several cameras of one number. Copy it again, or make it anew.") from None


def _binary_photos(path: Path) -> list[Image]:
    def skip(file: BinaryIO) -> int:
        read_next_bytes(file, 64, "idddddddi")
        while read_next_bytes(file, 1, "c")[0] != b"\0":
            pass
        return OBSERVATION_BYTES * read_next_bytes(file, 8, "Q")[0]

    _check_whole(path, skip)
    try:
        return list(read_images_binary(path).values())
    except UnicodeDecodeError as error:
        raise PartitionError(
            f"{path}: the name of a photo is no UTF-8 ({error}). Rename the photo, and make the model anew."
        ) from None


def _check_whole(path: Path, skip: Callable[[BinaryIO], int]) -> None:
    """Make sure that a binary file holds all entries that it counts, before memory is taken for so many.

    Args:
        path: the file, which starts with the number of its entries.
        skip: reads the head of an entry, and returns the bytes that follow it.

    Raises:
        PartitionError: the file ends before its last entry does.
    """
    size, done, total = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        try:
            (total,) = read_next_bytes(file, 8, "Q")
            while done < total:
                following = skip(file)
                if file.tell() + following > size:
                    raise struct.error
                file.seek(following, 1)
                done += 1
        except struct.error:
            raise PartitionError(
                f"{path} is truncated or damaged: it ends after {done} of {total} entries. Copy it again, or make it "
                "anew."
            ) from None


def _rows(path: Path) -> list[tuple[int, str]]:
    """Lines without comments, with their numbers from 1."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if not line.startswith("#")]


def _text_cameras(path: Path) -> dict[int, Camera]:
    cameras = {}
    for line, row in _rows(path):
        if not row:
            continue
        try:
            number, model, width, height, *parameters = row.split()
            if model not in CAMERA_MODEL_NAMES:
                raise PartitionError(f"{path}, line {line}: unknown camera model {model}. Undistort the photos.")
            expected = CAMERA_MODEL_NAMES[model].num_params
            if len(parameters) != expected:
                raise ValueError(f"{len(parameters)} parameters where {model} has {expected}")
            values = tuple(map(float, parameters))
            cameras[int(number)] = Camera(int(number), model, float(width), float(height), values)
        except PartitionError:
            raise
        except ValueError as error:
            raise PartitionError(f"{path}, line {line} describes no camera ({error}). Copy the file again.") from None
    return cameras


def _text_photos(path: Path) -> list[Image]:
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
            values = np.array(pose, dtype=np.float64)
            photos.append(Image(int(number), values[:4], values[4:], int(camera), name, None, points))
        except (ValueError, OverflowError) as error:
            raise PartitionError(f"{path}, line {line} describes no photo ({error}). Copy the file again.") from None
    return photos
