"""What a worker says to the one that started it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Report:
    """What a worker says while it works and when it is done."""

    state: Literal["training", "evaluating", "rendering", "done", "kept", "failed"]
    done: int = 0
    total: int = 0
    text: str = ""
