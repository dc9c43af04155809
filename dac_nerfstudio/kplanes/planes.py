"""Multi-scale feature planes: where K-Planes spends its time."""

from __future__ import annotations

from typing import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dac_nerfstudio.kplanes.lookup import lookup


class MultiScalePlanes(nn.Module):
    """Planes at several resolutions, their features concatenated.

    Args:
        resolutions: grid points along each side, one per scale.
        features: channels per plane.
        init_range: bounds of the uniform distribution that the planes start from.
    """

    def __init__(self, resolutions: Sequence[int], features: int, init_range: tuple[float, float]) -> None:
        super().__init__()
        self.scales = nn.ParameterList(
            nn.Parameter(torch.empty(3, resolution, resolution, features).uniform_(*init_range))
            for resolution in resolutions
        )
        self.out_dim = features * len(resolutions)

    def forward(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points out_dim"]:
        return lookup(list(self.scales), points)
