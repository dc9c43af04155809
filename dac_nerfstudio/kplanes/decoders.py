"""Decoders: plane features -> density and colour.

tiny-cuda-nn's MLPs have no biases, but they fill their input up to a multiple of 16 with ones, which amounts to a bias
in the first layer wherever there is something to fill. The PyTorch MLPs have just these biases: one model either way.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import SHEncoding
from nerfstudio.utils.external import TCNN_EXISTS, tcnn
from torch import Tensor, nn

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.mlp import MLP
from dac_nerfstudio.kplanes.rays import products

Implementation = Literal["auto", "tcnn", "torch"]


def resolve_implementation(implementation: Implementation, cuda: bool) -> Literal["tcnn", "torch"]:
    """``auto`` becomes tcnn where it is installed and the model is to run on CUDA.

    Raises:
        StageError: tcnn is asked for and not there.
    """
    available = TCNN_EXISTS and cuda
    if implementation == "tcnn" and not available:
        raise StageError(
            "This model's decoders are tiny-cuda-nn's, which is not installed here or has no CUDA device. Install it, "
            "or train with --pipeline.model.implementation torch."
        )
    if implementation == "auto":
        return "tcnn" if available else "torch"
    return implementation


def mlp(
    in_dim: int,
    out_dim: int,
    width: int,
    hidden_layers: int,
    implementation: Literal["tcnn", "torch"],
    activation: Literal["ReLU", "None"] = "ReLU",
) -> nn.Module:
    """A multi-layer perceptron without output activation, with tiny-cuda-nn's biases (see the module's docstring)."""
    if implementation == "tcnn":
        assert tcnn is not None
        return tcnn.Network(
            n_input_dims=in_dim,
            n_output_dims=out_dim,
            network_config={
                "otype": "FullyFusedMLP" if width in (16, 32, 64, 128) else "CutlassMLP",
                "activation": activation,
                "output_activation": "None",
                "n_neurons": width,
                "n_hidden_layers": hidden_layers,
            },
        )
    return MLP(in_dim, out_dim, width, hidden_layers, in_dim % 16 != 0, activation)


class ExplicitDecoder(nn.Module):
    """Linear density head; colour is the features' projection on a basis learned as a function of direction.

    The basis depends on the ray alone, so it is evaluated once per ray and shared by the ray's samples.
    K-Planes, arXiv 2301.10241, section 3.3 ("explicit").
    """

    def __init__(self, features: int, hidden_layers: int, implementation: Literal["tcnn", "torch"]) -> None:
        super().__init__()
        self.density_head = nn.Linear(features, 1, bias=False)
        self.basis = mlp(3, 3 * features, 128, hidden_layers, implementation)

    def forward(
        self, features: Float[Tensor, "rays samples C"], directions: Float[Tensor, "rays 3"]
    ) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples 3"]]:
        """Density before activation, and colour in [0, 1]."""
        basis = self.basis(directions).view(len(directions), 3, -1)
        # In single precision, as the reference: half of it would leave colours three digits.
        with torch.autocast(features.device.type, enabled=False):
            head = self.density_head.weight.squeeze(0)
            raw, logits = products(features.to(head.dtype), head, basis.to(head.dtype))
            return raw, torch.sigmoid(logits)


class HybridDecoder(nn.Module):
    """Small MLPs: features to density and 15 geometry features, these and the encoded direction to colour.

    K-Planes, arXiv 2301.10241, section 3.3 ("hybrid"). The direction is encoded once per ray.
    """

    GEOMETRY_FEATURES = 15

    def __init__(self, features: int, implementation: Literal["tcnn", "torch"]) -> None:
        super().__init__()
        self.direction_encoding = SHEncoding(levels=4, implementation="torch")
        self.density_net = mlp(features, 1 + self.GEOMETRY_FEATURES, 64, 1, implementation)
        self.colour_net = mlp(self.direction_encoding.get_out_dim() + self.GEOMETRY_FEATURES, 3, 64, 2, implementation)

    def forward(
        self, features: Float[Tensor, "rays samples C"], directions: Float[Tensor, "rays 3"]
    ) -> tuple[Float[Tensor, "rays samples"], Float[Tensor, "rays samples 3"]]:
        """Density before activation, and colour in [0, 1]."""
        out = self.density_net(features.flatten(0, 1)).view(*features.shape[:2], -1)
        raw, geometry = out.split((1, self.GEOMETRY_FEATURES), dim=-1)
        return raw[..., 0], torch.sigmoid(self.colour(geometry, directions))

    def colour(
        self, geometry: Float[Tensor, "rays samples 15"], directions: Float[Tensor, "rays 3"]
    ) -> Float[Tensor, "rays samples 3"]:
        """Colour before activation."""
        encoded = self.direction_encoding(directions).to(geometry.dtype)
        if isinstance(self.colour_net, MLP):
            return self.colour_net.of_rays(encoded, geometry)
        inputs = torch.cat((encoded[:, None].expand(-1, geometry.shape[1], -1), geometry), dim=-1)
        return self.colour_net(inputs.flatten(0, 1)).view(*geometry.shape[:2], 3)
