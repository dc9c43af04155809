"""Which device to train on."""

from __future__ import annotations

from typing import Literal

import torch


def default_device() -> Literal["cpu", "cuda", "mps"]:
    """CUDA where there is one, else Apple's MPS (untested), else the CPU. Asks the driver's management library where
    there is one, not CUDA itself, which does not work in forks of a process that has initialised it."""
    if torch.cuda.device_count() > 0:
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
