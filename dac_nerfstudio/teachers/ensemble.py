"""The one teacher: frozen models and weights per camera. It answers for cameras (pictures) and for rays.

Any nerfstudio model can be in it: cameras are asked for by ``get_outputs_for_camera`` alone. Only the paper's ray
distillation needs K-Planes models. A single expert is the ensemble of one.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.model_components.renderers import background_color_override_context
from torch import Tensor

from dac_nerfstudio.kplanes.distillation import TeacherOutput

LEAST_WEIGHT = 0.01
"""Models below this fraction of a camera's largest weight are skipped."""
INVERSE_TEMPERATURES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
"""Candidates, from the average of all models to the nearest alone."""
UNCHOSEN = 4.0
"""The inverse temperature without validation views to choose it on."""

Blend = Callable[[Float[Tensor, "cameras 3 4"], float], Float[Tensor, "cameras groups"]]
"""Camera-to-world matrices and an inverse temperature -> softmax weights of the groups by nearness."""


@dataclass(frozen=True)
class Ensemble:
    """Models of groups of views, blended at each camera."""

    models: Sequence[Any]
    """Frozen nerfstudio models."""
    groups: Sequence[int]
    """Group of each model, counted from 1. Models of one group share its weight."""
    blend: Blend
    inverse_temperature: float = UNCHOSEN
    """From 0, the average of all models, to infinity, each group's alone."""

    def at(self, inverse_temperature: float) -> Ensemble:
        """The same models, blended at another inverse temperature."""
        return replace(self, inverse_temperature=inverse_temperature)

    def weights(self, camera_to_worlds: Float[Tensor, "cameras 3 4"]) -> Float[Tensor, "cameras models"]:
        """Weights of the models at each camera, of sum 1; those of little weight are 0."""
        of_groups = self.blend(camera_to_worlds, self.inverse_temperature)
        index = torch.tensor(self.groups) - 1
        return without_the_least((of_groups / index.bincount(minlength=of_groups.shape[1]))[:, index])

    @torch.no_grad()
    def get_outputs_for_camera(
        self, camera: Cameras, obb_box: Optional[OrientedBox] = None
    ) -> Dict[str, Float[Tensor, "height width channels"]]:
        """The weighted mean of each of the models' outputs.

        Besides, ``disagreement`` ``[height, width, 1]`` is the weighted standard deviation of the models' colours, mean
        over channels: models that were trained apart seldom err alike, so where they disagree they err. ``group`` is
        that of the largest weight.
        """
        (weights,) = self.weights(camera.camera_to_worlds.view(-1, 3, 4)[:1])
        asked = weights.nonzero()[:, 0].tolist()
        # Highest weight first, for those who render what they are asked for and take depth from the first.
        order = sorted(asked, key=lambda number: -float(weights[number]))
        answers = {number: self.models[number].get_outputs_for_camera(camera, obb_box) for number in order}

        def mean(pictures: Sequence[Tensor]) -> Tensor:
            return torch.einsum("n,n...->...", weights[asked].to(pictures[0]), torch.stack(list(pictures)))

        names = [name for name in answers[order[0]] if all(name in answer for answer in answers.values())]
        outputs = {name: mean([answers[number][name] for number in asked]) for name in names}
        variance = mean([(answers[number]["rgb"] - outputs["rgb"]).square() for number in asked])
        outputs["disagreement"] = variance.sqrt().mean(dim=-1, keepdim=True)
        outputs["group"] = torch.full_like(outputs["disagreement"], self.groups[int(weights.argmax())])
        return outputs

    def premultiplied(self, camera: Cameras, weights: Float[Tensor, "models"]) -> Float[Tensor, "height width 5"]:
        """Premultiplied RGBA of a camera, and the weight of the models in whose eyes a pixel's ray is unoccluded.

        Args:
            camera: a single one.
            weights: of the models there.
        """
        return torch.stack(
            [
                weight * premultiplied(model, camera)
                for model, weight in zip(self.models, weights.tolist())
                if weight > 0
            ]
        ).sum(dim=0)

    def get_outputs(self, rays: RayBundle) -> Dict[str, Float[Tensor, "rays channels"]]:
        """Rays without a camera, each as if a camera stood at its origin and looked along it; the weighted mean of the
        models' outputs."""
        weights = self.weights(poses_of(rays)).to(rays.origins.device)
        outputs: Dict[str, Tensor] = {}
        for model, weight in zip(self.models, weights.T):
            mine = weight > 0
            if mine.any():
                for name, value in model.get_outputs(rays[mine]).items():
                    total = outputs.setdefault(name, value.new_zeros(len(weight), *value.shape[1:]))
                    total[mine] += weight[mine, None] * value
        return outputs

    def teach(self, rays: RayBundle, background: Float[Tensor, "3"]) -> TeacherOutput:
        """Output of K-Planes models for distillation: each ray is answered by one model of its group.

        Args:
            rays: a flat bundle with the nears and fars that the student uses, and groups (from 1) in
                ``metadata["group"]``. Every run of rays of one group goes in as many slices as it has models: the fewer
                runs, the faster.
            background: colour that the student composites on.
        """
        shares = self.shares(rays.metadata["group"][:, 0])
        return TeacherOutput.joined(
            [self.models[number].teach(rays[start:end], background) for number, start, end in shares]
        )

    def shares(self, groups: Int[Tensor, "rays"]) -> Iterator[Tuple[int, int, int]]:
        """Which model answers which rays: its number, and the first of its rays and the one after the last."""
        runs, counts = torch.unique_consecutive(groups, return_counts=True)
        start = 0
        for group, count in zip(runs.tolist(), counts.tolist()):
            models = [number for number, of in enumerate(self.groups) if of == group]
            ends = [start + count * (nth + 1) // len(models) for nth in range(len(models))]
            for number, end in zip(models, ends):
                if end > start:
                    yield number, start, end
                start = end


def without_the_least(weights: Float[Tensor, "cameras models"]) -> Float[Tensor, "cameras models"]:
    """Weights of sum 1 at each camera; small ones become 0."""
    weights = torch.where(weights < LEAST_WEIGHT * weights.amax(dim=-1, keepdim=True), 0, weights)
    return weights / weights.sum(dim=-1, keepdim=True)


@torch.no_grad()
def premultiplied(model: Any, camera: Cameras) -> Float[Tensor, "height width 5"]:
    """As `Ensemble.premultiplied`, of one model; of one that only renders cameras all rays are unoccluded. A model that
    paints its own background, which nerfstudio calls ``last_sample``, is opaque."""
    if hasattr(model, "premultiplied"):
        return model.premultiplied(camera)
    opaque = paints_background(model)
    with nullcontext() if opaque else background_color_override_context(torch.zeros(3, device=model.device)):
        outputs = model.get_outputs_for_camera(camera)
    # NeRF and Mip-NeRF render twice.
    level = "" if "rgb" in outputs else "_fine"
    rgb = outputs[f"rgb{level}"]
    ones = torch.ones_like(rgb[..., :1])
    return torch.cat((rgb, ones if opaque else outputs.get(f"accumulation{level}", ones), ones), dim=-1)


def paints_background(model: Any) -> bool:
    """Whether a nerfstudio model renders the colour of each ray's last sample behind everything."""
    return getattr(model.config, "background_color", None) == "last_sample"


def poses_of(rays: RayBundle) -> Float[Tensor, "rays 3 4"]:
    """Camera-to-world matrices at the rays' origins, looking along -z as nerfstudio's cameras do; the turn about the
    viewing direction is arbitrary."""
    backward = -torch.nn.functional.normalize(rays.directions, dim=-1)
    # Any axis that is not nearly parallel to the direction will do to complete the frame.
    helper = torch.eye(3, device=backward.device)[backward.abs().argmin(dim=-1)]
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, backward), dim=-1)
    up = torch.linalg.cross(backward, right)
    return torch.stack((right, up, backward, rays.origins), dim=-1)


@torch.no_grad()
def choose_inverse_temperature(
    ensemble: Ensemble,
    views: Iterable[Tuple[Cameras, Float[Tensor, "height width 3"]]],
    candidates: Sequence[float] = INVERSE_TEMPERATURES,
) -> Tuple[float, Dict[float, float]]:
    """The inverse temperature whose pictures come nearest to photos, and each candidate's PSNR in dB, mean over views.

    Args:
        views: cameras and photos that nothing was trained on.
        candidates: of equals the first wins.

    Raises:
        ValueError: there is no view.
    """
    found: Dict[float, List[float]] = {candidate: [] for candidate in candidates}
    for camera, photo in views:
        pictures = torch.stack([model.get_outputs_for_camera(camera)["rgb"] for model in ensemble.models])
        for candidate, values in found.items():
            (weights,) = ensemble.at(candidate).weights(camera.camera_to_worlds.view(-1, 3, 4)[:1])
            mean = torch.einsum("e,ehwc->hwc", weights.to(pictures), pictures)
            values.append(-10 * math.log10(max((mean - photo).square().mean().item(), 1e-12)))
    if not all(found.values()):
        raise ValueError("There is no view to choose an inverse temperature on.")
    means = {candidate: sum(values) / len(values) for candidate, values in found.items()}
    return max(means, key=lambda candidate: means[candidate]), means
