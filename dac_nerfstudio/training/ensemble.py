"""The ensemble as a nerfstudio model: all experts in one checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple, Type

import torch
import tyro
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.utils import colormaps
from torch import Tensor, nn
from torch.nn import Parameter

from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.kplanes.teaching import ExpertModel
from dac_nerfstudio.teachers.ensemble import Blend, Ensemble


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
    """Weights of the groups at each camera; set by the pipeline."""
    inverse_temperature: Tensor
    """Of the blend; saved with the experts, for whom it is chosen."""

    def populate_modules(self) -> None:
        super().populate_modules()
        # Of the body only the renderers are needed; the fields are the experts'.
        del self.field, self.proposal_networks
        self.experts = nn.ModuleList(
            ExpertModel(config, self.scene_box, self.num_train_data) for config in self.config.experts
        )
        self.register_buffer("inverse_temperature", torch.tensor(float("inf")))

    @property
    def ensemble(self) -> Ensemble:
        """The experts as one teacher."""
        assert self.blend is not None
        return Ensemble(list(self.experts), self.config.groups, self.blend, float(self.inverse_temperature))

    def rays_at_a_time(self) -> int:
        return min(expert.rays_at_a_time() for expert in self.ensemble.models)

    def get_param_groups(self) -> Dict[str, List[Parameter]]:
        return {}

    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> Dict[str, Tensor]:
        return self.ensemble.get_outputs_for_camera(camera, obb_box)

    def get_outputs(self, ray_bundle: RayBundle) -> Dict[str, Any]:
        """Rays have no disagreement."""
        return self.ensemble.get_outputs(ray_bundle)

    def get_image_metrics_and_images(
        self, outputs: Dict[str, Tensor], batch: Dict[str, Tensor]
    ) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
        """Besides the scores of any model how well the experts' disagreement foretells the error: the correlation of
        the two over pixels (``disagreement_correlation``), the share of the squared error in the 5 % of pixels in which
        they disagree most (``disagreement_error_share``), and `ause` of the absolute error (``disagreement_ause``)."""
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
    absolute = error.abs().mean(dim=-1).flatten()
    correlation = torch.corrcoef(torch.stack((flat, absolute)))[0, 1]
    worst = flat.topk(max(round(WORST * len(flat)), 1)).indices
    return {
        # Where one of the two is the same everywhere there is nothing to foretell.
        "disagreement_correlation": float(correlation.nan_to_num()),
        "disagreement_error_share": float(squared[worst].sum() / squared.sum().clamp(min=1e-12)),
        "disagreement_ause": ause(flat, absolute),
    }


FRACTIONS = 100
"""Points of a sparsification curve, the usual number."""


def ause(uncertainty: Float[Tensor, "pixels"], error: Float[Tensor, "pixels"]) -> float:
    """Area under the sparsification error: 0 where the order of the uncertainties is that of the errors.

    The sparsification curve is the mean error of the pixels that are left when a growing fraction is removed, the most
    uncertain first; the oracle removes those of the largest error first. The area is that between the two curves,
    both divided by the largest value of either, as in Bayes' Rays (arXiv 2309.03185). That flatters orders that are
    worse than random: look at the correlation, too. Fractions are k / 100, or k / pixels where there are fewer.

    Errors 4, 3, 2, 1 and uncertainties 1, 2, 3, 4: the curve is 2.5, 3, 3.5, 4, the oracle's 2.5, 2, 1.5, 1. Their
    differences 0, 1, 2, 3, divided by 4, at a spacing of 1/4 have an area of 0.28125.
    """
    count = len(error)
    steps = min(FRACTIONS, count)
    kept = torch.tensor([count - count * step // steps for step in range(steps)], device=error.device)

    def curve(by: Tensor) -> Tensor:
        return error[by.argsort(stable=True)].double().cumsum(dim=0)[kept - 1] / kept

    given, best = curve(uncertainty), curve(error)
    largest = torch.maximum(given, best).max().clamp(min=1e-12)
    return float(torch.trapezoid(given - best, dx=1 / steps) / largest)
