"""Teachers asked in fixed shapes, whatever the shares of a batch: what a captured step needs.

Each model has a slot of fixed size, padded with the batch's first ray; an index puts the answers back in order.
"""

from __future__ import annotations

import copy
import math
from typing import List, Union

import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor

from dac_nerfstudio.kplanes.distillation import TeacherOutput
from dac_nerfstudio.teachers.ensemble import Ensemble

DEVIATIONS = 9
"""Room beyond the first batch's share, in its standard deviations: of two batches' difference these are six."""
LEAST_ROOM = 40
"""Rays of room beyond a share that is next to nothing."""


class Slots:
    """Which rays of a batch each model answers, as indices on the device.

    Args:
        ensemble: K-Planes models; answers itself where a batch does not fit.
        device: where rays lie.
    """

    def __init__(self, ensemble: Ensemble, device: Union[torch.device, str]) -> None:
        self.ensemble, self.device = ensemble, torch.device(device)
        self.sizes: List[int] = []
        """Rays of each slot."""
        self.table = torch.empty(0, dtype=torch.long)
        """The models' rays, slot after slot, and where among the answers each ray's own is."""
        self.fits = False
        """Whether the current batch has room in the slots."""

    def place(self, groups: Int[Tensor, "rays"]) -> None:
        """Fill the slots for a batch.

        Args:
            groups: of the rays, on the CPU; of the same number in every batch.
        """
        self.groups = groups
        rows: List[List[Tensor]] = [[torch.empty(0, dtype=torch.long)] for _ in self.ensemble.models]
        for number, start, end in self.ensemble.shares(groups):
            rows[number].append(torch.arange(start, end))
        mine = [torch.cat(ranges) for ranges in rows]
        if not self.sizes:
            room = [len(rays) + LEAST_ROOM + math.ceil(DEVIATIONS * math.sqrt(len(rays))) for rays in mine]
            self.sizes = [min(size, len(groups)) for size in room]
            self.table = torch.zeros(sum(self.sizes) + len(groups), dtype=torch.long, device=self.device)
        self.fits = all(len(rays) <= size for rays, size in zip(mine, self.sizes))
        if not self.fits:
            return
        table, start = torch.zeros(len(self.table), dtype=torch.long), 0
        back = table[sum(self.sizes) :]
        for rays, size in zip(mine, self.sizes):
            table[start : start + len(rays)] = rays
            back[rays] = torch.arange(start, start + len(rays))
            start += size
        self.table.copy_(table.pin_memory() if self.device.type == "cuda" else table, non_blocking=True)

    def teach(self, rays: RayBundle, background: Float[Tensor, "3"]) -> TeacherOutput:
        """As `Ensemble.teach`, for the batch whose groups were placed."""
        if not self.fits:
            rays = copy.copy(rays)
            rays.metadata = {**rays.metadata, "group": self.groups[:, None]}
            return self.ensemble.teach(rays, background)
        *rows, back = self.table.split([*self.sizes, len(rays)])
        parts = [model.teach(rays[row], background) for model, row in zip(self.ensemble.models, rows)]
        return TeacherOutput.joined(parts)[back]
