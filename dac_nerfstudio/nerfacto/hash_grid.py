"""nerfstudio's multiresolution hash grid (arXiv 2201.05989), compiled on the CPU."""

from __future__ import annotations

import torch
from jaxtyping import Float
from nerfstudio.field_components.encodings import HashEncoding
from torch import Tensor, nn


class HashGrid(HashEncoding):
    """A ``HashEncoding`` whose lookup and first derivatives are compiled for float32 on the CPU.

    The plain implementation it equals is nerfstudio's ``pytorch_fwd``, which also serves other types and devices where
    tiny-cuda-nn does not.
    """

    def forward(self, in_tensor: Float[Tensor, "*bs 3"]) -> Float[Tensor, "*bs levels_x_features"]:
        inputs = (in_tensor, self.hash_table)
        if self.tcnn_encoding is None and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in inputs):
            from dac_nerfstudio.nerfacto.hash_kernels import lookup  # imported late: it brings a compiler

            return lookup(*inputs, self.scalings)
        return super().forward(in_tensor)


def compile_grids(model: nn.Module) -> None:
    """Turn each ``HashEncoding`` of a model into a ``HashGrid``, in place: its parameters and their names stay."""
    for module in model.modules():
        if type(module) is HashEncoding:
            module.__class__ = HashGrid
