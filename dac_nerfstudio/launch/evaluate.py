"""Scores of a finished run on the test views."""

from __future__ import annotations

import shutil

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import read_json, write_json
from dac_nerfstudio.image_scores import can_flip, left_out, lpips_weights
from dac_nerfstudio.launch.plan import Job, Plan, Report, Tell
from dac_nerfstudio.partition import Partition
from dac_nerfstudio.runs.layout import EVALUATION, PAIRS, PARTITION
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.reopen import recorded_config, reopen

FORMAT = 4
"""Scores of another format are made again."""


def score(job: Job, plan: Plan, tell: Tell) -> None:
    """Score a run that is there."""
    if not Stage.load(job.run_dir).complete:
        raise StageError(f"The run in {job.run_dir} is not finished, so there is nothing to score.")
    scored = evaluate(job, plan, tell)
    tell(Report("done" if scored else "kept", text=str(job.run_dir / EVALUATION)))


def evaluate(job: Job, plan: Plan, tell: Tell) -> bool:
    """Score the test views (an expert: its own) from the files alone; False if that was done before. Views have
    their groups by the scene's current partition.

    Raises:
        StageError: an expert of another partition, whose group's number means other views now; or the photos are not
            those that it was trained on.
        SplitError: there are no test views.
    """
    path, current, stage = job.run_dir / EVALUATION, plan.scene_dir / PARTITION, Stage.load(job.run_dir)
    partition = Partition.load(current).fingerprint
    if stage.group is not None and stage.partition != partition:
        raise StageError(
            f"{job.run_dir} holds an expert of group {stage.group} of partition {stage.partition}; {current} is "
            f"{partition}. Train the experts of the current partition (dac run), or make theirs the current one again: "
            f"cp {job.run_dir / PARTITION} {current}"
        )
    # With the run's own settings: those given now may be of other pictures of the photos.
    config = recorded_config(job.run_dir, plan.request.data, plan.request.device)
    views_of, photos = config.inputs.test_digests()
    made_from = {
        "format": FORMAT,
        "stage": stage.fingerprint,
        "partition": partition,
        "split": "test",
        "views_of": views_of,
        "photos": photos,
        "most": job.score_most,
    }
    found = read_json(path)
    if isinstance(found, dict) and isinstance(found.get("views"), list) and made_from.items() <= found.items():
        # What a score lacked may have been installed since.
        installed = {"lpips": lpips_weights().exists(), "flip": can_flip()}
        if not any(installed.get(score) for score in found.get("left_out", {})):
            return False

    # A baseline outlives partitions; its views are scored by the groups of the current one.
    pipeline = reopen(config, job.run_dir, partition=current)
    pairs = job.run_dir / PAIRS
    shutil.rmtree(pairs, ignore_errors=True)
    views = pipeline.score_views(
        only_group=stage.group,
        most=job.score_most,
        progress=lambda done, total: tell(Report("evaluating", done, total)),
        # Those that a report compares.
        pairs=pairs if job.stage in ("baseline", "baseline total", "finetune") else None,
    )
    cameras = pipeline.datamanager.eval_dataset.cameras
    reasons = left_out(int(cameras.height.min()), int(cameras.width.min()), lpips_weights())
    write_json(path, {**made_from, "left_out": reasons, "views": views})
    return True
