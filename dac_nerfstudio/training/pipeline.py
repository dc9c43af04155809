"""nerfstudio's pipeline with repeatable steps and scores per view and per group, and with teachers for distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple, Type

import numpy as np
import torch
import torchvision.utils
import tyro
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import track
from torch import Tensor, nn

from dac_nerfstudio.image_scores import save_pair
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.media import provide_ffmpeg
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.sampling.hashing import key_of, seed_generators
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.teachers.calibration import MOST_VIEWS, UNCHOSEN, Pictures, Weights, choose_sharpness
from dac_nerfstudio.teachers.ensemble import ExpertBank, of_experts, without_the_least
from dac_nerfstudio.teachers.experts import load_expert
from dac_nerfstudio.teachers.models import ExpertModel, StudentModel, StudentModelConfig
from dac_nerfstudio.teachers.rendered_views import enough, render_lessons
from dac_nerfstudio.training.datamanager import DaCDataManager, DaCDataManagerConfig
from dac_nerfstudio.training.layers import LayersPanel
from dac_nerfstudio.training.panel import GroupsPanel
from dac_nerfstudio.training.progress import ProgressPanel


@dataclass
class DaCPipelineConfig(VanillaPipelineConfig):
    """Settings of the pipeline."""

    _target: Type = field(default_factory=lambda: DaCPipeline)
    """Target class to instantiate."""
    datamanager: DaCDataManagerConfig = field(default_factory=DaCDataManagerConfig)
    """Settings of the data manager."""
    model: KPlanesModelConfig = field(default_factory=KPlanesModelConfig)
    """Settings of the model."""
    seed: tyro.conf.Suppress[int] = 42
    """Seed of every training step's randomness; derived from --machine.seed and the method."""
    first_step: tyro.conf.Suppress[int] = 0
    """Steps that the model was trained for before this run; its schedules go on from there."""


class DaCPipeline(VanillaPipeline):
    """Reseeds every training step, so that a resumed run is the undisturbed one; scores views by group."""

    config: DaCPipelineConfig
    datamanager: DaCDataManager

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.test_mode != "val":
            # `ns-render` looks for ffmpeg once it has opened a run, and nothing else of ours is asked before that.
            provide_ffmpeg()
        # Public: nerfstudio's viewer finds them by looking through the pipeline's attributes.
        self.groups_panel = GroupsPanel(self.datamanager, self.blended_at)
        self.layers_panel = LayersPanel(self.datamanager, self.blended_at)
        self.progress_panel = ProgressPanel(self.datamanager)

    def blended_at(self) -> float:
        """How sharply this model tells experts apart, or would by default."""
        sharpness = getattr(self.model, "sharpness", None)
        return UNCHOSEN if sharpness is None else float(sharpness)

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        assert isinstance(self.model, KPlanesModel)
        self.model.first_step = self.config.first_step
        return super().get_training_callbacks(attributes)

    def get_train_loss_dict(self, step: int) -> Any:
        seed_generators(key_of(self.config.seed, self.datamanager.rank, step), self.device)
        assert isinstance(self.model, KPlanesModel)
        # What nerfstudio's pipeline does, which keeps the batch to itself.
        rays, batch = self.datamanager.next_train(step)
        outputs = self._model(rays)
        metrics = self.model.get_metrics_dict(outputs, batch)
        losses = self.model.get_loss_dict(outputs, batch, metrics)
        self.progress_panel.look(self.model, outputs, batch, losses)
        return outputs, losses, metrics

    def load_pipeline(self, loaded_state: Dict[str, Any], step: int) -> None:
        # nerfstudio would load what fits and leave the rest random, without a word.
        self.load_state_dict({key.removeprefix("module."): value for key, value in loaded_state.items()}, strict=True)

    def get_average_eval_image_metrics(
        self, step: Optional[int] = None, output_path: Optional[Path] = None, get_std: bool = False
    ) -> Dict[str, float]:
        """Mean scores over all evaluation views; for a model of a known partition also those of each group's views
        (``psnr_group_1``), for an expert those of its own (``psnr_own_group``)."""
        views = self.score_views(output_path)
        return mean_scores(views, self.datamanager.config.group, get_std)

    @torch.no_grad()
    def score_views(
        self,
        output_path: Optional[Path] = None,
        only_group: Optional[int] = None,
        most: Optional[int] = None,
        progress: Optional[Callable[[int, int], None]] = None,
        pairs: Optional[Path] = None,
    ) -> List[Dict[str, Any]]:
        """Scores of each evaluation view: name, group (None without a partition), psnr, ssim, ms_ssim where the image
        is large enough, flip where it is installed, lpips where its weights are; num_rays_per_sec and fps of rendering.

        Args:
            output_path: where nerfstudio's pictures go, if anywhere.
            only_group: pass over the views of other groups.
            most: score one view in so many that no more than this are scored, the first included.
            progress: called after each view with the number of views done and their total; without it a bar is drawn.
            pairs: folder for photo and rendering of each view, side by side; a view's ``pair`` is its file there.

        Raises:
            FileNotFoundError: there are no views.
        """
        if self.datamanager.eval_dataset is None:
            raise FileNotFoundError("There are no views to score: the data has no such split.")
        self.eval()
        for folder in (output_path, pairs):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        cameras = self.datamanager.eval_dataset.cameras
        groups: List[Optional[int]] = [None] * len(cameras)
        if self.datamanager.partition is not None:
            groups = self.datamanager.route(cameras.camera_to_worlds).tolist()
        loader, names = self.datamanager.fixed_indices_eval_dataloader, self.datamanager.eval_names
        every = 1 if most is None else math.ceil(len(groups) / most)
        wanted = [number for number in range(0, len(groups), every) if only_group in (None, groups[number])]
        views: List[Dict[str, Any]] = []
        for number in wanted if progress else track(wanted, "Evaluating views", transient=True):
            camera, batch = loader.get_camera(number)
            start, processor_start = perf_counter(), process_time()
            outputs = self.model.get_outputs_for_camera(camera=camera)
            rays = int(camera.height * camera.width)
            # On a GPU the clock would stop before the work is done.
            outputs["rgb"].sum().item()
            seconds, processor_seconds = perf_counter() - start, process_time() - processor_start
            metrics, images = self.model.get_image_metrics_and_images(outputs, batch)
            if output_path is not None:
                for kind, image in images.items():
                    torchvision.utils.save_image(
                        image.permute(2, 0, 1).cpu(), output_path / f"eval_{kind}_{number:04d}.png"
                    )
            views.append(
                {
                    "name": names[number],
                    "group": groups[number],
                    **metrics,
                    "num_rays_per_sec": rays / seconds,
                    "fps": 1 / seconds,
                    **({"processor_seconds": processor_seconds} if outputs["rgb"].device.type == "cpu" else {}),
                }
            )
            if pairs is not None:
                views[-1]["pair"] = f"{number:04d}.png"
                save_pair(images["img"], pairs / views[-1]["pair"])
            if progress is not None:
                progress(len(views), len(wanted))
        self.train()
        return views

    @torch.no_grad()
    def choose_sharpness(self, asked: Optional[float], experts: Iterable[nn.Module], weights: Weights) -> float:
        """How sharply experts are to be told apart: as was asked for, or as is best on validation views that are no
        test views.

        Args:
            asked: what the user wants, if anything.
            experts: models to blend.
            weights: weights of these at cameras, by sharpness.
        """
        if asked is not None:
            return asked
        numbers = self.datamanager.views_to_choose_on(MOST_VIEWS)
        if not numbers:
            CONSOLE.print(f"There are no validation views to choose a sharpness on: experts are blended at {UNCHOSEN}.")
            return UNCHOSEN
        models = [expert for expert in experts if isinstance(expert, KPlanesModel)]
        best, psnr = choose_sharpness((self._as_rendered(models, number) for number in numbers), weights)
        tried = ", ".join(f"{sharpness:g}: {value:.2f}" for sharpness, value in psnr.items())
        CONSOLE.print(f"Experts are blended at sharpness {best:g}; PSNR on {len(numbers)} validation views: {tried}.")
        return best

    def _as_rendered(self, models: List[KPlanesModel], number: int) -> Pictures:
        """An evaluation view as each model renders it, and the photo."""
        camera, batch = self.datamanager.fixed_indices_eval_dataloader.get_camera(number)
        pictures = torch.stack([model.get_outputs_for_camera(camera)["rgb"] for model in models])
        return pictures, models[0].true_colour({}, batch), camera.camera_to_worlds.view(-1, 3, 4)[0]


@dataclass
class DistillPipelineConfig(DaCPipelineConfig):
    """Settings of the pipeline."""

    _target: Type = field(default_factory=lambda: DistillPipeline)
    """Target class to instantiate."""
    model: StudentModelConfig = field(default_factory=StudentModelConfig)
    """Settings of the student."""
    experts: tyro.conf.Suppress[Tuple[Path, ...]] = ()
    """Run folders of the experts, in the order of the groups; set from --experts."""


class DistillPipeline(DaCPipeline):
    """Gives the student its teachers for as long as it trains."""

    config: DistillPipelineConfig

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        """Besides the callbacks calls the experts in: nerfstudio's trainer asks for callbacks once, when the student
        has its weights. Evaluation, rendering and viewer never ask, and do without the experts' files.

        Raises:
            StageError: an expert has no checkpoint that fits it.
        """
        self.call_experts(attributes)
        callbacks = super().get_training_callbacks(attributes)
        return [*callbacks, TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN], self.free_teachers)]

    def call_experts(self, attributes: TrainingCallbackAttributes) -> None:
        """Load the experts to teach in every step.

        Raises:
            StageError: an expert has no checkpoint that fits it.
        """
        experts, groups = self.load_experts()
        self._student().teachers = ExpertBank(
            [[e for e, of in zip(experts, groups) if of == group] for group in sorted(set(groups))]
        )

    def load_experts(self) -> Tuple[List[ExpertModel], List[int]]:
        """The experts, on the student's device, and the group of each.

        Raises:
            StageError: an expert has no checkpoint that fits it.
        """
        records = [Stage.load(folder) for folder in self.config.experts]
        device = self._student().device
        experts = [load_expert(folder, record, device) for folder, record in zip(self.config.experts, records)]
        return experts, [record.group or 1 for record in records]

    def free_teachers(self, step: int) -> None:
        """Let go of the experts, whose memory is then free for the viewer and for evaluation."""
        self._student().teachers = None

    def _student(self) -> StudentModel:
        assert isinstance(self.model, StudentModel)
        return self.model


@dataclass
class FinetunePipelineConfig(DistillPipelineConfig):
    """Settings of the pipeline."""

    _target: Type = field(default_factory=lambda: FinetunePipeline)
    """Target class to instantiate."""
    novel_share: float = 0.0
    """Share of each batch's rays that start from new cameras, between and around the training cameras. There the
    student learns from pictures that the experts, blended, have rendered before training."""
    sharpness: Optional[float] = None
    """How sharply experts are told apart at new cameras: 0 averages all of them, inf asks each camera's own alone. By
    default what is best on validation views."""


class FinetunePipeline(DistillPipeline):
    """Gives the student pictures of new views beside the photos, if it is to have some."""

    config: FinetunePipelineConfig

    def call_experts(self, attributes: TrainingCallbackAttributes) -> None:
        if self.config.novel_share > 0:
            assert attributes.trainer is not None
            self.take_lessons(attributes.trainer.config.max_num_iterations)

    def take_lessons(self, steps: int) -> None:
        """Load the experts, let them render pictures of new views for so many steps, and let go of them.

        Raises:
            StageError: an expert has no checkpoint that fits it.
        """
        manager, share = self.datamanager, self.config.novel_share
        experts, groups = self.load_experts()

        def weights(camera_to_worlds: Tensor, sharpness: float) -> Tensor:
            return without_the_least(of_experts(manager.blend(camera_to_worlds, sharpness), groups))

        sharpness = self.choose_sharpness(self.config.sharpness, experts, weights)
        cameras = manager.train_dataset.cameras
        count = enough(int(share * steps * manager.config.train_num_rays_per_batch), cameras)
        generator = np.random.default_rng(self.config.seed)
        manager.lessons = render_lessons(experts, lambda poses: weights(poses, sharpness), cameras, count, generator)
        manager.lesson_share = share
        CONSOLE.print(f"The experts have rendered {count} new views; {share:.0%} of the rays are theirs.")


NOT_SCORES = ("name", "group", "pair")
"""Entries of a view's scores that are no numbers to take a mean of."""


def mean_scores(views: List[Dict[str, Any]], own_group: Optional[int] = None, std: bool = False) -> Dict[str, float]:
    """Mean of each score over views, over each group's views and over those of ``own_group``, flat."""

    def mean(subset: List[Dict[str, Any]], key: str) -> float:
        return sum(view[key] for view in subset) / len(subset)

    scores = [key for key in views[0] if key not in NOT_SCORES and all(key in view for view in views)]
    result = {key: mean(views, key) for key in scores}
    if std:
        for key in scores:
            result[f"{key}_std"] = float(torch.tensor([view[key] for view in views]).std(correction=0))
    for group in sorted({view["group"] for view in views if view["group"] is not None}):
        subset = [view for view in views if view["group"] == group]
        for key in (score for score in SCORES if score in scores):
            result[f"{key}_group_{group}"] = mean(subset, key)
            if group == own_group:
                result[f"{key}_own_group"] = mean(subset, key)
    return result
