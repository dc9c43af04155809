"""A scene's finished runs, opened to be rendered from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.models.base_model import Model

from dac_nerfstudio.device import default_device
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.report.pictures import Comparison, compare, extremes
from dac_nerfstudio.report.results import figures
from dac_nerfstudio.report.runs import NAMES, Run, SceneRuns, read_scene
from dac_nerfstudio.runs import store
from dac_nerfstudio.runs.reopen import photos_of, recorded_config, reopen


@dataclass(frozen=True)
class Scene:
    """What there is to render."""

    baseline: Model
    student: Model
    experts: Dict[int, Model]
    """Experts by their groups, counted from 1; empty unless each group's is there."""
    cameras: Cameras
    """Cameras of the test views."""
    names: List[str]
    """Names of the test views."""
    homes: Dict[int, int]
    """The most typical of the test views that each group answers for, if there is any."""
    gains: List[Comparison]
    """Test views in which the student is ahead of the baseline, the furthest first; empty where nothing was scored."""
    losses: List[Comparison]
    """Those in which it is behind."""


def open_scene(scene_dir: Path, run: Optional[str], data: Optional[Path]) -> Scene:
    """Load baseline, student and experts of a scene's folder of results. Nothing in it is executed.

    Args:
        run: name of the runs; by default the latest.
        data: where the photos lie; by default where they lay at training.

    Raises:
        StageError: there is no finished baseline or student, a file is damaged, the photos are gone or others, or there
            are no test views.
    """
    found = read_scene(scene_dir, run)
    gain = figures(found).gain
    # The better baseline, where there are two.
    baseline = finished(found, gain.over if gain else "dac-baseline")
    student = finished(found, "dac-finetune")
    device = default_device()
    config = recorded_config(student.folder, data or photos_of(student.folder), device)
    pipeline = reopen(config, student.folder)
    manager = pipeline.datamanager
    if manager.eval_dataset is None:
        raise StageError(f"The scene of {scene_dir} has no test views, whose photos the pictures are compared with.")
    experts: Dict[int, Model] = {}
    if "dac-expert" not in found.missing:
        experts = {one.stage.group or 1: load(one, device) for one in found.runs["dac-expert"]}
    cameras = manager.eval_dataset.cameras
    homes = {}
    if manager.partition is not None:
        # The middle one of those of most weight: any of them is inside its group, not on a border.
        weights = manager.blend(cameras.camera_to_worlds, 1.0)
        groups = manager.route(cameras.camera_to_worlds)
        for group in range(1, manager.partition.num_groups + 1):
            mine = torch.where(groups == group, weights[:, group - 1], -1)
            if mine.max() > 0:
                homes[group] = int(mine.argmax())
    gains, losses = extremes(gain.views) if gain else ([], [])
    return Scene(
        load(baseline, device),
        pipeline.model,
        experts,
        cameras,
        list(manager.eval_names),
        homes,
        *([pair for view in views if (pair := compare(view, baseline, student))] for views in (gains, losses)),
    )


def finished(scene: SceneRuns, method: str) -> Run:
    """The run of a method.

    Raises:
        StageError: there is none, or it is not finished.
    """
    run = scene.only(method)
    if run is None or not run.stage.complete:
        why = scene.missing.get(method, f"There is no {NAMES[method]} named {scene.name}.")
        raise StageError(f"{why} Pictures compare baseline and student. Train what is missing: dac run --data …")
    return run


def load(run: Run, device: str) -> Model:
    """The model of a run alone, without its photos; baselines are models as experts are. In single precision."""
    return store.open_model(store.Run(run.folder, run.stage), "cpu").to(device)
