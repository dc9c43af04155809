"""One job in a process of its own: a fork of a server that has nerfstudio imported, or a fresh interpreter where the
server has touched CUDA."""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
import warnings

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from rich.console import Console

from dac_nerfstudio.errors import SplitError, UserError
from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.launch.commands import config_of, parse
from dac_nerfstudio.launch.division import divide_settings
from dac_nerfstudio.launch.evaluate import evaluate, score
from dac_nerfstudio.launch.plan import Job, Plan, Report, Tell
from dac_nerfstudio.launch.resume import take_up
from dac_nerfstudio.launch.video import video
from dac_nerfstudio.partition import Partition, check_views, current_partition, publish, verdict
from dac_nerfstudio.partition.picture import plot_partition
from dac_nerfstudio.partition.split import split as divide_scene
from dac_nerfstudio.report.writing import report_scenes
from dac_nerfstudio.runs.layout import CONFIG, PARTITION_PICTURE, flags_path, is_scored, log_path
from dac_nerfstudio.signals import Interrupted
from dac_nerfstudio.training.sources import find_partition
from dac_nerfstudio.training.trainer import DaCTrainer, write

INTERVAL = 0.5
"""Seconds between two reports of a training's progress: every figure costs a look at the device."""


def do(job: Job, plan: Plan, tell: Tell) -> None:
    """Do a job and report how it ended; everything that this process prints goes to the job's log from here on.

    Raises:
        Interrupted: the job was asked to stop; that is reported, too.
    """
    log = log_path(plan.scene_dir, job.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        {"split": split, "train": train, "evaluate": score, "video": video, "report": report}[job.kind](job, plan, tell)
    except Interrupted as stop:
        tell(Report("stopped", text=f"stopped at step {stop.steps}, which is saved" if stop.steps else "stopped"))
        raise
    except SystemExit as error:
        tell(Report("failed", text=str(error).strip()))
    except UserError as error:
        tell(Report("failed", text=str(error)))
    except BaseException:
        traceback.print_exc()
        tell(Report("failed", text=f"{traceback.format_exc(limit=-1).strip()}\nAll of it: {log}"))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def split(job: Job, plan: Plan, tell: Tell) -> None:
    """Make sure that the scene's partition has the settings asked for, and that all flags are ones that exist."""
    for other in plan.jobs:
        if other.kind == "train":
            config_of(other)
    request, kept_flags = plan.request, flags_path(plan.scene_dir, plan.recipe.run_name(plan.request.seed))
    if request.config is not None:  # for whoever wants to repeat these runs
        with atomic_write(kept_flags) as temporary:
            temporary.write_bytes(request.config)
    elif request.only is None:
        kept_flags.unlink(missing_ok=True)
    config = parse(job.arguments)
    before = current_partition(plan.scene_dir)
    kept = before is not None and before.satisfies(plan.request.divide)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ready = plan.partition if before is None else None
        if kept or ready is not None:
            if ready is not None:
                partition = Partition.load(ready)
                check_views(partition, config.inputs.read_views(), ready)
                publish(partition, plan.scene_dir)
            else:
                partition = find_partition(config, config.inputs.read_views())
            if before is None or not (plan.scene_dir / PARTITION_PICTURE).exists():
                plot_partition(partition, plan.scene_dir / PARTITION_PICTURE)
        else:
            settings = divide_settings(before, plan.request.divide, plan.recipe.softness)
            scene = config.inputs.scene
            partition, _ = divide_scene(
                scene.views(), plan.scene_dir, scene.test_views(), remarks=scene.left_out(), **settings
            )
    warned = dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning)
    text = f"{len(partition.views)} views in {partition.num_groups} groups: {plan.scene_dir / PARTITION_PICTURE}"
    quality = partition.about.get("quality")
    judged = [verdict(quality)] if quality else []
    tell(Report("kept" if kept else "done", text="\n".join([*warned, *partition.notes, text, *judged])))


def train(job: Job, plan: Plan, tell: Tell) -> None:
    """Train, unless a finished run with the same settings and inputs is there; go on where one was interrupted."""
    config = parse(job.arguments)
    sources = config.sources(examine=False)
    state, text = take_up(job.run_dir, config, sources.record)
    if state != "kept":
        torch.manual_seed(config.machine.seed)
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.tell_rendered = lambda done, total: tell(Report("rendering", done, total))
        trainer.setup()
        trainer.callbacks.append(_progress(trainer, tell))
        trainer.train()
        # Room for the pipeline that is built from the files. Callbacks and trainer hold one another.
        del trainer
        gc.collect()
    elif not (job.run_dir / CONFIG).exists() or not (job.run_dir / CONFIG).stat().st_size:
        write(sources)  # for nerfstudio's commands, which open a run by it
    scored = False
    if job.score_most:
        try:
            scored = evaluate(job, plan, tell)
        except SplitError as error:
            text = f"trained, but not scored: there are no test views ({error})"
    tell(Report("kept" if state == "kept" and not scored else "done", text=text))


def report(job: Job, plan: Plan, tell: Tell) -> None:
    """Report whatever was finished, once nothing more comes: on a cluster nobody waits for it."""
    if is_scored(plan.scene_dir):
        report_scenes([plan.scene_dir], job.run_dir.name, Console())
        tell(Report("done", text=str(log_path(plan.scene_dir, job.name))))
    else:
        tell(Report("done", text="there is nothing to report"))


def _progress(trainer: DaCTrainer, tell: Tell) -> TrainingCallback:
    """What tells of a training's progress, now and then."""
    reported = time.monotonic()

    def after_step(step: int) -> None:
        nonlocal reported
        now, total = time.monotonic(), trainer.stage.total_steps
        if now - reported >= INTERVAL or step + 1 >= total:
            _, metrics = trainer.latest
            psnr = float(metrics["psnr"]) if "psnr" in metrics else None
            tell(Report("training", step + 1, total, psnr=psnr))
            reported = now

    return TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after_step)
