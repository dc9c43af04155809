"""What a Slurm job does on its node: one stage, by the code that a local run does it with.

submitit pickles these callables when they are submitted and calls them on the node. Its own handlers of signals are in
place by then: SIGUSR2 (Slurm's warning that the time is nearly up) pickles the callable anew and requeues the job,
SIGTERM is noted and nothing else. Here both first let the stage save what it has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any, Optional

from dac_nerfstudio.launch.plan import Job, Plan, Report
from dac_nerfstudio.signals import Interrupted, handling


@dataclass(frozen=True)
class StageJob:
    """A stage of a plan. Calling it does the stage, from its checkpoint if it was interrupted before."""

    job: Job
    plan: Plan

    def __call__(self) -> None:
        """Return when the stage is done; whatever else happens ends the process with another code than 0."""
        from submitit import JobEnvironment

        last = Report("stopped")

        def tell(report: Report) -> None:
            nonlocal last
            if report.state != last.state:
                print(f"{report.state} {report.text}".rstrip(), flush=True)
            last = report

        try:
            # Training, which has more to save, takes signals itself.
            with handling(_interrupt, (signal.SIGUSR2, signal.SIGTERM)):
                import torch

                from dac_nerfstudio.launch.worker import do

                if os.environ.get("SLURM_CPUS_PER_TASK"):
                    torch.set_num_threads(int(os.environ["SLURM_CPUS_PER_TASK"]))
                do(self.job, self.plan, tell)
        except Interrupted as stop:
            end_or_requeue(int(str(stop.code)) - 128, JobEnvironment().job_id)  # as squeue shows it
        if last.state not in ("done", "kept"):
            sys.exit(1)  # as its log says

    def checkpoint(self) -> Any:
        """What submitit is to call once the job was requeued: the same, which finds its checkpoint by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _interrupt(number: int, frame: Optional[FrameType]) -> None:
    raise Interrupted(number, 0)


def end_or_requeue(number: int, job_id: str) -> None:
    """All is saved: leave the node, to come back where Slurm has not decided otherwise.

    On SIGTERM it mostly has: jobs that are cancelled or requeued by hand are no longer counted as running. One that is
    has got the grace time before a preemption.
    """
    if number == signal.SIGTERM and _state(job_id) != "RUNNING":
        sys.exit(128 + number)
    signal.raise_signal(signal.SIGUSR2)  # now submitit's: requeues, and exits


def _state(job_id: str) -> str:
    try:
        command = ["squeue", "--noheader", "--jobs", job_id, "--format", "%T"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
