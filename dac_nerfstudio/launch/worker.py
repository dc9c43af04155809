"""One job in a process of its own: a fork of a server that has nerfstudio imported, or a fresh interpreter where the
server has touched CUDA."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Optional

import torch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

from dac_nerfstudio.errors import SplitError, UserError
from dac_nerfstudio.launch.commands import check_flags, parse, with_data
from dac_nerfstudio.launch.division import divide_settings
from dac_nerfstudio.launch.evaluate import evaluate, score
from dac_nerfstudio.launch.messages import Report, Tell
from dac_nerfstudio.launch.plan import Job, Plan
from dac_nerfstudio.launch.resume import has_config, take_up
from dac_nerfstudio.launch.video import video
from dac_nerfstudio.partition import Partition, check_views, current_partition, publish, verdict
from dac_nerfstudio.partition.picture import plot_partition
from dac_nerfstudio.partition.split import split as divide_scene
from dac_nerfstudio.runs.layout import PARTITION_PICTURE
from dac_nerfstudio.signals import Interrupted
from dac_nerfstudio.training.sources import find_partition
from dac_nerfstudio.training.trainer import DaCTrainer, write

BEAT = 5.0
"""Seconds from one sign of life to the next."""


def work(job: Job, plan: Plan, log: Path, messages: Connection) -> None:
    """Do a job; everything it prints goes to ``log``, what matters to ``messages``, and None now and then: a sign of
    life, which a process that is stopped does not give."""
    speaking, ended = threading.Lock(), threading.Event()

    def tell(report: Optional[Report]) -> None:
        with speaking, suppress(BrokenPipeError):  # the parent is gone: its watcher has asked this process to stop
            messages.send(report)

    def beat() -> None:
        tell(None)
        while not ended.wait(BEAT):
            tell(None)

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        with suppress(Interrupted):
            do(job, plan, log, tell)
    finally:
        ended.set()
        beating.join()


def do(job: Job, plan: Plan, log: Path, tell: Tell) -> None:
    """Do a job and report how it ended; everything that this process prints goes to ``log`` from here on.

    Raises:
        Interrupted: the job was asked to stop; that is reported, too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        {"split": split, "train": train, "evaluate": score, "video": video}[job.kind](job, plan, tell)
    except Interrupted as stop:
        tell(Report("stopped", text=f"stopped at step {stop.steps}, which is saved" if stop.steps else "stopped"))
        raise
    except SystemExit as error:
        tell(Report("failed", text=str(error).strip()))
    except UserError as error:
        tell(Report("failed", text=str(error)))
    except BaseException:
        traceback.print_exc()
        tell(Report("failed", text=f"{traceback.format_exc(limit=-1).strip()}\nThe whole story: {log}"))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def split(job: Job, plan: Plan, tell: Tell) -> None:
    """Make sure that the scene's partition has the settings asked for, and that all flags are ones that exist."""
    for other in plan.jobs:
        if other.kind == "train":
            check_flags(other)
    config = with_data(parse(job.arguments))
    before = current_partition(plan.scene_dir)
    kept = before is not None and before.satisfies(plan.request.divide)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if before is None and plan.partition is not None:
            partition = Partition.load(plan.partition)
            check_views(partition, config.inputs.read_views(), plan.partition)
            publish(partition, plan.scene_dir)
            plot_partition(partition, plan.scene_dir / PARTITION_PICTURE)
        elif kept:
            partition = find_partition(config, config.inputs.read_views())
            if not (plan.scene_dir / PARTITION_PICTURE).exists():
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
    config = with_data(parse(job.arguments))
    sources = config.sources(examine=False)
    state, text = take_up(job.run_dir, config, sources.record)
    if state != "kept":
        torch.manual_seed(config.machine.seed)
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
        trainer.callbacks.append(
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], Progress(trainer, tell).after_step)
        )
        trainer.train()
        # Room for the pipeline that is built from the files. Callbacks and trainer hold one another.
        del trainer
        gc.collect()
    elif not has_config(job.run_dir):
        write(sources)
    scored = False
    if job.score_most:
        try:
            scored = evaluate(job, plan, tell)
        except SplitError as error:
            text = f"trained, but not scored: there are no test views ({error})"
    tell(Report("kept" if state == "kept" and not scored else "done", text=text))


class Progress:
    """Tells of a training's progress, now and then: every figure costs a look at the device."""

    INTERVAL = 0.5
    """Seconds."""

    def __init__(self, trainer: DaCTrainer, tell: Tell) -> None:
        self.trainer, self.tell = trainer, tell
        self.reported = time.monotonic()

    def after_step(self, step: int) -> None:
        now, total = time.monotonic(), self.trainer.stage.total_steps
        if now - self.reported < self.INTERVAL and step + 1 < total:
            return
        _, metrics = self.trainer.latest
        psnr = float(metrics["psnr"]) if "psnr" in metrics else None
        self.tell(Report("training", step + 1, total, psnr=psnr))
        self.reported = now
