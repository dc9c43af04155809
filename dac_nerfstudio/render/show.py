"""``dac render``: opens a scene, makes its pictures one after the other, and says where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.messages import say
from dac_nerfstudio.render.pictures import ALL, What, default_scale, make, why_not
from dac_nerfstudio.render.scene import Scene, open_scene
from dac_nerfstudio.runs.layout import pictures_folder
from dac_nerfstudio.units import size


def show(
    scene_dir: Path,
    what: Sequence[What],
    frames: int,
    scale: Optional[float],
    run: Optional[str],
    data: Optional[Path],
    console: Console,
) -> None:
    """Make pictures of a scene; arguments as of ``dac render``.

    Raises:
        StageError: there is no scene to open, or it lacks what the pictures take that were asked for.
    """
    if frames < 2:
        raise StageError(f"An animation of {frames} frames is none. Ask for more: --frames 60")
    if scale is not None and not 0 < scale <= 64:
        raise StageError(f"--scale is {scale:g}; expected a number above 0 and up to 64.")
    with console.status("Opening the scene …"):
        scene = open_scene(scene_dir, run, data)
    show_scene(scene, pictures_folder(scene_dir), what, frames, scale, console)


def show_scene(
    scene: Scene, folder: Path, what: Sequence[What], frames: int, scale: Optional[float], console: Console
) -> None:
    """Make pictures of an opened scene; those that were not asked for by name are left out where they cannot be made,
    which is said.

    Raises:
        StageError: the scene lacks what the pictures take that were asked for.
    """
    reasons = {one: why for one in what or ALL if (why := why_not(scene, one))}
    if what and reasons:
        raise StageError(next(iter(reasons.values())))
    for why in reasons.values():
        say(console, (why, "yellow"))
    scale = scale or default_scale(scene.cameras)
    for one in [one for one in what or ALL if one not in reasons]:
        for path in make(scene, one, folder, scale, frames):
            say(console, f"{path} ({size(path.stat().st_size)})")
