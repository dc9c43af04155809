"""Expert and student: a K-Planes model that answers for the rays of its group, and one that learns from the answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Type

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from dac_nerfstudio.kplanes.distillation import Answer, DistillationWeights, distillation_losses
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig, Rendering
from dac_nerfstudio.kplanes.planes import MultiScalePlanes
from dac_nerfstudio.kplanes.proposals import Level

Teachers = Callable[[RayBundle, Float[Tensor, "3"]], Answer]
"""A function that takes rays sorted by group and the background's colour to the teachers' answer."""


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
        # Whoever asks: weights in single precision and features in half do not go together.
        with torch.autocast(rays.origins.device.type, torch.float16, enabled=self.in_half):
            return super().render(rays, background)

    @property
    def in_half(self) -> bool:
        """Whether the planes are kept in half precision."""
        return self.field.planes.scales[0].dtype == torch.float16

    @torch.no_grad()
    def answer(self, rays: RayBundle, background: Float[Tensor, "3"]) -> Answer:
        """What the expert says of a flat bundle of rays, in half precision where its planes are.

        Args:
            rays: with the nears and fars that the student uses.
            background: colour that the student composites on.
        """
        rendering = self.render(rays, background)
        final = rendering.final
        return Answer(rendering.rgb, final.bins, final.alphas, rendering.colours)


@dataclass
class StudentModelConfig(KPlanesModelConfig):
    """Settings of a K-Planes model that is distilled from experts."""

    _target: Type = field(default_factory=lambda: StudentModel)
    """Target class to instantiate."""
    distillation: DistillationWeights = field(default_factory=DistillationWeights)
    """Weights of the distillation losses."""


class StudentModel(KPlanesModel):
    """While it has teachers and trains, its rays are compared with their answers instead of with the photos."""

    config: StudentModelConfig
    teachers: Optional[Teachers] = None
    """The teachers, which the pipeline sets for training. They are no module, so neither saved nor trained with it."""

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Any]:
        outputs = super().get_outputs(ray_bundle)
        if self.training and self.teachers is not None:
            answer = self.teachers(ray_bundle, outputs["background"])
            outputs.update(answer=answer, point_alphas=None, point_colours=None)
            if self.config.distillation.points:
                positions = answer.bins.positions(ray_bundle)
                density, outputs["point_colours"] = self.field(positions, ray_bundle.directions)
                outputs["point_alphas"] = Level(answer.bins, density).alphas
        return outputs

    def get_loss_dict(
        self, outputs: Dict[str, Any], batch: Dict[str, Any], metrics_dict: Optional[Dict[str, Any]] = None
    ) -> Dict[str, Tensor]:
        if "answer" not in outputs:
            return super().get_loss_dict(outputs, batch, metrics_dict)
        losses = distillation_losses(
            self.config.distillation,
            outputs["answer"],
            outputs["rgb"],
            [(level.edges, level.alphas) for level in outputs["rendering"].proposals],
            outputs["point_alphas"],
            outputs["point_colours"],
        )
        return {**losses, **outputs["regularizers"]}
