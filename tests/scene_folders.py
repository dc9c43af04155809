"""Fixtures that write small scenes in each of the known formats."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colmap_files import Camera, Photo, write_binary, write_text
from PIL import Image
from scipy.spatial.transform import Rotation

from dac_nerfstudio.scene.views import Views


def edited(path: Path, change: Callable[[dict[str, Any]], Any] | None) -> Path:
    """Applies a change to the content of a JSON file."""
    content = json.loads(path.read_text())
    if change is not None:
        change(content)
        path.write_text(json.dumps(content))
    return path


def without_pixels(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has no pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0), b"IDAT" + zlib.compress(b""), b"IEND"]
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def _matrix(pose: np.ndarray) -> list[list[float]]:
    return [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture
def blender_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes one split of a Blender scene with images of 16 x 12 pixels and a field of view of 90 degrees."""

    def write(views: Views, split: str = "train", folder: str = "blender") -> Path:
        data = tmp_path / folder
        for name in views.names:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (16, 12), (90, 60, 30, 128)).save(data / name)
        frames = [
            {"file_path": f"./{name.removesuffix('.png')}", "transform_matrix": _matrix(pose)}
            for name, pose in zip(views.names, views.camera_to_worlds, strict=True)
        ]
        content = {"camera_angle_x": np.pi / 2, "frames": frames}
        (data / f"transforms_{split}.json").write_text(json.dumps(content))
        return data

    return write


@pytest.fixture
def nerfstudio_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes `transforms.json` for images `images/<name>`; keyword arguments become further global entries."""

    def write(views: Views, **entries: Any) -> Path:
        frames = [
            {"file_path": f"images/{name}", "transform_matrix": _matrix(pose)}
            for name, pose in zip(views.names, views.camera_to_worlds, strict=True)
        ]
        camera = {"fl_x": 100.0, "fl_y": 101.0, "cx": 8.0, "cy": 6.0, "w": 16, "h": 12}
        data = tmp_path / "nerfstudio"
        for name in views.names:
            (data / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 12)).save(data / "images" / name)
        (data / "transforms.json").write_text(json.dumps({**camera, **entries, "frames": frames}))
        return data

    return write


@pytest.fixture
def colmap_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COLMAP model, of the given format, into a folder; returns the folder."""

    def write(photos: list[Photo], cameras: list[Camera] | None = None, kind: str = "bin", folder: str = "0") -> Path:
        path = tmp_path / folder
        path.mkdir(parents=True, exist_ok=True)
        (write_text if kind == "txt" else write_binary)(path, [Camera()] if cameras is None else cameras, photos)
        return path

    return write


@pytest.fixture
def colmap_folder(tmp_path: Path, colmap_model: Callable[..., Path]) -> Callable[..., Path]:
    """Writes photos and a COLMAP model of views, numbered from 1 in their order; returns the scene's folder."""

    def write(views: Views, model: str = "colmap/sparse/0", images: str | None = "images", kind: str = "bin") -> Path:
        photos = []
        tracks = views.tracks or [np.array([], dtype=int)] * len(views)
        for number, (name, pose, points) in enumerate(zip(views.names, views.camera_to_worlds, tracks), start=1):
            to_camera = (pose[:, :3] * [1.0, -1.0, -1.0]).T  # COLMAP's cameras look along +z with y down
            x, y, z, w = Rotation.from_matrix(to_camera).as_quat()
            translation = tuple(-to_camera @ pose[:, 3])
            photos.append(Photo(number, name, (w, x, y, z), translation, points=tuple(points.tolist())))
            if images is not None:
                path = tmp_path / "colmap_scene" / images / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 12)).save(path)
        colmap_model(photos, kind=kind, folder=f"colmap_scene/{model}")
        return tmp_path / "colmap_scene"

    return write


@pytest.fixture
def real(ring: Callable[..., Views], nerfstudio_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a scene of twelve views in nerfstudio's format; `change` is applied to its JSON."""

    def make(change: Callable[[dict[str, Any]], Any] | None = None, prefix: str = "v", **entries: Any) -> Path:
        data = nerfstudio_folder(ring(np.linspace(0, 300, 12), prefix=prefix), **entries)
        return edited(data / "transforms.json", change).parent

    return make


@pytest.fixture
def blender(ring: Callable[..., Views], blender_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Makes a scene in Blender's format, of twelve views to train on, two to validate and three to test; `change` is
    applied to all its JSON files."""

    def make(change: Callable[[dict[str, Any]], Any] | None = None) -> Path:
        for split, count in (("train", 12), ("val", 2), ("test", 3)):
            data = blender_folder(ring(np.linspace(0, 300, count), prefix=f"{split}/r_"), split=split)
            edited(data / f"transforms_{split}.json", change)
        return data

    return make
