"""Submits a plan: one job per stage, the experts as a job array."""

from __future__ import annotations

import re
import subprocess
import time
from itertools import groupby
from pathlib import Path
from typing import Any, List, Optional, Sequence

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import write_json
from dac_nerfstudio.launch.lock import scene_lock
from dac_nerfstudio.launch.plan import Job, Plan
from dac_nerfstudio.launch.slurm.job import StageJob
from dac_nerfstudio.launch.slurm.options import MOST_TIMES, SlurmOptions, parameters
from dac_nerfstudio.launch.slurm.queue import Submitted, refuse_queued, whole_id
from dac_nerfstudio.runs.layout import SLURM_JOBS, slurm_folder


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
    plan = submitted.plan
    # In an order in which they can be done, which puts experts next to each other.
    stages = groupby(
        (job for job in plan.jobs if job.kind != "split"),
        key=lambda job: "experts" if job.stage == "expert" and job.kind == "train" else job.name,
    )
    for name, members in stages:
        jobs = list(members)
        _add(submitted, name, jobs, options, "afterok", [name for name in jobs[0].needs if name in submitted.jobs])
    scored = [job for job in plan.jobs if job.score_most]
    if scored:
        # With what the stages ask for, though it needs little: there are clusters that let nobody in without a GPU.
        report = Job("report", "report", scored[0].run_dir)
        needs = [name for name in submitted.jobs if name != "video"]  # which may take long
        _add(submitted, report.name, [report], options, "afterany", needs)


def _add(
    submitted: Submitted, name: str, jobs: Sequence[Job], options: SlurmOptions, kind: str, needs: Sequence[str]
) -> None:
    """Submit an array of jobs, or a single one, that waits for others."""
    numbers = dict.fromkeys(whole_id(submitted.jobs[need]) for need in needs)
    after = f"{kind}:{':'.join(numbers)}" if numbers else None
    executor = _executor(submitted.plan.scene_dir, name, options, after)
    for job, one in zip(jobs, executor.submit_array([StageJob(job, submitted.plan) for job in jobs])):
        submitted.jobs[job.name] = str(one.job_id)


def _executor(scene_dir: Path, name: str, options: SlurmOptions, dependency: Optional[str]) -> Any:
    import submitit

    folder = slurm_folder(scene_dir)
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=MOST_TIMES)
    executor.update_parameters(
        **parameters(options),
        job_name=f"{scene_dir.name}: {name}",
        **({"dependency": dependency} if dependency else {}),
    )
    return executor


def _last_words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("sbatch: error:")]
    return re.sub(r"^sbatch: error: ", "", (errors or lines or ["no reason given"])[-1]).rstrip(".")
