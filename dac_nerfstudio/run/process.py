"""The process of a worker, as seen by the one that starts it, which never imports nerfstudio."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from dac_nerfstudio.run.plan import Job, Plan

PRELOAD = "dac_nerfstudio.run.worker"
"""What the server imports from which jobs are forked."""


def start(job: Job, plan: Plan, log: Path, messages: Connection) -> None:
    """Entry of a worker's process."""
    from dac_nerfstudio.run.worker import work

    work(job, plan, log, messages)
