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
    """Linear warm-up, then a half cosine down to zero over the run."""

    _target: Type = field(default_factory=lambda: CosineSchedule)
    """Target class to instantiate."""
    warmup_steps: int = 512
    """Steps of linear warm-up from zero."""
    max_steps: tyro.conf.Suppress[int] = 30000
    """Length of the run; set from --max-num-iterations."""
    restart: tyro.conf.Suppress[bool] = False
    """Warm restart: no warm-up, and the second half of a cosine twice as long, so from half the rate to zero."""


def rate_factor(step: int, config: CosineScheduleConfig) -> float:
    """Multiple of the base learning rate at ``step``."""
    if config.restart:
        return 0.5 * (1 + math.cos(math.pi * (0.5 + 0.5 * min(step / config.max_steps, 1.0))))
    if step < config.warmup_steps:
        return step / config.warmup_steps
    share = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


class CosineSchedule(Scheduler):
    """Builds PyTorch's scheduler from the config."""

    config: CosineScheduleConfig

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LambdaLR:
        return LambdaLR(optimizer, lambda step: rate_factor(step, self.config))
