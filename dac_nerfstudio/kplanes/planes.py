"""Multi-scale feature planes: where K-Planes spends its time."""

from __future__ import annotations

from typing import Optional, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dac_nerfstudio.kplanes import lookup, mlp, rays, regularizers
from dac_nerfstudio.kplanes.backends.trial import explain, failure


class MultiScalePlanes(nn.Module):
    """Planes at several resolutions, their features concatenated.

    Args:
        resolutions: grid points along each side, one per scale.
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
        return lookup.lookup(list(self.scales), points)


def kernel_problem(device: str, sizes: Sequence[tuple[int, int]]) -> Optional[str]:
    """Why models would not train and teach by fast kernels on a device; None if they would.

    Tries what they need: lookup and total variation in single precision with gradients, and what is computed along
    rays; on CUDA the lookup of teachers, in half precision without gradients; on the CPU the layers of small networks.

    Args:
        sizes: channels and number of scales of the models' planes.
    """
    points = torch.zeros(1, 3, device=device)
    for channels, count in sizes:
        scales = [torch.zeros(3, 2, 2, channels, device=device, requires_grad=True) for _ in range(count)]
        trials = [
            (lookup.case_of(scales, points), lookup.example),
            (regularizers.smoothness_case_of(scales[0]), regularizers.smoothness_example),
            (rays.case_on(points.device), rays.example),
        ]
        if points.is_cuda:
            trials.append((lookup.case_of([scale.detach().half() for scale in scales], points), lookup.example))
        else:
            trials.append((mlp.CASE, mlp.example))
        for case, example in trials:
            if case is None:
                return f"There are no fast kernels for {points.device.type}: plain PyTorch looks the planes up."
            error = failure(case, example)
            if error is not None:
                return explain(case, error)
    return None
