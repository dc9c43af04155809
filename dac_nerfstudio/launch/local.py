"""Runs plans on this machine: one queue of jobs, one job at a time on each device."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Iterator, List, Optional, Sequence

from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.lock import scene_lock
from dac_nerfstudio.launch.messages import Report
from dac_nerfstudio.launch.plan import Job, Plan
from dac_nerfstudio.launch.process import PRELOAD, Place, start
from dac_nerfstudio.launch.table import Row, showing
from dac_nerfstudio.messages import say
from dac_nerfstudio.runs.layout import log_path
from dac_nerfstudio.signals import SIGNALS, handling

END_OF_LOG = 12
"""Lines of a failed job's log that are shown."""
PATIENCE = 60.0
"""Seconds that jobs have to save and end once they were asked to."""
RESTARTS = 2
"""How often a job is started again that was killed, as the kernel does where memory runs out."""
SILENCE = 60.0
"""Seconds without a word from a job, which speaks every few, after which it is said to be stopped."""


@dataclass
class Task:
    """A job of a plan, and how it fares."""

    plan: Plan
    job: Job
    row: Row
    state: str = "waiting"
    """`waiting`, `running`, `succeeded`, `failed` or `left out`."""
    problem: str = ""
    kills: int = 0
    """How often its process was killed."""


@dataclass
class Worker:
    """A process that does a task."""

    task: Task
    process: BaseProcess
    messages: Connection
    last: Optional[Report] = None
    place: Place = field(default_factory=lambda: Place("cpu"))
    heard: Optional[float] = None
    """When it last spoke, on the clock of `time.monotonic`; None while it starts."""
    silent: bool = False


def run_plans(
    plans: Sequence[Plan], devices: Sequence[str], console: Console, kinds: Optional[Sequence[str]] = None
) -> bool:
    """Do all jobs; those whose inputs failed are left out, all others are done. Returns whether all succeeded.

    Args:
        plans: one per scene.
        devices: one job at a time runs on each entry.
        console: where the table is shown.
        kinds: do jobs of these kinds alone.

    Raises:
        StageError: another run works on one of the scenes.
        KeyboardInterrupt: the run was asked to stop, and everything that it had reached is saved.
    """
    context = _context()
    several = len(plans) > 1
    tasks = [
        Task(plan, job, Row(f"{plan.scene_dir.name}: {job.name}" if several else job.name))
        for plan in plans
        for job in plan.jobs
        if kinds is None or job.kind in kinds
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // len(devices)) if len(devices) > 1 else None
    free = [Place(device, threads) for device in devices]
    running: List[Worker] = []
    with ExitStack() as stack:
        locks = {
            plan.scene_dir: stack.enter_context(scene_lock(plan.scene_dir, partial(say, console))) for plan in plans
        }
        stack.enter_context(_signals_interrupt())
        tell = stack.enter_context(showing([task.row for task in tasks], console))
        try:
            while True:
                _settle(tasks)
                for task in [task for task in tasks if _ready(task, tasks)][: len(free)]:
                    running.append(_start(task, free.pop(0), context, locks[task.plan.scene_dir]))
                tell()
                if not running:
                    break
                spoken = wait([worker.messages for worker in running], timeout=1.0)
                for worker in list(running):
                    if worker.messages not in spoken:
                        _notice_silence(worker, console)
                    elif not _hear(worker, console):
                        running.remove(worker)
                        free.append(worker.place)
        except KeyboardInterrupt:
            _stop(running, console)
            raise
    for task in tasks:
        if task.state in ("failed", "left out"):
            say(console, (task.row.name, "bold red"), f": {task.problem}")
    return all(task.state == "succeeded" for task in tasks)


def _context() -> multiprocessing.context.ForkServerContext:
    """nerfstudio takes seconds to import: once, in a server from which every job is forked.

    Raises:
        StageError: nothing can be forked here.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise StageError(
            "dac run works on Linux, on macOS and in WSL. On Windows itself train stage by stage, with ns-train."
        )
    # Its dependencies' notes on what will be deprecated are nothing that the user of a plan could act on.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _needed(task: Task, tasks: Sequence[Task]) -> List[Task]:
    return [other for other in tasks if other.plan is task.plan and other.job.name in task.job.needs]


def _ready(task: Task, tasks: Sequence[Task]) -> bool:
    return task.state == "waiting" and all(other.state == "succeeded" for other in _needed(task, tasks))


def _settle(tasks: Sequence[Task]) -> None:
    """Jobs whose inputs failed are left out. Tasks stand in an order in which they can be done, so once is enough."""
    for task in tasks:
        lost = [other for other in _needed(task, tasks) if other.state in ("failed", "left out")]
        if task.state == "waiting" and lost:
            task.state, task.problem = "left out", f"left out, because {lost[0].job.name} failed"
            task.row.state = "left out"


def _start(task: Task, place: Place, context: multiprocessing.context.ForkServerContext, lock: int) -> Worker:
    # A pipe for both directions, though nothing is sent to the worker: it notices at its end when this process is gone.
    ours, theirs = context.Pipe()
    log = log_path(task.plan.scene_dir, task.job.name)
    process = context.Process(
        target=start,
        args=(task.job, task.plan, place, log, theirs, reduction.DupFd(lock)),
        name=task.row.name,
    )
    process.start()
    theirs.close()
    task.state, task.row.state, task.row.device = "running", "starting", place.device
    task.row.started, task.row.ended = time.monotonic(), None
    return Worker(task, process, ours, place=place)


def _hear(worker: Worker, console: Console) -> bool:
    """Take what a worker says; whether it is still there."""
    task = worker.task
    try:
        report = worker.messages.recv()
        if worker.silent:
            say(console, f"{task.row.name}: goes on.")
            task.row.state = worker.last.state if worker.last is not None else "starting"
        worker.heard, worker.silent = time.monotonic(), False
        if report is not None:
            worker.last = report
            task.row.update(report)
        return True
    except (EOFError, ConnectionResetError):
        pass
    worker.process.join()
    worker.messages.close()
    task.row.ended = time.monotonic()
    last, log = worker.last, log_path(task.plan.scene_dir, task.job.name)
    if last is not None and last.state in ("done", "kept"):
        task.state = "succeeded"
        if last.text:
            say(console, f"{task.row.name}: {last.text}")
        return False
    if last is not None and last.state in ("failed", "stopped"):
        task.state, task.row.state, task.problem = "failed", "failed", last.text
        return False
    how = f"ended without a word (exit code {worker.process.exitcode})"
    if worker.process.exitcode == -signal.SIGKILL:
        task.kills += 1
        if task.kills <= RESTARTS:
            task.state = task.row.state = "waiting"
            why = "killed, as the kernel does where memory runs out; started again from its last checkpoint"
            say(console, (f"{task.row.name}: {why}.", "yellow"))
            return False
        how = f"killed {task.kills} times, as the kernel does where memory runs out (dmesg says so)"
    lines = log.read_text("utf8", errors="replace").splitlines() if log.exists() else []
    task.state = task.row.state = "failed"
    task.problem = "\n".join([f"{how}. The end of {log}:", *lines[-END_OF_LOG:]])
    return False


def _notice_silence(worker: Worker, console: Console) -> None:
    """Say, once, that a worker has stopped to speak. It is left alone: it may be stopped on purpose."""
    if worker.silent or worker.heard is None or time.monotonic() - worker.heard < SILENCE:
        return
    worker.silent, worker.task.row.state = True, "silent"
    pid = worker.process.pid
    text = (
        f"process {pid} has said nothing for {SILENCE:.0f} seconds. It is stopped (let it go on: kill -CONT {pid}) or "
        "waits for memory or a disk. Ctrl-C ends the run."
    )
    say(console, (f"{worker.task.row.name}: {text}", "yellow"))


def _stop(running: Sequence[Worker], console: Console) -> None:
    """Ask all jobs to save and end; those that do not in time are killed."""
    deadline = time.monotonic() + PATIENCE
    try:
        for worker in running:
            worker.task.row.state = "stopping"
            if worker.process.is_alive():
                worker.process.terminate()
        with suppress(OSError, SystemExit):  # nobody listens: the terminal was closed, or Ctrl-C has ended `| tee`
            console.print("Stopping: stages save what they have reached. Ctrl-C to stop at once.", highlight=False)
        for worker in running:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in running:
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.task.row.state = "stopped"


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Whatever asks to stop ends a run as Ctrl-C does. After that only Ctrl-C counts, from somebody impatient: other
    signals come in numbers, as of `timeout`, which signals its command and then the command's group."""

    def interrupt(number: int, frame: Optional[FrameType]) -> None:
        for other in SIGNALS:
            if other != signal.SIGINT:
                signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    with handling(interrupt):
        yield
