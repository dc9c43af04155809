"""Draws training rays by group membership."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, List, Literal, NamedTuple, Optional, Tuple, Type, Union

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int, UInt8
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dac_nerfstudio.errors import PartitionError, SplitError
from dac_nerfstudio.messages import say, tracked
from dac_nerfstudio.partition import Partition, align, blending_weights
from dac_nerfstudio.sampling.dataset import PhotoDataset
from dac_nerfstudio.sampling.pixels import PixelSchedule
from dac_nerfstudio.sampling.prefetch import Prefetch
from dac_nerfstudio.sampling.rays import PixelRays
from dac_nerfstudio.scene.data import Scene, open_scene
from dac_nerfstudio.teachers.rendered_views import RenderedViews


@dataclass
class DaCDataManagerConfig(VanillaDataManagerConfig):
    """Settings of the data manager."""

    _target: Type = field(default_factory=lambda: DaCDataManager)
    """Target class to instantiate."""
    partition: tyro.conf.Suppress[Optional[Path]] = None
    """File of the partition; set from --partition."""
    group: tyro.conf.Suppress[Optional[int]] = None
    """Draw rays by this group's membership; all views alike without it. Set from --group."""
    train_num_images_to_sample_from: tyro.conf.Suppress[int] = -1
    train_num_times_to_repeat_images: tyro.conf.Suppress[int] = -1
    patch_size: tyro.conf.Suppress[int] = 1
    pixel_sampler: tyro.conf.Suppress[PixelSamplerConfig] = field(default_factory=PixelSamplerConfig)
    sort_by_group: tyro.conf.Suppress[bool] = False
    """Order each batch by the group of the rays, and note the groups in the bundle's metadata, for distillation."""
    skip_missing: bool = False
    """Leave out photos that the data list and that are not there. The scene's frame stays that of all cameras."""
    seed: tyro.conf.Suppress[int] = 42
    """Seed of the draw of pixels; derived from --machine.seed and the method."""


ROOM = 0.25
"""Share of a device's free memory that photos may take."""


class DaCDataManager(VanillaDataManager[PhotoDataset]):
    """Holds the training photos as bytes, drawn by a schedule that is a function of the step."""

    config: DaCDataManagerConfig
    rendered: Optional[RenderedViews] = None
    """Pictures of teachers, drawn from beside the photos. Set before training."""
    rendered_share: float = 0.0
    """Share of the drawn pixels that are of rendered views."""

    def __init__(
        self,
        config: DaCDataManagerConfig,
        device: Union[torch.device, str] = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        **settings: Any,
    ) -> None:
        parser = replace(config.dataparser, data=Path(config.data or config.dataparser.data))
        config.data = config.dataparser.data = parser.data
        # In inference nerfstudio sets a size of photos that nobody else asks for.
        opened = Scene if test_mode == "inference" else open_scene
        self.scene = opened(parser, config.skip_missing)
        # nerfstudio builds the data parser from its configuration, and reads the files again.
        standing_in = replace(parser, _target=lambda config: self.scene)  # type: ignore[arg-type]
        super().__init__(replace(config, dataparser=standing_in), device, test_mode, **settings)
        self.config, self.dataparser_config = config, config.dataparser

    def create_train_dataset(self) -> PhotoDataset:
        return _in_single_precision(super().create_train_dataset())

    def create_eval_dataset(self) -> Optional[PhotoDataset]:
        try:
            return _in_single_precision(super().create_eval_dataset())
        except SplitError as error:
            # Many copies of NeRF-synthetic come without their validation views; training can do without.
            if self.test_split == "val":
                say(CONSOLE, (f"No validation views ({error}): training without evaluation.", "yellow"))
            else:
                say(CONSOLE, (f"No test views ({error}).", "yellow"))
            return None

    def setup_train(self) -> None:
        # Photos are read at the first training step: evaluation, rendering and viewer never need them.
        self.batches = Prefetch(self.prepare)

    def next_train(self, step: int) -> Tuple[RayBundle, Dict[str, Tensor]]:
        self.train_count += 1
        # Outside of training nobody counts steps: exporters ask for step 0 again and again and want new rays.
        number = step if self.training else self.train_count
        drawn = self.batches(number, self.train_pixel_sampler.num_rays_per_batch)
        # Nothing here waits for the device; that the batch lies in pinned memory is what lets copies be left to it.
        rays = drawn.rays._apply_fn_to_fields(lambda part: part.to(self.device, non_blocking=True))
        if drawn.groups is not None:
            # On the CPU, where it takes no waiting for the device to count them.
            rays.metadata["group"] = drawn.groups[:, None]
        colours = drawn.colours.to(self.device, non_blocking=True)
        if self.photos.pixels.is_cuda:
            colours = self.photos.pixels[colours]
        return rays, {"image": colours.float() / 255, "indices": drawn.indices.to(self.device, non_blocking=True)}

    def prepare(self, number: int) -> Drawn:
        """The batch of a step, on the CPU; in pinned memory if it goes to a CUDA device from there."""
        views, pixels = self.train_pixel_sampler.draw(number)
        groups = None
        if self.config.sort_by_group:
            groups, order = self.homes[views].sort(stable=True)
            views, pixels = views[order], pixels[order]
        places, rows, columns = self.photos.locate(views, pixels)
        indices = torch.stack((views, rows, columns), dim=-1)
        rays = self.train_rays(indices)
        if self.rendered is not None:
            # Per-image embeddings have as many entries as there are training views.
            rays.camera_indices = torch.cat((torch.arange(len(self.train_names)), self.rendered.like))[views, None]
        colours = places if self.photos.pixels.is_cuda else self.photos.pixels[places]
        if torch.device(self.device).type == "cuda":
            rays, indices, colours = rays.pin_memory(), indices.pin_memory(), colours.pin_memory()
        return Drawn(rays, indices, colours, groups)

    @cached_property
    def train_rays(self) -> PixelRays:
        """Makes the rays of the pixels of training views and rendered views."""
        cameras = self.train_dataset.cameras
        return PixelRays(cameras if self.rendered is None else self.rendered.cameras_after(cameras))

    def get_train_rays_per_batch(self) -> int:
        return self.config.train_num_rays_per_batch

    @cached_property
    def partition(self) -> Optional[Partition]:
        """The partition of the training views, if the config names one.

        Raises:
            PartitionError: it is of other views than the data's.
        """
        if self.config.partition is None:
            return None
        if not self.config.partition.exists():
            say(CONSOLE, (f"The partition {self.config.partition} is gone: views have no groups here.", "yellow"))
            return None
        partition = Partition.load(self.config.partition)
        names = self.train_names
        if set(names) != set(partition.views.names):
            other = sorted(set(names) ^ set(partition.views.names))[0]
            raise PartitionError(
                f"{self.config.partition} divides {len(partition.views)} views, the data has {len(names)} training "
                f"views, and they differ (for example in {other}). Divide this data: dac split --data "
                f"{self.config.data}, or name its partition with --partition."
            )
        return partition

    # Cached ones alone are passed over by the viewer, which touches every other property in search of its elements.
    @cached_property
    def train_names(self) -> Tuple[str, ...]:
        """Names of the training views, in the order of the dataset."""
        return tuple(map(self.scene.name_of, self.train_dataset.image_filenames))

    @cached_property
    def eval_names(self) -> Tuple[str, ...]:
        """Names of the evaluation views, in the order of the dataset."""
        return tuple(map(self.scene.name_of, self.eval_dataset.image_filenames))

    def views_to_choose_on(self, most: int) -> List[int]:
        """Numbers of evaluation views, evenly spread, that settings may be chosen on: those for validation, unless they
        are the test views, as where the data have no split of their own; then none."""
        if self.eval_dataset is None or self.test_split != "val":
            return []
        try:
            test = self.scene.get_dataparser_outputs("test").image_filenames
        except SplitError:
            test = []
        if set(test) & set(self.eval_dataset.image_filenames):
            return []
        count = len(self.eval_dataset)
        return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()

    def route(self, camera_to_worlds: Tensor) -> Int[Tensor, "cameras"]:
        """Group of each camera, counted from 1; poses ``[cameras, 3, 4]`` in the model's frame."""
        partition, poses = self._as_divided(camera_to_worlds)
        return torch.from_numpy(np.asarray(partition.route(poses), dtype=np.int64))

    def blend(self, camera_to_worlds: Tensor, inverse_temperature: float) -> Float[Tensor, "cameras groups"]:
        """How much each group's expert has to say at each camera, see `blending_weights`; poses ``[cameras, 3, 4]`` in
        the model's frame."""
        partition, poses = self._as_divided(camera_to_worlds)
        return torch.from_numpy(blending_weights(partition, poses, inverse_temperature)).float()

    def _as_divided(self, camera_to_worlds: Tensor) -> Tuple[Partition, np.ndarray]:
        """The partition, and poses in the frame that it was made in.

        Dataparsers may turn, shift and scale a scene: the frames are matched by the training cameras, which are known
        in both.
        """
        if self.partition is None:
            raise PartitionError("No partition is known here, so cameras have no group.")
        poses = dict(zip(self.train_names, self.train_dataset.cameras.camera_to_worlds.numpy().astype(np.float64)))
        here = np.stack([poses[name] for name in self.partition.views.names])
        to_partition = align(here, self.partition.views.camera_to_worlds)
        return self.partition, to_partition.apply(camera_to_worlds.cpu().numpy().astype(np.float64))

    @cached_property
    def homes(self) -> Int[Tensor, "views"]:
        """Home group of each training view, in the order of the dataset."""
        assert self.partition is not None
        homes = dict(zip(self.partition.views.names, self.partition.homes))
        return torch.tensor([int(homes[name]) for name in self.train_names])

    @cached_property
    def weights(self) -> Dict[str, float]:
        """Sampling weight of each training view."""
        if self.config.group is None:
            return {name: 1.0 for name in self.train_names}
        assert self.partition is not None
        return dict(zip(self.partition.views.names, map(float, self.partition.membership[self.config.group - 1])))

    @cached_property
    def photos(self) -> Photos:
        """The training photos that have a weight, and the rendered views."""
        wanted = [self.weights[name] > 0 for name in self.train_names]
        return Photos(self.train_dataset, wanted, self.device, self.rendered)

    @cached_property
    def train_pixel_sampler(self) -> PixelSchedule:  # type: ignore[override]
        """The schedule by nerfstudio's name for it: exporters set its ``num_rays_per_batch``."""
        weights = [self.weights[name] for name in self.train_names]
        if self.rendered is not None:
            weights = shared(self.photos.sizes, weights, self.rendered_share)
        # Each process of a run on several GPUs draws its own pixels.
        seed = self.config.seed + self.rank
        return PixelSchedule(self.photos.sizes, weights, self.config.train_num_rays_per_batch, seed)

    @cached_property
    def rank(self) -> int:
        """Number of this process among those that train together. nerfstudio's own counts on each machine anew."""
        return torch.distributed.get_rank() if torch.distributed.is_initialized() else self.local_rank


class Drawn(NamedTuple):
    """A batch on the CPU."""

    rays: RayBundle
    indices: Int[Tensor, "pixels 3"]
    """View, row and column of each pixel; rendered views are counted on after the training views."""
    colours: Union[UInt8[Tensor, "pixels channels"], Int[Tensor, "pixels"]]
    """The pixels' colours; where the photos lie on the device, the colours' places among them."""
    groups: Optional[Int[Tensor, "rays"]]
    """Group of each ray, ascending; None where no expert is asked."""


def shared(sizes: List[int], weights: List[float], share: float) -> List[float]:
    """Weights of photos and of the rendered views that follow them, which get a share of what is drawn.

    Args:
        sizes: pixels of each photo and rendered view.
        share: of the rendered views, in [0, 1].

    Returns:
        Weights of both, the greatest 1.
    """
    photos = sum(size * weight for size, weight in zip(sizes, weights))
    rendered = max(sum(sizes[len(weights) :]), 1)
    of_photo, of_rendered = (1 - share) / photos, share / rendered
    greatest = max(of_photo * max(weights), of_rendered)
    both = [of_photo * weight for weight in weights] + [of_rendered] * (len(sizes) - len(weights))
    return [weight / greatest for weight in both]


class Photos:
    """Photos as one array of bytes ``[pixels, channels]``, masked pixels left out.

    They lie on a CUDA device that has room for them, otherwise in memory: a step then moves indices alone.

    Args:
        wanted: per photo, whether it will ever be drawn; the others are not read.
        rendered: views that follow the photos, with the pixels that cannot be trusted left out.
    """

    def __init__(
        self,
        dataset: InputDataset,
        wanted: list[bool],
        device: Union[torch.device, str] = "cpu",
        rendered: Optional[RenderedViews] = None,
    ) -> None:
        self.widths = dataset.cameras.width[:, 0].long().cpu()
        pixels: list[UInt8[Tensor, "n channels"]] = []
        visible: list[Optional[Int[Tensor, "n"]]] = []
        self.sizes: list[int] = []

        def add(colours: Tensor, shown: Optional[Tensor]) -> None:
            numbers = None if shown is None else shown.flatten().nonzero()[:, 0]
            visible.append(None if numbers is None else numbers.int())
            pixels.append(colours.flatten(0, 1) if numbers is None else colours.flatten(0, 1)[numbers])
            self.sizes.append(len(pixels[-1]))

        for view in tracked(range(len(dataset)), "Reading photos"):
            if not wanted[view]:
                self.sizes.append(0)
                continue
            data = dataset.get_data(view, image_type="uint8")
            add(data["image"], data.get("mask"))
        if rendered is not None:
            self.widths = torch.cat((self.widths, self.widths[rendered.like]))
            for picture, clear in zip(rendered.pixels, rendered.unoccluded):
                add(picture, clear)
        if len({chunk.shape[1] for chunk in pixels}) > 1:
            pixels = [_with_alpha(chunk) for chunk in pixels]
        self.pixels = torch.cat(pixels)
        if torch.device(device).type == "cuda" and self.pixels.numel() < ROOM * torch.cuda.mem_get_info(device)[0]:
            self.pixels = self.pixels.to(device)
        self.numbers: Optional[Int[Tensor, "n"]] = None
        if any(numbers is not None for numbers in visible):
            self.numbers = torch.cat(
                [torch.arange(len(p), dtype=torch.int32) if kept is None else kept for kept, p in zip(visible, pixels)]
            )
        self.starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)

    def locate(
        self, views: Int[Tensor, "n"], pixels: Int[Tensor, "n"]
    ) -> Tuple[Int[Tensor, "n"], Int[Tensor, "n"], Int[Tensor, "n"]]:
        """Place in ``pixels``, row and column of the given (visible) pixels of the given views."""
        places = self.starts[views] + pixels
        number = pixels if self.numbers is None else self.numbers[places].long()
        widths = self.widths[views]
        return places, number // widths, number % widths


def _with_alpha(colours: UInt8[Tensor, "n channels"]) -> UInt8[Tensor, "n 4"]:
    if colours.shape[1] == 4:
        return colours
    return torch.cat((colours, torch.full_like(colours[:, :1], 255)), dim=1)


def _in_single_precision(dataset: PhotoDataset) -> PhotoDataset:
    """Blender's focal length arrives in double precision, on which nerfstudio's spiral rendering fails."""
    for name in ("fx", "fy", "cx", "cy"):
        setattr(dataset.cameras, name, getattr(dataset.cameras, name).float())
    return dataset
