"""One job in a process of its own: a fork of a server that has nerfstudio imported and CUDA untouched."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import time
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Callable, Dict, List, Literal, Sequence, Tuple

import torch
import tyro
import yaml
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.eval_utils import eval_setup

from dac_nerfstudio.conquer.pipeline import DaCPipeline
from dac_nerfstudio.conquer.trainer import DaCTrainer, DaCTrainerConfig, flattened
from dac_nerfstudio.errors import StageError, UserError
from dac_nerfstudio.files import atomic_write, write_json
from dac_nerfstudio.kplanes.model import lpips_weights
from dac_nerfstudio.kplanes.scores import can_flip, left_out
from dac_nerfstudio.partition import (
    PICTURE,
    Partition,
    check_views,
    current_partition,
    plot_partition,
    publish,
    read_test_views,
)
from dac_nerfstudio.partition import split as divide_scene
from dac_nerfstudio.run.division import divide_settings
from dac_nerfstudio.run.messages import Report
from dac_nerfstudio.run.plan import Job, Plan
from dac_nerfstudio.signals import Interrupted
from dac_nerfstudio.stage import Stage

EVALUATION, EVALUATION_FORMAT = "evaluation.json", 3
"""Scores of an earlier format are made again."""
PAIRS = "test"
"""In a run folder: photo and rendering of each test view."""

Tell = Callable[[Report], None]


def work(job: Job, plan: Plan, log: Path, messages: Connection) -> None:
    """Do a job; everything it prints goes to ``log``, what matters to ``messages``."""

    def tell(report: Report) -> None:
        with suppress(BrokenPipeError):  # the parent is gone: its watcher has asked this process to stop
            messages.send(report)

    with suppress(Interrupted):
        do(job, plan, log, tell)


def do(job: Job, plan: Plan, log: Path, tell: Tell) -> None:
    """Do a job and tell how it ended; everything that this process prints goes to ``log`` from here on.

    Raises:
        Interrupted: the job was asked to stop; that is told, too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        {"split": split, "train": train, "evaluate": score, "video": video, "examine": examine}[job.kind](
            job, plan, tell
        )
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


def parse(arguments: Sequence[str]) -> DaCTrainerConfig:
    """The configuration that ``ns-train`` makes of its arguments."""
    return tyro.cli(AnnotatedBaseConfigUnion, args=list(arguments))


def check_flags(job: Job) -> None:
    """Before anything long: a misspelt flag of the last stage must not wait for its turn.

    Raises:
        StageError: ``ns-train`` does not take the flags.
    """
    complaint = io.StringIO()
    try:
        with redirect_stdout(complaint), redirect_stderr(complaint):
            parse(job.arguments)
    except SystemExit:
        lines = [line.strip("│ ") for line in complaint.getvalue().splitlines()]
        told = " ".join(line for line in lines if line and line[0] not in "╭╰─-").partition(" Available subcommands")[0]
        raise StageError(f"ns-train {job.method} does not take these flags. {told}") from None


def with_data(config: DaCTrainerConfig) -> DaCTrainerConfig:
    """What ``ns-train`` does with --data before anything else."""
    config.pipeline.datamanager.data = config.data
    config.set_timestamp()
    return config


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
            check_views(partition, config.views_to_divide(), plan.partition)
            publish(partition, plan.scene_dir)
            plot_partition(partition, plan.scene_dir / PICTURE)
        elif kept:
            partition = config.find_partition()
            if not (plan.scene_dir / PICTURE).exists():
                plot_partition(partition, plan.scene_dir / PICTURE)
        else:
            settings = divide_settings(before, plan.request.divide, plan.recipe.softness)
            partition, _ = divide_scene(
                config.views_to_divide(), plan.scene_dir, read_test_views(config.data_path), **settings
            )
    told = dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning)
    text = f"{len(partition.views)} views in {partition.num_groups} groups: {plan.scene_dir / PICTURE}"
    tell(Report("kept" if kept else "done", text="\n".join([*told, *partition.notes, text])))


def train(job: Job, plan: Plan, tell: Tell) -> None:
    """Train, unless a finished run with the same settings and inputs is there; go on where one was interrupted."""
    config = with_data(parse(job.arguments))
    config.prepare()
    assert config.stage is not None
    state, text = take_up(job.run_dir, config)
    if state != "kept":
        config.save_config()
        torch.manual_seed(config.machine.seed)
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
        trainer.callbacks.append(
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], Progress(trainer, tell).after_step)
        )
        trainer.train()
        # Room for the pipeline that is built from the files.
        del trainer
    if job.score_most:
        try:
            evaluate(job, plan, tell)
        except FileNotFoundError as error:
            text = f"trained, but not scored: there are no test views ({error})"
    tell(Report("kept" if state == "kept" else "done", text=text))


class Progress:
    """Tells of a training's progress, now and then: every figure costs a look at the device."""

    INTERVAL = 0.5
    """Seconds."""

    def __init__(self, trainer: DaCTrainer, tell: Tell) -> None:
        self.trainer, self.tell = trainer, tell
        self.told, self.steps = time.monotonic(), 0

    def after_step(self, step: int) -> None:
        self.steps += 1
        now, total = time.monotonic(), self.trainer.stage.total_steps
        if now - self.told < self.INTERVAL and step + 1 < total:
            return
        loss, metrics = self.trainer.latest
        rays = self.steps * self.trainer.pipeline.datamanager.get_train_rays_per_batch() / (now - self.told)
        psnr = float(metrics["psnr"]) if "psnr" in metrics else None
        self.tell(Report("training", step + 1, total, loss=float(loss), psnr=psnr, rays_per_second=rays))
        self.told, self.steps = now, 0


State = Literal["kept", "resumed", "changed", "new"]


def decide(run_dir: Path, stage: Stage) -> Tuple[State, str]:
    """What to do about an earlier run in a folder: keep its result, go on with it, put it aside, or start; and why."""
    if not (run_dir / "stage.json").exists():
        return "new", "not made yet"
    earlier = Stage.load(run_dir)
    if earlier.fingerprint != stage.fingerprint:
        return "changed", "; ".join(changes(earlier, stage))
    if earlier.complete:
        return "kept", "finished, with the same settings and inputs"
    if any((run_dir / "nerfstudio_models").glob("step-*.ckpt")):
        return "resumed", f"interrupted at step {earlier.steps} of {earlier.total_steps}"
    return "new", "interrupted before anything was saved"


def changes(earlier: Stage, stage: Stage, most: int = 3) -> List[str]:
    """In what two runs differ, in words; no more than `most` of it."""
    one, other = (
        {"settings": s.settings, "seed": s.seed, "steps": s.total_steps, "group": s.group, **s.inputs}
        for s in (earlier, stage)
    )
    before, now, inputs = dict(flattened(one)), dict(flattened(other)), {*earlier.inputs, *stage.inputs}
    found = [
        f"{name.removeprefix('settings.')} was {before.get(name)}, is {now.get(name)}"
        for name in sorted({*before, *now}, key=lambda name: (name in inputs, name))
        if before.get(name) != now.get(name) and not name.endswith(".max_steps")
    ]
    return found[:most] + [f"and {len(found) - most} more"] * (len(found) > most)


def take_up(run_dir: Path, config: DaCTrainerConfig) -> Tuple[State, str]:
    """Prepare the folder and the configuration for what `decide` says; an earlier run is moved aside, not deleted."""
    assert config.stage is not None
    state, why = decide(run_dir, config.stage)
    if state == "changed":
        aside = move_aside(run_dir)
        return state, f"made anew ({why}); the earlier run is now {aside.name}"
    if state == "resumed":
        config.load_dir = run_dir / "nerfstudio_models"
        return state, f"resumed at step {Stage.load(run_dir).steps}"
    return state, ""


def move_aside(run_dir: Path) -> Path:
    """Keep a run under another name; its new folder.

    nerfstudio's tools find weights and partition by the names in config.yml, which would be those of the run that takes
    the place of this one.
    """
    aside = run_dir.with_name(f"{run_dir.name}-before-{time.strftime('%Y-%m-%d_%H%M%S')}")
    run_dir.rename(aside)
    path = aside / "config.yml"
    if path.exists():
        # As text: to read it is to run what it names.
        text = re.sub(r"^timestamp: .*$", f"timestamp: {aside.name}", path.read_text("utf8"), flags=re.MULTILINE)
        named = rf"^( *- ){re.escape(run_dir.name)}(\n *- partition\.json)$"
        text = re.sub(named, rf"\g<1>{aside.name}\g<2>", text, flags=re.MULTILINE)
        with atomic_write(path) as temporary:
            temporary.write_text(text, "utf8")
    return aside


def examine(job: Job, plan: Plan, tell: Tell) -> None:
    """Say of every job of a plan whether it would run, and why: one report each, `kept` or `done`."""
    fates: Dict[str, str] = {}
    for other in plan.jobs:
        needed = [need for need in other.needs if fates[need] != "kept"]
        if needed:
            state, why = "new", f"{needed[0]} comes first"
        elif other.kind == "split":
            state, why = _examine_split(plan)
        elif other.kind == "train":
            try:
                config = with_data(parse(other.arguments))
                config.prepare()
                assert config.stage is not None
                state, why = decide(other.run_dir, config.stage)
            except UserError as error:
                state, why = "new", str(error)
        elif other.kind == "evaluate":
            state, why = "new", f"scores {other.run_dir}, unless that was done"
        else:
            kept = _has_video(other, plan)
            state, why = ("kept", "made from this student") if kept else ("new", "not made yet")
        fates[other.name] = state
        tell(Report("kept" if state == "kept" else "done", text=why))


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


def score(job: Job, plan: Plan, tell: Tell) -> None:
    """Score a run that is there."""
    if not Stage.load(job.run_dir).complete:
        raise StageError(f"The run in {job.run_dir} is not finished, so there is nothing to score.")
    scored = evaluate(job, plan, tell)
    tell(Report("done" if scored else "kept", text=str(job.run_dir / EVALUATION)))


def evaluate(job: Job, plan: Plan, tell: Tell) -> bool:
    """Score the test views (an expert: its own) from the files alone; False if that was done before.

    Args:
        job: whose run is scored.
        plan: whose scene's current partition the views are told apart by.
        tell: told of the progress.

    Raises:
        StageError: an expert of another partition, whose group's number means other views now.
    """
    path, current, stage = job.run_dir / EVALUATION, plan.scene_dir / "partition.json", Stage.load(job.run_dir)
    partition = Partition.load(current).fingerprint
    if stage.group is not None and stage.partition != partition:
        raise StageError(
            f"{job.run_dir} holds an expert of group {stage.group} of partition {stage.partition}; {current} is "
            f"{partition}. Train the experts of the current partition (dac run), or make theirs the current one again: "
            f"cp {job.run_dir / 'partition.json'} {current}"
        )
    # The run's own, as nerfstudio's evaluation takes it: flags given now may be of other photos.
    config = yaml.load((job.run_dir / "config.yml").read_text("utf8"), Loader=yaml.Loader)
    made_from = {
        "format": EVALUATION_FORMAT,
        "stage": stage.fingerprint,
        "partition": partition,
        "split": "test",
        "views_of": config.test_digest(),
        "most": job.score_most,
    }
    if path.exists():
        earlier = json.loads(path.read_text("utf8"))
        # What a score lacked may have been installed since.
        installed = {"lpips": lpips_weights().exists(), "flip": can_flip()}
        gained = [score for score in earlier.get("left_out", {}) if installed.get(score)]
        if made_from.items() <= earlier.items() and not gained:
            return False

    def with_partition(recorded: TrainerConfig) -> TrainerConfig:
        # A baseline outlives partitions; its views are scored by the groups of the current one.
        recorded.pipeline.datamanager.partition = current  # type: ignore
        return recorded

    _, pipeline, _, _ = eval_setup(job.run_dir / "config.yml", test_mode="test", update_config_callback=with_partition)
    assert isinstance(pipeline, DaCPipeline)
    pairs = job.run_dir / PAIRS
    shutil.rmtree(pairs, ignore_errors=True)
    views = pipeline.score_views(
        only_group=stage.group,
        most=job.score_most,
        progress=lambda done, total: tell(Report("evaluating", done, total)),
        # The two that a report compares.
        pairs=pairs if job.stage in ("baseline", "finetune") else None,
    )
    cameras = pipeline.datamanager.eval_dataset.cameras
    reasons = left_out(int(cameras.height.min()), int(cameras.width.min()), lpips_weights())
    write_json(path, {**made_from, "left_out": reasons, "views": views})
    return True


def video(job: Job, plan: Plan, tell: Tell) -> None:
    """A flight along the test cameras."""
    from nerfstudio.scripts.render import RenderInterpolated

    path = _video_path(plan)
    if _has_video(job, plan):
        tell(Report("kept", text=str(path)))
        return
    tell(Report("rendering"))
    with atomic_write(path) as temporary:
        RenderInterpolated(
            load_config=job.run_dir / "config.yml", output_path=temporary, interpolation_steps=3, frame_rate=15
        ).main()
    write_json(_video_record(plan), {"stage": Stage.load(job.run_dir).fingerprint})
    tell(Report("done", text=str(path)))


def _video_path(plan: Plan) -> Path:
    return plan.scene_dir / "report" / "video.mp4"


def _video_record(plan: Plan) -> Path:
    return plan.scene_dir / "report" / "video.json"


def _has_video(job: Job, plan: Plan) -> bool:
    """Whether there is a video, made from the run as it is now."""
    record = _video_record(plan)
    made_from = json.loads(record.read_text("utf8")) if record.exists() else {}
    return _video_path(plan).exists() and made_from == {"stage": Stage.load(job.run_dir).fingerprint}
