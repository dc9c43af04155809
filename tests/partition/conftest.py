"""Cameras on rings, and the folders that tests read them from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dac_nerfstudio.partition import Views


def _looking_at_origin(centre: np.ndarray) -> np.ndarray:
    """Camera-to-world [3, 4] with OpenGL axes at `centre`, looking at the origin, +z up."""
    back = centre / np.linalg.norm(centre)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, centre], axis=1)


@pytest.fixture
def ring() -> Callable[..., Views]:
    """Makes views at given azimuths in degrees, at radius 4 and height 1, looking at the origin."""

    def make(degrees: Any, prefix: str = "train/r_") -> Views:
        angles = np.deg2rad(np.asarray(degrees, dtype=np.float64))
        centres = np.stack([4 * np.cos(angles), 4 * np.sin(angles), np.ones_like(angles)], axis=1)
        return Views(
            names=tuple(f"{prefix}{i}.png" for i in range(len(angles))),
            camera_to_worlds=np.stack([_looking_at_origin(centre) for centre in centres]),
            intrinsics=np.tile([100.0, 100.0, 8.0, 6.0, 16.0, 12.0], (len(angles), 1)),
        )

    return make


def _matrix(pose: np.ndarray) -> list[list[float]]:
    return [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture
def blender_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes one split of a Blender scene with images of 16 x 12 pixels and a field of view of 90 degrees."""

    def write(views: Views, split: str = "train", folder: str = "blender") -> Path:
        data = tmp_path / folder
        for name in views.names:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (16, 12)).save(data / name)
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
        data.mkdir(exist_ok=True)
        (data / "transforms.json").write_text(json.dumps({**camera, **entries, "frames": frames}))
        return data

    return write
