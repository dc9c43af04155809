"""The student: a K-Planes model that learns from its teachers' answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Type

from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from dac_nerfstudio.conquer.losses import Answer, DistillationWeights, distillation_losses
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.kplanes.proposals import opacity

Teachers = Callable[[RayBundle, Tensor], Answer]
"""From rays sorted by group and the background's colour to the teachers' answer."""


@dataclass
class StudentModelConfig(KPlanesModelConfig):
    """Settings of a K-Planes model that is distilled from experts."""

    _target: Type = field(default_factory=lambda: StudentModel)
    """Target class to instantiate."""
    distillation: DistillationWeights = field(default_factory=DistillationWeights)
    """Weights of the distillation losses."""


class StudentModel(KPlanesModel):
    """While it has teachers and trains, it is compared with them instead of with the photos."""

    config: StudentModelConfig
    teachers: Optional[Teachers] = None
    """Set by the trainer; no module, so neither saved nor trained with the student."""

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Any]:
        outputs = super().get_outputs(ray_bundle)
        if self.training and self.teachers is not None:
            answer = self.teachers(ray_bundle, outputs["background"])
            density, colours = self.field(answer.samples)
            outputs.update(answer=answer, point_alphas=opacity(density, answer.samples), point_colours=colours)
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
            outputs["rendering"].proposals,
            outputs["point_alphas"],
            outputs["point_colours"],
        )
        return {**losses, **outputs["regularizers"]}
