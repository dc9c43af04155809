"""Runs plans on a Slurm cluster: one job per stage, the experts as a job array, by way of submitit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import write_json
from dac_nerfstudio.run.lock import scene_lock
from dac_nerfstudio.run.plan import Plan
from dac_nerfstudio.run.slurm_options import DEFAULTS, MOST_TIMES, SlurmOptions, parameters
from dac_nerfstudio.run.slurm_stage import ReportJob, StageJob, Status, slurm_folder
from dac_nerfstudio.run.table import Row, draw

RECORD = "slurm-jobs.json"
"""In the scene's folder: the jobs that were submitted last."""
POLL = 5.0
"""Seconds between two looks at the queue."""
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
    needs: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    """Names of the stages that each waits for."""

    @property
    def ids(self) -> Tuple[str, ...]:
        """Ids of the jobs, that of an array once."""
        return tuple(dict.fromkeys(_whole(number) for number in self.jobs.values()))


def check_executor(executor: str, options: SlurmOptions, devices: str) -> None:
    """Before anything is done: is there what it takes?

    Args:
        executor: `local` or `slurm`.
        options: what was said of Slurm.
        devices: what was said of this machine's devices.

    Raises:
        StageError: it says what is missing or wrong.
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


def run_on_slurm(
    plans: Sequence[Plan], options: SlurmOptions, wait: bool, console: Console, patience: float = POLL
) -> bool:
    """Divide the views here, submit all other stages, and follow them if asked to; whether all that was done succeeded.

    The flags of all stages are checked and the views divided at once: that takes seconds, and what is wrong with either
    is found before anything is queued.

    Args:
        plans: one per scene.
        options: what to ask Slurm for.
        wait: follow the jobs until all have ended.
        console: where to tell of it.
        patience: seconds between two looks at the queue.

    Raises:
        StageError: a scene is being worked on, or Slurm refuses the jobs.
    """
    from dac_nerfstudio.run.local import run_plans

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
        return follow(submitted, console, patience)
    except KeyboardInterrupt:
        numbers = " ".join(number for one in submitted for number in one.ids)
        console.print(f"The jobs go on. To cancel them: scancel {numbers}", highlight=False, soft_wrap=True)
        sys.exit(130)


def refuse_queued(scene_dir: Path) -> None:
    """Two runs must not work on one scene, wherever their processes are.

    Raises:
        StageError: jobs that were submitted for the scene are queued or running.
    """
    path = scene_dir / RECORD
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
    there = [name for name, number in jobs.items() if states.get(number, ("COMPLETED",))[0] not in ENDED]
    if there:
        numbers = dict.fromkeys(_whole(jobs[name]) for name in there)
        raise StageError(
            f"Jobs submitted earlier for {scene_dir} are queued or running: {', '.join(there)}. Look: squeue --jobs "
            f"{','.join(numbers)}. Wait for them, cancel them (scancel {' '.join(numbers)}; what they have reached is "
            "saved), or use another --output-dir."
        )


def job_states(numbers: Iterable[str]) -> Dict[str, Tuple[str, str, str]]:
    """State, reason for waiting, and node of those jobs that Slurm still knows of; it forgets them after some minutes.

    Raises:
        StageError: Slurm does not answer.
    """
    whole = list(dict.fromkeys(_whole(number) for number in numbers))
    if not whole:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N", f"--jobs={','.join(whole)}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise StageError(f"squeue cannot be asked: {error}") from None
    if answer.returncode != 0:
        if "Invalid job id" in answer.stderr:
            return {}
        raise StageError(f"squeue does not answer: {answer.stderr.strip()}")
    rows = [line.split("|") for line in answer.stdout.splitlines() if line.count("|") == 3]
    return {number: (state, reason, node) for number, state, reason, node in rows}


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
                    write_json(plan.scene_dir / RECORD, {"submitted": since, "jobs": done[-1].jobs})
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
        key=lambda job: "experts" if job.name.startswith("expert ") else job.name,
    )
    for name, members in stages:
        jobs = list(members)
        needs = tuple(name for name in jobs[0].needs if name in submitted.jobs)
        numbers = dict.fromkeys(_whole(submitted.jobs[name]) for name in needs)
        after = f"afterok:{':'.join(numbers)}" if numbers else None
        found = _executor(plan.scene_dir, name, options, after).submit_array([StageJob(job, plan) for job in jobs])
        for job, one in zip(jobs, found):
            submitted.jobs[job.name], submitted.needs[job.name] = str(one.job_id), needs
    scored = [job for job in plan.jobs if job.score_most]
    if scored:
        # With what the stages ask for, though it needs little: there are clusters that let nobody in without a GPU.
        report = ReportJob(plan.scene_dir, scored[0].run_dir.name)
        executor = _executor(plan.scene_dir, report.name, options, f"afterany:{':'.join(submitted.ids)}")
        needs = tuple(submitted.jobs)
        submitted.jobs[report.name] = str(executor.submit(report).job_id)
        submitted.needs[report.name] = needs


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
    told = [line for line in lines if line.startswith("sbatch: error:")]
    return re.sub(r"^sbatch: error: ", "", (told or lines or ["no reason given"])[-1]).rstrip(".")


def _whole(number: str) -> str:
    """Of a task of an array, the id of the array."""
    return number.partition("_")[0]


def _explain(submitted: Submitted, console: Console) -> None:
    if not submitted.jobs:
        return
    scene_dir = submitted.plan.scene_dir
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (scene_dir.name, "job", "waits for"):
        table.add_column(column, no_wrap=True)
    for name, number in submitted.jobs.items():
        needs = dict.fromkeys(_whole(submitted.jobs[other]) for other in submitted.needs[name])
        table.add_row(name, number, " ".join(needs))
    console.print(table)
    for title, text in {
        "Look": f"squeue --jobs {','.join(submitted.ids)}",
        "Cancel": f"scancel {' '.join(submitted.ids)}",
        "Logs": f"{scene_dir / 'logs'}/<stage>.log; what Slurm says: {slurm_folder(scene_dir)}/<job>_0_log.out",
        "Results": f"{scene_dir / 'report' / 'results.json'}, once the last job is done",
    }.items():
        console.print(f"{title + ':':9}{escape(text)}", highlight=False, soft_wrap=True)


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
        told = Status(self.submitted.plan.scene_dir, self.name, self.number).read()
        if found is not None and found[0] not in ENDED:
            state, reason, node = found
            if state == "RUNNING":
                self.row.device = node
                self.row.started = self.row.started or time.monotonic()
                if told is None or told.state == "stopped":
                    self.row.state = "starting"
                else:
                    self.row.update(told)
            else:
                self.row.state = "queued" if state == "PENDING" else state.lower()
                self.row.device = "" if reason == "None" else reason
            return
        self.row.ended = time.monotonic()
        self.succeeded = told.state in ("done", "kept") if told else bool(found and found[0] == "COMPLETED")
        if self.succeeded:
            if told:
                self.row.update(told)
            return
        self.row.state = "failed"
        lost = [name for name in self.submitted.needs[self.name] if name in failed]
        if told is not None and told.state == "failed":
            self.problem = told.text
        elif lost and self.row.started is None:
            self.row.state, self.problem = "left out", f"left out, because {lost[0]} failed"
        else:
            state = found[0] if found else "gone from Slurm's queue"
            folder = slurm_folder(self.submitted.plan.scene_dir)
            self.problem = f"job {self.number} is {state}. See {folder / f'{self.number}_0_log.out'}"


def follow(submitted: Sequence[Submitted], console: Console, patience: float = POLL) -> bool:
    """Show how jobs fare until all have ended; whether all succeeded."""
    several = len(submitted) > 1
    jobs = [
        _Followed(one, name, Row(f"{one.plan.scene_dir.name}: {name}" if several else name, "queued"))
        for one in submitted
        for name in one.jobs
    ]
    with Live(get_renderable=lambda: draw([job.row for job in jobs]), console=console, refresh_per_second=1):
        while True:
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
    if not console.is_terminal:
        console.line()  # rich ends the table's last line on terminals alone
    for job in jobs:
        if not job.succeeded:
            console.print(f"[bold red]{job.row.name}[/]: {escape(job.problem)}", highlight=False, soft_wrap=True)
    return all(job.succeeded for job in jobs)
