"""Runs a plan's jobs on this machine, one after the other."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Dict

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dac_nerfstudio.run.messages import Report
from dac_nerfstudio.run.plan import Job, Plan
from dac_nerfstudio.run.process import PRELOAD, start


def run_plan(plan: Plan, console: Console) -> bool:
    """Do all jobs; those whose inputs failed are left out. Returns whether all succeeded."""
    # nerfstudio takes seconds to import: once, in a server from which every job is forked. Its dependencies' notes on
    # what will be deprecated are nothing that the user of a plan could act on.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    failed: Dict[str, str] = {}
    columns = (
        TextColumn("{task.description:<12}"),
        TextColumn("{task.fields[state]:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {job.name: progress.add_task(job.name, start=False, total=None, state="waiting") for job in plan.jobs}
        for job in plan.jobs:
            missing = [need for need in job.needs if need in failed]
            if missing:
                failed[job.name] = f"left out, because {missing[0]} failed"
                progress.update(tasks[job.name], state="left out", total=1)
                continue
            problem = _do(job, plan, context, progress, tasks[job.name])
            if problem:
                failed[job.name] = problem
    for name, problem in failed.items():
        console.print(f"[bold red]{name}[/]: {problem}", highlight=False)
    return not failed


def _do(
    job: Job, plan: Plan, context: multiprocessing.context.ForkServerContext, progress: Progress, task: TaskID
) -> str:
    """Run one job in a process of its own. Returns what went wrong, or ''."""
    messages, theirs = context.Pipe(duplex=False)
    log = plan.scene_dir / "logs" / f"{job.name.replace(' ', '-')}.log"
    process = context.Process(target=start, args=(job, plan, log, theirs), name=job.name)
    progress.update(task, state="starting")
    progress.start_task(task)
    process.start()
    theirs.close()
    try:
        last = _follow(messages, progress, task)
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        process.join()
    if last is None or last.state not in ("done", "kept", "failed"):
        progress.update(task, state="[red]failed")
        return f"ended without a word (exit code {process.exitcode}). The whole story: {log}"
    if last.state == "failed":
        progress.update(task, state="[red]failed")
        return last.text
    if last.text:
        progress.console.print(f"{job.name}: {last.text}", highlight=False)
    return ""


def _follow(messages: Connection, progress: Progress, task: TaskID) -> Report | None:
    """Show what a worker reports until it hangs up; the last report."""
    last, shown = None, 0.0
    while True:
        try:
            report = messages.recv()
        except EOFError:
            return last
        changed = last is None or last.state != report.state
        last = report
        if report.state in ("done", "kept"):
            total = progress.tasks[task].total or 1
            progress.update(task, state=f"[green]{report.state}", total=total, completed=total)
        elif changed or time.monotonic() - shown > 0.2:
            shown = time.monotonic()
            progress.update(task, state=report.state, total=report.total or None, completed=report.done)
