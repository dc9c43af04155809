"""Fixtures of models small enough to be differentiated by hand, and what the reference implementations say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.data.scene_box import SceneBox
from torch import Tensor

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
BOX = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """What the reference implementations return for small inputs; see tests/fixtures/README.md."""
    return json.loads((Path(__file__).parent / "fixtures" / "reference_losses.json").read_text())


def bins_between(edges: Tensor, normalised: Tensor | None = None) -> Bins:
    """Bins from edges along the ray [rays, samples + 1] and, if they differ, in normalised ray space."""
    return Bins(edges if normalised is None else normalised, edges)
