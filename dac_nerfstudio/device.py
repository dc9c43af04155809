"""Which device to train on."""

from __future__ import annotations

from typing import Literal

import torch


def default_device() -> Literal["cpu", "cuda", "mps"]:
    """CUDA where there is one, else Apple's MPS (untested), else the CPU. Asks the driver library, not CUDA itself:
    a process that has initialised CUDA can no longer fork."""
    if torch.cuda.device_count() > 0:
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
