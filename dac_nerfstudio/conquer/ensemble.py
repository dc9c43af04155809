"""All experts in one model, each camera answered by the expert of its group: what the teachers know, as one method."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

import torch
import tyro
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes
from torch import Tensor, nn
from torch.nn import Parameter

from dac_nerfstudio.conquer.experts import load_expert
from dac_nerfstudio.conquer.models import ExpertModel
from dac_nerfstudio.conquer.pipeline import DaCPipeline, DaCPipelineConfig
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.stage import Stage

Router = Callable[[Float[Tensor, "cameras 3 4"]], Int[Tensor, "cameras"]]
"""From camera-to-world matrices to the number of each camera's group, from 1."""


@dataclass
class EnsembleModelConfig(KPlanesModelConfig):
    """Settings of the experts, which all share them."""

    _target: Type = field(default_factory=lambda: EnsembleModel)
    """Target class to instantiate."""
    groups: tyro.conf.Suppress[int] = 0
    """Number of experts; set from the partition."""


class EnsembleModel(KPlanesModel):
    """As many K-Planes models as groups. Nothing in it is trained."""

    config: EnsembleModelConfig
    route: Optional[Router] = None
    """Group of each camera, from 1; set by the pipeline."""

    def populate_modules(self) -> None:
        super().populate_modules()
        # Of the body only the renderers are needed; the fields are the experts'.
        del self.field, self.proposal_networks
        names = [f.name for f in fields(KPlanesModelConfig) if f.name != "_target"]
        config = KPlanesModelConfig(**{name: getattr(self.config, name) for name in names})
        self.experts = nn.ModuleList(
            ExpertModel(config, self.scene_box, self.num_train_data) for _ in range(self.config.groups)
        )

    def expert(self, group: int) -> ExpertModel:
        """The expert of a group, counted from 1."""
        expert = self.experts[group - 1]
        assert isinstance(expert, ExpertModel)
        return expert

    def rays_at_a_time(self) -> int:
        return self.expert(1).rays_at_a_time()

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        return {}

    @torch.no_grad()
    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> Dict[str, Tensor]:
        assert self.route is not None
        group = int(self.route(camera.camera_to_worlds.view(-1, 3, 4)[:1])[0])
        outputs = self.expert(group).get_outputs_for_camera(camera, obb_box)
        return {**outputs, "group": torch.full_like(outputs["depth"], group)}

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Any]:
        """Rays without a camera are routed one by one, each as if a camera stood at its origin and looked along it."""
        assert self.route is not None
        groups = self.route(poses_of(ray_bundle))
        outputs: Dict[str, Tensor] = {}
        for group in groups.unique().tolist():
            mine = (groups == group).to(ray_bundle.origins.device)
            for name, value in self.expert(group).get_outputs(ray_bundle[mine]).items():
                if isinstance(value, Tensor) and value.shape[:1] == mine[mine].shape:
                    outputs.setdefault(name, value.new_zeros(len(groups), *value.shape[1:]))[mine] = value
        return outputs

    def get_loss_dict(
        self, outputs: Dict[str, Any], batch: Dict[str, Any], metrics_dict: Optional[Dict[str, Any]] = None
    ) -> Dict[str, Tensor]:
        return {"rgb_loss": (outputs["rgb"] - self.true_colour(outputs, batch)).square().mean()}


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


class EnsemblePipeline(DaCPipeline):
    """Puts the experts together, and tells the model which of them a camera belongs to."""

    config: EnsemblePipelineConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.route = self.datamanager.route

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> List[TrainingCallback]:
        """Loads the experts besides, as nerfstudio's trainer asks for callbacks; from then on the checkpoint has them.

        Raises:
            StageError: an expert has no checkpoint that fits it.
        """
        for slot, folder in zip(self.model.experts, self.config.experts):
            slot.load_state_dict(load_expert(folder, Stage.load(folder), "cpu").state_dict())
        return super().get_training_callbacks(attributes)
