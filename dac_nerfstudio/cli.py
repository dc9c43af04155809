"""Divide and Conquer training of neural radiance fields: divide views, run the whole pipeline, report."""

# Everything heavy is imported inside the commands: help has to be instant.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, Optional, Tuple

import tyro
from rich.console import Console
from rich.markup import escape

from dac_nerfstudio.partition import PartitionError
from dac_nerfstudio.run.plan import Only
from dac_nerfstudio.run.presets import PRESETS
from dac_nerfstudio.stage import StageError


def _scene_name(data: Path, scene: Optional[str]) -> str:
    folder = data.parent if data.suffix == ".json" else data
    return scene or folder.resolve().stem


def split(
    data: Path,
    groups: int = 4,
    strategy: Literal["azimuth"] = "azimuth",
    overlap: float = 0.0,
    softness: float = 0.0,
    output_dir: Path = Path("outputs"),
    scene: Optional[str] = None,
) -> None:
    """Divide a scene's training views into groups, and draw a picture of it.

    Args:
        data: Folder of the scene: Blender format (transforms_train.json) or nerfstudio's (transforms.json).
        groups: Number of groups.
        strategy: How to divide. Azimuth cuts the circle around the up axis into equal sectors.
        overlap: Every group also takes this share of its size in nearest views of other groups.
        softness: Share of an expert's rays that come from other groups' views.
        output_dir: Where results go.
        scene: Folder of the scene below it; by default the data folder's name.
    """
    from dac_nerfstudio.partition import divide, plot_partition, publish, read_views

    partition = divide(read_views(data), groups, strategy, overlap, softness)
    scene_dir = output_dir / _scene_name(data, scene)
    path = publish(partition, scene_dir)
    plot_partition(partition, scene_dir / "partition.png")
    console = Console()
    for group in range(1, partition.num_groups + 1):
        console.print(f"group {group}: {len(partition.members(group))} views")
    console.print(f"Partition: {path}\nPicture:   {scene_dir / 'partition.png'}", highlight=False, soft_wrap=True)


def run(
    data: Path,
    preset: Optional[Literal["reference", "quick", "demo"]] = None,
    groups: Optional[int] = None,
    overlap: Optional[float] = None,
    softness: Optional[float] = None,
    output_dir: Path = Path("outputs"),
    scene: Optional[str] = None,
    seed: int = 42,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    baseline: bool = True,
    video: bool = True,
    only: Optional[Only] = None,
    experts: Tuple[Path, ...] = (),
    dry_run: bool = False,
) -> None:
    """Do everything: divide, train the experts, distil, fine-tune, train the baseline, score the test views.

    What is finished is kept, what was interrupted goes on: run it again after any mishap.

    Args:
        data: Folder of the scene: Blender format (transforms_train.json) or nerfstudio's (transforms.json).
        preset: Recipe: 'reference' is the paper's and wants a GPU, 'quick' suits a CPU. By default the one that suits
            this machine.
        groups: Number of groups; by default those of the scene's partition, or 4.
        overlap: Every group also takes this share of its size in nearest views of other groups.
        softness: Share of an expert's rays that come from other groups' views; by default the preset's.
        output_dir: Where results go.
        scene: Folder of the scene below it; by default the data folder's name.
        seed: Of everything random.
        device: Where to train.
        baseline: Also train the baseline, for as many steps as the student gets.
        video: Render a short flight with the student.
        only: Do this alone, from what is already there.
        experts: Run folders of ready experts, one per group, instead of training them.
        dry_run: Print the commands instead of running them.
    """
    from dac_nerfstudio.run.local import run_plan
    from dac_nerfstudio.run.plan import make_plan

    console = Console()
    if device == "auto":
        from dac_nerfstudio.device import default_device

        device = default_device()
    if preset is None:
        preset = "reference" if device == "cuda" else "quick"
        console.print(f"Preset {preset} ({PRESETS[preset].description}); choose another with --preset.")
    plan = make_plan(
        data, output_dir, _scene_name(data, scene), preset, groups, overlap, softness, baseline, video, device, seed,
        only, experts,
    )  # fmt: skip
    if dry_run:
        for job in plan.jobs:
            told = job.command if job.kind == "train" else job.kind
            console.print(f"[bold]{job.name}[/]: {escape(told)}", soft_wrap=True)
        return
    if not run_plan(plan, console):
        sys.exit(1)
    if any(job.score_every for job in plan.jobs):
        report(plan.scene_dir, run=f"{preset}-seed{seed}")
    console.print(f"Groups:  {plan.scene_dir / 'partition.png'}", highlight=False, soft_wrap=True)
    if any(job.kind == "video" for job in plan.jobs):
        console.print(f"Video:   {plan.scene_dir / 'report' / 'video.mp4'}", highlight=False, soft_wrap=True)


def report(scene_dir: tyro.conf.Positional[Path], run: Optional[str] = None) -> None:
    """Table and results.json of a scene's finished runs.

    Args:
        scene_dir: Results of the scene, such as outputs/lego.
        run: Name of the runs to report, such as quick-seed42; by default the latest.
    """
    from dac_nerfstudio.report.results import gather, latest_run, save, table

    results = gather(scene_dir, run or latest_run(scene_dir))
    console = Console()
    console.print(table(results))
    console.print(f"Results: {save(results, scene_dir)}", highlight=False, soft_wrap=True)


def check() -> None:
    """Look whether this machine has what the commands need, and say what to do where it has not."""
    from dac_nerfstudio.check import findings

    console = Console()
    with console.status("Importing nerfstudio …"):
        found = findings()
    for finding in found:
        mark = {"good": "[green]✓[/]", "optional": "[yellow]–[/]", "bad": "[red]✗[/]"}[finding.state]
        console.print(f"{mark} {finding.text}", highlight=False, soft_wrap=True)
    if any(finding.state == "bad" for finding in found):
        sys.exit(1)


def demo(output_dir: Path = Path("outputs"), data: Path = Path("data/dac-demo"), seed: int = 42) -> None:
    """Generate a small scene and run everything on it. Minutes on a CPU.

    Args:
        output_dir: Where results go.
        data: Where the scene is put.
        seed: Of the training.
    """
    from rich.progress import Progress

    from dac_nerfstudio.scenes import make_demo_scene

    with Progress() as progress:
        task = progress.add_task("Making the scene")
        try:
            make_demo_scene(data, progress=lambda done, total: progress.update(task, completed=done, total=total))
        except ValueError as error:
            raise StageError(str(error)) from None
        progress.update(task, completed=1, total=1)
    run(data, preset="demo", output_dir=output_dir, scene="demo", seed=seed, device="cpu")


def main() -> None:
    """Entry of the command ``dac``."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"split": split, "run": run, "report": report, "demo": demo, "check": check},
            prog="dac",
            description=__doc__,
        )
    except (PartitionError, StageError) as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped. The same command goes on from here.")
        sys.exit(130)


if __name__ == "__main__":
    main()
