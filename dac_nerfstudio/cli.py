"""Divide and Conquer training of neural radiance fields: divide views, run all stages, report. See also: --version."""

# Everything heavy is imported inside the commands: help has to be instant.

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Dict,
    List,
    Literal,
    Optional,
    Sequence,
    Tuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro
from rich.console import Console

from dac_nerfstudio.errors import StageError, UserError, in_a_line
from dac_nerfstudio.launch.plan import Only, Plan, Request, make_plan
from dac_nerfstudio.launch.slurm.options import DEFAULTS, SlurmOptions
from dac_nerfstudio.messages import literally, say
from dac_nerfstudio.presets import PRESETS, SEEDS, Baseline, Kind, choose_preset
from dac_nerfstudio.runs.layout import PARTITION_PAGE, PARTITION_PICTURE, RECORD, is_scored, pictures_folder, scene_name
from dac_nerfstudio.scene.layout import Layout, find_layout
from dac_nerfstudio.units import size

if TYPE_CHECKING:
    from dac_nerfstudio.scene.data import Scene


@contextmanager
def _showing_warnings(console: Console) -> Iterator[None]:
    """Print what is warned of once, as a sentence."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning):
        say(console, (text, "yellow"))


def _examined(layout: Layout, skip_missing: bool, console: Console) -> Scene:
    """A scene that can be trained on; remarks are printed. Imports nerfstudio, which takes seconds.

    Raises:
        PartitionError: what is wrong with it, a line for each.
    """
    with console.status(literally(f"Looking at {layout.data} …")):
        from dac_nerfstudio.scene.data import open_scene
        from dac_nerfstudio.scene.examination import examine, refuse

        scene = open_scene(layout.config(), skip_missing)
        found = examine(scene)
    refuse(found.problems if skip_missing else found.all_problems, layout.data)
    for remark in found.remarks:
        say(console, (remark, "yellow"))
    return scene


def split(
    data: Path,
    groups: Optional[Union[int, Literal["auto"]]] = None,
    strategy: Literal["auto", "azimuth", "kmeans", "spectral", "louvain"] = "auto",
    similarity: Literal["auto", "covisibility", "frustum", "appearance"] = "auto",
    overlap: float = 0.0,
    softness: float = 0.0,
    downscale: Optional[int] = None,
    skip_missing: bool = False,
    output_dir: Path = Path("outputs"),
    scene: Optional[str] = None,
) -> None:
    """Divide a scene's training views into groups, report how good the division is, and draw it.

    Args:
        data: Folder of the scene: Blender format (transforms_train.json), nerfstudio's (transforms.json) or a COLMAP
            model (images/ beside colmap/sparse/0 or sparse/0).
        groups: Number of groups; by default 4, or fewer if there are few views. Auto chooses 2 to 8 by how far
            their modularity exceeds that of a scene without features, or 4 if none stands out.
        strategy: How to divide. Azimuth cuts the circle around the up axis into equal sectors; kmeans clusters camera
            positions and viewing directions; spectral and louvain group similar views. Auto is azimuth for Blender's
            format, louvain with a COLMAP model, and kmeans otherwise.
        similarity: How to compare two views: by covisibility (3D points of a COLMAP model that both show), frustum
            (space that both see) or appearance (colours and edges of the photos). Auto is covisibility with a COLMAP
            model, and frustum otherwise. It also measures the division's quality.
        overlap: Enlarge every group by this share of its size, with the nearest views of other groups.
        softness: Share of an expert's rays that come from other groups' views.
        downscale: Take real photos from images_<number> beside images, which are smaller by this factor.
        skip_missing: Leave out listed photos that do not exist.
        output_dir: Folder of all results.
        scene: Name of the scene's folder in --output-dir; by default the data folder's name.
    """
    from dac_nerfstudio.launch.lock import scene_lock
    from dac_nerfstudio.launch.slurm.queue import refuse_queued
    from dac_nerfstudio.partition.split import split as split_scene
    from dac_nerfstudio.partition.table import division_table

    console, scene_dir = Console(), output_dir / (scene or scene_name(data))
    opened = _examined(find_layout(data, downscale, skip_missing), skip_missing, console)
    with _showing_warnings(console):
        views, test, remarks = opened.views(), opened.test_views(), opened.left_out()
    # A run that is under way must not find its views divided otherwise.
    with scene_lock(scene_dir, partial(say, console)):
        refuse_queued(scene_dir)
        with _showing_warnings(console), console.status(f"Dividing {len(views)} views …"):
            partition, path = split_scene(
                views, scene_dir, test, similarity=similarity, groups=groups, strategy=strategy, overlap=overlap,
                softness=softness, remarks=remarks,
            )  # fmt: skip
    for part in division_table(partition):
        console.print(part)
    say(console, f"Partition: {path}\nPictures:  {scene_dir / PARTITION_PICTURE}, {scene_dir / PARTITION_PAGE}")


def run(
    data: tyro.conf.UseAppendAction[Tuple[Path, ...]] = (),
    preset: Annotated[
        Optional[Literal["reference", "few", "quick", "demo", "best"]],
        tyro.conf.arg(metavar="{reference,few,quick,demo}"),  # best is few's earlier name
    ] = None,
    groups: Optional[Union[int, Literal["auto"]]] = None,
    strategy: Optional[Literal["auto", "azimuth", "kmeans", "spectral", "louvain"]] = None,
    similarity: Optional[Literal["auto", "covisibility", "frustum", "appearance"]] = None,
    overlap: Optional[float] = None,
    softness: Optional[float] = None,
    downscale: Optional[int] = None,
    skip_missing: bool = False,
    output_dir: Path = Path("outputs"),
    scene: Optional[str] = None,
    seed: int = 42,
    devices: str = "auto",
    baseline: Optional[Baseline] = None,
    video: bool = True,
    only: Optional[Only] = None,
    experts: Tuple[Path, ...] = (),
    student: Kind = "kplanes",
    teachers: Tuple[Path, ...] = (),
    config: Optional[Path] = None,
    executor: Literal["local", "slurm"] = "local",
    wait: bool = False,
    slurm: SlurmOptions = DEFAULTS,
    dry_run: bool = False,
    verbose: bool = False,
) -> None:
    """Run everything: divide, train experts, distil, fine-tune, train the baseline, score the test views.

    Finished stages are kept and interrupted ones resumed: to go on, repeat the command.

    Args:
        data: Folder of the scene: Blender format (transforms_train.json), nerfstudio's (transforms.json) or a COLMAP
            model (images/ beside colmap/sparse/0 or sparse/0). Repeat the flag for further
            scenes.
        preset: Recipe. 'reference' is the paper's and needs a GPU. 'few' is for few photos, once longer training stops
            helping, and needs a GPU. 'quick' trains small models, for a CPU. 'demo' is what dac demo uses. By default
            quick without a GPU; with one, few for at most 30 training photos, else reference.
        groups: Number of groups, see dac split; by default those of the existing division, else 4 (fewer for few
            views).
        strategy: How to divide, see dac split; by default as the existing division, else auto.
        similarity: How to compare views, see dac split; by default as the existing division, else auto.
        overlap: Enlarge every group by this share of its size, with the nearest views of other groups.
        softness: Share of an expert's rays that come from other groups' views; by default as the existing division,
            else the preset's.
        downscale: Take real photos from images_<number> beside images, which are smaller by this factor.
        skip_missing: Leave out listed photos that do not exist. Real photos are then taken at their own
            size unless --downscale says otherwise.
        output_dir: Folder of all results.
        scene: Name of the scene's folder in --output-dir; by default the data folder's name.
        seed: Seed of all random numbers.
        devices: Where to train: auto (every GPU, or the CPU without one), GPU indices such as 0,1, or cpu. One
            stage at a time runs on each device named; cpu,cpu runs two at a time, each with OMP_NUM_THREADS threads or
            half of the cores.
        baseline: Train a baseline for as many steps as the student; total adds one for as many steps as all stages
            together: a comparison at equal cost. By default yes with the preset reference,
            otherwise total.
        video: At the end, render a short flight with the student.
        only: Run this stage alone, from what is already there.
        experts: Models of the experts, alternating, such as kplanes,nerfacto: models of two kinds make different
            errors, and what they render teaches the student, without distillation. Default: kplanes; with the preset
            quick on real photos, kplanes,nerfacto. Or run folders of ready experts, one per group, instead of training
            them.
        student: Model of the student and of its baseline.
        teachers: Run folders of finished runs of any nerfstudio method on this scene. The mean of their renderings
            teaches a student from scratch, in place of experts and distillation.
        config: TOML file with flags of ns-train, one table per method (dac-expert, dac-distill, dac-finetune,
            dac-baseline) and one for all of them (all).
        executor: Where stages run: on this machine, or as jobs of a Slurm cluster, which are queued again after a
            preemption or when their time is up.
        wait: With Slurm: follow the jobs until all have ended.
        slurm: What to request from Slurm for each stage.
        dry_run: Run nothing; print what each stage would do and why, for how many steps, its estimated time, and its
            non-default settings.
        verbose: With --dry-run: print the full command of each stage.
    """
    from dac_nerfstudio.launch.devices import find_devices
    from dac_nerfstudio.launch.flags import read_flags
    from dac_nerfstudio.launch.local import run_plans
    from dac_nerfstudio.launch.slurm.executor import check_executor, run_on_slurm
    from dac_nerfstudio.launch.slurm.queue import refuse_queued

    # What is wrong at once is said at once, before what takes seconds to import.
    check_executor(executor, slurm, devices)
    if not data:
        raise StageError("No scene is named. Name its folder: --data PATH. To try a generated one: dac demo")
    layouts = [find_layout(path, downscale, skip_missing) for path in data]
    if verbose and not dry_run:
        raise StageError("--verbose says more of a --dry-run; logs/ in the scene's folder has all that stages print.")
    if not 0 <= seed < SEEDS:
        raise StageError(f"--seed is {seed}; expected a whole number from 0 to {SEEDS - 1}.")
    console = Console()
    places = find_devices("cpu" if executor == "slurm" else devices)
    kind = "cuda" if executor == "slurm" and slurm.gpus else places[0].partition(":")[0]
    settings = {
        "groups": groups, "strategy": strategy, "similarity": similarity, "overlap": overlap, "softness": softness,
    }  # fmt: skip
    asked = {name: value for name, value in settings.items() if value is not None}
    flags, content = read_flags(config) if config is not None else ({}, None)
    scenes = [_examined(layout, skip_missing, console) for layout in layouts]
    name: str = preset or ""
    if preset is None:
        name, why = choose_preset(kind, max(len(one.names()) for one in scenes))
        console.print(f"Preset {name}: {why} It is {PRESETS[name].description}.", soft_wrap=True)
    elif preset == "best":
        console.print("[yellow]--preset best is now called few. Runs of best keep their name.[/]")
    kinds, experts = _kinds_of(experts)
    recipe = PRESETS[name].taught_by(kinds, student)
    one = Request(
        data[0], output_dir, "", asked, downscale, skip_missing, baseline or recipe.baseline, video, kind, seed, only,
        experts, flags, content, teachers,
    )  # fmt: skip
    plans = [make_plan(request, recipe) for request in _one_per_scene(one, data, scene)]
    if dry_run:
        from dac_nerfstudio.launch.dry_run import explain_plan

        for plan in plans:
            explain_plan(plan, console, verbose)
        return
    if executor == "slurm":
        succeeded = run_on_slurm(plans, slurm, wait, console)
        if succeeded and not wait:
            return
    else:
        for plan in plans:
            refuse_queued(plan.scene_dir)
        succeeded = run_plans(plans, places, console, ("split", "train", "evaluate"))
    _show_results(plans, console)
    if succeeded and executor == "local" and any(job.kind == "video" for plan in plans for job in plan.jobs):
        # After the report: whoever has seen enough stops here.
        succeeded = run_plans(plans, places, console, ("video",))
    if not succeeded:
        sys.exit(1)


def _kinds_of(experts: Tuple[Path, ...]) -> Tuple[Tuple[Kind, ...], Tuple[Path, ...]]:
    """What was asked for of the experts: kinds of models, or else run folders."""
    words = [word for path in experts for word in str(path).split(",")]
    kinds = tuple(kind for word in words for kind in get_args(Kind) if word == kind)
    return (kinds, ()) if len(kinds) == len(words) else ((), experts)


def _one_per_scene(request: Request, data: Sequence[Path], scene: Optional[str]) -> List[Request]:
    """The request with the data and the folder of results of each scene.

    Raises:
        StageError: scenes cannot be told apart, or experts are named for several.
    """
    names = [scene or scene_name(path) for path in data]
    if len(set(names)) < len(names):
        raise StageError(
            f"Several scenes would share a folder of results: {', '.join(names)}. Run them one by one, each with "
            "--scene NAME."
        )
    if request.experts and request.teachers:
        raise StageError("Leave out --teachers or --experts. Experts can be named as --teachers, too.")
    if (request.experts or request.teachers) and len(data) > 1:
        named = "--experts" if request.experts else "--teachers"
        raise StageError(f"{named} are of one scene, and --data names {len(data)}. Run them one by one.")
    return [replace(request, data=path, scene=name) for path, name in zip(data, names)]


def _show_results(plans: Sequence[Plan], console: Console) -> None:
    """Report the scenes that were scored, and say where their groups are pictured."""
    from dac_nerfstudio.report.writing import report_scenes

    scored: Dict[Optional[str], List[Path]] = {}
    for plan in plans:
        if any(job.score_most for job in plan.jobs) and is_scored(plan.scene_dir):
            # Experts that were named may have any name: then the latest runs.
            run = None if plan.request.experts else plan.recipe.run_name(plan.request.seed)
            scored.setdefault(run, []).append(plan.scene_dir)
    try:
        for run, scene_dirs in scored.items():
            report_scenes(scene_dirs, run, console)
    finally:
        for plan in plans:
            path = plan.scene_dir / PARTITION_PICTURE
            if path.exists():
                say(console, f"Groups:  {path}")


def report(
    scene_dir: tyro.conf.Positional[Path], more: tyro.conf.Positional[Tuple[Path, ...]] = (), run: Optional[str] = None
) -> None:
    """Write report.html, results.md and results.json of a scene's finished runs.

    For several scenes it also writes one table, with means, to their common folder. Scenes that cannot be reported
    are left out, and named at the end.

    Args:
        scene_dir: Folder of the scene's results, such as outputs/lego.
        more: Folders of further scenes.
        run: Name of the runs to report, such as quick-seed42; by default the latest of each scene.
    """
    from dac_nerfstudio.report.writing import report_scenes

    report_scenes([scene_dir, *more], run, Console())


def render(
    scene_dir: tyro.conf.Positional[Path],
    what: Tuple[Literal["strips", "experts", "wipe", "orbit"], ...] = (),
    frames: int = 60,
    scale: Optional[float] = None,
    run: Optional[str] = None,
    data: Optional[Path] = None,
) -> None:
    """Make pictures of a scene's finished runs: animations, videos, strips and a mosaic.

    They are written to pictures/ in the scene's folder of results. gain.png and loss.png show the test views with the
    student's largest gain and largest loss: photo, baseline, student and errors, whole and enlarged. experts.png shows
    a view of each group as every expert renders it. wipe and orbit (.webp below 2 MB, .mp4) compare baseline and
    student: in one view with a moving seam, and side by side on a flight past the test cameras.

    An orbit of 60 frames takes 120 images of 400 x 400 pixels, each some seconds on a CPU. A quick look:
    dac render outputs/demo --what orbit --frames 24 --scale 2

    Args:
        scene_dir: Folder of the scene's results, such as outputs/lego.
        what: Which pictures to make; by default all for which the scene has the runs.
        frames: Frames of each animation, 15 a second.
        scale: Multiple of the photos' resolution; the mosaic has half of it, strips always the photos' own pixels. By
            default the longer side becomes 400 pixels, or at most 800 for larger photos.
        run: Name of the runs to show, such as quick-seed42; by default the latest.
        data: Folder of the scene's photos, if they are no longer where they were at training.
    """
    console = Console()
    _expect_runs(scene_dir)
    if frames < 2:
        raise StageError(f"--frames is {frames}; an animation takes at least 2: --frames 60")
    if scale is not None and not 0 < scale <= 64:
        raise StageError(f"--scale is {scale:g}; expected a number above 0 and up to 64.")
    try:
        with warnings.catch_warnings():
            # They warn each other, at import and in the middle of a progress bar, of what no user can change.
            warnings.filterwarnings("ignore", module="nerfstudio|torch")
            from dac_nerfstudio.render.pictures import show
            from dac_nerfstudio.render.scene import open_scene

            with console.status("Opening the scene …"):
                opened = open_scene(scene_dir, run, data)
            show(opened, pictures_folder(scene_dir), what, frames, scale, console)
    except KeyboardInterrupt:
        console.print("Stopped. Pictures that were finished before are whole.")
        sys.exit(130)


def export(scene_dir: tyro.conf.Positional[Path], file: tyro.conf.Positional[Path], run: Optional[str] = None) -> None:
    """Pack a scene's student, its configuration and its report into a zip file, with instructions for use elsewhere.

    Args:
        scene_dir: Folder of the scene's results, such as outputs/lego.
        file: The zip file to write.
        run: Name of the runs, such as quick-seed42; by default the latest.
    """
    from dac_nerfstudio.report.export import export as pack

    pack(scene_dir, file, run)
    say(Console(), f"Packed:  {file} ({size(file.stat().st_size)})")


def view(
    scene_dir: tyro.conf.Positional[Path],
    run: Optional[str] = None,
    data: Optional[Path] = None,
    port: int = 7007,
    host: str = "127.0.0.1",
) -> None:
    """View a scene's student in the browser, with its training cameras in the colours of their groups.

    Ctrl-C quits.

    Args:
        scene_dir: Folder of the scene's results, such as outputs/lego, or a run folder in it, of any method.
        run: Name of the run, such as quick-seed42; by default the latest finished student.
        data: Folder of the scene's photos, if they are no longer where they were at training.
        port: Port of the page, which is http://localhost:7007 by default.
        host: Address to listen at. By default only this machine can see the page, with 0.0.0.0 anyone who can reach it.
    """
    console = Console()
    _expect_runs(scene_dir)
    console.print("Loading nerfstudio, the photos and the model, which may take a minute …")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="nerfstudio|torch|websockets")
            from dac_nerfstudio.render.view import view_scene

            view_scene(scene_dir, run, data, port, host, console)
    except KeyboardInterrupt:  # while it loads
        console.print("Stopped.")
        sys.exit(130)


def _expect_runs(scene_dir: Path) -> None:
    """Say at once, before seconds of imports, that there is nothing to show.

    Raises:
        StageError: the folder holds no runs.
    """
    if not any(scene_dir.rglob(RECORD)):
        raise StageError(f"{scene_dir} holds no runs. Make some: dac run --data FOLDER")


def check(
    data: Optional[Path] = None,
    thorough: bool = False,
    downscale: Optional[int] = None,
    skip_missing: bool = False,
    fetch_lpips: bool = False,
    lpips_file: Optional[Path] = None,
) -> None:
    """Check this machine, and say how to install what is missing; or check a scene.

    Args:
        data: Folder of a scene: open every photo and check every pose, as dac split and dac run do first, and list
            everything that is wrong.
        thorough: Decode its photos to their last byte.
        downscale: Take real photos from images_<number> beside images, which are smaller by this factor.
        skip_missing: Ignore listed photos that do not exist.
        fetch_lpips: Before checking, download the weights of LPIPS (torchvision's AlexNet, 244 MB).
        lpips_file: Before checking, copy these weights from a file.
    """
    from dac_nerfstudio import check as looking

    console = Console()
    if fetch_lpips or lpips_file is not None:
        place = looking.fetch_lpips(lpips_file)
        say(console, f"The weights of LPIPS are now at {place}.")
    with console.status(literally("Importing nerfstudio …" if data is None else f"Looking at {data} …")):
        if data is None:
            found = looking.findings()
        else:
            found = looking.scene_findings(data, thorough, skip_missing, downscale)
    for finding in found:
        mark = {"good": ("✓", "green"), "optional": ("–", "yellow"), "bad": ("✗", "red")}[finding.state]
        say(console, mark, f" {finding.text}")
    if any(finding.state == "bad" for finding in found):
        sys.exit(1)


def demo(output_dir: Path = Path("outputs"), data: Path = Path("data/dac-demo"), seed: int = 42) -> None:
    """Generate a small scene, run everything on it, and make pictures of the result. Takes minutes on a CPU.

    Args:
        output_dir: Folder of all results.
        data: Where to put the scene.
        seed: Seed of the training.
    """
    from rich.progress import Progress

    from dac_nerfstudio.demo import make_demo_scene

    with Progress() as progress:
        task = progress.add_task("Making the scene")
        try:
            make_demo_scene(data, progress=lambda done, total: progress.update(task, completed=done, total=total))
        except ValueError as error:
            raise StageError(str(error)) from None
        progress.update(task, completed=1, total=1)
    run((data,), preset="demo", output_dir=output_dir, scene="demo", seed=seed, devices="cpu,cpu", video=False)
    # In the place of a video as small as the photos: the models are continuous.
    render(output_dir / "demo", frames=30, scale=3.0)


COMMANDS: Dict[str, Callable[..., None]] = {
    "split": split,
    "run": run,
    "report": report,
    "render": render,
    "view": view,
    "export": export,
    "demo": demo,
    "check": check,
}


def _without_none(taker: Callable[..., Any]) -> None:
    """Keep None and empty defaults out of the help: a flag's text says what happens without it."""
    hints = get_type_hints(taker, include_extras=True)
    for name, parameter in inspect.signature(taker).parameters.items():
        if parameter.default in (None, ()):
            metavar = _metavar(hints[name]) if get_origin(hints[name]) is Union else None
            hints[name] = Annotated[hints[name], tyro.conf.arg(metavar=metavar, help_behavior_hint="")]
    taker.__annotations__ = hints


def _metavar(optional: Any) -> str:
    """What stands for a value in the help: the types of an optional flag but None."""
    kinds = [kind for kind in get_args(optional) if kind is not type(None)]
    return "|".join(f"{{{','.join(get_args(kind))}}}" if get_args(kind) else kind.__name__.upper() for kind in kinds)


def main() -> None:
    """Entry of the command ``dac``."""
    # torch and nerfstudio warn each other at import of what no user of this command can change.
    warnings.filterwarnings("ignore", category=FutureWarning)
    if sys.argv[1:] == ["--version"]:
        from importlib.metadata import version

        print(f"dac-nerfstudio {version('dac-nerfstudio')}")
        return
    for command in COMMANDS.values():  # tyro keeps the line breaks in a flag's text
        command.__doc__ = re.sub(r"\n {12}", " ", command.__doc__ or "")
        _without_none(command)
    _without_none(SlurmOptions)
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="dac", description=__doc__)
    except (UserError, OSError) as error:
        say(Console(stderr=True), ("Error:", "bold red"), f" {in_a_line(error)}")
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. The same command goes on from here.")
        sys.exit(130)


if __name__ == "__main__":
    main()
