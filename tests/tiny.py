"""Fixtures of models small enough to be differentiated by hand, and what the reference implementations say of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.kplanes.proposals import Bins

TINY: dict[str, Any] = {
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
"""Settings of a model of a few hundred parameters."""
TinyModel = Callable[..., KPlanesModel]
Rays = Callable[..., RayBundle]
BOX = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """What the reference implementations return for small inputs; see tests/fixtures/README.md."""
    return json.loads((Path(__file__).parent / "fixtures" / "reference_losses.json").read_text())


def bins_between(edges: Tensor, normalised: Tensor | None = None) -> Bins:
    """Bins from edges along the ray [rays, samples + 1] and, if they differ, in normalised ray space."""
    return Bins(edges if normalised is None else normalised, edges)


def rays_towards_the_origin(
    count: int, near: float | None = None, far: float | None = None, groups: list[int] | None = None
) -> RayBundle:
    """A bundle of rays from a sphere of radius 4 to the neighbourhood of its middle; with a group of each, in its
    metadata."""
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
        metadata={} if groups is None else {"group": torch.tensor(groups)[:, None]},
    )
