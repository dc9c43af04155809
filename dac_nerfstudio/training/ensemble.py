"""All experts in one model, each camera answered by a blend of them: what the teachers know, as one method."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

import torch
import tyro
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from nerfstudio.utils import colormaps
from torch import Tensor, nn
from torch.nn import Parameter

from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.teachers.ensemble import blended, of_experts, without_the_least
from dac_nerfstudio.teachers.experts import load_expert
from dac_nerfstudio.teachers.models import ExpertModel
from dac_nerfstudio.training.pipeline import DaCPipeline, DaCPipelineConfig

Blend = Callable[[Float[Tensor, "cameras 3 4"], float], Float[Tensor, "cameras groups"]]
"""Camera-to-world matrices and a sharpness -> the weights of the groups' experts at each camera."""


@dataclass
class EnsembleModelConfig(KPlanesModelConfig):
    """Settings of an ensemble: near, far and background are those that all experts share."""

    _target: Type = field(default_factory=lambda: EnsembleModel)
    """Target class to instantiate."""
    experts: tyro.conf.Suppress[Tuple[KPlanesModelConfig, ...]] = ()
    """Settings of each expert; set from their records."""
    groups: tyro.conf.Suppress[Tuple[int, ...]] = ()
    """Group of each expert, counted from 1; set from their records."""


class EnsembleModel(KPlanesModel):
    """K-Planes models of any sizes, one or several for each group. Nothing in it is trained."""

    config: EnsembleModelConfig
    blend: Optional[Blend] = None
    """Weights of the experts at each camera; set by the pipeline."""
    sharpness: Tensor
    """How sharply experts are told apart, from 0, the average of all, to infinity, each group's alone. Saved with the
    experts, for whom it is chosen."""

    def populate_modules(self) -> None:
        super().populate_modules()
        # Of the body only the renderers are needed; the fields are the experts'.
        del self.field, self.proposal_networks
        self.experts = nn.ModuleList(
            ExpertModel(config, self.scene_box, self.num_train_data) for config in self.config.experts
        )
        self.register_buffer("sharpness", torch.tensor(float("inf")))

    def expert(self, number: int) -> ExpertModel:
        """One of the experts, counted from 0."""
        expert = self.experts[number]
        assert isinstance(expert, ExpertModel)
        return expert

    def rays_at_a_time(self) -> int:
        return min(self.expert(number).rays_at_a_time() for number in range(len(self.experts)))

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        return {}

    def weights(
        self, camera_to_worlds: Float[Tensor, "cameras 3 4"], sharpness: Optional[float] = None
    ) -> Float[Tensor, "cameras experts"]:
        """Weights of the experts at each camera; those of little weight are left out, and those of one group share its.

        Args:
            camera_to_worlds: poses in the model's frame.
            sharpness: another one than the model's.
        """
        assert self.blend is not None
        of_groups = self.blend(camera_to_worlds, float(self.sharpness) if sharpness is None else sharpness)
        return without_the_least(of_experts(of_groups, self.config.groups))

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> Dict[str, Tensor]:
        (weights,) = self.weights(camera.camera_to_worlds.view(-1, 3, 4)[:1])
        asked = weights.nonzero()[:, 0].tolist()
        answers = [self.expert(number).get_outputs_for_camera(camera, obb_box) for number in asked]
        outputs = blended(answers, weights[asked])
        group = self.config.groups[int(weights.argmax())]
        return {**outputs, "group": torch.full_like(outputs["depth"], group)}

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Any]:
        """Rays without a camera are answered one by one, each as if a camera stood at its origin and looked along it.
        They have no disagreement."""
        weights = self.weights(poses_of(ray_bundle)).to(ray_bundle.origins.device)
        outputs: Dict[str, Tensor] = {}
        for number, weight in enumerate(weights.T):
            mine = weight > 0
            if not mine.any():
                continue
            for name, value in self.expert(number).get_outputs(ray_bundle[mine]).items():
                total = outputs.setdefault(name, value.new_zeros(len(weight), *value.shape[1:]))
                total[mine] += weight[mine, None] * value
        return outputs

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """Besides the scores of any model how well the experts' disagreement foretells the error: the correlation of
        the two over pixels (``disagreement_correlation``), and the share of the squared error in the 5 % of pixels in
        which they disagree most (``disagreement_error_share``)."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if outputs["disagreement"].any():
            error = outputs["rgb"] - self.true_colour(outputs, batch)
            metrics.update(foretold(outputs["disagreement"][..., 0], error))
            images["disagreement"] = colormaps.apply_colormap(outputs["disagreement"] / outputs["disagreement"].max())
        return metrics, images

    def get_loss_dict(
        self, outputs: Dict[str, Any], batch: Dict[str, Any], metrics_dict: Optional[Dict[str, Any]] = None
    ) -> Dict[str, Tensor]:
        return {"rgb_loss": (outputs["rgb"] - self.true_colour(outputs, batch)).square().mean()}


WORST = 0.05
"""Share of pixels, of those where experts disagree most."""


def foretold(disagreement: Float[Tensor, "height width"], error: Float[Tensor, "height width 3"]) -> Dict[str, float]:
    """How well disagreement foretells the error of a picture: see `EnsembleModel.get_image_metrics_and_images`."""
    flat, squared = disagreement.flatten(), error.square().sum(dim=-1).flatten()
    correlation = torch.corrcoef(torch.stack((flat, error.abs().mean(dim=-1).flatten())))[0, 1]
    worst = flat.topk(max(round(WORST * len(flat)), 1)).indices
    return {
        # Where one of the two is the same everywhere there is nothing to foretell.
        "disagreement_correlation": float(correlation.nan_to_num()),
        "disagreement_error_share": float(squared[worst].sum() / squared.sum().clamp(min=1e-12)),
    }


def poses_of(rays: RayBundle) -> Float[Tensor, "rays 3 4"]:
    """Camera-to-world matrices at the rays' origins, looking along -z as nerfstudio's cameras do; the turn about the
    viewing direction is arbitrary."""
    backward = -torch.nn.functional.normalize(rays.directions, dim=-1)
    # Any axis that is not nearly parallel to the direction will do to complete the frame.
    helper = torch.eye(3, device=backward.device)[backward.abs().argmin(dim=-1)]
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, backward), dim=-1)
    up = torch.linalg.cross(backward, right)
    return torch.stack((right, up, backward, rays.origins), dim=-1)


@dataclass
class EnsemblePipelineConfig(DaCPipelineConfig):
    """Settings of the pipeline."""

    _target: Type = field(default_factory=lambda: EnsemblePipeline)
    """Target class to instantiate."""
    model: EnsembleModelConfig = field(default_factory=EnsembleModelConfig)
    """Settings of the experts."""
    experts: tyro.conf.Suppress[Tuple[Path, ...]] = ()
    """Run folders of the experts, in the order of the groups; set from --experts."""
    sharpness: Optional[float] = None
    """How sharply experts are told apart: 0 averages all of them, inf asks each camera's own alone. By default what is
    best on validation views."""


class EnsemblePipeline(DaCPipeline):
    """Puts the experts together, chooses how sharply they are told apart, and tells the model how to blend them."""

    config: EnsemblePipelineConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.blend = self.datamanager.blend

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        """Loads the experts besides, as nerfstudio's trainer asks for callbacks, and chooses how sharply they are told
        apart; from then on the checkpoint has both.

        Raises:
            StageError: an expert has no checkpoint that fits it.
        """
        for slot, folder in zip(self.model.experts, self.config.experts):
            slot.load_state_dict(load_expert(folder, Stage.load(folder), "cpu").state_dict())
        self.model.sharpness.fill_(self.choose_sharpness(self.config.sharpness, self.model.experts, self.model.weights))
        return super().get_training_callbacks(attributes)
