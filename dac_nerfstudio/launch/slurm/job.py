"""What a Slurm job does on its node: one stage, by the code that a local run does it with.

submitit pickles these callables when they are submitted and calls them on the node. Its own handlers of signals are in
place by then: SIGUSR2 (Slurm's warning that the time is nearly up) pickles the callable anew and requeues the job,
SIGTERM is noted and nothing else. Here both first let the stage save what it has.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Iterator, Optional

from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import write_json
from dac_nerfstudio.launch.messages import Report
from dac_nerfstudio.launch.plan import Job, Plan
from dac_nerfstudio.runs.layout import is_scored, log_path, slurm_status
from dac_nerfstudio.signals import Interrupted


class Status:
    """The latest report of a stage's job, in a file for whoever follows it."""

    INTERVAL = 2.0
    """Seconds between two reports of the same phase: the file system may be everybody's."""

    def __init__(self, scene_dir: Path, stage: str, job_id: str) -> None:
        self.path = slurm_status(scene_dir, stage)
        self.job_id = job_id
        self.last: Optional[Report] = None
        self._written = 0.0

    def tell(self, report: Report) -> None:
        """Take note of a report; the first one of a phase also goes to the log."""
        news = self.last is None or report.state != self.last.state
        self.last = report
        if news:
            print(f"{report.state} {report.text}".rstrip(), flush=True)
        if news or time.monotonic() - self._written > self.INTERVAL:
            self._written = time.monotonic()
            write_json(self.path, {"job": self.job_id, **asdict(report)})

    def read(self) -> Optional[Report]:
        """The last report of this very job."""
        try:
            content = json.loads(self.path.read_text("utf8"))
        except (OSError, ValueError):
            return None
        return Report(**content) if content.pop("job") == self.job_id else None


@dataclass(frozen=True)
class StageJob:
    """A stage of a plan. Calling it does the stage, from its checkpoint if it was interrupted before."""

    job: Job
    plan: Plan

    def __call__(self) -> None:
        """Return when the stage is done; whatever else happens ends the process with another code than 0."""
        status = Status(self.plan.scene_dir, self.job.name, this_job())
        try:
            with _interrupting():
                import torch

                from dac_nerfstudio.launch.worker import do

                if os.environ.get("SLURM_CPUS_PER_TASK"):
                    torch.set_num_threads(int(os.environ["SLURM_CPUS_PER_TASK"]))
                do(self.job, self.plan, log_path(self.plan.scene_dir, self.job.name), status.tell)
        except Interrupted as stop:
            _end_or_requeue(int(str(stop.code)) - 128, status)
        if status.last is None or status.last.state not in ("done", "kept"):
            raise StageError(f"{self.job.name} failed: {status.last.text if status.last else 'it reported nothing'}")

    def checkpoint(self) -> Any:
        """What submitit is to call once the job was requeued: the same, which finds its checkpoint by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class ReportJob:
    """The table and results.json of whatever was finished, once nothing more comes."""

    scene_dir: Path
    run: str
    name: str = "report"

    def __call__(self) -> None:
        from dac_nerfstudio.report.printing import report_scenes

        status = Status(self.scene_dir, self.name, this_job())
        if not is_scored(self.scene_dir):
            status.tell(Report("done", text="there is nothing to report"))
            return
        try:
            with log_path(self.scene_dir, self.name).open("w") as file:
                report_scenes([self.scene_dir], self.run, Console(file=file))
        except StageError as error:
            status.tell(Report("failed", text=str(error)))
            raise
        status.tell(Report("done", text=str(log_path(self.scene_dir, self.name))))

    def checkpoint(self) -> Any:
        """Called once the job was requeued, see `StageJob.checkpoint`."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def this_job() -> str:
    """The id of the job that this process belongs to, as `squeue` shows it."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


@contextmanager
def _interrupting() -> Iterator[None]:
    """While in here, SIGUSR2 and SIGTERM raise `Interrupted`; training, which has more to save, takes them itself."""

    def interrupt(number: int, frame: Optional[FrameType]) -> None:
        raise Interrupted(number, 0)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_or_requeue(number: int, status: Status) -> None:
    """All is saved: leave the node, to come back where Slurm has not decided otherwise.

    On SIGTERM it mostly has: jobs that are cancelled or requeued by hand are no longer counted as running. One that is
    has got the grace time before a preemption.
    """
    if number == signal.SIGTERM and _state() != "RUNNING":
        sys.exit(128 + number)
    try:
        signal.raise_signal(signal.SIGUSR2)  # now submitit's: requeues, and exits
    except Exception as error:
        status.tell(Report("failed", text=str(error)))
        raise


def _state() -> str:
    try:
        command = ["squeue", "--noheader", "--jobs", this_job(), "--format", "%T"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
