"""What a teacher says of rays, and the four distillation terms that compare it with what the student says of them.

"Divide and Conquer: Rethinking the Training Paradigm of Neural Radiance Fields", arXiv 2401.16144. Unlike in the
reference implementation, opacities at the teacher's samples are formed with the teacher's bin widths on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Sequence

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle, RaySamples
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
    """What a teacher says of a batch of rays. Carries no gradient."""

    rgb: Float[Tensor, "rays 3"]
    """Rendered colour, on the student's background."""
    samples: RaySamples
    """The teacher's final samples, ``[rays, samples]``."""
    edges: Float[Tensor, "rays samples_plus_1"]
    """Edges of the samples' bins in normalised ray space [0, 1]."""
    alphas: Float[Tensor, "rays samples"]
    """Opacity of each bin by itself."""
    colours: Float[Tensor, "rays samples 3"]
    """Colour at each sample."""

    @classmethod
    def joined(cls, answers: Sequence[Answer], rays: RayBundle) -> Answer:
        """One answer for a bundle whose parts, in this order, were answered one by one."""

        edges = torch.cat([answer.edges for answer in answers])
        frustums = [answer.samples.frustums for answer in answers]
        samples = rays.get_ray_samples(
            bin_starts=torch.cat([frustum.starts for frustum in frustums]),
            bin_ends=torch.cat([frustum.ends for frustum in frustums]),
            spacing_starts=edges[:, :-1, None],
            spacing_ends=edges[:, 1:, None],
        )
        return cls(
            rgb=torch.cat([answer.rgb for answer in answers]),
            samples=samples,
            edges=edges,
            alphas=torch.cat([answer.alphas for answer in answers]),
            colours=torch.cat([answer.colours for answer in answers]),
        )


def distillation_losses(
    weights: DistillationWeights,
    answer: Answer,
    rgb: Float[Tensor, "rays 3"],
    proposals: List[Level],
    point_alphas: Float[Tensor, "rays samples"],
    point_colours: Float[Tensor, "rays samples 3"],
) -> Dict[str, Tensor]:
    """The four terms of distillation, by name, each times its weight.

    Args:
        weights: how much each term counts.
        answer: what the teacher says of the rays.
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
