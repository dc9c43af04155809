"""Oracle numbers, and models small enough to be differentiated by hand."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import BOX, TINY, Rays, TinyModel, rays_towards_the_origin, reference  # noqa: F401 (a fixture)

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
def rays() -> Rays:
    """Makes a bundle of rays."""
    return rays_towards_the_origin


@pytest.fixture
def tiny_model() -> TinyModel:
    """Makes a model of a few hundred parameters; keyword arguments are settings."""

    def make(seed: int = 0, **settings: Any) -> KPlanesModel:
        torch.manual_seed(seed)
        return KPlanesModelConfig(**{**TINY, **settings}).setup(scene_box=BOX, num_train_data=0)

    return make
