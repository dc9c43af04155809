"""A teacher's output for rays, and the four distillation terms that compare it with the student's.

"Divide and Conquer: Rethinking the Training Paradigm of Neural Radiance Fields", arXiv 2401.16144. Unlike in the
reference implementation, opacities at the teacher's samples are formed with the teacher's bin widths on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dac_nerfstudio.kplanes.proposals import Bins, histogram_loss


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

    @property
    def points(self) -> bool:
        """Whether the student is compared with the teacher at the teacher's samples."""
        return self.point_colour > 0 or self.point_opacity > 0


@dataclass
class TeacherOutput:
    """A teacher's output for a batch of rays. Carries no gradient."""

    rgb: Float[Tensor, "rays 3"]
    """Rendered colour, on the student's background."""
    bins: Bins
    """The teacher's final bins; its samples are in their middles."""
    alphas: Float[Tensor, "rays samples"]
    """Opacity of each bin by itself."""
    colours: Float[Tensor, "rays samples 3"]
    """Colour at each sample."""

    @classmethod
    def joined(cls, parts: Sequence[TeacherOutput]) -> TeacherOutput:
        """One output for a bundle, from those of its parts in their order."""
        return cls(
            rgb=torch.cat([part.rgb for part in parts]),
            bins=Bins(
                torch.cat([part.bins.edges for part in parts]), torch.cat([part.bins.distances for part in parts])
            ),
            alphas=torch.cat([part.alphas for part in parts]),
            colours=torch.cat([part.colours for part in parts]),
        )

    def __getitem__(self, rays: Int[Tensor, "some"]) -> TeacherOutput:
        bins = Bins(self.bins.edges[rays], self.bins.distances[rays])
        return TeacherOutput(self.rgb[rays], bins, self.alphas[rays], self.colours[rays])


NEAR = 0.05
"""Share of the normalised ray in which a new camera should find nothing in its way."""


def unoccluded(taught: TeacherOutput) -> Float[Tensor, "rays"]:
    """1 for rays that meet little in their first twentieth, 0 for those that are stopped there: their camera stands
    inside something, where no photo was taken and no expert knows anything."""
    near = taught.bins.edges[:, 1:] <= NEAR
    stopped = 1 - torch.where(near, 1 - taught.alphas, 1).prod(dim=-1)
    return (stopped < 0.5).to(stopped.dtype)


def distillation_losses(
    weights: DistillationWeights,
    taught: TeacherOutput,
    rgb: Float[Tensor, "rays 3"],
    proposals: Sequence[Tuple[Float[Tensor, "rays bins_plus_1"], Float[Tensor, "rays bins"]]],
    point_alphas: Optional[Float[Tensor, "rays samples"]],
    point_colours: Optional[Float[Tensor, "rays samples 3"]],
) -> Dict[str, Tensor]:
    """The four terms of distillation, by name, each times its weight; those of weight 0 are not computed.

    Args:
        rgb: the student's rendered colour, on the teacher's background.
        proposals: edges and opacities of the student's own bins, level by level.
        point_alphas: the student's opacities at the teacher's samples, with the teacher's bin widths; None if of no
            weight.
        point_colours: the student's colours at the teacher's samples; None if of no weight.
    """
    losses: Dict[str, Tensor] = {}
    if weights.histogram > 0:
        losses["histogram_loss"] = weights.histogram * histogram_loss(taught.bins.edges, taught.alphas, proposals)
    if point_colours is not None:
        losses["point_colour_loss"] = weights.point_colour * (point_colours - taught.colours).square().mean()
    if point_alphas is not None:
        losses["point_opacity_loss"] = weights.point_opacity * (point_alphas - taught.alphas).square().mean()
    if weights.pixel > 0:
        losses["pixel_loss"] = weights.pixel * (rgb - taught.rgb).square().mean()
    return losses
