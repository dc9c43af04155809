"""What a run is made from: data, partition, and other runs. Resolving finds and checks it, and writes nothing.

Cameras take one way from the data to a group:

* nerfstudio's data parser says which views are trained on;
* these views are divided, once for a scene, or are those of its current partition;
* a copy of that partition lies in the run's folder. It is the one that data manager, evaluation and rendering read.
"""

from __future__ import annotations

import zlib
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from nerfstudio.utils.rich_utils import CONSOLE

from dac_nerfstudio.errors import PartitionError, StageError
from dac_nerfstudio.kplanes.decoders import resolve_implementation
from dac_nerfstudio.kplanes.model import RADIUS
from dac_nerfstudio.messages import say
from dac_nerfstudio.naming import UNBOUNDED, MethodName
from dac_nerfstudio.partition import Partition, Views, check_views, divide
from dac_nerfstudio.runs.layout import PARTITION, latest_checkpoint
from dac_nerfstudio.runs.record import Stage, versions
from dac_nerfstudio.runs.settings import GEOMETRY, SHAPE, model_settings, rebuild_config
from dac_nerfstudio.runs.store import Run, find, why_not
from dac_nerfstudio.sampling.hashing import key_of
from dac_nerfstudio.teachers.finished_runs import fingerprint_of, folder_of
from dac_nerfstudio.training.inputs import Inputs
from dac_nerfstudio.training.scene_radius import scene_radius
from dac_nerfstudio.training.validation import validate

TAUGHT_SHARE = 0.5
"""Share of the rays that start from new cameras where finished runs teach and nothing else was asked for."""


@dataclass(frozen=True)
class Sources:
    """What a run is made from."""

    config: Any
    """A copy of the run's configuration with all that data and other runs decide."""
    record: Stage
    """The run's record, before its first step."""
    partition: Partition
    """Of the training views."""
    start: Optional[Run] = None
    """The run whose weights and Adam's moments this one goes on from; from scratch without it."""
    teachers: Tuple[Run, ...] = ()
    """Experts in the order of the groups."""


def resolve(given: Any) -> Sources:
    """Find and check all that a run is made from. Its configuration, a `DaCTrainerConfig`, is not changed.

    Raises:
        UserError: something that the user has to correct.
    """
    config = deepcopy(given)
    manager, model, method = config.pipeline.datamanager, config.pipeline.model, MethodName.parse(config.method_name)
    # As ns-train does.
    manager.data = manager.data or config.data
    config.set_timestamp()
    carry_over(config)
    validate(config)
    _check_background(config)
    model.implementation = resolve_implementation(model.implementation, config.machine.device_type == "cuda")
    # Half precision gains speed in tiny-cuda-nn's decoders alone, and costs a scaler in every step.
    config.mixed_precision = config.mixed_precision and model.implementation == "tcnn"
    inputs = Inputs(config)
    views = inputs.read_views()
    partition = find_partition(config, views)
    _find_scene_radius(model, views)
    config.typed_in = Path.cwd()
    manager.partition = config.get_base_dir() / PARTITION
    record = Stage(
        method=str(method),
        scene=str(config.experiment_name),
        settings=_settings(config, inputs.data_digest),
        seed=config.machine.seed,
        total_steps=config.max_num_iterations,
        partition=partition.fingerprint,
        photos=inputs.photos_digest,
        versions=versions(),
    )
    start: Optional[Run] = None
    teachers: Tuple[Run, ...] = ()
    if method.stage == "expert":
        _expert(config, record, partition)
    elif method.stage == "finetune":
        start, teachers = _finetune(config, record, partition)
    elif method.stage == "distill":
        teachers = _teachers(config, record, partition)
    elif method.stage == "ensemble":
        teachers = _ensemble(config, record, partition)
    if start is not None:
        record.first_step = config.pipeline.first_step = start.record.first_step + start.record.steps
    return Sources(config, record, partition, start, teachers)


def carry_over(config: Any) -> None:
    """Copy settings to where they are read: nerfstudio builds schedules, data manager and pipeline from settings of
    their own, and ns-eval has no others."""
    from_scratch = bool(getattr(config, "teachers", ())) and config.student is None
    for group in config.optimizers.values():
        group["scheduler"].max_steps = config.max_num_iterations
        if from_scratch:
            group["scheduler"].begin = 0.0
    if getattr(config.pipeline, "novel_share", 0.0) is None:
        config.pipeline.novel_share = TAUGHT_SHARE if config.teachers else 0.0
    # A stage that follows another must not replay its pixels and jitter.
    manager = config.pipeline.datamanager
    config.pipeline.seed = manager.seed = key_of(config.machine.seed, zlib.crc32(str(config.method_name).encode()))
    manager.group = getattr(config, "group", None)
    manager.sort_by_group = MethodName.parse(config.method_name).stage == "distill"


def check_resumable(source: Path, sources: Sources) -> Stage:
    """The record of an earlier run that this one is to go on from.

    Raises:
        StageError: that one is another run, or one with other settings.
    """
    earlier, record = Stage.load(source), sources.record
    if (earlier.method, earlier.group, earlier.inputs) != (record.method, record.group, record.inputs):
        raise StageError(f"Cannot go on from {source}: it holds {in_words(earlier)}. This run is {in_words(record)}.")
    now = record.compared
    differing = [f"{name} {value}" for name, value in earlier.compared.items() if now.get(name) != value]
    if earlier.seed != record.seed:
        differing.append(f"seed {earlier.seed}")
    if not record.has_photos_of(earlier):
        differing.append(f"photos {earlier.photos}")
    if differing:
        raise StageError(
            f"Cannot go on from {source} with other settings: it was trained with {differing[0]}. Give the same "
            "flags as then, or start anew without --load-dir."
        )
    return earlier


# Data


def _check_background(config: Any) -> None:
    """Let predictions be composited on the colour that the data parser puts photos on.

    Raises:
        StageError: the model knows no such background.
    """
    model = config.pipeline.model
    colour = getattr(config.pipeline.datamanager.dataparser, "alpha_color", None)
    if colour is None or model.background_color != "random":
        return
    if colour not in ("white", "black"):
        raise StageError(
            f"The data parser puts the photos on {colour}, which is no background of the model. Let the photos keep "
            "their alpha: end the command with blender-data --alpha-color None"
        )
    model.background_color = colour
    text = (
        f"The data parser puts the photos on {colour}, which is now the model's background, too. For random "
        "backgrounds let the photos keep their alpha: blender-data --alpha-color None"
    )
    say(CONSOLE, (text, "yellow"))


def find_partition(config: Any, views: Views) -> Partition:
    """The partition that was asked for, or the scene's; a new one if there is none.

    Raises:
        PartitionError: it is of other views or another number of groups, or the views cannot be divided.
    """
    path = config.partition or config.scene_dir / PARTITION
    if config.partition is None and not path.exists():
        return divide(views, groups=config.groups)
    partition = Partition.load(path)
    check_views(partition, views, path)
    if config.groups not in (None, partition.num_groups):
        raise PartitionError(
            f"--groups {config.groups}, but {path} has {partition.num_groups} groups. Divide again: dac split "
            f"--data {config.inputs.data} --groups {config.groups}, or use another --experiment-name."
        )
    return partition


def _find_scene_radius(model: Any, views: Views) -> None:
    """Let the data decide how large the model's box is, if the user has not. All stages of a scene decide alike."""
    if model.scene_radius is None and model.is_contracted:
        model.scene_radius = RADIUS
    elif model.scene_radius is None:
        model.scene_radius, why = scene_radius(views)
        CONSOLE.print(f"scene radius {model.scene_radius}: {why}")


def _settings(config: Any, data_digest: str) -> Dict[str, Any]:
    """All settings that decide the result, as JSON."""
    manager, pipeline = config.pipeline.datamanager, config.pipeline
    settings = {
        "model": model_settings(pipeline.model),
        "rays": manager.train_num_rays_per_batch,
        "resolution": manager.camera_res_scale_factor,
        "data": {**asdict(manager.dataparser), "data": data_digest},
        "optimizers": {
            name: {"optimizer": asdict(group["optimizer"]), "scheduler": asdict(group["scheduler"])}
            for name, group in config.optimizers.items()
        },
        "mixed_precision": config.mixed_precision,
    }
    if manager.skip_missing:
        settings["skip_missing"] = True
    if manager.sort_by_group:
        settings["distillation"] = asdict(pipeline.model.distillation)
    if getattr(pipeline, "novel_share", 0):
        asked = as_text(pipeline.inverse_temperature)
        settings["novel"] = {"share": pipeline.novel_share, "inverse_temperature": asked}
    return as_json(settings)


# Other runs


def _expert(config: Any, record: Stage, partition: Partition) -> None:
    """An expert is made from the photos of its group."""
    groups = partition.num_groups
    if config.group is None or not 1 <= config.group <= groups:
        found = "no group was named" if config.group is None else f"there is no group {config.group}"
        raise StageError(
            f"The views are divided into {groups} groups and {found}. Add --group K, K from 1 to {groups}."
        )
    record.group, record.inputs = config.group, {"partition": partition.fingerprint}


def _finetune(config: Any, record: Stage, partition: Partition) -> Tuple[Optional[Run], Tuple[Run, ...]]:
    """A fine-tuned student is made from the photos, a student, and the experts where they render new views. One that
    other finished runs teach may start from scratch."""
    if config.teachers and config.experts:
        raise StageError("Leave out --teachers or --experts. Experts can be named as --teachers, too.")
    config.teachers = tuple(map(folder_of, config.teachers))
    if config.teachers and config.student is None:
        student = None
    elif config.student is not None:
        student = Run.at(config.student)
    elif MethodName.parse(record.method).model:
        raise StageError("A nerfacto student learns from finished runs alone. Name them: --teachers FOLDER …")
    else:
        method = MethodName.parse(record.method).beside("distill")
        runs = [run for run in find(config.scene_dir, method) if run.record.complete]
        if not runs:
            raise StageError(
                f"No finished {method} in {config.scene_dir} to start from. Make it: ns-train {method} --data …, or "
                "name one: --student FOLDER"
            )
        # The latest of this partition; failing that the latest, which is refused with its partition's name.
        student = next((run for run in runs if run.record.partition == partition.fingerprint), runs[0])
    if student is not None:
        problem = why_not(student, ("distill", "finetune"), record, partition=True, shared=SHAPE)
        if problem:
            raise StageError(problem)
        latest_checkpoint(student.folder)  # there is one
        config.student, record.inputs = student.folder, {"student": student.record.fingerprint}
    share = config.pipeline.novel_share
    if not 0 <= share <= 1:
        raise StageError(f"--pipeline.novel-share is {share}; expected a number from 0 to 1.")
    if config.teachers and not share:
        raise StageError(
            "Finished runs teach at new cameras alone, and there are none. Leave out --pipeline.novel-share, or leave "
            "out --teachers."
        )
    if config.teachers:
        record.inputs.update({f"teacher-{n}": fingerprint_of(run) for n, run in enumerate(config.teachers, start=1)})
        return student, ()
    if share:
        return student, _teachers(config, record, partition)
    if config.experts:
        raise StageError(
            "In fine-tuning experts teach at new cameras alone, and there are none. Add --pipeline.novel-share "
            "0.25, or leave out --experts."
        )
    return student, ()


def _ensemble(config: Any, record: Stage, partition: Partition) -> Tuple[Run, ...]:
    """An ensemble is made from the experts of all groups; near, far and background are theirs, which they share."""
    model = config.pipeline.model
    runs = [Run.at(path) for path in config.experts[:1]] or [
        run
        for run in find(config.scene_dir, MethodName.parse(record.method).beside("expert"), group=1)
        if not why_not(run, ("expert",), record, partition=True)
    ]
    for run in runs[:1]:
        expert = rebuild_config(run.record.settings.get("model", {}), run.folder)
        for name in model_settings(expert):
            setattr(model, name, getattr(expert, name))
        record.settings["model"] = as_json(model_settings(model))
    experts = _teachers(config, record, partition)
    model.experts = tuple(rebuild_config(run.record.settings["model"], run.folder) for run in experts)
    model.groups = tuple(run.record.group for run in experts)
    record.total_steps = 1
    record.settings["experts"] = [{"group": run.record.group, "model": run.record.settings["model"]} for run in experts]
    record.settings["inverse_temperature"] = as_text(config.pipeline.inverse_temperature)
    return experts


def _teachers(config: Any, record: Stage, partition: Partition) -> Tuple[Run, ...]:
    """The experts that teach, noted in the record."""
    found = find_experts(config.scene_dir, record, partition.num_groups, config.experts)
    config.experts = tuple(run.folder for run in found)
    for number, run in enumerate(found):
        # The second expert of group 3 is expert-3-2.
        nth = 1 + sum(earlier.record.group == run.record.group for earlier in found[:number])
        record.inputs[f"expert-{run.record.group}" + (f"-{nth}" if nth > 1 else "")] = run.record.fingerprint
    record.inputs["partition"] = partition.fingerprint
    return tuple(found)


def find_experts(scene_dir: Path, stage: Stage, groups: int, named: Sequence[Path]) -> List[Run]:
    """Finished experts in the order of the groups: of each group the latest, or all that are named.

    Args:
        scene_dir: where experts are looked for if none are named.
        stage: record of who learns from them: of the same partition, photos and rays.
        groups: how many there must be.
        named: run folders given by the user; any order.

    Raises:
        StageError: an expert is missing, or one that was named does not fit.
    """
    method = MethodName.parse(stage.method).beside("expert")
    if named:
        candidates = [Run.at(path) for path in named]
    else:
        both = (method, method._replace(suffix="" if method.suffix else UNBOUNDED))
        candidates = [run for one in both for run in find(scene_dir, one)]
    experts: Dict[int, List[Run]] = {}
    reasons: Dict[int, str] = {}
    for run in candidates:
        problem = why_not(run, ("expert",), stage, partition=True, shared=GEOMETRY)
        if problem is None:
            of_group = experts.setdefault(int(run.record.group or 0), [])
            if named and run.folder in [other.folder for other in of_group]:
                raise StageError(f"{run.folder} is named twice.")
            if named or not of_group:
                of_group.append(run)
        elif named:
            raise StageError(problem)
        else:
            reasons.setdefault(int(run.record.group or 0), problem)
    missing = [group for group in range(1, groups + 1) if group not in experts]
    if missing:
        where = "among those named" if named else f"in {scene_dir}"
        lines = [
            f"No usable expert of group {', '.join(map(str, missing))} {where}; the partition has {groups} groups."
        ]
        lines += [reasons[group] for group in missing if group in reasons]
        lines.append(f"Train it: ns-train {method} --group {missing[0]} --data …")
        raise StageError("\n".join(lines))
    return [expert for group in range(1, groups + 1) for expert in experts[group]]


def in_words(stage: Stage) -> str:
    """What a run is, in words: its method, its group, and what it was made from."""
    group = f", group {stage.group}" if stage.group else ""
    made_from = "".join(f", {name} {fingerprint}" for name, fingerprint in stage.inputs.items())
    return f"{stage.method}{group}{made_from}"


def as_text(number: Optional[float]) -> Optional[str]:
    """A number that may be infinite, which JSON does not know."""
    return None if number is None else f"{number:g}"


def as_json(value: Any) -> Any:
    """Settings as JSON knows them; classes by their name, paths as text."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, type):
        return value.__name__
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
