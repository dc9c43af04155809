"""Finds the first loss or weight that is not finite; such weights are not saved."""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

INTERVAL = 50
"""Steps between two looks at the losses: each look waits for the device."""


class Divergence(NamedTuple):
    """Where a loss was no finite number."""

    step: int
    """Counted from 0."""
    term: str
    value: float


class LossWatch:
    """Keeps the losses of the latest steps where they are, and looks at all of them together."""

    def __init__(self) -> None:
        self.steps: List[int] = []
        self.losses: List[Dict[str, Tensor]] = []

    def note(self, step: int, losses: Dict[str, Tensor]) -> Optional[Divergence]:
        """Take the losses of a step; now and then the result of `look`."""
        self.steps.append(step)
        self.losses.append({name: loss.detach() for name, loss in losses.items()})
        return self.look() if len(self.steps) >= INTERVAL else None

    def look(self) -> Optional[Divergence]:
        """The first loss since the last look that is no finite number, if there is any."""
        steps, losses = self.steps, self.losses
        self.steps, self.losses = [], []
        if not steps:
            return None
        values = torch.stack([torch.stack([*terms.values()]).float() for terms in losses]).cpu()
        bad = (~values.isfinite()).nonzero()
        if not len(bad):
            return None
        row, column = bad[0].tolist()
        return Divergence(steps[row], list(losses[row])[column], float(values[row, column]))


def not_finite(weights: Iterable[Tuple[str, Tensor]]) -> Optional[str]:
    """The first of some named weights that holds something else than finite numbers, if there is any."""
    named = [(name, weight) for name, weight in weights if weight.is_floating_point()]
    if not named:
        return None
    finite = torch.stack([weight.isfinite().all() for _, weight in named]).cpu()
    return next((name for (name, _), good in zip(named, finite.tolist()) if not good), None)
