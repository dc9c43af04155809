"""Runs plans on this machine: one queue of jobs, one job at a time on each device."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import reduction
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Iterator, List, Optional, Sequence

from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.lock import scene_lock
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
"""How often a killed job is started again: the kernel kills when memory runs out."""


@dataclass(eq=False, kw_only=True)
class Task(Row):
    """A job of a plan, how it fares, and its process while it runs."""

    plan: Plan
    job: Job
    kills: int = 0
    """How often its process was killed and started again."""
    place: Optional[Place] = None
    process: Optional[BaseProcess] = None
    messages: Optional[Connection] = None

    @property
    def succeeded(self) -> bool:
        """Whether it is done and its process has ended."""
        return self.ended is not None and self.state in ("done", "kept")


def run_plans(
    plans: Sequence[Plan], devices: Sequence[str], console: Console, kinds: Optional[Sequence[str]] = None
) -> bool:
    """Do all jobs; those whose inputs failed are left out, all others are done. Returns whether all succeeded.

    Args:
        devices: one job at a time runs on each entry.
        kinds: do jobs of these kinds alone.

    Raises:
        StageError: another run works on one of the scenes.
        KeyboardInterrupt: the run was asked to stop, and everything that it had reached is saved.
    """
    context = _context()
    tasks = [
        Task(job.name if len(plans) == 1 else f"{plan.scene_dir.name}: {job.name}", plan=plan, job=job)
        for plan in plans
        for job in plan.jobs
        if kinds is None or job.kind in kinds
    ]
    free = [Place(device, threads_each(len(devices))) for device in devices]
    running: List[Task] = []
    with ExitStack() as stack:
        locks = {
            plan.scene_dir: stack.enter_context(scene_lock(plan.scene_dir, partial(say, console))) for plan in plans
        }
        stack.enter_context(_signals_interrupt())
        tell = stack.enter_context(showing(tasks, console))
        try:
            while True:
                for task in startable(tasks, len(devices))[: len(free)]:
                    _start(task, free.pop(0), context, locks[task.plan.scene_dir])
                    running.append(task)
                tell()
                if not running:
                    break
                spoken = wait([task.messages for task in running if task.messages], timeout=1.0)
                for task in [task for task in running if task.messages in spoken]:
                    if not _hear(task, console):
                        running.remove(task)
                        free += [task.place] if task.place else []
        except KeyboardInterrupt:
            _stop(running, console)
            raise
    for task in tasks:
        if task.state in ("failed", "left out"):
            say(console, (task.name, "bold red"), f": {task.text}")
    return all(task.succeeded for task in tasks)


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


def threads_each(places: int) -> Optional[int]:
    """Threads of each process; None leaves it to torch, which takes the number that the user has set."""
    if places == 1 or os.environ.get("OMP_NUM_THREADS"):
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // places)


def startable(tasks: Sequence[Task], places: int) -> List[Task]:
    """Jobs that can be started, the first first: in the order of their plans, but where several run at a time the
    baseline of all steps, the longest of all, is begun before others and not left to the end alone."""
    ready = [task for task in tasks if _ready(task, tasks)]
    return sorted(ready, key=lambda task: places > 1 and task.job.stage != "baseline total")


def _ready(task: Task, tasks: Sequence[Task]) -> bool:
    """Whether a job can be started. One whose inputs failed is left out, at once and for good: tasks stand in an order
    in which they can be done."""
    needed = [other for other in tasks if other.plan is task.plan and other.job.name in task.job.needs]
    lost = [other for other in needed if other.state in ("failed", "left out")]
    if task.state == "waiting" and lost:
        task.state, task.text = "left out", f"left out, because {lost[0].job.name} failed"
    return task.state == "waiting" and all(other.succeeded for other in needed)


def _start(task: Task, place: Place, context: multiprocessing.context.ForkServerContext, lock: int) -> None:
    # A pipe for both directions, though nothing is sent to the worker: it notices at its end when this process is gone.
    task.messages, theirs = context.Pipe()
    arguments = (task.job, task.plan, place, theirs, reduction.DupFd(lock))
    task.process = context.Process(target=start, args=arguments, name=task.name)
    task.process.start()
    theirs.close()
    task.place, task.state, task.device = place, "starting", place.device
    task.started, task.ended = time.monotonic(), None


def _hear(task: Task, console: Console) -> bool:
    """Take what a running job says; whether it is still there."""
    assert task.process is not None and task.messages is not None
    try:
        task.update(task.messages.recv())
        return True
    except (EOFError, ConnectionResetError):
        pass
    task.process.join()
    task.messages.close()
    task.ended = time.monotonic()
    code = task.process.exitcode
    if task.state in ("done", "kept"):
        if task.text:
            say(console, f"{task.name}: {task.text}")
    elif task.state in ("failed", "stopped"):
        task.state = "failed"
    elif code == -signal.SIGKILL and task.kills < RESTARTS:
        task.kills, task.state = task.kills + 1, "waiting"
        why = "killed, as the kernel does when memory runs out; started again from its last checkpoint"
        say(console, (f"{task.name}: {why}.", "yellow"))
    else:
        how = f"ended without a message (exit code {code})"
        if code == -signal.SIGKILL:
            how = f"killed {task.kills + 1} times, as the kernel does when memory runs out (dmesg tells)"
        task.state, task.text = "failed", end_of(log_path(task.plan.scene_dir, task.job.name), how)
    return False


def end_of(log: Path, how: str) -> str:
    """How a job ended, with the last lines of its log."""
    lines = log.read_text("utf8", errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"{how}. The end of {log}:", *lines[-END_OF_LOG:]])


def _stop(running: Sequence[Task], console: Console) -> None:
    """Ask all jobs to save and end; those that do not in time are killed."""
    deadline = time.monotonic() + PATIENCE
    processes = [task.process for task in running if task.process]
    try:
        for task in running:
            task.state = "stopping"
        for process in processes:
            if process.is_alive():
                process.terminate()
        with suppress(OSError, SystemExit):  # nobody listens: the terminal was closed, or Ctrl-C has ended `| tee`
            console.print("Stopping: stages save their progress. Ctrl-C stops them at once.", highlight=False)
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
        for task in running:
            task.state = "stopped"


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
