"""What a run is made from: data, partition, trunk, experts, student. Found, checked, and noted in the run's record.

Cameras take one way from the data to a group:

* nerfstudio's data parser says which views are trained on;
* these views are divided, once for a scene, or are those of its current partition;
* a copy of that partition lies in the run's folder. It is the one that data manager, evaluation and rendering read.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE

from dac_nerfstudio.errors import PartitionError, StageError
from dac_nerfstudio.kplanes.decoders import resolve_implementation
from dac_nerfstudio.kplanes.model import RADIUS
from dac_nerfstudio.messages import say
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.partition import Partition, Views, check_views, find_or_divide, listing
from dac_nerfstudio.partition.divide import DEFAULT_GROUPS
from dac_nerfstudio.runs.contents import contents_digest
from dac_nerfstudio.runs.layout import PARTITION, PHOTOS, latest_checkpoint, run_folder
from dac_nerfstudio.runs.record import Stage, flattened, versions
from dac_nerfstudio.scene.data import Scene, open_scene
from dac_nerfstudio.scene.examination import examine, refuse
from dac_nerfstudio.teachers.experts import find_experts, model_settings, rebuild_config, runs_of, same_shape, stranger
from dac_nerfstudio.training.datamanager import DaCDataManager
from dac_nerfstudio.training.limits import check_numbers
from dac_nerfstudio.training.scene_radius import scene_radius
from dac_nerfstudio.training.settings import (
    DistillSettings,
    EnsembleSettings,
    ExpertSettings,
    FinetuneSettings,
    RunSettings,
)


class Inputs:
    """What a baseline or a trunk is made from: the photos alone. Their views have groups all the same.

    Args:
        config: the run's settings, in which is noted what is found.
    """

    def __init__(self, config: RunSettings) -> None:
        self.config = config

    def resolve(self) -> Partition:
        """Find and check all that the run is made from, and make its record, ``config.stage``.

        Nothing is written but the scene's partition, where there is none yet.

        Returns:
            The partition of the training views.

        Raises:
            UserError: something that the user must mend.
        """
        config, manager, model = self.config, self.config.pipeline.datamanager, self.config.pipeline.model
        # As ns-train does; from Python, settings may have been changed since they were first carried over.
        manager.data = manager.data or config.data
        config.set_timestamp()
        config.carry_over()
        check_numbers(config)
        self.check_background()
        model.implementation = resolve_implementation(model.implementation, config.machine.device_type == "cuda")
        views = self.read_views()
        partition, _ = self.find_partition(views)
        self.find_scene_radius(views)
        manager.partition = config.get_base_dir() / PARTITION
        config.stage = self.record(partition)
        self.find_runs(partition, config.stage)
        return partition

    @property
    def resolved(self) -> bool:
        """Whether the record is there and one of the configuration as it is now."""
        stage = self.config.stage
        if stage is None or self.config.pipeline.datamanager.partition != self.config.get_base_dir() / PARTITION:
            return False
        now = self.record()
        names = ("method", "scene", "settings", "seed", "total_steps")
        return all(getattr(stage, name) == getattr(now, name) for name in names)

    def record(self, partition: Partition | None = None) -> Stage:
        """A record of what the configuration says, with neither inputs nor steps yet."""
        config = self.config
        return Stage(
            method=str(config.method_name),
            scene=str(config.experiment_name),
            settings=self.settings(),
            seed=config.machine.seed,
            total_steps=config.max_num_iterations,
            partition=None if partition is None else partition.fingerprint,
            photos=config.photos_digest,
            versions=versions(),
        )

    def check_resumable(self, source: Path) -> Stage:
        """The record of an earlier run that this one, which is resolved, is to go on from.

        Raises:
            StageError: that one is another run, or one with other settings.
        """
        earlier, stage = Stage.load(source), self.config.stage
        assert stage is not None
        if (earlier.method, earlier.group, earlier.inputs) != (stage.method, stage.group, stage.inputs):
            raise StageError(
                f"Cannot go on from {source}: it holds {in_words(earlier)}. This run is {in_words(stage)}."
            )
        now = flattened(stage.settings)
        differing = [
            f"{name} {value}"
            for name, value in flattened(earlier.settings).items()
            if now.get(name) != value and not name.endswith(".max_steps")  # the length may change
        ]
        if earlier.seed != stage.seed:
            differing.append(f"seed {earlier.seed}")
        if not stage.has_photos_of(earlier):
            differing.append(f"photos {earlier.photos}")
        if differing:
            raise StageError(
                f"Cannot go on from {source} with other settings: it was trained with {differing[0]}. Give the same "
                "flags as then, or start anew without --load-dir."
            )
        return earlier

    def settings(self) -> Dict[str, Any]:
        """All settings that decide the result, as JSON."""
        config, manager = self.config, self.config.pipeline.datamanager
        optimizers = {
            name: {"optimizer": asdict(group["optimizer"]), "scheduler": asdict(group["scheduler"])}
            for name, group in config.optimizers.items()
        }
        settings = {
            "model": model_settings(config.pipeline.model),
            "rays": manager.train_num_rays_per_batch,
            "resolution": manager.camera_res_scale_factor,
            "data": {**asdict(manager.dataparser), "data": config.data_digest},
            "optimizers": optimizers,
            "mixed_precision": config.mixed_precision,
        }
        if manager.skip_missing:
            settings["skip_missing"] = True
        return as_json({**settings, **self.teaching()})

    def teaching(self) -> Dict[str, Any]:
        """Settings of what is learned from experts, where any teach.

        Raises:
            StageError: they are none.
        """
        return {}

    def find_runs(self, partition: Partition, stage: Stage) -> None:
        """Find and check the runs that this one is made from, and note them in the record."""

    # Photos

    def check_background(self) -> None:
        """Let predictions be composited on the colour that the data parser puts photos on.

        Raises:
            StageError: the model knows no such background.
        """
        model = self.config.pipeline.model
        colour = getattr(self.config.pipeline.datamanager.dataparser, "alpha_color", None)
        if colour is None or model.background_color != "random":
            return
        if colour not in ("white", "black"):
            raise StageError(
                f"The data parser puts the photos on {colour}, which is no background of the model. Let the photos "
                "keep their alpha: end the command with blender-data --alpha-color None"
            )
        model.background_color = colour
        text = (
            f"The data parser puts the photos on {colour}, which is now the model's background, too. For random "
            "backgrounds let the photos keep their alpha: blender-data --alpha-color None"
        )
        say(CONSOLE, (text, "yellow"))

    @property
    def data(self) -> Path:
        """Where the scene's data lie."""
        manager = self.config.pipeline.datamanager
        return Path(manager.data or manager.dataparser.data)

    @property
    def of_files(self) -> bool:
        """Whether the data are files: whoever trains with a data manager of his own may have them in memory."""
        return self.config.pipeline.datamanager._target is DaCDataManager

    @property
    def scene(self) -> Scene:
        """The scene, with the data parser of this run."""
        manager = self.config.pipeline.datamanager
        if self.of_files and not self.data.exists():
            raise PartitionError(f"There is no data at {self.data}. Name a scene's folder: --data PATH")
        return open_scene(replace(manager.dataparser, data=self.data), manager.skip_missing)

    def examine(self) -> None:
        """Stop before anything long if the data cannot be trained on.

        Raises:
            PartitionError: what is wrong with them, a line for each.
        """
        if self.of_files:
            found, skip = examine(self.scene), self.config.pipeline.datamanager.skip_missing
            problems = found.problems if skip else found.all_problems
            if "train" not in found.views:
                way = f"ns-train {self.config.method_name} --data {self.data} blender-data"
                problems.append(f"For another data parser, end the command with its name, as in: {way}")
            refuse(problems, self.data)
            for remark in found.remarks:
                say(CONSOLE, (remark, "yellow"))

    def read_views(self) -> Views:
        """The views that are trained on, in the model's frame; ``config.data_digest`` tells them from others.

        Raises:
            PartitionError: the data cannot be read, or lack photos.
        """
        config, scene = self.config, self.scene
        outputs = scene.get_dataparser_outputs("train")
        missing = [str(path) for path in outputs.image_filenames if self.of_files and not path.exists()]
        if missing:
            raise PartitionError(
                f"{len(missing)} of {len(outputs.image_filenames)} training photos are missing: {listing(missing)}. "
                "Put them back, or leave them out: --pipeline.datamanager.skip-missing True (dac run: --skip-missing)."
            )
        config.data_digest = digest_of(outputs)
        config.photos_digest = self.photos_digest(outputs) if self.of_files else ""
        # The points that photos share are for dividing, which is done once.
        divided = config.partition is not None or (config.scene_dir / PARTITION).exists()
        views = scene.views(tracks=not divided)
        return views if self.of_files else replace(views, photos=None)

    def find_scene_radius(self, views: Views) -> None:
        """Let the data decide how large the model's box is, if the user has not. All stages of a scene decide alike.

        Args:
            views: the training views in the model's frame.
        """
        model = self.config.pipeline.model
        if model.scene_radius is None and model.is_contracted:
            model.scene_radius = RADIUS
        elif model.scene_radius is None:
            model.scene_radius, why = scene_radius(views)
            CONSOLE.print(f"scene radius {model.scene_radius}: {why}")

    def photos_digest(self, outputs: DataparserOutputs) -> str:
        """Tells what the photos of a split hold, and their masks, from what others of the same names do."""
        return contents_digest(
            [*outputs.image_filenames, *(outputs.mask_filenames or ())], self.config.scene_dir / PHOTOS
        )

    def test_digests(self) -> Tuple[str, str]:
        """Tell the test views apart from others, and what their photos hold.

        Raises:
            SplitError: there are none.
        """
        outputs = self.scene.get_dataparser_outputs("test")
        return digest_of(outputs), self.photos_digest(outputs)

    # Groups

    def find_partition(self, views: Views) -> Tuple[Partition, Path]:
        """The partition that was asked for, or the scene's, which is made if there is none; and its file.

        Raises:
            PartitionError: it is of other views or another number of groups, or the views cannot be divided.
        """
        config = self.config
        if config.partition is not None:
            partition, path = Partition.load(config.partition), config.partition
            check_views(partition, views, path)
        else:
            # A baseline of few photos divides nothing, and only notes which group each would belong to.
            groups = config.groups or min(DEFAULT_GROUPS, len(views))
            partition, path = find_or_divide(config.scene_dir, views, groups=groups)
        if config.groups not in (None, partition.num_groups):
            raise PartitionError(
                f"--groups {config.groups}, but {path} has {partition.num_groups} groups. Divide again: dac split "
                f"--data {self.data} --groups {config.groups}, or use another --experiment-name."
            )
        return partition, path

    # Runs

    def go_on_from(self, folder: Path, record: Stage, stage: Stage) -> None:
        """Check that the run can start from another one; note the steps that its model then has behind it.

        Raises:
            StageError: that one is not finished, is a model of another shape, or has no checkpoint.
        """
        if not record.complete:
            raise StageError(f"The run in {folder} stopped at step {record.steps} of {record.total_steps}.")
        if not same_shape(record.settings.get("model", {}), model_settings(self.config.pipeline.model)):
            raise StageError(
                f"The run in {folder} is a model of another size or kind than the one that is to start from it. Give "
                "both the same --pipeline.model settings."
            )
        latest_checkpoint(folder)
        stage.first_step = self.config.pipeline.first_step = record.first_step + record.steps


class ExpertInputs(Inputs):
    """What an expert is made from: the photos of its group, and perhaps a trunk."""

    config: ExpertSettings

    def find_runs(self, partition: Partition, stage: Stage) -> None:
        config, groups = self.config, partition.num_groups
        if config.group is None or not 1 <= config.group <= groups:
            found = "no group was named" if config.group is None else f"there is no group {config.group}"
            raise StageError(
                f"The views are divided into {groups} groups and {found}. Add --group K, K from 1 to {groups}."
            )
        stage.group = config.group
        stage.inputs = {"partition": partition.fingerprint}
        if config.trunk is not None:
            config.trunk = run_folder(config.trunk)
            trunk = Stage.load(config.trunk)
            if MethodName.parse(trunk.method).stage not in ("trunk", "baseline"):
                raise StageError(
                    f"{config.trunk} holds a {trunk.method}; experts start from a dac-trunk or a baseline."
                )
            if not stage.has_data_of(trunk):
                raise StageError(f"The trunk in {config.trunk} has seen other photos than those in {self.data}.")
            self.go_on_from(config.trunk, trunk, stage)
            stage.inputs["trunk"] = trunk.fingerprint


class DistillInputs(Inputs):
    """What a distilled student is made from: the experts of all groups."""

    config: DistillSettings

    def teaching(self) -> Dict[str, Any]:
        return {"distillation": asdict(self.config.pipeline.model.distillation)}

    def find_runs(self, partition: Partition, stage: Stage) -> None:
        self.find_teachers(partition, stage)

    def find_teachers(self, partition: Partition, stage: Stage) -> None:
        """Find and check the experts, and record them.

        Raises:
            StageError: an expert is missing or unusable.
        """
        config = self.config
        found = find_experts(config.scene_dir, stage, partition.num_groups, config.experts, config.pipeline.model)
        config.experts = config.pipeline.experts = tuple(folder for folder, _ in found)
        records = [record for _, record in found]
        for number, record in enumerate(records):
            # The second expert of group 3 is expert-3-2.
            nth = 1 + sum(earlier.group == record.group for earlier in records[:number])
            stage.inputs[f"expert-{record.group}" + (f"-{nth}" if nth > 1 else "")] = record.fingerprint
        stage.inputs["partition"] = partition.fingerprint


class EnsembleInputs(DistillInputs):
    """What an ensemble is made from: the experts of all groups, whose settings are its own."""

    config: EnsembleSettings

    def record(self, partition: Partition | None = None) -> Stage:
        return replace(super().record(partition), total_steps=1)

    def teaching(self) -> Dict[str, Any]:
        model, sharpness = self.config.pipeline.model, as_text(self.config.pipeline.sharpness)
        experts = [
            {"group": group, "model": model_settings(expert)} for group, expert in zip(model.groups, model.experts)
        ]
        return {"experts": experts, "sharpness": sharpness}

    def find_teachers(self, partition: Partition, stage: Stage) -> None:
        config, model = self.config, self.config.pipeline.model
        # The experts are what they are: near, far and background are theirs, which all have to share.
        named = [run_folder(path) for path in config.experts]
        method = MethodName.parse(str(config.method_name)).beside("expert")
        usable = [
            folder for folder, run in runs_of(config.scene_dir, method, group=1)
            if stranger(folder, run, stage) is None
        ]  # fmt: skip
        for folder in (named or usable)[:1]:
            settings = Stage.load(folder).settings.get("model", {})
            expert = rebuild_config(settings, folder)
            for name in settings:
                setattr(model, name, getattr(expert, name))
        super().find_teachers(partition, stage)
        records = [(folder, Stage.load(folder)) for folder in config.experts]
        model.experts = tuple(rebuild_config(record.settings["model"], folder) for folder, record in records)
        model.groups = tuple(record.group or 1 for _, record in records)
        stage.settings = self.settings()


class FinetuneInputs(DistillInputs):
    """What a fine-tuned student is made from: the photos, the distilled student, and the experts where they go on
    teaching at new cameras."""

    config: FinetuneSettings

    def teaching(self) -> Dict[str, Any]:
        pipeline = self.config.pipeline
        if not 0 <= pipeline.novel_share <= 1:
            raise StageError(f"--pipeline.novel-share is {pipeline.novel_share}; expected a number from 0 to 1.")
        if pipeline.novel_share == 0:
            return {}
        return {"novel": {"share": pipeline.novel_share, "sharpness": as_text(pipeline.sharpness)}}

    def find_runs(self, partition: Partition, stage: Stage) -> None:
        folder, record = self.find_student(partition)
        if record.partition != partition.fingerprint:
            raise StageError(
                f"The student in {folder} was distilled for partition {record.partition}; the current one is "
                f"{partition.fingerprint}."
            )
        if not stage.has_data_of(record):
            raise StageError(f"The student in {folder} has seen other photos than those in {self.data}.")
        self.go_on_from(folder, record, stage)
        self.config.student = folder
        stage.inputs = {"student": record.fingerprint}
        if self.config.pipeline.novel_share:
            self.find_teachers(partition, stage)
        elif self.config.experts:
            raise StageError(
                "In fine-tuning experts teach at new cameras alone, and there are none. Add --pipeline.novel-share "
                "0.25, or leave out --experts."
            )

    def find_student(self, partition: Partition) -> Tuple[Path, Stage]:
        """The run that was named, or the scene's latest distilled student.

        Raises:
            StageError: there is none, or what was named is none.
        """
        config = self.config
        if config.student is not None:
            folder = run_folder(config.student)
            record = Stage.load(folder)
            if MethodName.parse(record.method).stage not in ("distill", "finetune"):
                raise StageError(
                    f"{folder} holds a {record.method}; fine-tuning starts from a student: a dac-distill, or a "
                    "dac-finetune to go on with."
                )
            return folder, record
        method = MethodName.parse(str(config.method_name)).beside("distill")
        runs = [run for run in runs_of(config.scene_dir, method) if run[1].complete]
        if not runs:
            raise StageError(
                f"No finished {method} in {config.scene_dir} to start from. Make it: ns-train {method} --data …, or "
                "name one: --student FOLDER"
            )
        # The latest of this partition; failing that the latest, which is refused with its partition's name.
        return next((run for run in runs if run[1].partition == partition.fingerprint), runs[0])


def in_words(stage: Stage) -> str:
    """What a run is, in words: its method, its group, and what it was made from."""
    group = f", group {stage.group}" if stage.group else ""
    made_from = "".join(f", {name} {fingerprint}" for name, fingerprint in stage.inputs.items())
    return f"{stage.method}{group}{made_from}"


def digest_of(outputs: DataparserOutputs) -> str:
    """Tells views apart: by poses, intrinsics, lenses, and names and sizes of the photos' files."""
    cameras = outputs.cameras
    digest = hashlib.sha256()
    for tensor in (cameras.camera_to_worlds, cameras.fx, cameras.fy, cameras.cx, cameras.cy):
        digest.update(tensor.float().numpy().tobytes())
    # Only what is no plain pinhole: records of plain ones are older than this.
    if cameras.distortion_params is not None and cameras.distortion_params.any():
        digest.update(cameras.distortion_params.float().numpy().tobytes())
    if (cameras.camera_type != CameraType.PERSPECTIVE.value).any():
        digest.update(cameras.camera_type.int().numpy().tobytes())
    for path in outputs.image_filenames:
        size = path.stat().st_size if path.exists() else 0
        digest.update(f"{path.name} {size}\n".encode())
    return digest.hexdigest()[:16]


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
