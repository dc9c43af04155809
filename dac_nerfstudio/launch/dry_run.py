"""What `dac run --dry-run` says: what each stage would do and why, how long it would take, and its settings."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import torch
from rich.console import Console

from dac_nerfstudio.errors import UserError
from dac_nerfstudio.launch.commands import check_flags, parse, with_data
from dac_nerfstudio.launch.estimate import about, seconds_of
from dac_nerfstudio.launch.plan import Job, Plan
from dac_nerfstudio.launch.resume import State, decide
from dac_nerfstudio.launch.video import has_video
from dac_nerfstudio.messages import say
from dac_nerfstudio.partition import current_partition
from dac_nerfstudio.presets import Flags
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.style import counted

INDEPENDENT = ("trunk", "baseline", "baseline total")
"""Stages that the division makes no difference to."""


@dataclass(frozen=True)
class Fate:
    """What would become of a job."""

    job: Job
    kept: bool
    why: str


def explain_plan(plan: Plan, console: Console, verbose: bool = False) -> None:
    """Print what each job of a plan would do, and why, and where it departs from its method's own settings. Nothing is
    done.

    Args:
        plan: of one scene.
        console: where it is printed.
        verbose: print the whole command that does the same instead.
    """
    trained = [job.settings for job in plan.jobs if job.kind == "train"]
    shared = {name: value for name, value in (trained or [{}])[0].items() if all(s.get(name) == value for s in trained)}
    if shared and not verbose:
        console.print("All stages, other than their methods' own settings:")
        _print_settings(shared, console)
    with console.status("Looking at the plan …"), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fates = examine(plan)
    for fate in fates:
        job, verdict = fate.job, ("kept", "green") if fate.kept else ("runs", "yellow")
        say(console, (job.name, "bold"), ": ", verdict, f", {fate.why}")
        if job.kind != "train" or fate.kept:
            continue
        if verbose:
            say(console, f"    {job.command}")
        else:
            _print_settings({name: value for name, value in job.settings.items() if name not in shared}, console)


def _print_settings(settings: Flags, console: Console) -> None:
    """A line for each, as a file for --config has them."""
    for name, value in settings.items():
        value = list(value) if isinstance(value, tuple) else value
        say(console, f"    {name} = {json.dumps(value)}")


def examine(plan: Plan) -> List[Fate]:
    """Whether each job of a plan would run, and why.

    Raises:
        StageError: ``ns-train`` does not take the flags of a stage.
    """
    fates: List[Fate] = []
    for job in plan.jobs:
        ready = [fate.job.name for fate in fates if fate.kept] + (["split"] if job.stage in INDEPENDENT else [])
        needed = [name for name in job.needs if name not in ready]
        if job.kind == "train":
            state, why = _examine_training(job, plan, needed)
        elif needed:
            state, why = "new", f"{needed[0]} comes first"
        elif job.kind == "split":
            state, why = _examine_split(plan)
        elif job.kind == "evaluate":
            state, why = "new", f"scores {job.run_dir}, unless that was done"
        else:
            kept = has_video(job, plan)
            state, why = ("kept", "made from this student") if kept else ("new", "not made yet")
        fates.append(Fate(job, state == "kept", why))
    return fates


def _examine_training(job: Job, plan: Plan, needed: Sequence[str]) -> Tuple[State, str]:
    check_flags(job)
    config = with_data(parse(job.arguments))
    state: State = "new"
    if needed:
        why = f"{needed[0]} comes first"
    elif current_partition(plan.scene_dir) is None:
        why = "not made yet"
    else:
        try:
            state, why = decide(job.run_dir, config.sources(examine=False).record)
        except UserError as error:
            why = str(error)
    if state == "kept":
        return state, why
    steps = config.max_num_iterations - (Stage.load(job.run_dir).steps if state == "resumed" else 0)
    minutes = seconds_of(config, steps, torch.get_num_threads()) / 60
    return state, f"{counted(steps, 'step')}, {about(minutes)}: {why}"


def _examine_split(plan: Plan) -> Tuple[State, str]:
    settings = current_partition(plan.scene_dir)
    if settings is None and plan.partition is not None:
        return "new", f"takes the experts' division, {plan.partition}"
    if settings is None:
        return "new", "the views are not divided yet"
    if settings.satisfies(plan.request.divide):
        return "kept", f"divided by {settings.settings['strategy']} into {settings.num_groups} groups"
    other = [f"{name} {value}" for name, value in plan.request.divide.items() if not settings.satisfies({name: value})]
    return "changed", f"asked for {', '.join(other)}"
