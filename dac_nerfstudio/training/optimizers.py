"""Adam in one pass over the parameters."""

from __future__ import annotations

from dataclasses import dataclass

from nerfstudio.engine.optimizers import AdamOptimizerConfig


@dataclass
class FusedAdamConfig(AdamOptimizerConfig):
    """Adam with the reference's epsilon. Planes are large: what counts is how often they are read and written."""

    eps: float = 1e-15
    """Added to the root of the second moment; the reference's."""
    fused: bool = True
    """One kernel for the whole update, several times faster than torch's default on CPU and GPU alike."""
