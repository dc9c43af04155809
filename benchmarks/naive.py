"""The naive path: what K-Planes costs when it is put together from stock parts.

Under ``parts()`` this package's model is built from nerfstudio's KPlanesEncoding (one per scale), evaluates decoders
layer by layer, the colour basis and the direction's encoding for every sample, samples rays in plain PyTorch, and takes
total variation by differences of whole planes.
Everything else is the same: both paths compute one model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from nerfstudio.field_components.encodings import KPlanesEncoding
from torch import Tensor, nn

from dac_nerfstudio.kplanes.decoders import ExplicitDecoder, HybridDecoder
from dac_nerfstudio.kplanes.mlp import MLP
from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.kplanes.planes import MultiScalePlanes
from dac_nerfstudio.kplanes.teaching import ExpertModel


class Planes(nn.Module):
    """Stands in for MultiScalePlanes."""

    def __init__(self, resolutions: Sequence[int], features: int, init_range: tuple[float, float]) -> None:
        super().__init__()
        self.encodings = nn.ModuleList(
            KPlanesEncoding((resolution,) * 3, features, *init_range) for resolution in resolutions
        )
        self.out_dim = features * len(resolutions)

    @property
    def scales(self) -> list[list[Tensor]]:
        return [list(encoding.parameters()) for encoding in self.encodings]

    def forward(self, points: Tensor) -> Tensor:
        return torch.cat([encoding(points) for encoding in self.encodings], dim=-1)

    def copy_from(self, scales: Sequence[Tensor]) -> None:
        """Take over the numbers of planes ``[3, R, R, C]``, one per scale."""
        for encoding, planes in zip(self.encodings, scales, strict=True):
            for own, plane in zip(encoding.parameters(), planes, strict=True):
                own.data.copy_(plane.permute(2, 0, 1))


def plane_tv(scales: Sequence[Sequence[Tensor]]) -> Tensor:
    planes = [plane for scale in scales for plane in scale]
    total = torch.zeros((), device=planes[0].device)
    for plane in planes:
        rows, columns = plane[:, 1:] - plane[:, :-1], plane[:, :, 1:] - plane[:, :, :-1]
        total = total + rows.square().mean() + columns.square().mean()
    return total / len(planes)


def explicit(decoder: ExplicitDecoder, features: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    per_sample = directions[:, None].expand(-1, features.shape[1], -1).reshape(-1, 3)
    basis = decoder.basis(per_sample).to(features.dtype).view(*features.shape[:2], 3, -1)
    return decoder.density_head(features)[..., 0], torch.sigmoid((features[..., None, :] * basis).sum(dim=-1))


def hybrid_colour(decoder: HybridDecoder, features: Tensor, directions: Tensor) -> Tensor:
    per_sample = directions[:, None].expand(-1, features.shape[1], -1).reshape(-1, 3)
    encoded = decoder.direction_encoding(per_sample).to(features.dtype)
    return decoder.colour_net(torch.cat((encoded, features.flatten(0, 1)), dim=-1)).view(*features.shape[:2], 3)


RAYS_AT_A_TIME = 4096
"""nerfstudio's default in rendering."""


@contextmanager
def parts() -> Iterator[None]:
    """Models built, trained and rendered meanwhile are the naive path's."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(ExpertModel, "in_half", False))
        stack.enter_context(patch.object(KPlanesModel, "rays_at_a_time", lambda model: RAYS_AT_A_TIME))
        stack.enter_context(patch("dac_nerfstudio.kplanes.field.MultiScalePlanes", Planes))
        stack.enter_context(patch("dac_nerfstudio.kplanes.model.plane_tv", plane_tv))
        stack.enter_context(patch.object(MLP, "forward", nn.Sequential.forward))
        stack.enter_context(patch("dac_nerfstudio.kplanes.rays.choose", lambda *tensors: "reference"))
        stack.enter_context(patch.object(ExplicitDecoder, "forward", explicit))
        stack.enter_context(patch.object(HybridDecoder, "colour", hybrid_colour))
        yield


def copy_weights(model: nn.Module, naive_model: nn.Module) -> None:
    """Copy our model's weights to one that was built under ``parts()``."""
    slow = dict(naive_model.named_modules())
    for name, module in model.named_modules():
        if isinstance(module, MultiScalePlanes):
            slow[name].copy_from(list(module.scales))
        elif isinstance(module, nn.Linear):
            slow[name].load_state_dict(module.state_dict())
