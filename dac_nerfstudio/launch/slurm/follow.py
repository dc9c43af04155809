"""Shows how submitted jobs fare until all have ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.slurm.job import Status
from dac_nerfstudio.launch.slurm.queue import ENDED, Submitted, job_states
from dac_nerfstudio.launch.table import Row, rows_of, showing
from dac_nerfstudio.messages import say
from dac_nerfstudio.runs.layout import slurm_folder

POLL = 5.0
"""Seconds between two looks at the queue."""


@dataclass
class _Followed:
    """A job as it is followed."""

    submitted: Submitted
    name: str
    row: Row
    succeeded: Optional[bool] = None
    """None while it is queued or runs."""
    problem: str = ""

    @property
    def number(self) -> str:
        return self.submitted.jobs[self.name]

    def look(self, found: Optional[Tuple[str, str, str]], failed: Sequence[str]) -> None:
        """Take over what Slurm says of the job (nothing, once it has forgotten it) and what the job says itself.

        Args:
            found: state, reason and node.
            failed: names of the stages that have failed.
        """
        scene_dir, row = self.submitted.plan.scene_dir, self.row
        report = Status(scene_dir, self.name, self.number).read()
        if found is not None and found[0] not in ENDED:
            state, reason, node = found
            if state != "RUNNING":
                row.state = "queued" if state == "PENDING" else state.lower()
                row.device = "" if reason == "None" else reason
                return
            row.device, row.started = node, row.started or time.monotonic()
            if report is None or report.state == "stopped":
                row.state = "starting"
            else:
                row.update(report)
            return
        row.ended = time.monotonic()
        self.succeeded = report.state in ("done", "kept") if report else bool(found and found[0] == "COMPLETED")
        if self.succeeded:
            if report:
                row.update(report)
            return
        row.state = "failed"
        lost = [name for name in self.submitted.needs[self.name] if name in failed]
        if report is not None and report.state == "failed":
            self.problem = report.text
        elif lost and row.started is None:
            row.state, self.problem = "left out", f"left out, because {lost[0]} failed"
        else:
            state, log = found[0] if found else "gone from Slurm's queue", f"{self.number}_0_log.out"
            self.problem = f"job {self.number} is {state}. See {slurm_folder(scene_dir) / log}"


def follow(submitted: Sequence[Submitted], console: Console, patience: float = POLL) -> bool:
    """Show how jobs fare until all have ended; whether all succeeded."""
    stages = [(one, name) for one in submitted for name in one.jobs]
    rows = rows_of([(one.plan.scene_dir.name, name) for one, name in stages])
    jobs = [_Followed(one, name, row) for (one, name), row in zip(stages, rows)]
    with showing(rows, console) as tell:
        while True:
            tell()
            open_jobs = [job for job in jobs if job.succeeded is None]
            if not open_jobs:
                break
            try:
                states = job_states(job.number for job in open_jobs)
            except StageError:  # too busy to answer; it will
                time.sleep(patience)
                continue
            for job in open_jobs:
                same_plan = [other for other in jobs if other.submitted is job.submitted]
                job.look(states.get(job.number), [other.name for other in same_plan if other.succeeded is False])
            time.sleep(patience if any(job.succeeded is None for job in jobs) else 0)
    for job in jobs:
        if not job.succeeded:
            say(console, (job.row.name, "bold red"), f": {job.problem}")
    return all(job.succeeded for job in jobs)
