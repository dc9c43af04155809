"""What ``dac run`` has to do, as a list of stages. No torch and no nerfstudio: planning is instant."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Dict, List, Literal, Mapping, Optional, Sequence, Tuple

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.layout import run_folder
from dac_nerfstudio.partition import Partition, current_partition, divide, find_model, read_views
from dac_nerfstudio.partition.reading import IMAGE_SUFFIXES
from dac_nerfstudio.presets import PRESETS

Only = Literal["split", "trunk", "experts", "ensemble", "distill", "finetune", "baseline", "evaluate", "video"]


@dataclass(frozen=True)
class Job:
    """One stage: a training by ``ns-train``, or what belongs around it."""

    name: str
    kind: Literal["split", "train", "evaluate", "video", "examine"]
    run_dir: Path
    """Where its result lies."""
    method: str = ""
    flags: Tuple[str, ...] = ()
    """Of ``ns-train`` and this method."""
    needs: Tuple[str, ...] = ()
    """Names of the jobs that have to succeed first."""
    score_most: int = 0
    """Once trained, score up to so many test views."""

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
    partition: Optional[Path] = None
    """Of ready experts: the scene's first partition, if it has none yet."""


def scene_suffix(data: Path) -> str:
    """Which kind of methods a data folder wants: '' for bounded scenes, '-360' for real ones.

    Raises:
        StageError: the folder is not there or of no known layout.
    """
    if not data.exists():
        raise StageError(f"There is no data at {data}. Name a scene's folder: --data PATH")
    if (data / "transforms_train.json").exists():
        return ""
    if data.name == "transforms.json" or (data / "transforms.json").exists() or find_model(data):
        return "-360"
    if data.name == "transforms_train.json":
        raise StageError(f"Name the scene's folder instead of the file: --data {data.parent}")
    found = ", ".join(sorted(path.name for path in data.iterdir())[:6]) if data.is_dir() else "a file"
    raise StageError(
        f"{data} holds {found or 'nothing'}; expected transforms_train.json (a scene in Blender's format), "
        "transforms.json (nerfstudio's; ns-process-data makes it from photos) or a COLMAP model in colmap/sparse/0 or "
        "sparse/0."
    )


def data_parser(data: Path, suffix: str, downscale: Optional[int]) -> Tuple[str, ...]:
    """The data parser and its flags, at the end of a command of ``ns-train``; none where the method's own will do.

    Raises:
        StageError: there are no photos of that size.
    """
    if not suffix:
        if downscale is not None:
            raise StageError("--downscale is for real photos; a scene in Blender's format has one size of images.")
        return ()
    folder = data.parent if data.is_file() else data
    # nerfstudio would ask on the console whether to make them.
    if downscale not in (None, 1) and not (folder / f"images_{downscale}").is_dir():
        sizes = (
            ", ".join(sorted(path.name for path in folder.glob("images*") if path.is_dir())) or "no folder of images"
        )
        raise StageError(f"{folder} has {sizes}, but no images_{downscale}. Choose another --downscale, or make it.")
    flags = () if downscale is None else ("--downscale-factor", str(downscale))
    if data.is_file() or (data / "transforms.json").exists():
        return ("nerfstudio-data", *flags) if flags else ()
    model = find_model(data)
    assert model is not None
    if downscale is None:
        _refuse_large_photos(folder)
    return ("colmap", "--colmap-path", str(model.relative_to(data)), *flags)


LARGEST_SIDE = 1600
"""Pixels. Of a COLMAP model's photos with a longer side nerfstudio takes smaller ones, by a power of two."""


def _refuse_large_photos(folder: Path) -> None:
    """Find out before anything long that nerfstudio would ask on the console whether to make smaller photos.

    Raises:
        StageError: the photos are large and smaller ones are not there.
    """
    from PIL import Image

    images = folder / "images"
    first = next((path for path in sorted(images.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES), None)
    try:
        with Image.open(first or images) as photo:
            side = max(photo.size)
    except OSError:
        return  # reading the views will say what is wrong with the photos
    factor = 1
    while side / factor > LARGEST_SIDE:
        factor *= 2
    if factor > 1 and not (folder / f"images_{factor}").is_dir():
        raise StageError(
            f"The photos in {images} have {side} pixels on their longer side. nerfstudio takes smaller ones where that "
            f"is more than {LARGEST_SIDE}, here from images_{factor}, which is not there. To take them as they are, "
            f"which wants more memory and more steps: --downscale 1. To take smaller ones: put them, 1/{factor} of the "
            f"size and of the same names, into {folder / f'images_{factor}'}."
        )


def divide_settings(before: Optional[Partition], asked: Dict[str, Any], softness: float) -> Dict[str, Any]:
    """With which settings to divide: what is asked for now, else what was asked for before, else the preset's.

    Args:
        before: the scene's partition, if it has one.
        asked: settings asked for now.
        softness: the preset's.
    """
    settings: Dict[str, Any] = {"softness": softness}
    if before is not None:
        made = {name: before.settings[name] for name in ("groups", "overlap", "softness")}
        settings = {**made, **before.asked}
    # The two exclude each other: the one asked for now wins.
    if asked.get("overlap"):
        settings.pop("softness", None)
    if asked.get("softness"):
        settings.pop("overlap", None)
    return {**settings, **asked}


def count_groups(data: Path, scene_dir: Path, asked: Dict[str, Any]) -> int:
    """How many experts there will be: a question of the views where the number is to be found out or cannot be met."""
    before = current_partition(scene_dir)
    if before is not None and before.satisfies(asked):
        return before.num_groups
    return divide(read_views(data), **divide_settings(before, asked, 0.0)).num_groups


def partition_of(experts: Sequence[Path], asked: Dict[str, Any]) -> Path:
    """The file of the partition that ready experts were trained for, each of which keeps a copy.

    Args:
        experts: their run folders.
        asked: settings of a division that were asked for.

    Raises:
        StageError: they were trained for several, or for one with other settings.
        PartitionError: a copy is gone or damaged.
    """
    paths = [run_folder(path) / "partition.json" for path in experts]
    partitions = [Partition.load(path) for path in paths]
    for path, partition in zip(paths, partitions):
        if partition.fingerprint != partitions[0].fingerprint:
            raise StageError(f"The experts were trained for different partitions: {paths[0]} and {path}.")
    if not partitions[0].satisfies(asked):
        raise StageError(
            f"The experts' partition, {paths[0]}, was not made with what was asked for: "
            f"{', '.join(f'{name} {value}' for name, value in asked.items())}. Leave it out, or train other experts."
        )
    return paths[0]


def make_plan(
    data: Path,
    output_dir: Path,
    scene: str,
    preset: str,
    divide: Dict[str, Any],
    downscale: Optional[int],
    baseline: bool,
    video: bool,
    device: str,
    seed: int,
    only: Optional[Only],
    experts: Tuple[Path, ...],
    flags: Mapping[str, Tuple[str, ...]] = MappingProxyType({}),
) -> Plan:
    """Lay out the jobs of a scene. Parameters are those of ``dac run``; ``divide`` has those of ``dac split``, None for
    what was not asked for, ``flags`` those of `read_flags`.

    Raises:
        StageError: the data is of no known layout, its photos are not of a usable size, the experts do not belong
            together, or the one stage asked for is none of the preset's.
        PartitionError: the number of groups is to be found out, and the views cannot be read.
    """
    recipe = PRESETS[preset]
    suffix, scene_dir, run = scene_suffix(data), output_dir / scene, f"{preset}-seed{seed}"
    asked = {name: value for name, value in divide.items() if value is not None}
    parser = data_parser(data, suffix, downscale)
    # Where nothing is divided yet, ready experts say how it was.
    undivided = only != "evaluate" and current_partition(scene_dir) is None
    partition = partition_of(experts, asked) if experts and undivided else None
    common = (
        *("--data", str(data), "--output-dir", str(output_dir), "--experiment-name", scene, "--timestamp", run),
        *("--vis", "tensorboard", "--machine.device-type", device, "--machine.seed", str(seed)),
        *recipe.flags,
        *(recipe.real_flags if suffix else ()),
    )

    def job(name: str, stage: str, own: Tuple[str, ...] = (), needs: Tuple[str, ...] = (), group: int = 0) -> Job:
        method = f"dac-{stage}{suffix}"
        folder = scene_dir / method / (f"group-{group}" if group else "") / run
        changed = (*flags.get("all", ()), *flags.get(f"dac-{stage}", ()))
        return Job(
            name, "train", folder, method, (*own, *common, *recipe.schedule(stage), *changed, *parser), needs,
            0 if stage in ("ensemble", "trunk") else recipe.score_most,
        )  # fmt: skip

    jobs: List[Job] = [Job("split", "split", scene_dir, f"dac-baseline{suffix}", (*common, *parser))]
    if not experts:
        start: Tuple[str, ...] = ()
        if "trunk" in recipe.steps:
            jobs.append(job("trunk", "trunk", needs=("split",)))
            start = ("--trunk", str(jobs[-1].run_dir))
        before, numbers = tuple(job.name for job in jobs), range(1, count_groups(data, scene_dir, asked) + 1)
        jobs += [job(f"expert {group}", "expert", ("--group", str(group), *start), before, group) for group in numbers]
    teachers = tuple(job.name for job in jobs if job.name.startswith("expert "))
    # This run's own experts, not whichever are the latest.
    named = ("--experts", *map(str, experts or [job.run_dir for job in jobs if job.name in teachers]))
    student = scene_dir / f"dac-distill{suffix}" / run
    jobs += [
        job("ensemble", "ensemble", named, ("split", *teachers)),
        job("distill", "distill", named, ("split", *teachers)),
        job("finetune", "finetune", ("--student", str(student)), ("distill",)),
    ]
    if baseline or only in ("baseline", "evaluate"):
        jobs.append(job("baseline", "baseline", needs=("split",)))
    if video or only == "video":
        jobs.append(Job("video", "video", scene_dir / f"dac-finetune{suffix}" / run, "", needs=("finetune",)))
    if only == "evaluate":
        named_runs = [
            replace(job(f"expert {number}", "expert"), run_dir=run_folder(path))
            for number, path in enumerate(experts, 1)
        ]
        runs = named_runs or [job for job in jobs if job.score_most and (job.run_dir / "stage.json").exists()]
        if not runs:
            raise StageError(f"There is nothing to score in {scene_dir}. Train first: dac run --data {data}")
        jobs = [replace(job, kind="evaluate", name=f"evaluate {job.name}", needs=()) for job in runs]
    elif only is not None:
        alone = ("trunk", *teachers) if only == "experts" else (only,)
        wanted = [job for job in jobs if job.name in alone]
        if only == "trunk" and not wanted:
            why = "the experts are there" if experts else f"with the preset {preset} experts start from scratch"
            raise StageError(f"There is no trunk to train: {why}.")
        kept = {job.name for job in wanted} | {"split"}
        jobs = [replace(job, needs=tuple(n for n in job.needs if n in kept)) for job in jobs if job.name in kept]
    return Plan(scene_dir, asked, recipe.softness, tuple(jobs), partition)
