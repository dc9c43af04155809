"""Small multi-layer perceptrons in PyTorch, evaluated for many points at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Optional, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

POINTS_AT_A_TIME = 4096
"""The hidden layers of so many points stay in a CPU's cache between one layer and the next."""
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether there is oneDNN's product of matrices, for which PyTorch has no public name."""


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
        if _in_cache(points):
            return _InCache.apply(points, first.bias, first.weight, *(layer.weight for layer in others))
        return super().forward(points)

    def of_rays(
        self, rays: Float[Tensor, "rays a"], samples: Float[Tensor, "rays samples b"]
    ) -> Float[Tensor, "rays samples out_dim"]:
        """What ``forward`` gives for each sample's numbers behind those of its ray, a + b of them; the share of the
        first layer that depends on the ray is computed once for all of its samples."""
        first, *others = [layer for layer in self if isinstance(layer, nn.Linear)]
        count = rays.shape[1]
        of_rays = F.linear(rays, first.weight[:, :count], first.bias)
        weight = first.weight[:, count:]
        if _in_cache(samples):
            out = _InCache.apply(samples.flatten(0, 1), of_rays, weight, *(layer.weight for layer in others))
            return out.view(*samples.shape[:2], out.shape[1])
        out = F.linear(samples, weight) + of_rays[:, None]
        for layer in list(self)[1:]:
            out = layer(out)
        return out


def _in_cache(points: Tensor) -> bool:
    return points.device.type == "cpu" and points.dtype == torch.float32 and points.numel() > 0


class _InCache(torch.autograd.Function):
    """Layers with ReLU between them, some points after the others. Hidden layers are not kept for the way back, but
    computed again: that is cheaper than to write them to memory and to read them from there.

    The first layer's bias is one for all points, or one for as many points in a row as there are for each.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, points: Tensor, bias: Optional[Tensor], *weights: Tensor) -> Tensor:
        ctx.save_for_backward(points, bias, *weights)
        parts = _parts(points, bias)
        return torch.cat([_layer(_inputs(part, shift, weights)[-1], weights[-1]) for _, part, shift in parts])

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Optional[Tensor], ...]:
        points, bias, *weights = ctx.saved_tensors
        points_gradient = torch.empty_like(points) if ctx.needs_input_grad[0] else None
        bias_gradients: list[Tensor] = []
        gradients = [torch.zeros_like(weight) for weight in weights]
        for start, part, shift in _parts(points, bias):
            rows = slice(start, start + len(part))
            inputs, gradient = _inputs(part, shift, weights), upstream[0][rows]
            for layer in reversed(range(len(weights))):
                gradients[layer] += _layer(gradient.T, inputs[layer].T)
                if layer > 0:
                    gradient = _layer(gradient, weights[layer].T)
                    torch.ops.aten.threshold_backward.grad_input(gradient, inputs[layer], 0, grad_input=gradient)
            if shift is not None:
                bias_gradients.append(_by_bias(gradient, shift).sum(dim=1))
            if points_gradient is not None:
                points_gradient[rows] = _layer(gradient, weights[0].T)
        bias_gradient = None
        if bias is not None:
            bias_gradient = torch.cat(bias_gradients)
            bias_gradient = bias_gradient.sum(dim=0) if bias.dim() == 1 else bias_gradient
        return (points_gradient, bias_gradient, *gradients)


def _parts(points: Tensor, bias: Optional[Tensor]) -> Iterator[tuple[int, Tensor, Optional[Tensor]]]:
    """Where some points start, these points, and the biases [rays, width] that are theirs."""
    if bias is None or bias.dim() == 1:
        for start in range(0, len(points), POINTS_AT_A_TIME):
            yield start, points[start : start + POINTS_AT_A_TIME], None if bias is None else bias[None]
        return
    samples = len(points) // len(bias)
    rays = max(POINTS_AT_A_TIME // samples, 1)
    for first in range(0, len(bias), rays):
        yield first * samples, points[first * samples : (first + rays) * samples], bias[first : first + rays]


def _by_bias(values: Tensor, bias: Tensor) -> Tensor:
    """Rows of the hidden layer by the bias that they have."""
    return values.view(len(bias), -1, values.shape[1])


def _inputs(points: Tensor, bias: Optional[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """The inputs of each layer."""
    inputs = [points]
    for layer, weight in enumerate(weights[:-1]):
        out = _layer(inputs[-1], weight)
        if layer == 0 and bias is not None:
            _by_bias(out, bias).add_(bias[:, None])
        inputs.append(out.relu_())
    return inputs


def _layer(points: Tensor, weight: Tensor) -> Tensor:
    """``points @ weight.T``. oneDNN has wider vectors for AMD's processors than the library that PyTorch would ask, and
    takes half the time."""
    if not ONEDNN:
        return points @ weight.T
    if not weight.T.is_contiguous():
        weight = weight.contiguous()  # with gaps between its rows it would take a hundred times as long
    return torch.ops.mkldnn._linear_pointwise(points, weight, None, "none", [], "")
