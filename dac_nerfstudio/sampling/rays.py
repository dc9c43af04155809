"""Rays through the middle of pixels, as nerfstudio's generator makes them, on the CPU and in one pass."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

SIMPLE = (CameraType.PERSPECTIVE.value, CameraType.FISHEYE.value)
"""Kinds of cameras that the kernel knows; all views are nerfstudio's where one is of another kind."""


class PixelRays:
    """Makes the rays of pixels; what nerfstudio's ``RayGenerator`` gives, to float precision.

    Lenses are undone ray by ray, in double precision: that is as fast as to look them up, and takes no memory.

    Args:
        cameras: of all views, on the CPU.
    """

    def __init__(self, cameras: Cameras) -> None:
        self.cameras = cameras
        kinds = cameras.camera_type[:, 0]
        # nerfstudio's own is made where it is needed only: it holds a table of all pixels' coordinates.
        self.exotic = None if np.isin(kinds.numpy(), SIMPLE).all() else RayGenerator(cameras)
        distortion = cameras.distortion_params
        if distortion is None:
            distortion = torch.zeros(len(cameras), 6)
        columns = (cameras.fx, cameras.fy, cameras.cx, cameras.cy, distortion)
        self.lenses = torch.cat([column.double() for column in columns], dim=1).numpy()
        self.distorted = (distortion != 0).any(dim=1).numpy()
        self.fisheye = (kinds == CameraType.FISHEYE.value).numpy()
        self.poses = cameras.camera_to_worlds.double().contiguous().numpy()

    def __call__(self, indices: Int[Tensor, "rays 3"]) -> RayBundle:
        """Rays of pixels given by view, row and column, on the CPU."""
        if self.exotic is not None:
            return self.exotic(indices)
        from dac_nerfstudio.sampling import kernels

        shapes = {"origins": 3, "directions": 3, "pixel_area": 1, "directions_norm": 1}
        made = {name: np.empty((len(indices), size), np.float32) for name, size in shapes.items()}
        kernels.rays(indices.numpy(), self.lenses, self.distorted, self.fisheye, self.poses, *made.values())
        fields = {name: torch.from_numpy(array) for name, array in made.items()}
        views = indices[:, :1]
        of_views = {name: value for name, value in (self.cameras.metadata or {}).items() if isinstance(value, Tensor)}
        metadata = {name: value[views[:, 0]] for name, value in of_views.items()}
        metadata["directions_norm"] = fields.pop("directions_norm")
        times = None if self.cameras.times is None else self.cameras.times[views, 0]
        return RayBundle(**fields, camera_indices=views, times=times, metadata=metadata)
