"""``make_demo_scene``: a ray-traced scene in Blender (NeRF-synthetic) format, for trying the method without a download.

The scene folder holds ``transforms_{train,val,test}.json``, ``{train,val,test}/r_<i>.png`` and ``scene.json``, the
settings that it was made with.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Callable, Optional

import numpy as np
from jaxtyping import Float
from PIL import Image

from dac_nerfstudio.demo.castle import LIGHTS, castle
from dac_nerfstudio.demo.tracing import Renderer, look_at_origin
from dac_nerfstudio.files import read_json, write_json

CAMERA_ANGLE_X = 0.6911112070083618
"""Horizontal field of view of NeRF-synthetic, radians."""
CAMERA_DISTANCE = 4.0311
"""Distance of every camera from the origin, scene units (as NeRF-synthetic)."""
INTRICATE_AZIMUTH_DEG = 45.0
"""Azimuth (degrees from +x towards +y) that the intricate side faces; the plain side faces the opposite one."""
ELEVATION_DEG = (5.0, 75.0)
"""Range of the cameras' elevation above the horizon, degrees."""

GENERATOR = "dac_nerfstudio.demo.scene"
VERSION = 1
"""Raise this when a change alters the pictures or poses: a scene already on disk is then another one."""
SUPERSAMPLING = 3
"""Rays per pixel along each axis."""

_GOLDEN_TURN = (3 - np.sqrt(5)) / 2
"""Fraction of a turn between neighbours of a sunflower spiral."""


def camera_to_world(azimuth: float, elevation: float) -> Float[np.ndarray, "4 4"]:
    """Pose of a camera (OpenGL axes, z up) that looks at the origin; angles in radians."""
    toward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    pose = np.eye(4)
    pose[:3, :3] = look_at_origin(toward)
    pose[:3, 3] = CAMERA_DISTANCE * toward
    return pose


def band_poses(count: int, rng: np.random.Generator) -> Float[np.ndarray, "count 4 4"]:
    """Cameras evenly, by area, over the band of elevations: a jittered golden-angle spiral in random order."""
    low, high = np.sin(np.radians(ELEVATION_DEG))
    # The jitter is a quarter of the spacing: enough to break the pattern, not enough to open gaps.
    i = np.arange(count) + 0.5 + rng.uniform(-0.25, 0.25, count)
    elevations = np.arcsin(low + (high - low) * i / count)
    turns = rng.uniform() + np.arange(count) * _GOLDEN_TURN + rng.uniform(-0.25, 0.25, count) / count
    # Shuffled so that the first few views, which tools like to show, are as varied as all of them.
    return np.stack([camera_to_world(2 * np.pi * turns[j], elevations[j]) for j in rng.permutation(count)])


def orbit_poses(count: int) -> Float[np.ndarray, "count 4 4"]:
    """One turn around the scene with evenly spaced azimuths, rising and sinking three times."""
    turns = (np.arange(count) + 0.5) / count
    low, high = np.radians(ELEVATION_DEG)
    # Test views stay off the extreme elevations, which only the training views' edge covers.
    elevations = (low + high) / 2 + 0.4 * (high - low) * np.sin(2 * np.pi * 3 * turns)
    return np.stack([camera_to_world(2 * np.pi * t, e) for t, e in zip(turns, elevations, strict=True)])


def make_demo_scene(
    folder: Path,
    size: int = 50,
    train: int = 12,
    val: int = 20,
    test: int = 20,
    seed: int = 0,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Path:
    """Ray-trace the demo scene into ``folder``, or return at once when it is already there with these settings.

    The folder is there once all of it is; until then it is called ``<folder>.part``. What an interrupted call left
    there is made anew.

    Args:
        folder: the scene's folder; created when absent.
        size: width and height of the pictures, pixels.
        train, val, test: numbers of views.
        seed: chooses the toys' colours and the cameras of train and val.
        progress: called with (pictures done, pictures in all) after each picture.

    Returns:
        ``folder``, ready for nerfstudio's ``blender-data``.

    Raises:
        ValueError: a number is out of range, or ``folder`` or ``<folder>.part`` holds something else.
    """
    folder = Path(folder)
    counts = {"train": train, "val": val, "test": test}
    for name, number in {"size": size, **counts}.items():
        if number < 1:
            raise ValueError(f"make_demo_scene: {name} is {number}, expected at least 1; give a positive number.")
    settings = {"generator": GENERATOR, "version": VERSION, "size": size, **counts, "seed": seed}
    if read_json(folder / "scene.json") == settings:
        return folder
    part = folder.with_name(f"{folder.name}.part")
    begun = read_json(part / "scene.json")
    ours = isinstance(begun, dict) and begun.get("generator") == GENERATOR
    for place in (folder,) if ours else (folder, part):
        if place.is_file() or (place.exists() and any(place.iterdir())):
            raise ValueError(
                f"make_demo_scene: found something else at {place}; expected an absent or empty folder, or a demo "
                "scene with these settings. Choose another folder, or empty this one yourself if nothing in it is "
                "needed."
            )
    shutil.rmtree(part, ignore_errors=True)
    write_json(part / "scene.json", settings)
    rng = np.random.default_rng(seed)
    renderer = Renderer(castle(np.random.default_rng(seed)), LIGHTS, size)
    poses = {"train": band_poses(train, rng), "val": band_poses(val, rng), "test": orbit_poses(test)}
    turn = np.radians(-INTRICATE_AZIMUTH_DEG)
    to_stage = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    focal, done = 0.5 * size / np.tan(0.5 * CAMERA_ANGLE_X), 0
    for split in counts:
        (part / split).mkdir(parents=True)
        frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": p.tolist()} for i, p in enumerate(poses[split])]
        write_json(part / f"transforms_{split}.json", {"camera_angle_x": CAMERA_ANGLE_X, "frames": frames})
        for i, pose in enumerate(poses[split]):
            rgba = renderer.render(to_stage @ pose[:3, :3], to_stage @ pose[:3, 3], size, focal, SUPERSAMPLING)
            Image.fromarray(rgba).save(part / split / f"r_{i}.png")
            done += 1
            if progress is not None:
                progress(done, sum(counts.values()))
    part.replace(folder)
    return folder
