"""One job in a process of its own: a fork of a server that has nerfstudio imported and CUDA untouched."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Callable, Literal, Tuple

import torch
import tyro
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup

from dac_nerfstudio.conquer.pipeline import DaCPipeline
from dac_nerfstudio.conquer.trainer import DaCTrainerConfig, UserError
from dac_nerfstudio.partition import Partition, divide, plot_partition, publish
from dac_nerfstudio.run.messages import Report
from dac_nerfstudio.run.plan import Job, Plan
from dac_nerfstudio.stage import Stage, write_json

EVALUATION = "evaluation.json"


Tell = Callable[[Report], None]


def work(job: Job, plan: Plan, log: Path, messages: Connection) -> None:
    """Do a job; everything it prints goes to ``log``, what matters to ``messages``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        {"split": split, "train": train, "video": video}[job.kind](job, plan, messages.send)
    except SystemExit as error:
        messages.send(Report("failed", text=str(error).strip()))
    except UserError as error:
        messages.send(Report("failed", text=str(error)))
    except BaseException:
        traceback.print_exc()
        messages.send(Report("failed", text=f"{traceback.format_exc(limit=-1).strip()}\nThe whole story: {log}"))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def parse(job: Job) -> DaCTrainerConfig:
    """The configuration that ``ns-train`` makes of the job's flags."""
    return tyro.cli(AnnotatedBaseConfigUnion, args=[job.method, *job.flags])


def with_data(config: DaCTrainerConfig) -> DaCTrainerConfig:
    """What ``ns-train`` does with --data before anything else."""
    config.pipeline.datamanager.data = config.data
    config.set_timestamp()
    return config


def split(job: Job, plan: Plan, tell: Tell) -> None:
    """Make sure that the scene's partition has the settings asked for."""
    config = with_data(parse(job))
    current = plan.scene_dir / "partition.json"
    before = Partition.load(current) if current.exists() else None
    if before is None:
        softness = 0.0 if plan.divide.get("overlap") else plan.softness
        partition = divide(config.read_views(), **{"softness": softness, **plan.divide})
        publish(partition, plan.scene_dir)
    elif not plan.divide.items() <= before.settings.items():
        partition = divide(config.read_views(), **{**before.settings, "strategy": "azimuth", **plan.divide})
        publish(partition, plan.scene_dir)
    else:
        partition = config.find_partition()
    picture = plan.scene_dir / "partition.png"
    if before is None or before.fingerprint != partition.fingerprint or not picture.exists():
        plot_partition(partition, picture)
        tell(Report("done", text=f"{len(partition.views)} views in {partition.num_groups} groups: {picture}"))
    else:
        tell(Report("kept", text=f"{len(partition.views)} views in {partition.num_groups} groups: {picture}"))


def train(job: Job, plan: Plan, tell: Tell) -> None:
    """Train, unless a finished run with the same settings and inputs is there; go on where one was interrupted."""
    config = with_data(parse(job))
    config.prepare()
    assert config.stage is not None
    state, text = take_up(job.run_dir, config)
    if state != "kept":
        config.save_config()
        torch.manual_seed(config.machine.seed)
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
        total = config.stage.total_steps

        def report(step: int) -> None:
            tell(Report("training", step + 1, total))

        trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], report))
        trainer.train()
        # Room for the pipeline that is built from the files.
        del trainer
    if job.score_every:
        try:
            evaluate(job, config, tell)
        except FileNotFoundError as error:
            text = f"trained, but not scored: there are no test views ({error})"
    tell(Report("kept" if state == "kept" else "done", text=text))


def take_up(run_dir: Path, config: DaCTrainerConfig) -> Tuple[Literal["kept", "resumed", "new"], str]:
    """Decide between an earlier run's result, going on with it, and a new start.

    An earlier run with other settings or inputs is moved aside, not deleted.
    """
    assert config.stage is not None
    if not (run_dir / "stage.json").exists():
        return "new", ""
    earlier = Stage.load(run_dir)
    if earlier.fingerprint != config.stage.fingerprint:
        aside = run_dir.with_name(f"{run_dir.name}-before-{time.strftime('%Y-%m-%d_%H%M%S')}")
        run_dir.rename(aside)
        return "new", f"settings or inputs have changed; the earlier run is now {aside.name}"
    if earlier.complete:
        return "kept", ""
    if any((run_dir / "nerfstudio_models").glob("step-*.ckpt")):
        config.load_dir = run_dir / "nerfstudio_models"
        return "resumed", f"resumed at step {earlier.steps}"
    return "new", ""


def evaluate(job: Job, config: DaCTrainerConfig, tell: Tell) -> None:
    """Score the test views (an expert: its own) from the files alone, unless that was done before."""
    path, manager = job.run_dir / EVALUATION, config.pipeline.datamanager
    assert config.stage is not None
    made_from = {
        "stage": Stage.load(job.run_dir).fingerprint,
        "partition": config.stage.partition,
        "split": "test",
        "every": job.score_every,
    }
    if path.exists() and made_from.items() <= json.loads(path.read_text("utf8")).items():
        return

    def with_partition(recorded: TrainerConfig) -> TrainerConfig:
        # A baseline outlives partitions; its views are scored by the groups of the current one.
        recorded.pipeline.datamanager.partition = manager.partition  # type: ignore
        return recorded

    _, pipeline, _, _ = eval_setup(job.run_dir / "config.yml", test_mode="test", update_config_callback=with_partition)
    assert isinstance(pipeline, DaCPipeline)
    views = pipeline.score_views(
        only_group=manager.group,
        every=job.score_every,
        progress=lambda done, total: tell(Report("evaluating", done, total)),
    )
    write_json(path, {**made_from, "views": views})


def video(job: Job, plan: Plan, tell: Tell) -> None:
    """A flight along the test cameras."""
    from nerfstudio.scripts.render import RenderInterpolated

    path = plan.scene_dir / "report" / "video.mp4"
    made_from, record = {"stage": Stage.load(job.run_dir).fingerprint}, path.with_suffix(".json")
    if path.exists() and record.exists() and json.loads(record.read_text("utf8")) == made_from:
        tell(Report("kept", text=str(path)))
        return
    tell(Report("rendering"))
    path.parent.mkdir(parents=True, exist_ok=True)
    RenderInterpolated(
        load_config=job.run_dir / "config.yml", output_path=path, interpolation_steps=3, frame_rate=15
    ).main()
    write_json(record, made_from)
    tell(Report("done", text=str(path)))
