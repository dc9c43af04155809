"""The four distillation terms, as functions of what teacher and student say of the same rays.

"Divide and Conquer: Rethinking the Training Paradigm of Neural Radiance Fields", arXiv 2401.16144. Unlike in the
reference implementation, opacities at the teacher's samples are formed with the teacher's bin widths on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List

from jaxtyping import Float
from nerfstudio.cameras.rays import RaySamples
from torch import Tensor

from dac_nerfstudio.kplanes.proposals import Level, histogram_loss


@dataclass
class DistillationWeights:
    """How much each distillation term counts."""

    histogram: float = 0.3
    """The student's proposals must bound the teacher's opacities from above."""
    point_colour: float = 0.2
    """Colour at the teacher's samples."""
    point_opacity: float = 0.2
    """Opacity of the teacher's samples."""
    pixel: float = 0.3
    """Rendered colour."""


@dataclass
class Answer:
    """What the teacher says of a batch of rays. Carries no gradient."""

    rgb: Float[Tensor, "rays 3"]
    samples: RaySamples
    edges: Float[Tensor, "rays samples_plus_1"]
    alphas: Float[Tensor, "rays samples"]
    colours: Float[Tensor, "rays samples 3"]


def distillation_losses(
    weights: DistillationWeights,
    answer: Answer,
    rgb: Float[Tensor, "rays 3"],
    proposals: List[Level],
    point_alphas: Float[Tensor, "rays samples"],
    point_colours: Float[Tensor, "rays samples 3"],
) -> Dict[str, Tensor]:
    """The weighted terms.

    Args:
        weights: of the terms.
        answer: the teacher's.
        rgb: the student's rendered colour, on the teacher's background.
        proposals: the student's proposal levels on its own bins.
        point_alphas: the student's opacities at the teacher's samples, with the teacher's bin widths.
        point_colours: the student's colours at the teacher's samples.
    """
    histogram = histogram_loss(answer.edges, answer.alphas, [(level.edges, level.alphas) for level in proposals])
    return {
        "histogram_loss": weights.histogram * histogram,
        "point_colour_loss": weights.point_colour * (point_colours - answer.colours).square().mean(),
        "point_opacity_loss": weights.point_opacity * (point_alphas - answer.alphas).square().mean(),
        "pixel_loss": weights.pixel * (rgb - answer.rgb).square().mean(),
    }
