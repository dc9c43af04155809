"""Small multi-layer perceptrons in PyTorch, evaluated for many points at once."""

from __future__ import annotations

from typing import Any, Literal, Optional, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

POINTS_AT_A_TIME = 2048
"""The hidden layers of so many points stay in a CPU's cache between one layer and the next."""


class MLP(nn.Sequential):
    """Fully connected layers of one width, without output activation.

    Args:
        in_dim, out_dim, width, hidden_layers: its size.
        bias: whether the first layer has one; no other does.
        activation: between layers.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        width: int,
        hidden_layers: int,
        bias: bool,
        activation: Literal["ReLU", "None"] = "ReLU",
    ) -> None:
        layers: list[nn.Module] = []
        for layer in range(hidden_layers):
            first = layer == 0
            layers.append(nn.Linear(in_dim if first else width, width, bias=first and bias))
            if activation == "ReLU":
                layers.append(nn.ReLU())
        layers.append(nn.Linear(width, out_dim, bias=False))
        super().__init__(*layers)
        self.linear = activation == "None"

    def forward(self, points: Float[Tensor, "points in_dim"]) -> Float[Tensor, "points out_dim"]:
        first, *others = [layer for layer in self if isinstance(layer, nn.Linear)]
        if self.linear:
            # A product of matrices is one matrix: no point needs the hidden layers.
            weight: Tensor = first.weight
            bias: Optional[Tensor] = first.bias
            for layer in others:
                weight = layer.weight @ weight
                bias = None if bias is None else layer.weight @ bias
            return F.linear(points, weight, bias)
        if points.device.type == "cpu" and points.dtype == torch.float32:
            return _InCache.apply(points, first.bias, first.weight, *(layer.weight for layer in others))
        return super().forward(points)


class _InCache(torch.autograd.Function):
    """Layers with ReLU between them, some points after the others. Hidden layers are not kept for the way back, but
    computed again: that is cheaper than to write them to memory and to read them from there."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, points: Tensor, bias: Optional[Tensor], *weights: Tensor) -> Tensor:
        ctx.save_for_backward(points, bias, *weights)
        return torch.cat([_inputs(part, bias, weights)[-1] @ weights[-1].T for part in points.split(POINTS_AT_A_TIME)])

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        points, bias, *weights = ctx.saved_tensors
        points_gradient = torch.empty_like(points) if ctx.needs_input_grad[0] else None
        bias_gradient = None if bias is None else torch.zeros_like(bias)
        gradients = [torch.zeros_like(weight) for weight in weights]
        for start in range(0, len(points), POINTS_AT_A_TIME):
            part = slice(start, start + POINTS_AT_A_TIME)
            inputs, gradient = _inputs(points[part], bias, weights), upstream[0][part]
            for layer in reversed(range(len(weights))):
                gradients[layer].addmm_(gradient.T, inputs[layer])
                if layer > 0:
                    gradient = torch.ops.aten.threshold_backward(gradient @ weights[layer], inputs[layer], 0)
            if bias_gradient is not None:
                bias_gradient += gradient.sum(dim=0)
            if points_gradient is not None:
                torch.mm(gradient, weights[0], out=points_gradient[part])
        return (points_gradient, bias_gradient, *gradients)


def _inputs(points: Tensor, bias: Optional[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """The inputs of each layer."""
    inputs = [points]
    for layer, weight in enumerate(weights[:-1]):
        inputs.append(F.linear(inputs[-1], weight, bias if layer == 0 else None).relu_())
    return inputs
