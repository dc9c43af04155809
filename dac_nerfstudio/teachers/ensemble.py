"""The teachers of a student: the experts of all groups, each asked for the rays of its own."""

from __future__ import annotations

from typing import Dict, Sequence

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from dac_nerfstudio.kplanes.distillation import Answer
from dac_nerfstudio.teachers.models import ExpertModel

LEAST_WEIGHT = 0.01
"""An expert that counts for less at a camera, beside the one that counts most, is not asked."""


def of_experts(of_groups: Float[Tensor, "cameras groups"], groups: Sequence[int]) -> Float[Tensor, "cameras experts"]:
    """Weights of experts from those of their groups: experts of one group share its weight.

    Args:
        of_groups: weights of the groups.
        groups: group of each expert, counted from 1.
    """
    index = torch.tensor(groups) - 1
    return (of_groups / index.bincount(minlength=of_groups.shape[1]))[:, index]


def without_the_least(weights: Float[Tensor, "cameras experts"]) -> Float[Tensor, "cameras experts"]:
    """Weights of experts that are worth asking, of sum 1 at each camera; those of little weight become 0."""
    most = weights.amax(dim=-1, keepdim=True)
    weights = torch.where(weights < LEAST_WEIGHT * most, 0, weights)
    return weights / weights.sum(dim=-1, keepdim=True)


def blended(
    answers: Sequence[Dict[str, Tensor]], weights: Float[Tensor, "answers"]
) -> Dict[str, Float[Tensor, "height width channels"]]:
    """Several models' pictures of one camera as one.

    Args:
        answers: outputs of the models.
        weights: how much each counts; of sum 1.

    Returns:
        The weighted mean of each output, and ``disagreement`` ``[height, width, 1]``: the weighted standard deviation
        of the models' colours, mean over channels. Models that were trained apart seldom err alike, so that where they
        disagree they err.
    """

    def mean(pictures: Sequence[Tensor]) -> Tensor:
        return torch.einsum("n,n...->...", weights.to(pictures[0]), torch.stack(list(pictures)))

    outputs = {name: mean([answer[name] for answer in answers]) for name in answers[0]}
    variance = mean([(answer["rgb"] - outputs["rgb"]).square() for answer in answers])
    return {**outputs, "disagreement": variance.sqrt().mean(dim=-1, keepdim=True)}


class ExpertBank:
    """The experts of a partition, answering each ray by one of its group's experts.

    A plain object, kept out of the student's module tree: experts are neither trained nor saved with it.

    Args:
        models: for each group, in their order, its experts: one, or several that share its rays.
    """

    def __init__(self, models: Sequence[Sequence[ExpertModel]]) -> None:
        self.models = models

    def __call__(self, rays: RayBundle, background: Float[Tensor, "3"]) -> Answer:
        """Answers a flat bundle by ``metadata["group"]`` (from 1): every run of rays of one group in as many slices as
        it has experts. The fewer runs, the faster.

        Args:
            rays: with the nears and fars that the student uses.
            background: colour that the student composites on.
        """
        groups, counts = torch.unique_consecutive(rays.metadata["group"][:, 0], return_counts=True)
        answers, start = [], 0
        for group, count in zip(groups.tolist(), counts.tolist()):
            experts = self.models[group - 1]
            ends = [start + count * (number + 1) // len(experts) for number in range(len(experts))]
            for expert, end in zip(experts, ends):
                if end > start:
                    answers.append(expert.answer(rays[start:end], background))
                start = end
        return Answer.joined(answers)
