"""Oracle numbers, and models small enough to be differentiated by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from dac_nerfstudio.kplanes.backends import trial
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig

# Tensors this small gain nothing from threads, which on a busy machine wait for each other: fifteen times as slow.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """What the reference implementations return for small inputs; see tests/fixtures/README.md."""
    return json.loads((Path(__file__).parents[1] / "fixtures" / "reference_losses.json").read_text())


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
def samples_between() -> Callable[..., RaySamples]:
    """Makes samples from bin edges along the ray [rays, samples + 1] and, if they differ, in normalised ray space."""

    def make(edges: Tensor, normalised: Tensor | None = None) -> RaySamples:
        normalised = edges if normalised is None else normalised
        count = len(edges)
        bundle = RayBundle(
            origins=torch.zeros(count, 3), directions=torch.eye(3)[:1].expand(count, 3), pixel_area=torch.ones(count, 1)
        )
        return bundle.get_ray_samples(
            bin_starts=edges[:, :-1, None],
            bin_ends=edges[:, 1:, None],
            spacing_starts=normalised[:, :-1, None],
            spacing_ends=normalised[:, 1:, None],
        )

    return make


@pytest.fixture
def tiny_model() -> Callable[..., KPlanesModel]:
    """Makes a model of a few hundred parameters; keyword arguments are settings."""

    def make(seed: int = 0, **settings: Any) -> KPlanesModel:
        torch.manual_seed(seed)
        small: dict[str, Any] = {
            "grid_base_resolution": 4,
            "grid_feature_dim": 2,
            "multiscale_res": (1, 2),
            "linear_decoder_layers": 1,
            "proposal_resolutions": (4, 6),
            "proposal_feature_dim": 2,
            "num_proposal_samples": (8, 6),
            "num_samples": 5,
            "implementation": "torch",
        }
        box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
        return KPlanesModelConfig(**{**small, **settings}).setup(scene_box=box, num_train_data=0)

    return make
