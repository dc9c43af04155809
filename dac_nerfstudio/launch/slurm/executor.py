"""Does plans on a Slurm cluster: divides the views here, submits all other stages, the experts as a job array, and
follows them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import groupby
from typing import Dict, Iterable, List, Sequence

from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import write_json
from dac_nerfstudio.launch.local import end_of, run_plans
from dac_nerfstudio.launch.lock import scene_lock
from dac_nerfstudio.launch.plan import Job, Plan
from dac_nerfstudio.launch.slurm.job import StageJob
from dac_nerfstudio.launch.slurm.options import DEFAULTS, MOST_TIMES, SlurmOptions, parameters
from dac_nerfstudio.launch.slurm.queue import ENDED, Submitted, job_states, refuse_queued, whole_id
from dac_nerfstudio.messages import say
from dac_nerfstudio.runs.layout import SLURM_JOBS, log_path, slurm_folder

POLL = 5.0
"""Seconds between two looks at the queue."""
FORGOTTEN = "gone from Slurm's queue"


def check_executor(executor: str, options: SlurmOptions, devices: str) -> None:
    """Make sure, before anything is done, that there is what the executor takes.

    Raises:
        StageError: something is missing or wrong; the message says what.
    """
    if executor == "local":
        if options != DEFAULTS:
            raise StageError("The options --slurm.… are for --executor slurm, which was not asked for.")
        return
    if devices != "auto":
        raise StageError("--devices is about this machine. On the cluster: --slurm.gpus 1, or 0 to train on the CPU.")
    if find_spec("submitit") is None:
        raise StageError(
            "--executor slurm needs submitit, which is not installed: pip install 'submitit>=1.5,<2', or in a clone of "
            "this repository: pip install '.[slurm]'"
        )
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise StageError(
            f"--executor slurm finds no {missing[0]} on PATH. Run it on a login node of the cluster (Debian: apt-get "
            "install slurm-client), or leave out --executor slurm to run on this machine."
        )
    parameters(options)


def run_on_slurm(plans: Sequence[Plan], options: SlurmOptions, wait: bool, console: Console) -> bool:
    """Divide the views here, submit all other stages, and follow them if asked to; whether all that was done succeeded.

    The flags of all stages are checked and the views divided at once: that takes seconds, and what is wrong with either
    is found before anything is queued.

    Args:
        options: what to ask Slurm for.
        wait: follow the jobs until all have ended.

    Raises:
        StageError: a scene is being worked on, or Slurm refuses the jobs.
    """
    for plan in plans:
        refuse_queued(plan.scene_dir)
    if not run_plans(plans, ("cpu",), console, kinds=("split",)):
        return False
    submitted = submit(plans, options)
    for one in submitted:
        _explain(one, console)
    if not wait or not any(one.jobs for one in submitted):
        return True
    try:
        return follow(submitted, console)
    except KeyboardInterrupt:
        numbers = " ".join(number for one in submitted for number in one.ids)
        console.print(f"The jobs go on. To cancel them: scancel {numbers}", highlight=False, soft_wrap=True)
        sys.exit(130)


def _explain(submitted: Submitted, console: Console) -> None:
    if not submitted.jobs:
        return
    from dac_nerfstudio.report.tables import Grid, terminal

    scene_dir = submitted.plan.scene_dir
    console.print(terminal(Grid([scene_dir.name, "job"], [list(pair) for pair in submitted.jobs.items()])))
    for title, text in {
        "Look": f"squeue --jobs {','.join(submitted.ids)}",
        "Cancel": f"scancel {' '.join(submitted.ids)}",
        "Logs": f"{scene_dir / 'logs'}/<stage>.log; what Slurm says: {slurm_folder(scene_dir)}/<job>_0_log.out",
        "Results": f"{scene_dir / 'report' / 'results.json'}, once the last job is done",
    }.items():
        say(console, f"{title + ':':9}{text}")


def submit(plans: Sequence[Plan], options: SlurmOptions) -> List[Submitted]:
    """Submit all stages but the division, which has to be there; all of them or none.

    Raises:
        StageError: Slurm refuses one, or another run works on a scene.
    """
    done: List[Submitted] = []
    try:
        for plan in plans:
            with scene_lock(plan.scene_dir):
                refuse_queued(plan.scene_dir)
                done.append(Submitted(plan))
                _submit(done[-1], options)
                if done[-1].jobs:
                    since = time.strftime("%Y-%m-%d %H:%M:%S")
                    write_json(plan.scene_dir / SLURM_JOBS, {"submitted": since, "jobs": done[-1].jobs})
    except BaseException as error:
        numbers = [number for one in done for number in one.ids]
        if numbers:
            subprocess.run(["scancel", *numbers], capture_output=True, timeout=60)
        if isinstance(error, RuntimeError):  # submitit's FailedJobError and its like
            raise StageError(
                f"Slurm refuses a job, so none is submitted: {_last_words(error)}. What is asked for are the options "
                "--slurm.partition, .account, .time, .gpus (0 for none), .cpus, .mem and .extra."
            ) from None
        raise
    return done


def _submit(submitted: Submitted, options: SlurmOptions) -> None:
    import submitit

    plan, folder = submitted.plan, slurm_folder(submitted.plan.scene_dir)
    folder.mkdir(parents=True, exist_ok=True)

    def add(name: str, jobs: Sequence[Job], kind: str, needs: Iterable[str]) -> None:
        """Submit an array of jobs, or a single one, that waits for others."""
        numbers = dict.fromkeys(whole_id(submitted.jobs[need]) for need in needs if need in submitted.jobs)
        after = {"dependency": f"{kind}:{':'.join(numbers)}"} if numbers else {}
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=MOST_TIMES)
        executor.update_parameters(**parameters(options), job_name=f"{plan.scene_dir.name}: {name}", **after)
        for job, one in zip(jobs, executor.submit_array([StageJob(job, plan) for job in jobs])):
            submitted.jobs[job.name] = str(one.job_id)

    # In an order in which they can be done, which puts experts next to each other.
    stages = groupby(
        (job for job in plan.jobs if job.kind != "split"),
        key=lambda job: "experts" if job.stage == "expert" and job.kind == "train" else job.name,
    )
    for name, members in stages:
        jobs = list(members)
        add(name, jobs, "afterok", jobs[0].needs)
    scored = [job for job in plan.jobs if job.score_most]
    if scored:
        # With what the stages ask for, though it needs little: there are clusters that let nobody in without a GPU.
        report = Job("report", "report", scored[0].run_dir)
        add(report.name, [report], "afterany", [name for name in submitted.jobs if name != "video"])  # which takes long


def _last_words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("sbatch: error:")]
    return re.sub(r"^sbatch: error: ", "", (errors or lines or ["no reason given"])[-1]).rstrip(".")


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
