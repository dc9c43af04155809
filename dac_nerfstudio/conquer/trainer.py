"""The registered methods' configurations, and a trainer that records what it made and resumes exactly."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterator, Literal, Optional, Tuple, Type

import torch
import tyro
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dac_nerfstudio.conquer.bounds import scene_radius
from dac_nerfstudio.conquer.datamanager import views_of
from dac_nerfstudio.conquer.ensemble import EnsembleModel, EnsemblePipelineConfig
from dac_nerfstudio.conquer.experts import find_experts, model_settings, read_checkpoint, rebuild_config, runs_of
from dac_nerfstudio.conquer.keys import key_of
from dac_nerfstudio.conquer.pipeline import DaCPipelineConfig, DistillPipelineConfig
from dac_nerfstudio.errors import PartitionError, StageError, UserError
from dac_nerfstudio.kplanes.decoders import resolve_implementation
from dac_nerfstudio.kplanes.model import RADIUS
from dac_nerfstudio.layout import latest_checkpoint, run_folder
from dac_nerfstudio.partition import Partition, Views, as_recorded, check_views, find_or_divide, listing
from dac_nerfstudio.signals import Interrupted, Request, stop_requests
from dac_nerfstudio.stage import Stage, versions


@dataclass
class DaCTrainerConfig(TrainerConfig):
    """A baseline: one K-Planes model on all training views."""

    _target: Type = field(default_factory=lambda: DaCTrainer)
    """Target class to instantiate."""
    pipeline: DaCPipelineConfig = field(default_factory=DaCPipelineConfig)
    """Settings of data, model and losses."""
    groups: Optional[int] = None
    """Number of groups to divide the training views into: 4, if they have not been divided yet."""
    partition: Optional[Path] = None
    """Partition to use (a file made by `dac split`); by default the scene's own, which is made if there is none."""
    stage: tyro.conf.Suppress[Optional[Stage]] = None
    """What this run is made from; filled in when it starts."""
    data_digest: tyro.conf.Suppress[str] = ""
    """Of the training views' poses and photos; filled in when they are read."""

    def __post_init__(self) -> None:
        for group in self.optimizers.values():
            group["scheduler"].max_steps = self.max_num_iterations
        # A stage that follows another must not replay its pixels and jitter.
        seed = key_of(self.machine.seed, zlib.crc32(str(self.method_name).encode()))
        self.pipeline.seed = self.pipeline.datamanager.seed = seed

    @property
    def scene_dir(self) -> Path:
        """Output folder of the scene, which holds the partition and all runs."""
        self.set_experiment_name()
        return Path(self.output_dir) / str(self.experiment_name)

    def save_config(self) -> None:
        # nerfstudio's last call before training, on one process, with data, folders and names settled: whatever can
        # be found wrong is found here, and config.yml records what was found right.
        try:
            partition = self.prepare()
        except UserError as error:
            raise SystemExit(f"\n{error}") from None
        # A copy of its own: evaluation and rendering want nothing but the run's folder and the data.
        self.pipeline.datamanager.partition = self.get_base_dir() / "partition.json"
        partition.save(self.pipeline.datamanager.partition)
        super().save_config()

    def prepare(self) -> Partition:
        """Resolve partition, inputs and record of this run; the partition.

        Raises:
            PartitionError, StageError: something that the user must mend.
        """
        colour = getattr(self.pipeline.datamanager.dataparser, "alpha_color", None)
        if colour is not None and self.pipeline.model.background_color == "random":
            raise StageError(
                f"The data parser puts the photos on {colour} before training, while the model is trained on random "
                f"backgrounds. Add --pipeline.model.background-color {colour}, or let the photos keep their "
                "alpha: end the command with blender-data --alpha-color None"
            )
        self.pipeline.model.implementation = resolve_implementation(
            self.pipeline.model.implementation, self.machine.device_type == "cuda"
        )
        partition = self.find_partition()
        self.find_scene_radius()
        self.stage = Stage(
            method=str(self.method_name),
            scene=str(self.experiment_name),
            settings=stage_settings(self),
            seed=self.machine.seed,
            total_steps=self.max_num_iterations,
            partition=partition.fingerprint,
            versions=versions(),
        )
        self.find_inputs(partition, self.stage)
        return partition

    @property
    def start(self) -> Optional[Path]:
        """Run folder whose weights and Adam's moments this run goes on from; from scratch without it."""
        return None

    def find_inputs(self, partition: Partition, stage: Stage) -> None:
        """Check and record what the run is made from besides data and partition."""

    def go_on_from(self, folder: Path, record: Stage, stage: Stage) -> None:
        """Check that the run can start from another one; record the steps that its model then has behind it.

        Raises:
            StageError: that one is not finished, is a model of another shape, or has no checkpoint.
        """
        if not record.complete:
            raise StageError(f"The run in {folder} stopped at step {record.steps} of {record.total_steps}.")
        if not same_shape(record.settings.get("model", {}), model_settings(self.pipeline.model)):
            raise StageError(
                f"The run in {folder} is a model of another size or kind than the one that is to start from it. Give "
                "both the same --pipeline.model settings."
            )
        latest_checkpoint(folder)
        stage.first_step = record.first_step + record.steps
        # Proposal schedules go on where they were left.
        self.pipeline.first_step = stage.first_step

    def find_scene_radius(self) -> None:
        """Let the data decide how large the model's box is, if the user has not. All stages of a scene decide alike."""
        model = self.pipeline.model
        if model.scene_radius is None and model.is_contracted:
            model.scene_radius = RADIUS
        elif model.scene_radius is None:
            model.scene_radius, why = scene_radius(self.read_views())
            CONSOLE.print(f"scene radius {model.scene_radius}: {why}")

    def find_partition(self) -> Partition:
        """The partition that was asked for, or the scene's; made if there is none.

        Raises:
            PartitionError: the data cannot be read, or the partition is of other views or another number of groups.
        """
        manager = self.pipeline.datamanager
        views = self.views_to_divide()
        if self.partition is not None:
            partition, manager.partition = Partition.load(self.partition), self.partition
            check_views(partition, views, self.partition)
        else:
            partition, manager.partition = find_or_divide(self.scene_dir, views, groups=self.groups or 4)
        if self.groups not in (None, partition.num_groups):
            raise PartitionError(
                f"--groups {self.groups}, but {manager.partition} has {partition.num_groups} groups. Divide again: dac "
                f"split --data {manager.data} --groups {self.groups}, or use another --experiment-name."
            )
        return partition

    @property
    def data_path(self) -> Path:
        """Where the scene's data lie."""
        manager = self.pipeline.datamanager
        return Path(manager.data or manager.dataparser.data)

    def views_to_divide(self) -> Views:
        """The training views that the data parser sees, with what the data's files know of them besides.

        Raises:
            PartitionError: the data cannot be read.
        """
        return as_recorded(self.data_path, self.read_views())

    def test_digest(self) -> str:
        """Tells the test views apart from others.

        Raises:
            FileNotFoundError: there are none.
        """
        parser = replace(self.pipeline.datamanager.dataparser, data=self.data_path).setup()
        return digest_of(parser.get_dataparser_outputs(split="test"))

    def read_views(self) -> Views:
        """The training views, as the data parser sees them.

        Raises:
            PartitionError: the data cannot be read.
        """
        manager, data = self.pipeline.datamanager, self.data_path
        if not data.exists():
            raise PartitionError(f"There is no data at {data}. Name a scene's folder: --data PATH")
        try:
            outputs = replace(manager.dataparser, data=data).setup().get_dataparser_outputs(split="train")
            missing = [str(path) for path in outputs.image_filenames if not path.exists()]
            if missing:
                raise PartitionError(
                    f"{len(missing)} of {len(outputs.image_filenames)} training photos are missing: "
                    f"{listing(missing)}. Put them back, or take them out of the data's list of views."
                )
            self.data_digest = digest_of(outputs)
        except PartitionError:
            raise
        except (OSError, AssertionError, KeyError, ValueError, RuntimeError) as error:
            raise PartitionError(
                f"The training views in {data} cannot be read: {error}. Does the data want another data parser? Its "
                f"name ends the command, as in: ns-train {self.method_name} --data {data} blender-data"
            ) from None
        return views_of(outputs, data)


@dataclass
class ExpertTrainerConfig(DaCTrainerConfig):
    """An expert: one K-Planes model on the views of one group."""

    group: Optional[int] = None
    """Number of the group to train on, counted from 1."""
    trunk: Optional[Path] = None
    """Run folder of a model of all views to start from (dac-trunk, or a baseline); the rate then goes on from half.
    From scratch without it."""

    @property
    def start(self) -> Optional[Path]:
        return self.trunk

    def __post_init__(self) -> None:
        super().__post_init__()
        # ns-eval rebuilds the pipeline from its own settings alone.
        self.pipeline.datamanager.group = self.group
        if self.trunk is not None:
            for group in self.optimizers.values():
                group["scheduler"].begin = 0.5

    def get_base_dir(self) -> Path:
        run = super().get_base_dir()
        return run.parent / f"group-{self.group}" / run.name

    def find_inputs(self, partition: Partition, stage: Stage) -> None:
        groups = partition.num_groups
        if self.group is None or not 1 <= self.group <= groups:
            found = "no group was named" if self.group is None else f"there is no group {self.group}"
            raise StageError(
                f"The views are divided into {groups} groups and {found}. Add --group K, K from 1 to {groups}."
            )
        stage.group = self.group
        stage.inputs = {"partition": partition.fingerprint}
        if self.trunk is not None:
            self.trunk = run_folder(self.trunk)
            trunk = Stage.load(self.trunk)
            if not trunk.method.startswith(("dac-trunk", "dac-baseline")):
                raise StageError(f"{self.trunk} holds a {trunk.method}; experts start from a dac-trunk or a baseline.")
            if trunk.settings.get("data") != stage.settings["data"]:
                raise StageError(f"The trunk in {self.trunk} has seen other photos than those in {self.data_path}.")
            self.go_on_from(self.trunk, trunk, stage)
            stage.inputs["trunk"] = trunk.fingerprint


@dataclass
class DistillTrainerConfig(DaCTrainerConfig):
    """A student that learns from the experts of all groups."""

    pipeline: DistillPipelineConfig = field(default_factory=DistillPipelineConfig)
    """Settings of data, model and losses."""
    experts: Tuple[Path, ...] = ()
    """Run folders of the experts, one per group in any order; by default the scene's latest of each group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pipeline.datamanager.sort_by_group = True

    def find_inputs(self, partition: Partition, stage: Stage) -> None:
        found = find_experts(
            self.scene_dir, partition.fingerprint, partition.num_groups, self.experts, self.pipeline.model
        )
        self.experts = self.pipeline.experts = tuple(folder for folder, _ in found)
        stage.inputs = {f"expert-{record.group}": record.fingerprint for _, record in found}
        stage.inputs["partition"] = partition.fingerprint


@dataclass
class FinetuneTrainerConfig(DaCTrainerConfig):
    """The distilled student, trained on with all photos."""

    student: Optional[Path] = None
    """Run folder of the distilled student to start from; by default the scene's latest."""

    @property
    def start(self) -> Optional[Path]:
        return self.student

    def find_inputs(self, partition: Partition, stage: Stage) -> None:
        if self.student is not None:
            folder = run_folder(self.student)
            record = Stage.load(folder)
        else:
            method = str(self.method_name).replace("finetune", "distill")
            runs = [run for run in runs_of(self.scene_dir, method) if run[1].complete]
            if not runs:
                raise StageError(
                    f"No finished {method} in {self.scene_dir} to start from. Make it: ns-train {method} --data …, or "
                    "name one: --student FOLDER"
                )
            # The latest of this partition; failing that the latest, whose partition is then told.
            folder, record = next((run for run in runs if run[1].partition == partition.fingerprint), runs[0])
        if record.partition != partition.fingerprint:
            raise StageError(
                f"The student in {folder} was distilled for partition {record.partition}; the current one is "
                f"{partition.fingerprint}."
            )
        self.go_on_from(folder, record, stage)
        self.student = folder
        stage.inputs = {"student": record.fingerprint}


@dataclass
class EnsembleTrainerConfig(DistillTrainerConfig):
    """All experts in one model. Nothing is trained: the run assembles it and ends."""

    _target: Type = field(default_factory=lambda: EnsembleTrainer)
    """Target class to instantiate."""
    pipeline: EnsemblePipelineConfig = field(default_factory=EnsemblePipelineConfig)  # type: ignore[assignment]
    """Settings of data and model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pipeline.datamanager.sort_by_group = False

    def find_inputs(self, partition: Partition, stage: Stage) -> None:
        # The experts are what they are: the settings of one replace the model's, and the others have to match it.
        named = [run_folder(path) for path in self.experts]
        runs = runs_of(self.scene_dir, str(self.method_name).replace("ensemble", "expert"), group=1)
        for folder in named[:1] or [folder for folder, _ in runs[:1]]:
            settings = Stage.load(folder).settings.get("model", {})
            expert = rebuild_config(settings, folder)
            for name in settings:
                setattr(self.pipeline.model, name, getattr(expert, name))
        super().find_inputs(partition, stage)
        mine = model_settings(self.pipeline.model)
        for folder in self.experts:
            if not same_shape(Stage.load(folder).settings.get("model", {}), mine):
                raise StageError(f"The expert in {folder} is a model of another size or kind than that of group 1.")
        self.pipeline.model.groups = partition.num_groups
        stage.settings = stage_settings(self)
        stage.total_steps = 1


SHAPE = (
    "grid_base_resolution", "grid_feature_dim", "multiscale_res", "linear_decoder", "linear_decoder_layers",
    "proposal_resolutions", "proposal_feature_dim", "is_contracted", "scene_radius",
)  # fmt: skip
"""Model settings without which weights mean something else."""


def same_shape(one: Dict[str, Any], other: Dict[str, Any]) -> bool:
    """Whether weights of one model can be those of the other."""
    return all(one.get(name) == other.get(name) for name in SHAPE)


def stage_settings(config: DaCTrainerConfig) -> Dict[str, Any]:
    """All settings that decide a run's result, as JSON."""
    manager, model = config.pipeline.datamanager, config.pipeline.model
    settings = {
        "model": model_settings(model),
        "rays": manager.train_num_rays_per_batch,
        "resolution": manager.camera_res_scale_factor,
        "data": {**asdict(manager.dataparser), "data": config.data_digest},
        "optimizers": {
            name: {"optimizer": asdict(group["optimizer"]), "scheduler": asdict(group["scheduler"])}
            for name, group in config.optimizers.items()
        },
        "mixed_precision": config.mixed_precision,
    }
    if hasattr(model, "distillation"):
        settings["distillation"] = asdict(model.distillation)
    return as_json(settings)


def digest_of(outputs: DataparserOutputs) -> str:
    """Tells views apart: by poses, intrinsics, and names and sizes of the photos' files."""
    cameras = outputs.cameras
    digest = hashlib.sha256()
    for tensor in (cameras.camera_to_worlds, cameras.fx, cameras.fy, cameras.cx, cameras.cy):
        digest.update(tensor.float().numpy().tobytes())
    for path in outputs.image_filenames:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def as_json(value: Any) -> Any:
    """Settings as JSON knows them; classes by their name, paths as text."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, type):
        return value.__name__
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def flattened(value: Any, path: str = "") -> Iterator[Tuple[str, Any]]:
    """Settings as pairs of a dotted name and a value."""
    if isinstance(value, dict):
        for name in value:
            yield from flattened(value[name], f"{path}.{name}".lstrip("."))
    else:
        yield path, value


def told(stage: Stage) -> str:
    """What a run is, in words."""
    group = f", group {stage.group}" if stage.group else ""
    made_from = "".join(f", {name} {fingerprint}" for name, fingerprint in stage.inputs.items())
    return f"{stage.method}{group}{made_from}"


class DaCTrainer(Trainer):
    """nerfstudio's trainer with whole checkpoints, a record beside them, and runs that end at their total of steps."""

    config: DaCTrainerConfig
    latest: Tuple[Tensor, Dict[str, Tensor]]
    """Loss and metrics of the latest step, on the device."""

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        assert self.config.stage is not None, "the record is filled in by DaCTrainerConfig.prepare"
        self.stage = self.config.stage
        try:
            super().setup(test_mode)
        except UserError as error:
            raise SystemExit(f"\n{error}") from None
        self.request = Request()
        self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.save_and_stop))
        self.stage.parameters = sum(parameter.numel() for parameter in self.pipeline.model.parameters())

    def _load_checkpoint(self) -> None:
        folder, file = self.config.load_dir, self.config.load_checkpoint
        named = folder or file
        if named is None:
            self.load_start()
            return
        source = run_folder(named)
        earlier = Stage.load(source)
        if (earlier.method, earlier.group, earlier.inputs) != (self.stage.method, self.stage.group, self.stage.inputs):
            raise StageError(f"Cannot go on from {source}: it holds {told(earlier)}. This run is {told(self.stage)}.")
        now = dict(flattened(self.stage.settings))
        differing = [
            f"{name} {value}"
            for name, value in flattened(earlier.settings)
            if now.get(name) != value and not name.endswith(".max_steps")  # the length may change
        ] + [f"seed {earlier.seed}"] * (earlier.seed != self.stage.seed)
        if differing:
            raise StageError(
                f"Cannot go on from {source} with other settings: it was trained with {differing[0]}. Give the same "
                "flags as then, or start anew without --load-dir."
            )
        if folder is not None:
            self.config.load_dir = source / self.config.relative_model_dir
        if file is None and self.config.load_step is None:
            read_checkpoint(latest_checkpoint(source))
        super()._load_checkpoint()
        self.stage.seconds, self.stage.peak_memory = earlier.seconds, earlier.peak_memory

    def load_start(self) -> None:
        """Weights and Adam's moments that a run which is not resumed starts from. Rates belong to its own schedule."""
        if self.config.start is None:
            return
        state = read_checkpoint(latest_checkpoint(self.config.start))
        self.pipeline.load_state_dict(state["pipeline"], strict=True)
        for name, optimizer in self.optimizers.optimizers.items():
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizers"][name]["state"]})

    def train_iteration(self, step: int) -> Any:
        output = super().train_iteration(step)
        self.latest = output[0], output[2]
        return output

    def train(self) -> None:
        """Train up to ``max_num_iterations`` in all, the steps of a resumed run included."""
        total = self.config.max_num_iterations
        if self._start_step >= total:
            CONSOLE.print(f"Nothing to train: the checkpoint has all {total} steps. More with --max-num-iterations.")
            if (self.checkpoint_dir / f"step-{self._start_step - 1:09d}.ckpt").exists():
                # Stopped after the last checkpoint was there and before the record told so.
                self.stage.steps = self._start_step
                self.stage.save(self.base_dir)
            return
        self._clock, self._seconds_before = time.perf_counter(), self.stage.seconds
        # nerfstudio would run this many steps on top of those it resumes from.
        self.config.max_num_iterations = total - self._start_step
        try:
            with stop_requests() as self.request:
                super().train()
                if self.request.signal is not None:
                    # Too late to stop short of the total, which is saved by now; in time for what would come next.
                    raise Interrupted(self.request.signal, total)
        finally:
            self.config.max_num_iterations = total

    def save_and_stop(self, step: int) -> None:
        """After a training step: save it and stop, if somebody has asked to.

        Raises:
            Interrupted: somebody has, and there are steps left.
        """
        total = self.stage.total_steps
        if self.request.signal is not None and step + 1 < total:
            self.save_checkpoint(step)
            CONSOLE.print(f"Stopped at step {step + 1} of {total}, which is saved.")
            raise Interrupted(self.request.signal, step + 1)

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        # Written beside the folder, every file of which nerfstudio takes for a checkpoint, and moved in when whole.
        temporary = self.base_dir / f".{path.name}"
        pipeline = getattr(self.pipeline, "module", self.pipeline)
        torch.save(
            {
                "step": step,
                "pipeline": pipeline.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self.optimizers.optimizers.items()},
                "schedulers": {name: s.state_dict() for name, s in self.optimizers.schedulers.items()},
                "scalers": self.grad_scaler.state_dict(),
            },
            temporary,
        )
        os.replace(temporary, path)
        self.stage.steps = step + 1
        self.stage.seconds = self._seconds_before + time.perf_counter() - self._clock
        self.stage.save(self.base_dir)
        if self.config.save_only_latest_checkpoint:
            for other in self.checkpoint_dir.glob("*.ckpt"):
                if other != path:
                    other.unlink()


class EnsembleTrainer(DaCTrainer):
    """Saves the experts that the pipeline has put together: there is nothing to train."""

    config: EnsembleTrainerConfig

    def train_iteration(self, step: int) -> Any:
        """The losses on a batch of photos, from which nothing is learned."""
        with torch.no_grad():
            _, losses, metrics = self.pipeline.get_train_loss_dict(step)
        self.latest = torch.stack([*losses.values()]).sum(), metrics
        return self.latest[0], losses, metrics

    def train(self) -> None:
        assert isinstance(self.pipeline.model, EnsembleModel)
        self._clock, self._seconds_before = time.perf_counter(), 0.0
        self.save_checkpoint(0)
        CONSOLE.print(f"The experts of {len(self.pipeline.model.experts)} groups are assembled in {self.base_dir}.")


DistillTrainer = DaCTrainer
"""Under this name in the config.yml of runs that were made when teachers came with the trainer."""
