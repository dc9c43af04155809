"""What `dac run --dry-run` says: what each stage would do and why, how long it would take, and its settings."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, List, Tuple

import torch
from rich.console import Console

from dac_nerfstudio.errors import UserError
from dac_nerfstudio.launch.commands import config_of
from dac_nerfstudio.launch.plan import Job, Plan
from dac_nerfstudio.launch.resume import State, decide
from dac_nerfstudio.launch.video import has_video
from dac_nerfstudio.messages import say
from dac_nerfstudio.partition import current_partition
from dac_nerfstudio.presets import Flags
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.style import counted
from dac_nerfstudio.training.trainer import DaCTrainerConfig

INDEPENDENT = ("baseline", "baseline total")
"""Stages that the division makes no difference to."""
NUMBERS_PER_CORE = 1e8
"""Numbers of rays that a training step gets through in a second of one core: the demo took some 30 ms a step of 512
rays on a core of a server, nerfacto of the same samples 43 ms."""
GPU_SECONDS = 0.017
"""Of a step, estimated from 14 and 19 ms of a step of 4096 rays on an H200 (docs/gpu.json), which waited for Python:
before steps were captured as CUDA graphs. A captured step has not been measured."""
TEACHING = {"cuda": 4.0, "cpu": 1.5}
"""What a step of distillation takes beside a step on photos, as the experts answer in it; on a GPU estimated from 62 ms
with four experts, likewise not captured."""
MEASURED = {
    "cuda": "steps measured on an H200 before they were captured as CUDA graphs",
    "cpu": "steps of the demo measured on two cores of a server",
}
"""What times are estimated from."""


@dataclass(frozen=True)
class Decision:
    """What would become of a job."""

    job: Job
    kept: bool
    why: str
    minutes: float = 0.0
    """Estimated time of the training."""


def explain_plan(plan: Plan, console: Console, verbose: bool = False) -> None:
    """Print what each job of a plan would do and why, without doing it, and the settings in which it differs from its
    method's own; with ``verbose`` its whole command instead of these."""
    trained = [job.settings for job in plan.jobs if job.kind == "train"]
    shared = {name: value for name, value in (trained or [{}])[0].items() if all(s.get(name) == value for s in trained)}
    if shared and not verbose:
        console.print("All stages, other than their methods' own settings:")
        _print_settings(shared, console)
    with console.status("Looking at the plan …"), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decisions = examine(plan)
    for decision in decisions:
        job, verdict = decision.job, ("kept", "green") if decision.kept else ("runs", "yellow")
        say(console, (job.name, "bold"), ": ", verdict, f", {decision.why}")
        if job.kind == "train" and not decision.kept:
            if verbose:
                say(console, f"    {job.command}")
            else:
                _print_settings({name: value for name, value in job.settings.items() if name not in shared}, console)
    if any(decision.job.kind == "train" and not decision.kept for decision in decisions):
        source = MEASURED["cuda" if plan.request.device == "cuda" else "cpu"]
        say(console, f"Times are estimated from {source}; expect half to twice as long.")
        total = sum(decision.minutes for decision in decisions)
        say(console, f"All training together takes {about(total)} on one device, one stage after another.")


def _print_settings(settings: Flags, console: Console) -> None:
    """A line for each, as a file for --config has them."""
    for name, value in settings.items():
        say(console, f"    {name} = {json.dumps(value)}")


def examine(plan: Plan) -> List[Decision]:
    """Whether each job of a plan would run, and why.

    Raises:
        StageError: ``ns-train`` does not take the flags of a stage.
    """
    decisions: List[Decision] = []
    for job in plan.jobs:
        ready = [decision.job.name for decision in decisions if decision.kept]
        ready += ["split"] if job.stage in INDEPENDENT else []
        needed = [name for name in job.needs if name not in ready]
        kept, why, minutes = False, f"{needed[0]} comes first" if needed else "", 0.0
        if job.kind == "train":
            kept, why, minutes = _examine_training(job, plan, why)
        elif not needed and job.kind == "split":
            kept, why = _examine_split(plan)
        elif not needed and job.kind == "evaluate":
            why = f"scores {job.run_dir}, unless that was done"
        elif not needed:
            kept = has_video(job, plan)
            why = "made from this student" if kept else "not made yet"
        decisions.append(Decision(job, kept, why, minutes))
    return decisions


def _examine_training(job: Job, plan: Plan, why: str) -> Tuple[bool, str, float]:
    """Whether a training is kept, why, and how many minutes it takes; where nothing else keeps it from being begun, by
    its folder."""
    config = config_of(job)
    state: State = "new"
    if not why and current_partition(plan.scene_dir) is None:
        why = "not made yet"
    elif not why:
        try:
            state, why, *_ = decide(job.run_dir, config.sources(examine=False).record)
        except UserError as error:
            why = str(error)
    if state == "kept":
        return True, why, 0.0
    steps = config.max_num_iterations - (Stage.load(job.run_dir).steps if state == "resumed" else 0)
    minutes = seconds_of(config, steps, torch.get_num_threads()) / 60
    return False, f"{counted(steps, 'step')}, {about(minutes)}: {why}", minutes


def _examine_split(plan: Plan) -> Tuple[bool, str]:
    partition, asked = current_partition(plan.scene_dir), plan.request.divide
    if partition is None:
        taken = plan.partition and f"takes the experts' division, {plan.partition}"
        return False, taken or "the views are not divided yet"
    other = [f"{name} {value}" for name, value in asked.items() if not partition.satisfies({name: value})]
    if other:
        return False, f"needs {', '.join(other)}"
    return True, f"divided by {partition.settings['strategy']} into {partition.num_groups} groups"


def seconds_of(config: DaCTrainerConfig, steps: int, cores: int) -> float:
    """Estimated training time, right to the nearest half or double."""
    cuda = config.machine.device_type == "cuda"
    rays = config.pipeline.datamanager.train_num_rays_per_batch
    model: Any = config.pipeline.model
    step = GPU_SECONDS if cuda else rays * model.numbers_per_ray / (NUMBERS_PER_CORE * cores)
    teaching = TEACHING["cuda" if cuda else "cpu"] if (config.method_name or "").startswith("dac-distill") else 1.0
    return steps * step * teaching


def about(minutes: float) -> str:
    """A duration to read."""
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.0f} hours"
