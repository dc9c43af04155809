"""Jobs in Slurm's queue: which there are, and how they fare."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, Tuple

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.plan import Plan
from dac_nerfstudio.runs.layout import SLURM_JOBS

ENDED = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"),
    *("DEADLINE", "REVOKED"),
}
"""States of Slurm's in which a job stays."""


@dataclass
class Submitted:
    """A plan's jobs in Slurm's queue."""

    plan: Plan
    jobs: Dict[str, str] = field(default_factory=dict)
    """Names of stages and ids as squeue shows them: 12, or 12_0 in an array."""

    @property
    def ids(self) -> Tuple[str, ...]:
        """Ids of the jobs, that of an array once."""
        return tuple(dict.fromkeys(whole_id(number) for number in self.jobs.values()))


def whole_id(number: str) -> str:
    """The id of the array that a task belongs to; any other job's own."""
    return number.partition("_")[0]


def refuse_queued(scene_dir: Path) -> None:
    """Two runs must not work on one scene, wherever their processes are.

    Raises:
        StageError: jobs that were submitted for the scene are queued or running.
    """
    path = scene_dir / SLURM_JOBS
    if not path.exists() or shutil.which("squeue") is None:
        return
    try:
        jobs: Dict[str, str] = json.loads(path.read_text("utf8"))["jobs"]
    except (ValueError, KeyError, OSError) as error:
        raise StageError(f"{path} cannot be read ({error}). If no job of this scene is queued, delete it.") from None
    try:
        states = job_states(jobs.values())
    except StageError as error:
        raise StageError(f"{error}\nIf no job of this scene is queued any more, delete {path}.") from None
    there = [name for name, number in jobs.items() if states.get(number, "COMPLETED") not in ENDED]
    if there:
        numbers = dict.fromkeys(whole_id(jobs[name]) for name in there)
        raise StageError(
            f"Jobs submitted earlier for {scene_dir} are queued or running: {', '.join(there)}. Look: squeue --jobs "
            f"{','.join(numbers)}. Wait for them, cancel them (scancel {' '.join(numbers)}; their progress is "
            "saved), or use another --output-dir."
        )


def job_states(numbers: Iterable[str]) -> Dict[str, str]:
    """States of those jobs that Slurm still knows of; it forgets them some minutes after their end.

    Raises:
        StageError: Slurm does not answer.
    """
    whole = list(dict.fromkeys(whole_id(number) for number in numbers))
    if not whole:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={','.join(whole)}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise StageError(f"squeue cannot be asked: {error}") from None
    if answer.returncode != 0:
        if "Invalid job id" in answer.stderr:
            return {}
        raise StageError(f"squeue does not answer: {answer.stderr.strip()}")
    return dict(line.split("|") for line in answer.stdout.splitlines() if line.count("|") == 1)
