"""What crosses between ``dac`` and the processes that do its jobs. Light: the asking side never imports nerfstudio."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from dac_nerfstudio.run.plan import Job, Plan

PRELOAD = "dac_nerfstudio.run.worker"
"""What the server imports from which jobs are forked."""


@dataclass(frozen=True)
class Report:
    """What a worker says while it works and when it is done."""

    state: Literal["training", "evaluating", "rendering", "done", "kept", "failed"]
    done: int = 0
    total: int = 0
    text: str = ""


def start(job: Job, plan: Plan, log: Path, messages: Connection) -> None:
    """Entry of a worker's process."""
    from dac_nerfstudio.run.worker import work

    work(job, plan, log, messages)
