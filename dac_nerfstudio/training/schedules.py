"""Learning-rate schedules whose state reloads with ``weights_only=True``: nerfstudio's put numpy scalars in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Type

import tyro
from nerfstudio.engine.schedulers import Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass
class CosineScheduleConfig(SchedulerConfig):
    """A half cosine from the full rate down to zero, or a part of one; at its very beginning a linear warm-up."""

    _target: Type = field(default_factory=lambda: CosineSchedule)
    """Target class to instantiate."""
    warmup_steps: int = 512
    """Steps of linear warm-up from zero, unless the run begins later on the cosine."""
    begin: float = 0.0
    """Where on the cosine the run begins, from 0 to 1: at 0.5 the rate is half of the full one."""
    end: float = 1.0
    """Where on the cosine the run ends: at 1 the rate is zero."""
    max_steps: tyro.conf.Suppress[int] = 30000
    """Length of the run; set from --max-num-iterations."""


def rate_factor(step: int, config: CosineScheduleConfig) -> float:
    """Multiple of the base learning rate at ``step``."""
    warmup = config.warmup_steps if config.begin == 0 else 0
    if step < warmup:
        return step / warmup
    share = min((step - warmup) / max(config.max_steps - warmup, 1), 1.0)
    return 0.5 * (1 + math.cos(math.pi * (config.begin + (config.end - config.begin) * share)))


class CosineSchedule(Scheduler):
    """Builds PyTorch's scheduler from the config."""

    config: CosineScheduleConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LambdaLR:
        return LambdaLR(optimizer, lambda step: rate_factor(step, self.config))
