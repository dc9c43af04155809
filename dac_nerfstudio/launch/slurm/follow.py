"""Follows submitted jobs until all have ended."""

from __future__ import annotations

import time
from typing import Dict, Sequence

from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.local import end_of
from dac_nerfstudio.launch.slurm.queue import ENDED, Submitted, job_states
from dac_nerfstudio.messages import say
from dac_nerfstudio.runs.layout import log_path

POLL = 5.0
"""Seconds between two looks at the queue."""
FORGOTTEN = "gone from Slurm's queue"


def follow(submitted: Sequence[Submitted], console: Console, patience: float = POLL) -> bool:
    """Say how jobs fare, a line for each change, until all have ended; whether all succeeded."""
    running = {number: (one.plan.scene_dir, name) for one in submitted for name, number in one.jobs.items()}
    states: Dict[str, str] = {}
    problems = []
    while running:
        try:
            found = job_states(running)
        except StageError:  # too busy to answer; it will
            time.sleep(patience)
            continue
        for number, (scene_dir, name) in list(running.items()):
            state = found.get(number, FORGOTTEN)
            if state != states.get(number):
                say(console, f"{scene_dir.name}: {name}: {state.lower()}")
            states[number] = state
            if state in (*ENDED, FORGOTTEN):
                del running[number]
            if state == "CANCELLED":
                problems.append((name, f"cancelled by somebody, or left out as a stage that job {number} needs failed"))
            elif state in ENDED - {"COMPLETED"} or state == FORGOTTEN:
                problems.append((name, end_of(log_path(scene_dir, name), f"job {number} is {state}")))
        time.sleep(patience if running else 0)
    for name, problem in problems:
        say(console, (name, "bold red"), f": {problem}")
    return not problems
