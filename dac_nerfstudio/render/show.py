"""``dac render``: opens a scene, makes its pictures one after the other, and says where they lie."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Optional, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.messages import say
from dac_nerfstudio.render.pictures import ALL, What, default_scale, make, why_not, work
from dac_nerfstudio.render.scene import Scene, open_scene
from dac_nerfstudio.runs.layout import pictures_folder


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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for one in [one for one in what or ALL if one not in reasons]:
            images, start = work(scene, one, frames), perf_counter()
            task = progress.add_task(one, total=images)
            paths = make(scene, one, folder, scale, frames, partial(progress.advance, task))
            seconds = perf_counter() - start
            for path in paths:
                size = path.stat().st_size
                say(progress.console, f"{path} ({size / 1e6:.2f} MB)")
            if images:
                text = f"  {images} images in {seconds:.0f} s, {seconds / images:.2f} s each"
                progress.console.print(text, highlight=False)
