"""Small multi-layer perceptrons in PyTorch, evaluated for many points at once."""

from __future__ import annotations

from typing import List, Literal, Optional

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dac_nerfstudio.kplanes.backends.trial import Backend, Case, works

CASE = Case("layers of a network", "cpu", "cpu", torch.float32, torch.float32, 0, 0, True, True)


class MLP(nn.Sequential):
    """Fully connected layers of one width, without output activation.

    Args:
        bias: whether the first layer has one; no other does.
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
        if choose(points) == "cpu":
            weight = first.weight
            if first.bias is not None:  # the weight of a one
                points, weight = F.pad(points, (0, 1), value=1.0), torch.cat((weight, first.bias[:, None]), dim=1)
            return in_cache(points, None, weight, *(layer.weight for layer in others))
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
        if choose(samples) == "cpu":
            out = in_cache(samples.flatten(0, 1), of_rays, weight, *(layer.weight for layer in others))
            return out.view(*samples.shape[:2], -1)
        out = F.linear(samples, weight) + of_rays[:, None]
        for layer in list(self)[1:]:
            out = layer(out)
        return out


def choose(points: Tensor) -> Backend:
    """Who is fastest for these points, and works here."""
    fit = points.device.type == "cpu" and points.dtype == torch.float32 and points.numel() > 0
    return "cpu" if fit and works(CASE, example) else "reference"


def in_cache(
    points: Float[Tensor, "points in_dim"], shift: Optional[Float[Tensor, "rays width"]], *weights: Tensor
) -> Float[Tensor, "points out_dim"]:
    """Layers with ReLU between them, by numba's kernels; ``shift`` is added in the first layer to each ray's points."""
    from dac_nerfstudio.kplanes.backends import cpu_mlp

    return cpu_mlp.in_cache(points, shift, *weights)


def example(case: Case, backend: Backend) -> List[Tensor]:
    """Two layers of the points of two rays, and their gradients."""
    points, shift, weight = (
        torch.linspace(-1, 1, n * m).view(n, m).requires_grad_() for n, m in ((6, 5), (2, 9), (9, 5))
    )
    if backend == "cpu":
        out = in_cache(points, shift, weight, weight.T)
    else:
        out = F.relu(points @ weight.T + shift.repeat_interleave(3, dim=0)) @ weight
    return [out.detach(), *torch.autograd.grad(out, (points, shift, weight), torch.linspace(0.5, 1, 30).view(6, 5))]
