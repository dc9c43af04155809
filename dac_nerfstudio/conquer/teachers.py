"""The teachers of a student: the experts of all groups, each asked for the rays of its own."""

from __future__ import annotations

from typing import Sequence

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from dac_nerfstudio.conquer.losses import Answer
from dac_nerfstudio.conquer.models import ExpertModel


class ExpertBank:
    """The experts of a partition, answering each ray by its group's expert.

    A plain object, kept out of the student's module tree: experts are neither trained nor saved with it.

    Args:
        models: the experts, in the order of the groups.
    """

    def __init__(self, models: Sequence[ExpertModel]) -> None:
        self.models = models

    def __call__(self, rays: RayBundle, background: Float[Tensor, "3"]) -> Answer:
        """Answers a flat bundle that is sorted by ``metadata["group"]`` (from 1), each expert one contiguous slice.

        Args:
            rays: with the nears and fars that the student uses.
            background: colour that the student composites on.
        """
        counts = torch.bincount(rays.metadata["group"][:, 0], minlength=len(self.models) + 1)[1:].tolist()
        answers, start = [], 0
        for model, count in zip(self.models, counts):
            if count:
                answers.append(model.answer(rays[start : start + count], background))
            start += count
        return Answer.joined(answers, rays)
