"""nerfacto beside K-Planes: nerfstudio's own model, which errs otherwise and so teaches what K-Planes cannot.

Model, losses and renderers are nerfstudio's. Ours are the settings for few photos, updates of the proposals that are a
function of the step, and hash decay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Literal, Optional, Tuple, Type
from unittest import mock

import torch
import tyro
from jaxtyping import Float
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.field_components.encodings import HashEncoding
from nerfstudio.model_components.scene_colliders import NearFarCollider
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from torch import Tensor

from dac_nerfstudio.image_scores import scores_and_images
from dac_nerfstudio.kplanes.decoders import Implementation
from dac_nerfstudio.kplanes.proposals import UpdateSchedule, anneal_exponent
from dac_nerfstudio.nerfacto.hash_grid import compile_grids


@dataclass
class NerfactoConfig(NerfactoModelConfig):
    """nerfacto's settings, with those that suit few photos: random backgrounds, no embedding of each photo, cameras as
    they are."""

    _target: Type = field(default_factory=lambda: Nerfacto)
    """Target class to instantiate."""
    background_color: Literal["random", "last_sample", "black", "white"] = "random"
    """Behind transparent pixels. 'random' draws one colour per ray and is white in evaluation."""
    scene_radius: Optional[float] = None
    """Half the side of the box that holds the scene, as for K-Planes. Unused when contracted."""
    hash_decay: float = 0.1
    """Weight of the squared entries of the hash grids, mean of each level, summed over levels (Zip-NeRF,
    arXiv 2304.06706). A student, which rendered views smooth as well, needs less."""
    average_init_density: float = 0.01
    """Density of an empty model: few photos settle on fog at the cameras otherwise."""
    implementation: Implementation = "auto"  # type: ignore[assignment]
    """Encodings and MLPs by tiny-cuda-nn or PyTorch; 'auto' takes tiny-cuda-nn where it is installed with a CUDA
    device. Hash decay needs PyTorch's."""
    use_appearance_embedding: tyro.conf.Suppress[bool] = False
    predict_normals: tyro.conf.Suppress[bool] = False
    camera_optimizer: tyro.conf.Suppress[CameraOptimizerConfig] = field(
        default_factory=lambda: CameraOptimizerConfig(mode="off")
    )

    @property
    def is_contracted(self) -> bool:
        """Whether all of space is contracted, as K-Planes call it."""
        return not self.disable_scene_contraction

    @property
    def numbers_per_ray(self) -> int:
        """How many numbers a training step makes of a ray, as K-Planes count them."""
        samples = self.num_nerf_samples_per_ray
        proposed = sum(self.num_proposal_samples_per_ray[: self.num_proposal_iterations])
        width = self.num_levels * self.features_per_level + 2 * self.hidden_dim + 2 * self.hidden_dim_color
        return 40 * (samples + proposed) + width * samples


class Nerfacto(NerfactoModel):
    """nerfacto for our data manager: experts, baselines and students."""

    config: NerfactoConfig

    def populate_modules(self) -> None:
        config = self.config
        if not config.is_contracted:
            assert config.scene_radius is not None
            self.scene_box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]) * config.scene_radius)
        # nerfstudio's would download its weights, and be saved in every checkpoint.
        with mock.patch("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", lambda **_: None):
            super().populate_modules()
        # As in K-Planes: the same near plane in training and in evaluation.
        self.collider = NearFarCollider(config.near_plane, config.far_plane, reset_near_plane=False)  # type: ignore
        self.first_step = 0
        """Training steps that the model had behind it before this run; its schedules go on from there."""
        self.update_schedule = UpdateSchedule(config.proposal_warmup, config.proposal_update_every)
        # nerfacto counts the steps since the last update, which a resumed run does not know.
        self.proposal_sampler.update_sched = lambda step: 0 if self.update_schedule.due(step) else 1
        compile_grids(self)
        # Those of tiny-cuda-nn keep their entries to themselves.
        self.grids = [one for one in self.modules() if isinstance(one, HashEncoding) and len(one.hash_table)]
        for grid in self.grids:
            # nerfacto asks for the gradient of positions, which nobody uses where cameras and normals are not learned.
            grid.register_forward_pre_hook(lambda _, inputs: (inputs[0].detach(),))

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], self.begin_step)]

    def begin_step(self, step: int) -> None:
        """Set the schedules of the proposals to a training step, counted from 0 in this run."""
        config, sampler = self.config, self.proposal_sampler
        self.step = sampler._step = step = self.first_step + step
        sampler._steps_since_update = 1
        slope, steps = config.proposal_weights_anneal_slope, config.proposal_weights_anneal_max_num_iters
        sampler.set_anneal(anneal_exponent(step, slope, steps) if config.use_proposal_weight_anneal else 1.0)

    def train(self, mode: bool = True) -> Nerfacto:
        random = self.config.background_color == "random"
        self.renderer_rgb.background_color = "white" if random and not mode else self.config.background_color
        if not mode:
            # Proposals are trusted in evaluation, however far training is: an opened run has no step.
            self.proposal_sampler.set_anneal(1.0)
        return super().train(mode)

    def get_loss_dict(
        self, outputs: Dict[str, Any], batch: Dict[str, Any], metrics_dict: Optional[Dict[str, Any]] = None
    ) -> Dict[str, Tensor]:
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        if self.training and self.grids and self.config.hash_decay > 0:
            levels = [grid.num_levels * grid.hash_table.square().mean() for grid in self.grids]
            losses["hash_decay_loss"] = self.config.hash_decay * torch.stack(levels).sum()
        return losses

    def teach_on(self, device: torch.device | str) -> Nerfacto:
        """Move to a device, frozen: training is over."""
        return self.to(device).requires_grad_(False).eval()

    def true_colour(self, outputs: Dict[str, Any], batch: Dict[str, Any]) -> Float[Tensor, "*pixels 3"]:
        """The photo on the background of evaluation."""
        return self.renderer_rgb.blend_background(batch["image"].to(self.device))

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        return scores_and_images(outputs, self.true_colour(outputs, batch))
