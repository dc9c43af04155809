"""Multi-scale feature planes: the lookup that K-Planes spends its time in.

Shapes used throughout: a *scale* is one parameter ``[3, R, R, C]``, the planes xy, xz and yz with channels last,
so that the C features of a grid corner lie side by side in memory. Points are in [-1, 1]^3.
"""

from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PLANE_AXES = ((0, 1), (0, 2), (1, 2))
"""(column axis, row axis) of each plane: xy, xz, yz."""


def interpolate_planes(
    planes: Float[Tensor, "3 R R C"], points: Float[Tensor, "points 3"]
) -> Float[Tensor, "points C"]:
    """Product over the three planes of the bilinear interpolation at each point's projection.

    Corners of a plane lie at -1 and 1 (``align_corners``); a point outside takes the border's value.
    K-Planes, arXiv 2301.10241, eq. 1 and 2.
    """
    columns, rows = zip(*PLANE_AXES)
    coordinates = torch.stack((points[:, columns], points[:, rows]), dim=-1)  # [points, 3, 2]
    features = F.grid_sample(
        planes.permute(0, 3, 1, 2),
        coordinates.transpose(0, 1)[:, None],
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )  # [3, C, 1, points]
    xy, xz, yz = features[:, :, 0]
    return (xy * xz * yz).transpose(0, 1)


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
        return torch.cat([interpolate_planes(planes, points) for planes in self.scales], dim=-1)
