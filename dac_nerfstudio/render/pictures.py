"""What ``dac render`` makes of an opened scene."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, List, Literal, Optional, Sequence, Union

import numpy as np
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.models.base_model import Model
from rich.console import Console
from rich.progress import track

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.video import RATE, as_bytes, flight, save_mp4
from dac_nerfstudio.messages import say
from dac_nerfstudio.render.drawing import close_up, save_png, save_webp, sheet, wipe
from dac_nerfstudio.render.scene import Scene
from dac_nerfstudio.report.pictures import Comparison, boxed, coloured, enlarged
from dac_nerfstudio.style import colour
from dac_nerfstudio.units import signed, size

What = Literal["orbit", "wipe", "strips", "experts"]
ALL: Sequence[What] = ("strips", "experts", "wipe", "orbit")
"""All kinds in the order in which they are made, the quickest first."""
SIDE = 400
"""Pixels of the longer side of what is rendered of small photos."""
LARGEST = 800
"""Pixels of the longer side of what is rendered of large ones."""
ERROR = 0.25
"""The mean absolute difference of colours that is drawn brightest."""


def default_scale(cameras: Cameras) -> float:
    """Times the photos' resolution at which they can be seen well: small photos larger, large ones smaller."""
    side = int(max(cameras.width.max(), cameras.height.max()))
    return SIDE / side if side < SIDE else min(1.0, LARGEST / side)


def why_not(scene: Scene, what: What) -> Optional[str]:
    """Why it cannot be made of this scene, or None."""
    if what == "strips" and not scene.gains and not scene.losses:
        return "Strips show scored test views, and none were scored of both. Score them: dac run … --only evaluate"
    if what == "experts" and not (scene.experts and scene.homes):
        return "A mosaic of experts needs an expert of each group. Train them: dac run …"
    return None


def show(
    scene: Scene, folder: Path, what: Sequence[What], frames: int, scale: Optional[float], console: Console
) -> None:
    """Make pictures, and say where they lie; those that were not asked for by name are left out where they cannot be
    made, which is said.

    Args:
        what: the pictures; empty for all.
        scale: times the photos' resolution; by default as of `default_scale`.

    Raises:
        StageError: the scene lacks what the pictures take that were asked for.
    """
    reasons = {one: why for one in what or ALL if (why := why_not(scene, one))}
    if what and reasons:
        raise StageError(next(iter(reasons.values())))
    for why in reasons.values():
        say(console, (why, "yellow"))
    for one in [one for one in what or ALL if one not in reasons]:
        for path in _make(scene, one, folder, scale or default_scale(scene.cameras), frames):
            say(console, f"{path} ({size(path.stat().st_size)})")


def _make(scene: Scene, what: What, folder: Path, scale: float, frames: int) -> List[Path]:
    """Make it; the paths of the files."""
    if what == "strips":
        chosen = {folder / "gain.png": scene.gains[:1], folder / "loss.png": scene.losses[:1]}
        for path, views in chosen.items():
            for view in views:
                save_png(strip(view), path)
        return [path for path, views in chosen.items() if views]
    if what == "experts":
        save_png(mosaic(scene, scale / 2), folder / "experts.png")
        return [folder / "experts.png"]
    if what == "wipe":
        # Where there is most to see.
        best = scene.names.index(scene.gains[0].name) if scene.gains else 0
        camera = scaled(scene.cameras[best : best + 1], scale)
        left, right = (picture(model, camera) for model in (scene.baseline, scene.student))
        images = [sheet([[image]], ["baseline  |  student"]) for image in wipe(left, right, frames)]
    else:
        images = list(orbit(scene, scale, frames))
    paths = [folder / f"{what}.webp", folder / f"{what}.mp4"]
    save_webp(images, paths[0], RATE)
    save_mp4(images, paths[1], RATE)
    return paths


def orbit(scene: Scene, scale: float, frames: int) -> Iterator[np.ndarray]:
    """Baseline and student beside each other on a round trip past the test cameras, as titled frames."""
    like = scaled(scene.cameras[:1], scale)
    poses = flight(scene.cameras.camera_to_worlds, frames).to(like.camera_to_worlds)
    for pose in track(poses, "orbit", total=frames, transient=True):
        like.camera_to_worlds = pose[None]
        pair = [picture(model, like) for model in (scene.baseline, scene.student)]
        yield sheet([pair], ["baseline", "student"])


def mosaic(scene: Scene, scale: float) -> np.ndarray:
    """A view of each group as every expert sees it, the group's own in a frame of its colour; the student last."""
    rows, marks = [], {}
    models: Dict[Union[int, str], Model] = {group: expert for group, expert in scene.experts.items()}
    models["student"] = scene.student
    for row, (group, view) in enumerate(track(sorted(scene.homes.items()), "experts", transient=True)):
        camera = scaled(scene.cameras[view : view + 1], scale)
        rows.append([picture(model, camera) for model in models.values()])
        marks[row, list(models).index(group)] = colour(group)
    titles = [f"expert {name}" if isinstance(name, int) else name for name in models]
    return sheet(rows, titles, [f"view of group {group}" for group in sorted(scene.homes)], marks)


def strip(view: Comparison) -> np.ndarray:
    """Photo, baseline, student and where each errs, at the photo's own pixels; a square where they differ most, and
    below it what is in there, larger."""
    factor = max(1, round(SIDE / max(view.photo.shape[:2])))
    errors = [coloured(view.error(image), 0, ERROR, "magma") for image in (view.baseline, view.student)]
    images = (view.photo, view.baseline, view.student, *errors)
    top, left, side = (factor * number for number in view.box)
    rows = (
        [boxed(enlarged(image, factor), (top, left, side)) for image in images],
        [close_up(image, view.box, factor) for image in images],
    )
    gain = f"student ({signed(view.gain)} dB)"
    return sheet(rows, ["photo", "baseline", gain, "error of the baseline", "error of the student"])


def picture(model: Model, camera: Cameras) -> np.ndarray:
    """A model's image of one camera: bytes [height, width, 3]."""
    return as_bytes(model.get_outputs_for_camera(camera.to(model.device))["rgb"])


def scaled(camera: Cameras, scale: float) -> Cameras:
    """A camera, [1], with ``scale`` times the pixels along each side, and no distortion by the lens."""
    names = ("fx", "fy", "cx", "cy", "width", "height")
    lens = {name: getattr(camera, name).clone() for name in names}
    larger = Cameras(camera_to_worlds=camera.camera_to_worlds, **lens)
    larger.rescale_output_resolution(scale, "round")
    return larger
