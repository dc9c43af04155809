"""Expert and student: a frozen K-Planes model that teaches, ray by ray, and one that learns from its output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Type

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from dac_nerfstudio.kplanes.distillation import DistillationWeights, TeacherOutput, distillation_losses, unoccluded
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig, Rendering
from dac_nerfstudio.kplanes.planes import MultiScalePlanes
from dac_nerfstudio.kplanes.proposals import Level

Teach = Callable[[RayBundle, Float[Tensor, "3"]], TeacherOutput]
"""Rays sorted by group, and the background's colour -> the teachers' output."""


class ExpertModel(KPlanesModel):
    """An expert whose training is over: its weights are frozen, and it stays in evaluation mode."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ExpertModel:
        # Training goes on around an expert, not in it.
        return super().train(False)

    def teach_on(self, device: torch.device | str) -> ExpertModel:
        """Move to a device. On CUDA the planes are kept in half precision, in which they are asked: they are most of
        the memory that distillation needs beyond an expert's training."""
        self.to(device)
        return self.halve() if self.device.type == "cuda" else self

    def halve(self) -> ExpertModel:
        """Keep the planes in half precision."""
        for module in self.modules():
            if isinstance(module, MultiScalePlanes):
                module.half()
        return self

    def render(self, rays: RayBundle, background: Float[Tensor, "3"]) -> Rendering:
        # Weights in single precision and features in half do not go together.
        with torch.autocast(rays.origins.device.type, torch.float16, enabled=self.in_half):
            return super().render(rays, background)

    @property
    def in_half(self) -> bool:
        """Whether the planes are kept in half precision."""
        return self.field.planes.scales[0].dtype == torch.float16

    @torch.no_grad()
    def teach(self, rays: RayBundle, background: Float[Tensor, "3"]) -> TeacherOutput:
        """The expert's output for a flat bundle of rays, in half precision where its planes are.

        Args:
            rays: with the nears and fars that the student uses.
            background: colour that the student composites on.
        """
        rendering = self.render(rays, background)
        final = rendering.final
        return TeacherOutput(rendering.rgb, final.bins, final.alphas, rendering.colours)

    def premultiplied(self, camera: Cameras) -> Float[Tensor, "height width 5"]:
        """Premultiplied RGBA of a single camera, and whether rays are unoccluded, 0 or 1."""
        assert self.collider is not None
        rays = camera.generate_rays(camera_indices=0, keep_shape=True)
        flat, black, parts = rays.flatten(), torch.zeros(3, device=self.device), []
        for part in torch.arange(len(flat)).split(self.rays_at_a_time()):
            output = self.teach(self.collider(flat[part].to(self.device)), black)
            opacity = 1 - (1 - output.alphas.float()).prod(dim=-1, keepdim=True)
            parts.append(torch.cat((output.rgb.float(), opacity, unoccluded(output)[:, None].float()), dim=-1))
        return torch.cat(parts).view(*rays.shape, 5)


@dataclass
class StudentModelConfig(KPlanesModelConfig):
    """Settings of a K-Planes model that is distilled from experts."""

    _target: Type = field(default_factory=lambda: StudentModel)
    """Target class to instantiate."""
    distillation: DistillationWeights = field(default_factory=DistillationWeights)
    """Weights of the distillation losses."""


class StudentModel(KPlanesModel):
    """While it has teachers and trains, its rays are compared with their output instead of with the photos."""

    config: StudentModelConfig
    teach: Optional[Teach] = None
    """The teachers, set for training. They are no module, so neither saved nor trained with it."""

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Any]:
        outputs = super().get_outputs(ray_bundle)
        if self.training and self.teach is not None:
            taught = self.teach(ray_bundle, outputs["background"])
            outputs.update(taught=taught, point_alphas=None, point_colours=None)
            if self.config.distillation.points:
                positions = taught.bins.positions(ray_bundle)
                density, outputs["point_colours"] = self.field(positions, ray_bundle.directions)
                outputs["point_alphas"] = Level(taught.bins, density).alphas
        return outputs

    def get_loss_dict(
        self, outputs: Dict[str, Any], batch: Dict[str, Any], metrics_dict: Optional[Dict[str, Any]] = None
    ) -> Dict[str, Tensor]:
        if "taught" not in outputs:
            return super().get_loss_dict(outputs, batch, metrics_dict)
        losses = distillation_losses(
            self.config.distillation,
            outputs["taught"],
            outputs["rgb"],
            [(level.edges, level.alphas) for level in outputs["rendering"].proposals],
            outputs["point_alphas"],
            outputs["point_colours"],
        )
        return {**losses, **outputs["regularizers"]}
