"""Pictures that teachers render where no photo was taken. A student learns from them as from photos.

They are rendered once, before training: a step then costs what a step on photos costs, each pixel is the blend of all
teachers, and the teachers' memory is free again.
"""

from __future__ import annotations

import math
from typing import Callable, List, NamedTuple, Optional

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from dac_nerfstudio.messages import tracked
from dac_nerfstudio.teachers.ensemble import Ensemble
from dac_nerfstudio.teachers.new_cameras import NovelCameras

MOST_VIEWS = 200
"""At most this many pictures are rendered."""


class RenderedViews(NamedTuple):
    """Pictures at new cameras."""

    camera_to_worlds: Float[Tensor, "views 3 4"]
    like: Int[Tensor, "views"]
    """The training camera that each has its lens and image size from."""
    pixels: List[UInt8[Tensor, "height width 4"]]
    """RGBA, as photos have it."""
    unoccluded: List[Bool[Tensor, "height width"]]
    """Where a picture can be trusted: not where its camera stands in something, about which no teacher knows."""

    def cameras_after(self, cameras: Cameras) -> Cameras:
        """The training cameras, then those of the rendered views."""
        every = cameras[torch.cat((torch.arange(len(cameras)), self.like))]
        every.camera_to_worlds = torch.cat((cameras.camera_to_worlds, self.camera_to_worlds))
        return every


def enough(drawn: int, cameras: Cameras) -> int:
    """How many views to render: no more pixels than will be drawn."""
    size = float((cameras.width * cameras.height).double().mean())
    return min(max(math.ceil(drawn / size), 1), MOST_VIEWS)


@torch.no_grad()
def render_views(
    ensemble: Ensemble,
    cameras: Cameras,
    count: int,
    generator: np.random.Generator,
    progress: Optional[Callable[[int, int], None]] = None,
) -> RenderedViews:
    """Place new cameras between and around the training cameras, and render what the ensemble sees from there.

    Args:
        ensemble: the teachers.
        cameras: the training cameras, on the CPU.
        count: of views to render.
        generator: of all that is random.
        progress: called after each view with the number of views done and their total; without it a bar is drawn.
    """
    placed = NovelCameras(cameras.camera_to_worlds.numpy()).draw(count, generator)
    like = torch.from_numpy(placed.like)
    poses = torch.from_numpy(placed.camera_to_worlds).to(cameras.camera_to_worlds.dtype)
    views = RenderedViews(poses, like, [], [])
    added = views.cameras_after(cameras)[len(cameras) :]
    for number, weights in enumerate(tracked(list(ensemble.weights(poses)), "Rendering new views", progress)):
        seen = ensemble.premultiplied(added[number : number + 1], weights)
        views.pixels.append(straight(seen[..., :4]).cpu())
        views.unoccluded.append((seen[..., 4] > 0.5).cpu())
    return views


def straight(premultiplied: Float[Tensor, "*pixels 4"]) -> UInt8[Tensor, "*pixels 4"]:
    """Bytes of colour and opacity, the colour not multiplied by the opacity."""
    opacity = premultiplied[..., 3:]
    colour = premultiplied[..., :3] / opacity.clamp(min=1e-6)
    return (255 * torch.cat((colour, opacity), dim=-1).clamp(0, 1)).round().to(torch.uint8)
