"""Pictures that experts render where no photo was taken. A student learns from them as from photos.

They are rendered once, before training: a step then costs what a step on photos costs, each pixel is the blend of all
experts and not what one of them says, and the experts' memory is free again.
"""

from __future__ import annotations

import math
from typing import Callable, List, NamedTuple, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from rich.progress import track
from torch import Tensor

from dac_nerfstudio.kplanes.distillation import stands_clear
from dac_nerfstudio.teachers.models import ExpertModel
from dac_nerfstudio.teachers.new_cameras import NovelCameras

MOST_LESSONS = 200
"""At most this many pictures are rendered."""

Blend = Callable[[Float[Tensor, "cameras 3 4"]], Float[Tensor, "cameras experts"]]
"""Camera-to-world matrices -> the weights of the experts at each camera, of sum 1."""


class Lessons(NamedTuple):
    """Pictures at new cameras."""

    camera_to_worlds: Float[Tensor, "lessons 3 4"]
    like: Int[Tensor, "lessons"]
    """The training camera that each has its lens and image size from."""
    pixels: List[UInt8[Tensor, "height width 4"]]
    """RGBA, as photos have it."""
    clear: List[Bool[Tensor, "height width"]]
    """Where a picture can be trusted: not where its camera stands in something, about which no expert knows."""

    def cameras_after(self, cameras: Cameras) -> Cameras:
        """The training cameras, then those of the lessons."""
        every = cameras[torch.cat((torch.arange(len(cameras)), self.like))]
        every.camera_to_worlds = torch.cat((cameras.camera_to_worlds, self.camera_to_worlds))
        return every


def enough(drawn: int, cameras: Cameras) -> int:
    """How many lessons to render, so that no more pixels are rendered than will be drawn.

    Args:
        drawn: pixels of lessons that training is going to draw.
        cameras: of the photos, whose sizes lessons have.
    """
    size = float((cameras.width * cameras.height).double().mean())
    return min(max(math.ceil(drawn / size), 1), MOST_LESSONS)


@torch.no_grad()
def render_lessons(
    experts: Sequence[ExpertModel], blend: Blend, cameras: Cameras, count: int, generator: np.random.Generator
) -> Lessons:
    """Place new cameras between and around the training cameras, and render what the experts, blended, see from there.

    Args:
        experts: on the device where they answer.
        blend: their weights.
        cameras: the training cameras, on the CPU.
        count: of lessons.
        generator: of all that is random.
    """
    placed = NovelCameras(cameras.camera_to_worlds.numpy()).draw(count, generator)
    like = torch.from_numpy(placed.like)
    lenses = cameras[like]
    lenses.camera_to_worlds = torch.from_numpy(placed.camera_to_worlds).to(cameras.camera_to_worlds.dtype)
    lessons = Lessons(lenses.camera_to_worlds, like, [], [])
    for number, weights in enumerate(track(blend(lenses.camera_to_worlds), "Rendering new views", transient=True)):
        rays = lenses.generate_rays(camera_indices=number, keep_shape=True)
        premultiplied, clear = mixed(experts, weights.tolist(), rays.flatten())
        shape = rays.origins.shape[:2]
        lessons.pixels.append(straight(premultiplied).cpu().view(*shape, 4))
        lessons.clear.append((clear > 0.5).cpu().view(shape))
    return lessons


def mixed(
    experts: Sequence[ExpertModel], weights: Sequence[float], rays: RayBundle
) -> tuple[Float[Tensor, "rays 4"], Float[Tensor, "rays"]]:
    """Premultiplied RGBA of rays, and whether these stand clear in the experts' eyes, from 0 to 1.

    Args:
        experts: on the device where they answer.
        weights: of each, of sum 1; those of weight 0 are not asked.
        rays: a flat bundle on the CPU, without nears and fars.
    """
    asked = [(expert, weight) for expert, weight in zip(experts, weights) if weight > 0]
    at_a_time = min(expert.rays_at_a_time() for expert, _ in asked)
    parts = []
    for start in range(0, len(rays), at_a_time):
        part = rays[start : start + at_a_time].to(asked[0][0].device)
        parts.append(torch.stack([weight * seen(expert, part) for expert, weight in asked]).sum(dim=0))
    whole = torch.cat(parts)
    return whole[:, :4], whole[:, 4]


def seen(expert: ExpertModel, rays: RayBundle) -> Float[Tensor, "rays 5"]:
    """Premultiplied RGBA of rays as one expert sees them, and whether they stand clear, 0 or 1."""
    assert expert.collider is not None
    answer = expert.answer(expert.collider(rays), torch.zeros(3, device=rays.origins.device))
    opacity = 1 - (1 - answer.alphas.float()).prod(dim=-1, keepdim=True)
    return torch.cat((answer.rgb.float(), opacity, stands_clear(answer)[:, None].float()), dim=-1)


def straight(premultiplied: Float[Tensor, "rays 4"]) -> UInt8[Tensor, "rays 4"]:
    """Bytes of colour and opacity, the colour not multiplied by the opacity."""
    opacity = premultiplied[:, 3:]
    colour = premultiplied[:, :3] / opacity.clamp(min=1e-6)
    return (255 * torch.cat((colour, opacity), dim=-1).clamp(0, 1)).round().to(torch.uint8)
