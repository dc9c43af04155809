"""Writes COLMAP models, as https://colmap.github.io/format.html describes them."""

import struct
from pathlib import Path
from typing import NamedTuple

CAMERA_MODELS = (
    "SIMPLE_PINHOLE PINHOLE SIMPLE_RADIAL RADIAL OPENCV OPENCV_FISHEYE FULL_OPENCV FOV SIMPLE_RADIAL_FISHEYE "
    "RADIAL_FISHEYE THIN_PRISM_FISHEYE"
).split()


class Camera(NamedTuple):
    number: int = 1
    model: str = "PINHOLE"
    width: int = 16
    height: int = 12
    parameters: tuple[float, ...] = (100.0, 101.0, 8.0, 6.0)


class Photo(NamedTuple):
    number: int
    name: str
    quaternion: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)
    """World to camera: w, x, y, z."""
    translation: tuple[float, ...] = (0.0, 0.0, 0.0)
    camera: int = 1
    points: tuple[int, ...] = ()
    """Numbers of the 3D points of its features."""


def write_text(folder: Path, cameras: list[Camera], photos: list[Photo]) -> None:
    rows = [f"{c.number} {c.model} {c.width} {c.height} {' '.join(map(repr, c.parameters))}" for c in cameras]
    (folder / "cameras.txt").write_text("\n".join(["# Camera list", *rows, ""]))
    rows = ["# Image list", "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"]
    for photo in photos:
        pose = " ".join(repr(float(value)) for value in (*photo.quaternion, *photo.translation))
        rows.append(f"{photo.number} {pose} {photo.camera} {photo.name}")
        rows.append(" ".join(f"1.5 2.5 {point}" for point in photo.points))
    (folder / "images.txt").write_text("\n".join([*rows, ""]))


def write_binary(folder: Path, cameras: list[Camera], photos: list[Photo]) -> None:
    content = struct.pack("<Q", len(cameras))
    for camera in cameras:
        content += struct.pack("<iiQQ", camera.number, CAMERA_MODELS.index(camera.model), camera.width, camera.height)
        content += struct.pack(f"<{len(camera.parameters)}d", *camera.parameters)
    (folder / "cameras.bin").write_bytes(content)
    content = struct.pack("<Q", len(photos))
    for photo in photos:
        content += struct.pack("<i7di", photo.number, *photo.quaternion, *photo.translation, photo.camera)
        content += photo.name.encode() + b"\0" + struct.pack("<Q", len(photo.points))
        content += b"".join(struct.pack("<ddq", 1.5, 2.5, point) for point in photo.points)
    (folder / "images.bin").write_bytes(content)
