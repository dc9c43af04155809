"""Small copies of scenes, on which a model converges within minutes of one core: which photos are for what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nerfstudio.data.utils.colmap_parsing_utils import read_cameras_binary, read_images_binary
from PIL import Image

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import write_json

EVERY = 8
"""One in this many real photos is for testing, as in mip-NeRF 360's evaluation."""
VALIDATION = 12
"""How many of the others are for validation."""
TEST = 40
"""Most test views, evenly spread."""


def spaced(items: Sequence[Any], count: int) -> list[Any]:
    """``count`` of them, evenly spread."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def averaged(image: Image.Image, side: int) -> np.ndarray:
    """A picture smaller by squares of pixels, colours by their opacity: premultiplied RGBA in [0, 1], rows first.

    Args:
        image: its sides are multiples of the squares'.
        side: of the squares.
    """
    pixels = np.asarray(image.convert("RGBA"), np.float32) / 255
    pixels[..., :3] *= pixels[..., 3:]
    height, width = (length // side for length in pixels.shape[:2])
    return pixels.reshape(height, side, width, side, 4).mean(axis=(1, 3))


def read_real(data: Path, photos: int) -> tuple[Any, dict[str, list[Any]]]:
    """COLMAP's camera and images of `train`, `val` and `test`.

    Args:
        photos: how many are for training.

    Raises:
        StageError: there is not just one camera, a pinhole.
    """
    model = data / "colmap/sparse/0"
    cameras = list(read_cameras_binary(model / "cameras.bin").values())
    if [camera.model for camera in cameras] != ["PINHOLE"]:
        found = ", ".join(camera.model for camera in cameras)
        raise StageError(f"{model} has the cameras {found}; expected one PINHOLE camera.")
    images = sorted(read_images_binary(model / "images.bin").values(), key=lambda image: image.name)
    test = images[::EVERY]
    others = [image for number, image in enumerate(images) if number % EVERY]
    val = spaced(others, VALIDATION)
    train = spaced([image for image in others if image not in val], photos)
    return cameras[0], {"train": train, "val": val, "test": test}


def camera_to_world(image: Any) -> np.ndarray:
    """Pose [4, 4] of one of COLMAP's images, in nerfstudio's convention."""
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3], world_to_camera[:3, 3] = image.qvec2rotmat(), image.tvec
    pose = np.linalg.inv(world_to_camera)
    pose[:3, 1:3] *= -1  # COLMAP's cameras look along +z, nerfstudio's along -z
    return pose


def small_blender(source: Path, target: Path, photos: int, size: int) -> None:
    """A copy of a scene in Blender's format, averaged over squares of pixels, colours by their opacity."""
    for split, most in (("train", photos), ("val", 10**6), ("test", TEST)):
        meta = json.loads((source / f"transforms_{split}.json").read_text("utf8"))
        meta["frames"] = spaced(meta["frames"], most)
        for frame in meta["frames"]:
            with Image.open(source / f"{frame['file_path']}.png") as image:
                pixels = averaged(image, image.width // size)
            pixels[..., :3] /= np.maximum(pixels[..., 3:], 1e-6)
            path = target / f"{frame['file_path']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * pixels.clip(0, 1)).round().astype(np.uint8)).save(path)
        write_json(target / f"transforms_{split}.json", meta)


def small_real(source: Path, target: Path, photos: int, size: int) -> None:
    """A copy of a scene with a COLMAP model of one pinhole camera, in nerfstudio's format."""
    camera, images = read_real(source, photos)
    height = size * camera.height // camera.width
    (target / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for image in (image for chosen in images.values() for image in chosen):
        with Image.open(source / "images" / image.name) as photo:
            photo.convert("RGB").resize((size, height), Image.Resampling.BOX).save(target / named(image))
        frames.append({"file_path": named(image), "transform_matrix": camera_to_world(image).tolist()})
    across, down = size / camera.width, height / camera.height
    fx, fy, cx, cy = camera.params
    intrinsics = {"w": size, "h": height, "fl_x": fx * across, "fl_y": fy * down, "cx": cx * across, "cy": cy * down}
    lists = {f"{split}_filenames": [named(image) for image in chosen] for split, chosen in images.items()}
    write_json(target / "transforms.json", {"camera_model": "OPENCV", **intrinsics, "frames": frames, **lists})


def named(image: Any) -> str:
    return f"images/{Path(image.name).stem}.png"


def small_generated(source: Path, target: Path, photos: int, size: int) -> None:
    """The demo's scene."""
    make_demo_scene(target, size=size, train=photos)
