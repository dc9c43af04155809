"""The registered methods' configurations, and a trainer that records what it made and resumes exactly."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, Literal, NoReturn, Optional, Tuple, Type

import torch
import tyro
import yaml
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dac_nerfstudio.errors import DivergenceError, PartitionError, StageError, UserError
from dac_nerfstudio.files import move_in, write_text
from dac_nerfstudio.kplanes.teaching import StudentModel
from dac_nerfstudio.messages import say
from dac_nerfstudio.partition import publish_first
from dac_nerfstudio.runs.divergence import Divergence, LossWatch, not_finite
from dac_nerfstudio.runs.layout import (
    CHECKPOINTS,
    CONFIG,
    PARTITION,
    checkpoints,
    latest_checkpoint,
    run_folder,
    scene_name,
)
from dac_nerfstudio.runs.reopen import found_again
from dac_nerfstudio.runs.store import open_model, read_checkpoint, read_weights
from dac_nerfstudio.signals import Interrupted, Request, handling, stop_requests
from dac_nerfstudio.teachers.ensemble import Ensemble
from dac_nerfstudio.teachers.slots import Slots
from dac_nerfstudio.training.ensemble import EnsembleModel
from dac_nerfstudio.training.inputs import Inputs
from dac_nerfstudio.training.pipeline import (
    DaCPipeline,
    DaCPipelineConfig,
    EnsemblePipelineConfig,
    FinetunePipelineConfig,
)
from dac_nerfstudio.training.sources import Sources, check_resumable, resolve
from dac_nerfstudio.training.stepper import CudaGraphs, Stepper, can_capture


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
    cuda_graphs: bool = True
    """On a GPU, record the training step once and repeat it without Python. Not with several GPUs, tiny-cuda-nn,
    gradient accumulation, clipping or logging; what cannot be recorded is trained step by step."""
    typed_in: tyro.conf.Suppress[Optional[Path]] = None
    """Absolute path of the folder in which the command was typed; filled in when the run begins."""

    def __getstate__(self) -> Dict[str, Any]:
        # Copies, and config.yml, have settings alone.
        return {name: value for name, value in self.__dict__.items() if name != "_resolved"}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.typed_in is not None:
            self.find_again(self.typed_in)

    def find_again(self, typed_in: Path) -> None:
        """Let relative paths name what they did when the configuration was saved, if they name nothing here.

        nerfstudio's commands load config.yml from whatever folder they are typed in. A folder that was moved or copied
        with data and results in it is found from within.
        """
        manager = self.pipeline.datamanager
        if not self.get_base_dir().exists() and (typed_in / self.get_base_dir()).exists():
            self.output_dir = typed_in / self.output_dir
        self.data, manager.data = found_again(self.data, typed_in), found_again(manager.data, typed_in)
        if manager.partition is not None:
            manager.partition = self.get_base_dir() / PARTITION

    def set_experiment_name(self) -> None:
        data = self.pipeline.datamanager.data or self.data
        if self.experiment_name is None and data is not None:
            # nerfstudio would cut it at a dot.
            self.experiment_name = scene_name(data)
        super().set_experiment_name()

    @property
    def scene_dir(self) -> Path:
        """Output folder of the scene, which holds the partition and all runs."""
        self.set_experiment_name()
        return Path(self.output_dir) / str(self.experiment_name)

    @property
    def inputs(self) -> Inputs:
        """The run's photos."""
        return Inputs(self)

    def sources(self, examine: bool = True) -> Sources:
        """What the run is made from, found once for the same settings.

        Raises:
            UserError: something that the user has to correct.
        """
        # Where to go on from is decided when the sources are known.
        settings = replace(self, load_dir=None, load_checkpoint=None, load_step=None)
        settings.set_experiment_name()
        known = self.__dict__.get("_resolved")
        if known is None or known[0] != settings:
            if examine:
                settings.inputs.examine()
            known = self.__dict__["_resolved"] = deepcopy(settings), resolve(settings)
        sources: Sources = known[1]
        resumed = self.load_dir or self.load_checkpoint
        if resumed is not None:
            check_resumable(run_folder(resumed), sources)
        return sources

    def print_to_terminal(self) -> None:
        # ns-train's first call, with data, folders and names settled: whatever can be found wrong is said before a
        # hundred lines of configuration, and these say what was found right.
        with without_traceback():
            super(DaCTrainerConfig, self.sources().config).print_to_terminal()

    def save_config(self) -> None:
        with without_traceback():
            super(DaCTrainerConfig, self.sources().config).save_config()


@contextmanager
def without_traceback() -> Iterator[None]:
    """Errors that users can correct end the program with their message, without a traceback.

    Raises:
        SystemExit: instead of such an error.
    """
    try:
        yield
    except UserError as error:
        raise SystemExit(f"\n{error}") from None


@dataclass
class ExpertTrainerConfig(DaCTrainerConfig):
    """An expert: one K-Planes model on the views of one group."""

    group: Optional[int] = None
    """Number of the group to train on, counted from 1."""

    def get_base_dir(self) -> Path:
        run = super().get_base_dir()
        return run.parent / f"group-{self.group}" / run.name


@dataclass
class DistillTrainerConfig(DaCTrainerConfig):
    """A student that learns from the experts of all groups."""

    experts: Tuple[Path, ...] = ()
    """Run folders of the experts in any order, one or several of each group; by default the scene's latest of each."""


@dataclass
class FinetuneTrainerConfig(DistillTrainerConfig):
    """The distilled student, trained on with all photos, and with what experts render at new cameras if you like."""

    pipeline: FinetunePipelineConfig = field(default_factory=FinetunePipelineConfig)
    """Settings of data, model and losses."""
    student: Optional[Path] = None
    """Run folder of the distilled student to start from; by default the scene's latest."""
    teachers: Tuple[Path, ...] = ()
    """Run folders of finished runs of any nerfstudio method on this scene, instead of experts: the mean of their
    pictures is learned at new cameras. Without --student the student then starts from scratch, for which a rate of 1e-2
    (--optimizers.fields.optimizer.lr, --optimizers.proposal-networks.optimizer.lr) and the baseline's steps are right.
    Runs of other methods are opened as nerfstudio does it, which runs what their config.yml names."""


@dataclass
class EnsembleTrainerConfig(DistillTrainerConfig):
    """All experts in one model. Nothing is trained: the run assembles it and ends."""

    _target: Type = field(default_factory=lambda: EnsembleTrainer)
    """Target class to instantiate."""
    pipeline: EnsemblePipelineConfig = field(default_factory=EnsemblePipelineConfig)
    """Settings of data and model."""


def write(sources: Sources) -> None:
    """Write config.yml, and the partition beside it: evaluation and rendering need the run's folder and the data alone.
    The first run of a scene gives it its partition.

    Raises:
        PartitionError: the scene was divided otherwise since the sources were resolved.
    """
    config, partition = sources.config, sources.partition
    if config.partition is None:
        current, _ = publish_first(partition, config.scene_dir)
        if current.fingerprint != partition.fingerprint:
            raise PartitionError(f"{config.scene_dir} was divided otherwise just now. Run the same command again.")
    partition.save(config.get_base_dir() / PARTITION)
    write_text(config.get_base_dir() / CONFIG, yaml.dump(config))


class DaCTrainer(Trainer):
    """nerfstudio's trainer with whole checkpoints, a record beside them, and runs that end at their total of steps."""

    config: DaCTrainerConfig
    latest: Tuple[Tensor, Dict[str, Tensor]]
    """Loss and metrics of the latest step, on the device."""
    pipeline: DaCPipeline
    stepper: Optional[Stepper] = None
    """Takes the steps instead of nerfstudio's trainer where these can be captured."""
    in_loop = False
    """Whether steps come from nerfstudio's loop, which runs callbacks, or from somebody else's, which may not."""
    tell_rendered: Optional[Callable[[int, int], None]] = None
    """Takes the number of new views that teachers have rendered, and their total; without it a bar is drawn."""

    def __init__(self, config: DaCTrainerConfig, local_rank: int = 0, world_size: int = 1) -> None:
        with without_traceback():
            self.sources = config.sources()
        # What is trained is the configuration as it was resolved; nerfstudio's trainer notes its state in it.
        resolved = deepcopy(self.sources.config)
        for name in ("load_dir", "load_checkpoint", "load_step"):
            setattr(resolved, name, getattr(config, name))
        self.stage = deepcopy(self.sources.record)
        self.watch = LossWatch()
        super().__init__(resolved, local_rank, world_size)

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        with without_traceback():
            if self.local_rank == 0:
                write(self.sources)
            super().setup(test_mode)
            self._start_clocks()
            slots = self.call_teachers()
        # The explicit decoder's colours and densities have no digits to spare.
        torch.backends.cuda.matmul.allow_tf32 = not getattr(self.config.pipeline.model, "linear_decoder", True)
        if can_capture(self, slots.ensemble.models if slots else ()):
            self.stepper = Stepper(self, CudaGraphs(self.device), slots)
            self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self.free_stepper))
        self.request = Request()
        self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], self.save_and_stop))
        self.stage.parameters = sum(parameter.numel() for parameter in self.pipeline.model.parameters())

    def call_teachers(self) -> Optional[Slots]:
        """Load the experts, which then teach in every step, render new views, or are the ensemble. What opens a
        finished run does without their files.

        Returns:
            Where those who teach in every step can be asked in fixed shapes.

        Raises:
            StageError: an expert has no checkpoint that fits it.
        """
        pipeline, model, runs = self.pipeline, self.pipeline.model, self.sources.teachers
        if isinstance(model, EnsembleModel):
            for slot, run in zip(model.experts, runs):
                slot.load_state_dict(open_model(run, "cpu").state_dict())
            model.inverse_temperature.fill_(pipeline.choose_inverse_temperature(model.ensemble).inverse_temperature)
        elif isinstance(self.config, FinetuneTrainerConfig) and self.config.teachers:
            teachers = pipeline.finished_runs(self.config.teachers)
            pipeline.render_views(teachers, self.config.max_num_iterations, self.tell_rendered)
        elif runs:
            assert isinstance(model, StudentModel)
            experts, groups = [open_model(run, model.device) for run in runs], [run.record.group or 1 for run in runs]
            teachers = Ensemble(experts, groups, pipeline.datamanager.blend)
            if self.config.pipeline.datamanager.sort_by_group:
                model.teach = teachers.teach
                self.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self.free_teachers))
                return Slots(teachers, model.device)
            pipeline.render_views(teachers, self.config.max_num_iterations, self.tell_rendered)
        return None

    def free_teachers(self, step: int) -> None:
        """Let go of the experts, whose memory is then free for the viewer and for evaluation."""
        self.pipeline.model.teach = None

    def free_stepper(self, step: int) -> None:
        """Let go of the graphs, and of the memory that they hold."""
        self.stepper = None

    def _start_clocks(self) -> None:
        """When the run would have begun had it never been interrupted. What teachers render is a part of it."""
        self._begun = time.perf_counter() - self.stage.seconds
        self._processor_begun = time.process_time() - self.stage.processor_seconds

    def _load_checkpoint(self) -> None:
        folder, file = self.config.load_dir, self.config.load_checkpoint
        named = folder or file
        if named is None:
            self.load_start()
            return
        source = run_folder(named)
        earlier = check_resumable(source, self.sources)
        if folder is not None:
            step = self.config.load_step
            file = latest_checkpoint(source) if step is None else source / CHECKPOINTS / f"step-{step:09d}.ckpt"
        assert file is not None
        # Before nerfstudio sees it, which unpickles whatever there is with torch 2.4 and 2.5: this very file is loaded.
        content = read_checkpoint(file)
        self.config.load_dir, self.config.load_checkpoint = None, file
        scaler = self.grad_scaler
        if not content.get("scalers"):
            # Saved where there is no CUDA, and so nothing to scale: a scaler in use would refuse that, one of none not.
            self.grad_scaler = type(scaler)(enabled=False)
        super()._load_checkpoint()
        self.grad_scaler = scaler
        self.stage.seconds, self.stage.processor_seconds = earlier.seconds, earlier.processor_seconds
        self.stage.peak_memory = earlier.peak_memory

    def load_start(self) -> None:
        """Weights and Adam's moments that a run which is not resumed starts from. Rates belong to its own schedule."""
        if self.sources.start is None:
            return
        state = read_weights(latest_checkpoint(self.sources.start.folder))
        self.pipeline.load_state_dict(state["pipeline"], strict=True)
        for name, optimizer in self.optimizers.optimizers.items():
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizers"][name]["state"]})

    def train_iteration(self, step: int) -> Any:
        if not self.in_loop:
            self.pipeline.train()
            for callback in self.callbacks:
                callback.run_callback_at_location(step, TrainingCallbackLocation.BEFORE_TRAIN_ITERATION)
        output = super().train_iteration(step) if self.stepper is None else self.stepper.step(step)
        self.latest = output[0], output[2]
        self.stop_if(self.watch.note(step, output[1]))
        return output

    def stop_if(self, found: Optional[Divergence]) -> None:
        """Stop a training that has diverged.

        Raises:
            DivergenceError: it has.
        """
        if found is not None:
            self.diverged(f"{found.term} is {found.value} at step {found.step}")

    def diverged(self, what: str) -> NoReturn:
        """End a training that came to nothing.

        Raises:
            DivergenceError: always.
        """
        group = f" of group {self.stage.group}" if self.stage.group else ""
        kept = checkpoints(self.base_dir)
        last = f"{kept[-1]} is from before that and stays" if kept else "nothing was saved before that"
        rates = ", ".join(
            f"--optimizers.{name.replace('_', '-')}.optimizer.lr {group['optimizer'].lr:g}"
            for name, group in self.config.optimizers.items()
        )
        raise DivergenceError(
            f"The training of {self.stage.method}{group} has diverged: {what}; {last}. Try smaller learning rates "
            f"than {rates}."
        )

    def train(self) -> None:
        """Make what the run is for, and end where that is asked for or fails.

        Raises:
            SystemExit: something that the user has to correct.
            Interrupted: somebody has asked to stop.
        """
        with without_traceback(), stop_requests(self.wake) as self.request:
            self._train()
            if self.request.signal is not None:
                # Too late to stop short of the total, which is saved by now; in time for what would come next.
                raise Interrupted(self.request.signal, self.stage.total_steps)

    def _train(self) -> None:
        """Train up to ``max_num_iterations`` in all, the steps of a resumed run included."""
        total = self.config.max_num_iterations
        if self._start_step >= total:
            CONSOLE.print(f"Nothing to train: the checkpoint has all {total} steps. More with --max-num-iterations.")
            last = self.checkpoint_dir / f"step-{self._start_step - 1:09d}.ckpt"
            if last.exists():
                # Stopped after the last checkpoint was there and before the record said so.
                self.stage.mark(last, self._start_step)
                self.stage.save(self.base_dir)
            return
        # nerfstudio would run this many steps on top of those it resumes from.
        self.config.max_num_iterations = total - self._start_step
        self.in_loop = True
        try:
            super().train()
        finally:
            self.config.max_num_iterations, self.in_loop = total, False

    def wake(self) -> None:
        """Let a training that is paused in the viewer take another step, after which it hears of a request to stop."""
        if self.training_state == "paused":
            self.training_state = "training"

    def _train_complete_viewer(self) -> None:
        def end(number: int, frame: Optional[FrameType]) -> NoReturn:
            raise Interrupted(number, self.stage.total_steps)

        # Everything is saved, and no step is left that would hear of a request: it ends at once.
        with handling(end):
            if self.request.signal is None:
                super()._train_complete_viewer()

    def save_and_stop(self, step: int) -> None:
        """Save a finished training step and stop, if somebody has asked to.

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
        """Save everything from which the training goes on, as a whole or not at all.

        Raises:
            DivergenceError: a loss or a weight is no finite number.
        """
        self.stop_if(self.watch.look())
        weight = not_finite(self.pipeline.model.named_parameters())
        if weight is not None:
            self.diverged(f"{weight} holds what is no finite number after step {step}")
        self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        path = self.checkpoint_dir / f"step-{step:09d}.ckpt"
        # Written beside the folder, every file of which nerfstudio takes for a checkpoint, and moved in when whole.
        temporary = self.base_dir / f".{path.name}"
        pipeline = getattr(self.pipeline, "module", self.pipeline)
        content = {
            "step": step,
            "pipeline": pipeline.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.optimizers.items()},
            "schedulers": {name: s.state_dict() for name, s in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
        }
        try:
            torch.save(content, temporary)
            move_in(temporary, path)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter for whatever the disk says
            temporary.unlink(missing_ok=True)
            free = shutil.disk_usage(self.base_dir).free
            raise StageError(
                f"The checkpoint of step {step} cannot be written in {self.base_dir}, where {free / 1e6:,.0f} MB are "
                f"free ({str(error).splitlines()[0]}). Make room, and run the same command again: it goes on from the "
                "last one saved."
            ) from error
        self.stage.mark(path, step + 1)
        self.stage.seconds = time.perf_counter() - self._begun
        if self.config.machine.device_type == "cpu":
            self.stage.processor_seconds = time.process_time() - self._processor_begun
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

    def _train(self) -> None:
        assert isinstance(self.pipeline.model, EnsembleModel)
        self.save_checkpoint(0)
        say(CONSOLE, f"The experts of {len(self.pipeline.model.experts)} groups are assembled in {self.base_dir}.")
