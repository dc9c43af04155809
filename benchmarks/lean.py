"""Small photos, and a training loop so lean that a step of a small K-Planes takes 10 to 20 ms on one core.

The models are the product's own; what is left out is nerfstudio around them. Pictures are premultiplied RGBA, so that
any background can be put behind them.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.camera_utils import auto_orient_and_center_poses
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from PIL import Image
from small import averaged, camera_to_world, is_real, read_real, spaced
from torch import Tensor

from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig, RegularizerWeights
from dac_nerfstudio.teachers.new_cameras import NovelCameras

WARM_UP = 50
"""Steps in which the rate rises."""
RAYS_AT_A_TIME = 4096
"""Rays rendered at a time; more are slower on a CPU, as they leave its caches."""


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of one size, looking along -z."""

    poses: Float[Tensor, "views 3 4"]
    """Camera to world."""
    focal: float
    """Focal length in pixels."""
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.poses)

    def rays(self) -> tuple[Float[Tensor, "views pixels 3"], Float[Tensor, "views pixels 3"]]:
        """Origins and unit directions through the pixels' centres, row by row."""
        y, x = torch.meshgrid(torch.arange(self.height) + 0.5, torch.arange(self.width) + 0.5, indexing="ij")
        local = torch.stack([x - self.width / 2, self.height / 2 - y, torch.full_like(x, -self.focal)], dim=-1)
        directions = torch.einsum("vij,pj->vpi", self.poses[:, :, :3], local.reshape(-1, 3))
        directions = torch.nn.functional.normalize(directions, dim=-1)
        return self.poses[:, None, :, 3].expand_as(directions), directions


@dataclass(frozen=True)
class Photos:
    """Cameras and what they saw."""

    cameras: Cameras
    pixels: Float[Tensor, "views pixels 4"]
    """Premultiplied RGBA in [0, 1]."""


def read_photos(data: Path, split: str, downscale: int, train: int, most: Optional[int] = None) -> Photos:
    """Photos of a scene in Blender's format or of a COLMAP model, made smaller.

    Args:
        split: `train`, `val` or `test`.
        downscale: side of the squares of pixels that are averaged.
        train: so many are for training, evenly spread.
        most: so many of any other split, evenly spread; by default all.
    """
    if is_real(data):
        return read_real_photos(data, split, downscale, train)
    return read_blender(data, split, downscale, train if split == "train" else most)


def read_blender(data: Path, split: str, downscale: int, views: Optional[int]) -> Photos:
    """The images' sides must be multiples of the scale."""
    meta = json.loads((data / f"transforms_{split}.json").read_text("utf8"))
    frames = meta["frames"] if views is None else spaced(meta["frames"], views)
    pixels = []
    for frame in frames:
        with Image.open(data / f"{frame['file_path']}.png") as image:
            pixels.append(averaged(image, downscale))
    height, width = pixels[0].shape[:2]
    poses = torch.tensor([frame["transform_matrix"] for frame in frames])[:, :3]
    focal = 0.5 * width / math.tan(0.5 * meta["camera_angle_x"])
    return Photos(Cameras(poses, focal, height, width), torch.tensor(np.stack(pixels)).flatten(1, 2))


def read_real_photos(data: Path, split: str, downscale: int, photos: int) -> Photos:
    """Turned upright, centred and scaled as nerfstudio's data parser does it, by the cameras of all splits."""
    camera, images = read_real(data, photos)
    poses = torch.tensor(
        np.stack([camera_to_world(image) for chosen in images.values() for image in chosen]), dtype=torch.float32
    )
    poses, _ = auto_orient_and_center_poses(poses, method="up", center_method="poses")
    poses[:, :, 3] /= poses[:, :, 3].abs().max()
    of_split = dict(zip(images, poses.split([len(chosen) for chosen in images.values()])))
    width, height = round(camera.width / downscale), round(camera.height / downscale)
    pixels = []
    for image in images[split]:
        with Image.open(data / "images" / image.name) as photo:
            small = photo.convert("RGBA").resize((width, height), Image.Resampling.BOX)
        pixels.append(np.asarray(small, dtype=np.float32) / 255)
    cameras = Cameras(of_split[split], camera.params[0] * width / camera.width, height, width)
    return Photos(cameras, torch.tensor(np.stack(pixels)).flatten(1, 2))


def orbit(cameras: Cameras, count: int, seed: int) -> Cameras:
    """Random cameras on the sphere of others, within their range of elevations, that look at its centre, the origin."""
    random = np.random.default_rng(seed)
    sines = sines_of_elevation(cameras)
    sine = random.uniform(sines.min(), sines.max(), count)
    return on_sphere(cameras, random.uniform(0, 2 * np.pi, count), sine)


def ring(cameras: Cameras, count: int) -> Cameras:
    """A camera path once around the origin, at the mean of others' elevations."""
    sine = np.full(count, sines_of_elevation(cameras).mean())
    return on_sphere(cameras, np.linspace(0, 2 * np.pi, count, endpoint=False), sine)


def sines_of_elevation(cameras: Cameras) -> np.ndarray:
    centres = cameras.poses[:, :, 3].numpy()
    return centres[:, 2] / np.linalg.norm(centres, axis=1)


def on_sphere(cameras: Cameras, azimuth: np.ndarray, sine: np.ndarray) -> Cameras:
    """Cameras like others, as far from the origin as they are on average, and looking at it."""
    radius = np.linalg.norm(cameras.poses[:, :, 3].numpy(), axis=1).mean()
    cosine = np.sqrt(1 - sine**2)
    back = np.stack([cosine * np.cos(azimuth), cosine * np.sin(azimuth), sine], axis=1)
    right = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros(len(azimuth))], axis=1)
    poses = np.stack([right, np.cross(back, right), back, back * radius], axis=2)
    return replace(cameras, poses=torch.tensor(poses, dtype=torch.float32))


def between_neighbours(cameras: Cameras, count: int, seed: int, reach: float) -> Cameras:
    """Random cameras between neighbouring ones, and beyond them as far as `reach` says."""
    poses = (
        NovelCameras(cameras.poses.double().numpy(), reach).draw(count, np.random.default_rng(seed)).camera_to_worlds
    )
    return replace(cameras, poses=torch.tensor(poses, dtype=torch.float32))


@dataclass
class Member:
    """A model whose planes may be turned in the world."""

    model: KPlanesModel
    turn: Float[Tensor, "3 3"]
    """The rotation of the world's axes to those of the planes."""

    def bundle(self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]) -> RayBundle:
        count = len(origins)
        return RayBundle(
            origins=origins @ self.turn.T,
            directions=directions @ self.turn.T,
            pixel_area=torch.full((count, 1), 1e-4),
            camera_indices=torch.zeros(count, 1, dtype=torch.long),
            metadata={},
        )

    @torch.no_grad()
    def pictures(self, cameras: Cameras) -> Float[Tensor, "views pixels 4"]:
        """Premultiplied RGBA."""
        self.model.eval()
        origins, directions = (rays.flatten(0, 1) for rays in cameras.rays())
        found = []
        for chunk in zip(origins.split(RAYS_AT_A_TIME), directions.split(RAYS_AT_A_TIME)):
            rendering = self.model.render(self.model.collider(self.bundle(*chunk)), torch.zeros(3))
            opacity = rendering.final.weights.sum(dim=-2)
            found.append(torch.cat([rendering.rgb, opacity], dim=-1).clamp(0, 1))
        return torch.cat(found).view(len(cameras), -1, 4)


def on_white(pictures: Float[Tensor, "*pixels 4"]) -> Float[Tensor, "*pixels 3"]:
    return pictures[..., :3] + 1 - pictures[..., 3:]


def psnr(pictures: Float[Tensor, "views pixels 4"], photos: Photos) -> float:
    """Mean over views, on white, in dB."""
    error = (on_white(pictures) - on_white(photos.pixels)).square().mean(dim=(1, 2))
    return (-10 * error.log10()).mean().item()


def small_model(size: dict, tv: float, seed: int) -> KPlanesModel:
    """A model of the product, whose linear layers start as PyTorch's do, drawn anew after the planes.

    Args:
        size: fields of its config.
        tv: weight of both total variations.
    """
    torch.manual_seed(seed)
    config = KPlanesModelConfig(
        **size, implementation="torch", regularizers=RegularizerWeights(plane_tv=tv, proposal_tv=tv)
    )
    model = config.setup(scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.reset_parameters()
    return model


@dataclass(frozen=True)
class Lessons:
    """What a student is shown at novel poses."""

    photos: Photos
    """As rendered by its teachers."""
    weights: Float[Tensor, "views pixels"]
    """Weight of each ray's loss."""
    share: tuple[float, float]
    """Their share of each batch, in the beginning and at the end."""


def train(
    member: Member,
    photos: Photos,
    weights: Float[Tensor, " views"],
    steps: int,
    seed: int,
    rays: int,
    rate: float,
    lessons: Optional[Lessons] = None,
) -> float:
    """Train with Adam along one cosine.

    Args:
        weights: how often each photo is drawn.
        rays: per step, lessons among them.
        rate: the highest.

    Returns:
        Seconds of the processor, which other work beside it does not lengthen much.
    """
    model, began = member.model, time.process_time()
    # Two streams: were they one and the same, what is drawn would go with its background and its samples' jitter.
    draw = torch.Generator().manual_seed(2 * seed + 1)
    torch.manual_seed(2 * seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    origins, directions = photos.cameras.rays()
    taught = None if lessons is None else lessons.photos.cameras.rays()
    model.train()
    for step in range(steps):
        progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * progress)) * min(1, (step + 1) / WARM_UP)
        novel = 0
        if lessons is not None:
            novel = round(rays * (lessons.share[0] + (lessons.share[1] - lessons.share[0]) * progress))
        picked = pick(photos.pixels, weights, rays - novel, draw)
        batch = [origins[picked], directions[picked], photos.pixels[picked]]
        loss_weights = None
        if lessons is not None and taught is not None and novel:
            chosen = pick(lessons.photos.pixels, None, novel, draw)
            extra = (taught[0][chosen], taught[1][chosen], lessons.photos.pixels[chosen])
            batch = [torch.cat(pair) for pair in zip(batch, extra)]
            loss_weights = torch.cat([torch.ones(rays - novel), lessons.weights[chosen]])
        model.step = step
        outputs = model(member.bundle(*batch[:2]))
        truth = batch[2][:, :3] + (1 - batch[2][:, 3:]) * outputs["background"]
        error = (outputs["rgb"] - truth).square().mean(dim=-1)
        loss = (error if loss_weights is None else error * loss_weights).mean() + sum(outputs["regularizers"].values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return time.process_time() - began


def pick(
    pixels: Float[Tensor, "views pixels 4"],
    weights: Optional[Float[Tensor, " views"]],
    count: int,
    draw: torch.Generator,
) -> tuple[Int[Tensor, " rays"], Int[Tensor, " rays"]]:
    """Views and pixels, with replacement."""
    if weights is None:
        views = torch.randint(len(pixels), (count,), generator=draw)
    else:
        views = torch.multinomial(weights, count, replacement=True, generator=draw)
    return views, torch.randint(pixels.shape[1], (count,), generator=draw)
