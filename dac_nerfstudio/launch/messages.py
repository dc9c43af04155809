"""What a worker says to the one that started it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Literal, Optional


@dataclass(frozen=True)
class Report:
    """What a worker says while it works and when it is done."""

    state: Literal["training", "evaluating", "rendering", "done", "kept", "failed", "stopped"]
    done: int = 0
    total: int = 0
    text: str = ""
    psnr: Optional[float] = None
    """PSNR of the latest batch of training rays, in dB."""


Tell = Callable[[Report], None]
"""Takes a worker's reports."""
