"""nerfstudio's pipeline with repeatable steps, and scores per view and per group."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Type

import numpy as np
import torch
import torchvision.utils
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from typing_extensions import Annotated

from dac_nerfstudio.errors import SplitError, StageError
from dac_nerfstudio.image_scores import save_pair
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.media import provide_ffmpeg
from dac_nerfstudio.messages import tracked
from dac_nerfstudio.nerfacto.model import Nerfacto
from dac_nerfstudio.sampling.hashing import key_of, seed_generators
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.teachers.ensemble import UNCHOSEN, Ensemble, choose_inverse_temperature, paints_background
from dac_nerfstudio.teachers.finished_runs import Views, ensemble_of
from dac_nerfstudio.teachers.rendered_views import enough, render_views
from dac_nerfstudio.training.datamanager import DaCDataManager, DaCDataManagerConfig
from dac_nerfstudio.training.ensemble import EnsembleModel
from dac_nerfstudio.viewer.groups import GroupsPanel
from dac_nerfstudio.viewer.layers import LayersPanel

MOST_VIEWS = 8
"""Validation views to choose one number on."""


@dataclass
class DaCPipelineConfig(VanillaPipelineConfig):
    """Settings of the pipeline."""

    _target: Type = field(default_factory=lambda: DaCPipeline)
    """Target class to instantiate."""
    datamanager: DaCDataManagerConfig = field(default_factory=DaCDataManagerConfig)
    """Settings of the data manager."""
    model: ModelConfig = field(default_factory=KPlanesModelConfig)
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
        if isinstance(self.model, EnsembleModel):
            self.model.blend = self.datamanager.blend
        # Public: nerfstudio's viewer finds them by looking through the pipeline's attributes.
        self.groups_panel = GroupsPanel(self.datamanager, self.blended_at)
        self.layers_panel = LayersPanel(self.datamanager, self.blended_at)

    def blended_at(self) -> float:
        """Inverse temperature of this model's blend, or the default one."""
        return float(getattr(self.model, "inverse_temperature", UNCHOSEN))

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        assert isinstance(self.model, (KPlanesModel, Nerfacto))
        self.model.first_step = self.config.first_step
        return super().get_training_callbacks(attributes)

    def seed_step(self, step: int) -> None:
        """Seed PyTorch's generators for a training step."""
        seed_generators(key_of(self.config.seed, self.datamanager.rank, step), self.device)

    def get_train_loss_dict(self, step: int) -> Any:
        self.seed_step(step)
        return super().get_train_loss_dict(step)

    def load_pipeline(self, loaded_state: Dict[str, Any], step: int) -> None:
        if self.test_mode != "val":
            # `ns-render` looks for ffmpeg once it has opened a run, and nothing else of ours is asked before that.
            provide_ffmpeg()
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
            most: score at most this many views, evenly spread, the first included.
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
        for number in tracked(wanted, "Evaluating views", progress):
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
        self.train()
        return views

    def choose_inverse_temperature(self, ensemble: Ensemble) -> Ensemble:
        """The ensemble at the inverse temperature that was asked for, or at the best one on validation views that are
        no test views."""
        asked = getattr(self.config, "inverse_temperature", None)
        if asked is not None:
            return ensemble.at(asked)
        if len(set(ensemble.groups)) == 1:
            return ensemble
        numbers = self.datamanager.views_to_choose_on(MOST_VIEWS)
        if not numbers:
            CONSOLE.print(
                f"There are no validation views to choose on: experts are blended at inverse temperature {UNCHOSEN}."
            )
            return ensemble.at(UNCHOSEN)
        best, psnr = choose_inverse_temperature(ensemble, (self._view(number) for number in numbers))
        tried = ", ".join(f"{candidate:g}: {value:.2f}" for candidate, value in psnr.items())
        CONSOLE.print(
            f"Experts are blended at inverse temperature {best:g}; PSNR on {len(numbers)} validation views: {tried}."
        )
        return ensemble.at(best)

    def _view(self, number: int) -> Tuple[Cameras, Tensor]:
        """Camera and photo of an evaluation view."""
        assert isinstance(self.model, (KPlanesModel, Nerfacto))
        camera, batch = self.datamanager.fixed_indices_eval_dataloader.get_camera(number)
        return camera, self.model.true_colour({}, batch)

    def finished_runs(self, folders: Sequence[Path]) -> Ensemble:
        """Runs of any method as teachers of this one.

        Raises:
            StageError: see `ensemble_of`; or a teacher paints the background that photos here are without.
        """
        manager = self.datamanager
        learner = Views(manager.train_names, manager.train_dataset.cameras.camera_to_worlds)
        try:
            test_names = manager.scene.names("test")
        except SplitError:
            test_names = ()
        teachers = ensemble_of(folders, learner, test_names, self.model.device)
        painting = [folder for folder, one in zip(folders, teachers.models) if paints_background(one.model)]
        photos = (manager.train_dataset.get_numpy_image(view) for view in range(len(manager.train_names)))
        if painting and any(photo.shape[-1] == 4 and photo[..., 3].min() < 255 for photo in photos):
            raise StageError(
                f"The teacher in {painting[0]} paints its own background, and the photos of this scene have none. "
                "Train the teacher with --pipeline.model.background-color random"
            )
        return teachers

    def render_views(
        self, teachers: Ensemble, steps: int, progress: Optional[Callable[[int, int], None]] = None
    ) -> None:
        """Have teachers render new views, of which training draws its share of rays."""
        assert isinstance(self.config, FinetunePipelineConfig)
        manager, share = self.datamanager, self.config.novel_share or 0.0
        teachers, cameras = self.choose_inverse_temperature(teachers), manager.train_dataset.cameras
        count = enough(int(share * steps * manager.config.train_num_rays_per_batch), cameras)
        manager.rendered = render_views(teachers, cameras, count, np.random.default_rng(self.config.seed), progress)
        manager.rendered_share = share
        CONSOLE.print(f"The teachers have rendered {count} new views; {share:.0%} of the rays are theirs.")


@dataclass
class EnsemblePipelineConfig(DaCPipelineConfig):
    """Settings of the pipeline, with experts that are blended."""

    inverse_temperature: Annotated[Optional[float], tyro.conf.arg(aliases=["--pipeline.sharpness"])] = None
    """Of the experts' blend: 0 averages all of them, inf asks each camera's own alone. By
    default the best one on validation views."""


@dataclass
class FinetunePipelineConfig(EnsemblePipelineConfig):
    """Settings of the pipeline, with views that experts render."""

    novel_share: Optional[float] = None
    """Share of each batch's rays that start from new cameras, between and around the training cameras. There the
    student learns from pictures that the experts, blended, have rendered before training. By default
    0, and 0.5 with --teachers."""


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
