"""``make_demo_scene``: a ray-traced scene in Blender (NeRF-synthetic) format, for trying the method without a download.

The scene folder holds ``transforms_{train,val,test}.json``, ``{train,val,test}/r_<i>.png`` and, once all of these are
there, the marker ``scene.json``. While work is under way the marker is called ``scene.json.part``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
from jaxtyping import Float
from PIL import Image

from dac_nerfstudio.demo.castle import LIGHTS, castle
from dac_nerfstudio.demo.tracing import Renderer, look_at_origin

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
"""Raise this when a change alters the pictures or poses, so that scenes already on disk are made again."""
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

    An interrupted call is taken up where it stopped; a scene of ours with other settings is replaced.

    Args:
        folder: the scene's folder; created when absent.
        size: width and height of the pictures, pixels.
        train, val, test: numbers of views.
        seed: chooses the toys' colours and the cameras of train and val.
        progress: called with (pictures done, pictures in all) after each picture.

    Returns:
        ``folder``, ready for nerfstudio's ``blender-data``.

    Raises:
        ValueError: a number is out of range, or ``folder`` holds something that this function did not make.
    """
    folder = Path(folder)
    counts = {"train": train, "val": val, "test": test}
    for name, number in {"size": size, **counts}.items():
        if number < 1:
            raise ValueError(f"make_demo_scene: {name} is {number}, expected at least 1; give a positive number.")
    settings = {"generator": GENERATOR, "version": VERSION, "size": size, **counts, "seed": seed}
    pictures = {(split, i): folder / split / f"r_{i}.png" for split, count in counts.items() for i in range(count)}
    transforms = {split: folder / f"transforms_{split}.json" for split in counts}

    marker, part = folder / "scene.json", folder / "scene.json.part"
    found = _found_settings(folder, marker, part)
    if found == settings and marker.exists() and all(p.exists() for p in (*pictures.values(), *transforms.values())):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if marker.exists():
        # From here until the end the folder is unfinished, yet must stay recognisable as ours.
        os.replace(marker, part)
    if found is not None and found != settings:
        _remove_outputs(folder)
    _write_json(part, settings)

    rng = np.random.default_rng(seed)
    renderer: Optional[Renderer] = None
    poses = {"train": band_poses(train, rng), "val": band_poses(val, rng), "test": orbit_poses(test)}
    for split in counts:
        (folder / split).mkdir(exist_ok=True)
        frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": p.tolist()} for i, p in enumerate(poses[split])]
        _write_json(transforms[split], {"camera_angle_x": CAMERA_ANGLE_X, "frames": frames})
    turn = np.radians(-INTRICATE_AZIMUTH_DEG)
    to_stage = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    focal = 0.5 * size / np.tan(0.5 * CAMERA_ANGLE_X)
    for done, ((split, i), path) in enumerate(pictures.items(), start=1):
        if not path.exists():
            renderer = renderer or Renderer(castle(np.random.default_rng(seed)), LIGHTS, size)
            pose = poses[split][i]
            rgba = renderer.render(to_stage @ pose[:3, :3], to_stage @ pose[:3, 3], size, focal, SUPERSAMPLING)
            temporary = path.with_suffix(f".png.{os.getpid()}.tmp")
            Image.fromarray(rgba).save(temporary, format="PNG")
            os.replace(temporary, path)
        if progress is not None:
            progress(done, len(pictures))
    os.replace(part, marker)
    return folder


def _found_settings(folder: Path, marker: Path, part: Path) -> Optional[dict[str, Any]]:
    """Settings of the scene, finished or not, that the folder holds; None for an absent or empty folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    for path in (marker, part):
        if path.is_file():
            try:
                found = json.loads(path.read_text())
            except ValueError:
                found = None
            if isinstance(found, dict) and found.get("generator") == GENERATOR:
                return found
    what = "a file" if not folder.is_dir() else "files without a marker of this generator, such as "
    if folder.is_dir():
        what += ", ".join(repr(path.name) for path in sorted(folder.iterdir())[:3])
    raise ValueError(
        f"make_demo_scene: found {what} at {folder}; expected an absent or empty folder, or a demo scene with its "
        f"{marker.name}. Choose another folder, or empty this one yourself if nothing in it is needed."
    )


def _remove_outputs(folder: Path) -> None:
    """Remove what an earlier call with other settings made, and nothing else."""
    for split in ("train", "val", "test"):
        (folder / f"transforms_{split}.json").unlink(missing_ok=True)
        for path in (folder / split).glob("r_*.png*"):
            path.unlink()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write through a temporary name, so that the file is either absent, old or complete."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)
