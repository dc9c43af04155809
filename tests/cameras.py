"""Fixtures of cameras that several rooms' tests look through."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dac_nerfstudio.partition import Partition, Transform, Views


def looking_at_origin(centre: np.ndarray) -> np.ndarray:
    """Camera-to-world [3, 4] with OpenGL axes at `centre`, looking at the origin, +z up."""
    back = centre / np.linalg.norm(centre)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back, centre], axis=1)


def manual(views: Views, homes: list[int]) -> Partition:
    """A division by hand."""
    groups = max(homes)
    settings = {"strategy": "manual", "similarity": None, "groups": groups, "overlap": 0.0, "softness": 0.0}
    return Partition(views, np.array(homes), np.arange(1, groups + 1)[:, None] == np.array(homes), settings)


def ring_of(degrees: Any, prefix: str = "train/r_", height: float = 1.0) -> Views:
    """Views at given azimuths in degrees, 4 from the up axis, looking at the origin."""
    angles = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    centres = np.stack([4 * np.cos(angles), 4 * np.sin(angles), np.full_like(angles, height)], axis=1)
    return Views(
        names=tuple(f"{prefix}{i}.png" for i in range(len(angles))),
        camera_to_worlds=np.stack([looking_at_origin(centre) for centre in centres]),
        intrinsics=np.tile([100.0, 100.0, 8.0, 6.0, 16.0, 12.0], (len(angles), 1)),
    )


@pytest.fixture
def ring() -> Callable[..., Views]:
    """Makes views on a ring."""
    return ring_of


@pytest.fixture
def random_transform() -> Callable[[int], Transform]:
    """A turn, a shift and a scaling of a whole scene."""

    def make(seed: int) -> Transform:
        rng = np.random.default_rng(seed)
        rotation = Rotation.random(None, rng).as_matrix()
        return Transform(float(rng.uniform(0.1, 10)), rotation, rng.normal(size=3))

    return make
