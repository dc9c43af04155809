"""What ``dac run`` has to do, as a list of stages. No torch and no nerfstudio: planning is instant."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import List, Literal, Optional, Tuple

from dac_nerfstudio.run.presets import PRESETS, Preset

Only = Literal["split", "experts", "ensemble", "distill", "finetune", "baseline", "video"]


@dataclass(frozen=True)
class Job:
    """One stage: a training by ``ns-train``, or what belongs around it."""

    name: str
    kind: Literal["split", "train", "video"]
    run_dir: Path
    """Where its result lies."""
    method: str
    flags: Tuple[str, ...] = ()
    """Of ``ns-train`` and this method."""
    needs: Tuple[str, ...] = ()
    """Names of the jobs that have to succeed first."""
    evaluate: bool = True
    """Score the test views once trained."""

    @property
    def command(self) -> str:
        """What to type to do the same by hand."""
        return shlex.join(("ns-train", self.method, *self.flags))


@dataclass(frozen=True)
class Plan:
    """All jobs of a scene in an order in which they can be done."""

    scene_dir: Path
    groups: int
    divide: dict
    """Settings to divide the views with, if the scene's partition has others or there is none."""
    jobs: Tuple[Job, ...]


def scene_suffix(data: Path) -> str:
    """Which kind of methods a data folder wants: '' for bounded scenes, '-360' for real ones.

    Raises:
        ValueError: the folder is not there or of no known layout.
    """
    if not data.exists():
        raise ValueError(f"There is no data at {data}. Name a scene's folder: --data PATH")
    if data.name == "transforms.json" or (data / "transforms.json").exists():
        return "-360"
    if (data / "transforms_train.json").exists():
        return ""
    found = ", ".join(sorted(path.name for path in data.iterdir())[:6]) if data.is_dir() else "a file"
    raise ValueError(
        f"{data} holds {found or 'nothing'}; expected transforms_train.json (a scene in Blender's format) or "
        "transforms.json (nerfstudio's; ns-process-data makes it from photos)."
    )


def current_groups(scene_dir: Path) -> Optional[int]:
    """Number of groups of the scene's partition, if it has one."""
    try:
        return int(json.loads((scene_dir / "partition.json").read_text("utf8"))["settings"]["groups"])
    except FileNotFoundError:
        return None


def make_plan(
    data: Path,
    output_dir: Path,
    scene: str,
    preset: str,
    groups: Optional[int],
    overlap: Optional[float],
    softness: Optional[float],
    baseline: bool,
    video: bool,
    device: str,
    seed: int,
    only: Optional[Only],
    experts: Tuple[Path, ...],
) -> Plan:
    """Lay out the jobs of a scene. Parameters are those of ``dac run``.

    Raises:
        ValueError: the data is of no known layout.
    """
    recipe = PRESETS[preset]
    suffix, scene_dir, run = scene_suffix(data), output_dir / scene, f"{preset}-seed{seed}"
    groups = groups or current_groups(scene_dir) or 4
    common = (
        *("--data", str(data), "--output-dir", str(output_dir), "--experiment-name", scene, "--timestamp", run),
        *("--vis", "tensorboard", "--machine.device-type", device, "--machine.seed", str(seed)),
        *recipe.flags,
    )

    def job(name: str, stage: str, flags: Tuple[str, ...] = (), needs: Tuple[str, ...] = (), group: int = 0) -> Job:
        method = f"dac-{stage}{suffix}"
        folder = scene_dir / method / (f"group-{group}" if group else "") / run
        return Job(
            name, "train", folder, method, (*flags, *common, *_steps(recipe, stage)), needs, stage != "ensemble"
        )  # fmt: skip

    teachers = () if experts else tuple(f"expert {group}" for group in range(1, groups + 1))
    named = ("--experts", *map(str, experts)) if experts else ()
    jobs: List[Job] = [Job("split", "split", scene_dir, f"dac-baseline{suffix}", common, evaluate=False)]
    if not experts:
        jobs += [
            job(name, "expert", ("--group", str(group)), ("split",), group) for group, name in enumerate(teachers, 1)
        ]
    student = scene_dir / f"dac-distill{suffix}" / run
    jobs += [
        job("ensemble", "ensemble", named, ("split", *teachers)),
        job("distill", "distill", (*named, *recipe.distill_flags), ("split", *teachers)),
        job("finetune", "finetune", ("--student", str(student), *recipe.finetune_flags), ("distill",)),
    ]
    if baseline or only == "baseline":
        jobs.append(job("baseline", "baseline", needs=("split",)))
    if video or only == "video":
        jobs.append(Job("video", "video", scene_dir / f"dac-finetune{suffix}" / run, "", needs=("finetune",)))
    if only is not None:
        wanted = [job for job in jobs if job.name == only or (only == "experts" and job.name.startswith("expert "))]
        kept = {job.name for job in wanted} | {"split"}
        jobs = [
            Job(j.name, j.kind, j.run_dir, j.method, j.flags, tuple(n for n in j.needs if n in kept), j.evaluate)
            for j in jobs
            if j.name in kept
        ]
    divide = {
        "groups": groups,
        "overlap": overlap or 0.0,
        "softness": recipe.softness if softness is None else softness,
    }
    return Plan(scene_dir, groups, divide, tuple(jobs))


def _steps(recipe: Preset, stage: str) -> Tuple[str, ...]:
    if recipe.steps is None or stage == "ensemble":
        return ()
    steps = recipe.steps.get(stage, recipe.steps["distill"] + recipe.steps["finetune"])
    return ("--max-num-iterations", str(steps))
