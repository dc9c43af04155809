"""Fields: what a point in space is made of."""

from __future__ import annotations

from typing import Literal, Optional, Sequence

from jaxtyping import Float
from nerfstudio.field_components.activations import trunc_exp
from nerfstudio.field_components.spatial_distortions import SceneContraction
from torch import Tensor, nn

from dac_nerfstudio.kplanes.decoders import ExplicitDecoder, HybridDecoder, mlp
from dac_nerfstudio.kplanes.planes import MultiScalePlanes


def activate_density(raw: Tensor) -> Tensor:
    """Truncated exponential of (x - 1), in single precision."""
    return trunc_exp(raw.float() - 1)


class SceneCoordinates(nn.Module):
    """World positions to the planes' coordinates in [-1, 1]^3.

    Args:
        radius: half the side of the scene's box, in the units of the camera poses; unused when contracted.
        contracted: unbounded scene, contracted in the L-infinity norm to [-2, 2]^3 (mip-NeRF 360).
    """

    def __init__(self, radius: float, contracted: bool) -> None:
        super().__init__()
        self.radius = radius
        self.contraction = SceneContraction(order=float("inf")) if contracted else None

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        if self.contraction is not None:
            return self.contraction(positions) / 2
        return positions / self.radius


class ProposalField(nn.Module):
    """Coarse density that says where along a ray to look: small planes and a small decoder.

    Args:
        linear: no activation in the decoder, as the explicit model has it.
    """

    def __init__(
        self,
        coordinates: SceneCoordinates,
        resolution: int,
        features: int,
        linear: bool,
        implementation: Literal["tcnn", "torch"],
    ) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.planes = MultiScalePlanes((resolution,), features, init_range=(0.1, 0.15))
        self.decoder = mlp(features, 1, 64, 1, implementation, activation="None" if linear else "ReLU")

    def forward(self, positions: Float[Tensor, "rays samples 3"]) -> Float[Tensor, "rays samples 1"]:
        points = self.coordinates(positions).reshape(-1, 3)
        return activate_density(self.decoder(self.planes(points))).view(*positions.shape[:-1], 1)


class KPlanesField(nn.Module):
    """Density and colour at ray samples.

    Args:
        resolutions: of the planes, one per scale.
        linear_decoder_layers: hidden layers of the explicit decoder's basis; None makes the hybrid decoder.
    """

    def __init__(
        self,
        coordinates: SceneCoordinates,
        resolutions: Sequence[int],
        features: int,
        linear_decoder_layers: Optional[int],
        implementation: Literal["tcnn", "torch"],
    ) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.planes = MultiScalePlanes(resolutions, features, init_range=(0.1, 0.5))
        self.decoder: ExplicitDecoder | HybridDecoder
        if linear_decoder_layers is None:
            self.decoder = HybridDecoder(self.planes.out_dim, implementation)
        else:
            self.decoder = ExplicitDecoder(self.planes.out_dim, linear_decoder_layers, implementation)

    def forward(
        self, positions: Float[Tensor, "rays samples 3"], directions: Float[Tensor, "rays 3"]
    ) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples 3"]]:
        """Density (per unit of distance) and colour in [0, 1]."""
        points = self.coordinates(positions).reshape(-1, 3)
        raw, colour = self.decoder(self.planes(points).view(*positions.shape[:2], -1), directions)
        density = activate_density(raw)
        return density, colour.to(density.dtype)
