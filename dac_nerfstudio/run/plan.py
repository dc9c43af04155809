"""What ``dac run`` has to do, as a list of stages. No torch and no nerfstudio: planning is instant."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Tuple

from dac_nerfstudio.partition import Partition
from dac_nerfstudio.run.presets import PRESETS, Preset
from dac_nerfstudio.stage import StageError

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
    score_every: int = 0
    """Once trained, score one test view in so many; 0 scores none."""

    @property
    def command(self) -> str:
        """What to type to do the same by hand."""
        return shlex.join(("ns-train", self.method, *self.flags))


@dataclass(frozen=True)
class Plan:
    """All jobs of a scene in an order in which they can be done."""

    scene_dir: Path
    divide: Dict[str, Any]
    """Settings asked for: the views are divided again where the scene's partition has others."""
    softness: float
    """Of a first partition, if none was asked for."""
    jobs: Tuple[Job, ...]


def scene_suffix(data: Path) -> str:
    """Which kind of methods a data folder wants: '' for bounded scenes, '-360' for real ones.

    Raises:
        StageError: the folder is not there or of no known layout.
    """
    if not data.exists():
        raise StageError(f"There is no data at {data}. Name a scene's folder: --data PATH")
    if (data / "transforms_train.json").exists():
        return ""
    if data.name == "transforms.json" or (data / "transforms.json").exists():
        return "-360"
    if data.name == "transforms_train.json":
        raise StageError(f"Name the scene's folder instead of the file: --data {data.parent}")
    found = ", ".join(sorted(path.name for path in data.iterdir())[:6]) if data.is_dir() else "a file"
    raise StageError(
        f"{data} holds {found or 'nothing'}; expected transforms_train.json (a scene in Blender's format) or "
        "transforms.json (nerfstudio's; ns-process-data makes it from photos)."
    )


def current_groups(scene_dir: Path) -> Optional[int]:
    """Number of groups of the scene's partition, if it has one."""
    path = scene_dir / "partition.json"
    return Partition.load(path).num_groups if path.exists() else None


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
        StageError: the data is of no known layout.
    """
    recipe = PRESETS[preset]
    suffix, scene_dir, run = scene_suffix(data), output_dir / scene, f"{preset}-seed{seed}"
    asked = {"groups": groups, "overlap": overlap, "softness": softness}
    asked = {name: value for name, value in asked.items() if value is not None}
    count = groups if groups is not None else current_groups(scene_dir) or 4
    common = (
        *("--data", str(data), "--output-dir", str(output_dir), "--experiment-name", scene, "--timestamp", run),
        *("--vis", "tensorboard", "--machine.device-type", device, "--machine.seed", str(seed)),
        *recipe.flags,
    )

    def job(name: str, stage: str, flags: Tuple[str, ...] = (), needs: Tuple[str, ...] = (), group: int = 0) -> Job:
        method = f"dac-{stage}{suffix}"
        folder = scene_dir / method / (f"group-{group}" if group else "") / run
        return Job(
            name, "train", folder, method, (*flags, *common, *_steps(recipe, stage)), needs,
            0 if stage == "ensemble" else recipe.score_every,
        )  # fmt: skip

    jobs: List[Job] = [Job("split", "split", scene_dir, f"dac-baseline{suffix}", common)]
    if not experts:
        numbers = range(1, count + 1)
        jobs += [job(f"expert {group}", "expert", ("--group", str(group)), ("split",), group) for group in numbers]
    teachers = tuple(job.name for job in jobs if job.name != "split")
    # This run's own experts, not whichever are the latest.
    named = ("--experts", *map(str, experts or [job.run_dir for job in jobs if job.name in teachers]))
    student = scene_dir / f"dac-distill{suffix}" / run
    jobs += [
        job("ensemble", "ensemble", named, ("split", *teachers)),
        job("distill", "distill", named, ("split", *teachers)),
        job("finetune", "finetune", ("--student", str(student)), ("distill",)),
    ]
    if baseline or only == "baseline":
        jobs.append(job("baseline", "baseline", needs=("split",)))
    if video or only == "video":
        jobs.append(Job("video", "video", scene_dir / f"dac-finetune{suffix}" / run, "", needs=("finetune",)))
    if only is not None:
        wanted = [job for job in jobs if job.name == only or (only == "experts" and job.name.startswith("expert "))]
        kept = {job.name for job in wanted} | {"split"}
        jobs = [replace(job, needs=tuple(n for n in job.needs if n in kept)) for job in jobs if job.name in kept]
    return Plan(scene_dir, asked, recipe.softness, tuple(jobs))


def _steps(recipe: Preset, stage: str) -> Tuple[str, ...]:
    if recipe.steps is None or stage == "ensemble":
        return ()
    steps = recipe.steps.get(stage, recipe.steps["distill"] + recipe.steps["finetune"])
    return ("--max-num-iterations", str(steps))
