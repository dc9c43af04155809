"""Oracle numbers, and models small enough to be differentiated by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from tiny import BOX, TINY, reference  # noqa: F401 (a fixture)

from dac_nerfstudio.kplanes.backends import trial
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig

# Tensors this small gain nothing from threads, which on a busy machine wait for each other: fifteen times as slow.
torch.set_num_threads(1)


@pytest.fixture
def untried() -> Iterator[None]:
    """No backend has been tried yet, and none afterwards: the trial's results of this test are forgotten."""

    def forget() -> None:
        trial.failure.cache_clear()
        trial._warned.clear()

    forget()
    yield
    forget()


@pytest.fixture
def rays() -> Callable[..., RayBundle]:
    """Makes a bundle of rays from a sphere of radius 4 towards the neighbourhood of the origin."""

    def make(count: int, near: float | None = None, far: float | None = None) -> RayBundle:
        generator = torch.Generator().manual_seed(count)
        origins = 4 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
        targets = torch.rand(count, 3, generator=generator) - 0.5
        ones = torch.ones(count, 1)
        return RayBundle(
            origins=origins,
            directions=torch.nn.functional.normalize(targets - origins, dim=-1),
            pixel_area=ones * 1e-4,
            camera_indices=torch.zeros(count, 1, dtype=torch.long),
            nears=None if near is None else ones * near,
            fars=None if far is None else ones * far,
        )

    return make


@pytest.fixture
def tiny_model() -> Callable[..., KPlanesModel]:
    """Makes a model of a few hundred parameters; keyword arguments are settings."""

    def make(seed: int = 0, **settings: Any) -> KPlanesModel:
        torch.manual_seed(seed)
        return KPlanesModelConfig(**{**TINY, **settings}).setup(scene_box=BOX, num_train_data=0)

    return make
