"""Cameras round a scene, and similarities of views."""

from collections.abc import Callable

import numpy as np
import pytest
from cameras import looking_at_origin, random_transform, ring  # noqa: F401 (fixtures)
from scene_folders import colmap_folder, colmap_model  # noqa: F401 (fixtures)
from scipy.spatial.transform import Rotation

from dac_nerfstudio.partition import Views


@pytest.fixture
def cameras_around() -> Callable[[int, int], Views]:
    """Makes views from random places round the origin, looking past it by some degrees, with 77 degrees of view."""

    def make(count: int, seed: int) -> Views:
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(count, 3))
        centres *= rng.uniform(2, 4, (count, 1)) / np.linalg.norm(centres, axis=1, keepdims=True)
        poses = np.stack([looking_at_origin(centre) for centre in centres])
        poses[:, :, :3] = Rotation.from_rotvec(rng.normal(0, 0.2, (count, 3))).as_matrix() @ poses[:, :, :3]
        intrinsics = np.tile([10.0, 10.0, 8.0, 6.0, 16.0, 12.0], (count, 1))
        return Views(tuple(f"v{i}.png" for i in range(count)), poses, intrinsics, upright=False)

    return make


@pytest.fixture
def planted() -> Callable[..., np.ndarray]:
    """Makes a similarity that is high within blocks of the given sizes, and low between them."""

    def make(sizes: list[int], inside: float = 0.7, outside: float = 0.05, noise: float = 0.0) -> np.ndarray:
        homes = np.repeat(np.arange(len(sizes)), sizes)
        values = np.where(homes[:, None] == homes, inside, outside)
        values = values + np.random.default_rng(0).uniform(-noise, noise, values.shape)
        values = (values + values.T) / 2
        np.fill_diagonal(values, 1)
        return values.clip(0, 1)

    return make
