"""Finished runs of any nerfstudio method as teachers, asked for cameras in the frame of who learns from them.

Data parsers turn, centre and scale a scene each in its own way. The training photos that two runs share stand in both
frames, and tell how one lies in the other.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
import yaml
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import checksum
from dac_nerfstudio.messages import say
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.partition import align
from dac_nerfstudio.runs.layout import CHECKPOINTS, CONFIG, RECORD, latest_checkpoint
from dac_nerfstudio.runs.reopen import photos_of, recorded_config, reopen
from dac_nerfstudio.runs.store import Run, open_model
from dac_nerfstudio.scene.frames import Transform, spread
from dac_nerfstudio.scene.views import listing, view_name
from dac_nerfstudio.teachers.ensemble import Ensemble, premultiplied

APART = 0.01
"""Cameras of one photo may differ by this much in two frames: in axes of length 1, and in the spread of all centres."""


class Views(NamedTuple):
    """The photos that somebody was trained on."""

    names: Sequence[str]
    camera_to_worlds: Float[Tensor, "views 3 4"]


@dataclass(frozen=True)
class FinishedRun:
    """A frozen model of any method, and where its frame lies."""

    model: Any
    """A nerfstudio model in evaluation mode: near plane, appearance and all else are as its own evaluation has them."""
    transform: Transform
    """From the frame of who asks to the model's."""

    @property
    def device(self) -> torch.device:
        return self.model.device

    def premultiplied(self, camera: Cameras) -> Float[Tensor, "height width 5"]:
        """As `Ensemble.premultiplied`, of a single camera in the frame of who asks."""
        poses = self.transform.apply(camera.camera_to_worlds.cpu().numpy().astype(np.float64))
        moved = camera[torch.arange(len(camera))]
        moved.camera_to_worlds = torch.from_numpy(poses).to(camera.camera_to_worlds)
        return premultiplied(self.model, moved.to(self.device))


def ensemble_of(folders: Sequence[Path], learner: Views, test_names: Sequence[str], device: torch.device) -> Ensemble:
    """The mean of finished runs.

    Args:
        learner: the training photos of who learns from them.
        test_names: photos that the learner is scored on.

    Raises:
        StageError: a run cannot be opened, has seen test photos, or is of another scene.
    """
    models: List[FinishedRun] = []
    for folder in folders:
        model, views = _opened(folder, device)
        _check_unseen(folder, views, learner, test_names)
        models.append(FinishedRun(model, transform_to(folder, learner, views)))
    return Ensemble(models, [1] * len(models), lambda poses, inverse_temperature: torch.ones(len(poses), 1))


def transform_to(folder: Path, learner: Views, views: Views) -> Transform:
    """The similarity from the learner's frame to that of a run, by the photos that both were trained on.

    Raises:
        StageError: they do not share two photos from two places, or the photos' cameras differ.
    """
    theirs: Dict[str, int] = {name: number for number, name in enumerate(views.names)}
    mine = [number for number, name in enumerate(learner.names) if name in theirs]
    here = learner.camera_to_worlds[mine].cpu().numpy().astype(np.float64)
    there = views.camera_to_worlds[[theirs[learner.names[number]] for number in mine]].cpu().numpy().astype(np.float64)
    if not mine or spread(here[:, :, 3]) == 0 or spread(there[:, :, 3]) == 0:
        raise StageError(
            f"The teacher in {folder} was trained on {len(mine)} of this scene's {len(learner.names)} training photos; "
            "two of different places are needed to find its frame. Name a run of this scene."
        )
    transform = align(here, there)
    apart = np.abs(transform.apply(here) - there).max(axis=1)  # [views, 4]: three axes and the centre
    apart[:, 3] /= spread(there[:, :, 3])
    if apart.max() > APART:
        worst = learner.names[mine[int(apart.max(axis=1).argmax())]]
        raise StageError(
            f"The teacher in {folder} has photos of the same names as this scene, but other cameras (for example of "
            f"{worst}). Name a run of this scene."
        )
    return transform


def folder_of(path: Path) -> Path:
    """The folder of a run of any method that a user meant by naming it, its config.yml or its models' folder.

    Raises:
        StageError: it is not a run's, or holds no checkpoint.
    """
    if not path.exists():
        raise StageError(f"There is no teacher at {path}. Name the folder of a finished run.")
    for candidate in (path, *path.parents[:2]):
        if (candidate / RECORD).exists() or ((candidate / CONFIG).exists() and (candidate / CHECKPOINTS).is_dir()):
            latest_checkpoint(candidate)
            return candidate
    raise StageError(
        f"{path} is not a finished run: neither it nor the two folders above hold a {CONFIG} and {CHECKPOINTS}/."
    )


def fingerprint_of(folder: Path) -> str:
    """Tells a run from others: that of its record, or a digest of its configuration and last checkpoint."""
    if (folder / RECORD).exists():
        return Run.at(folder).record.fingerprint
    checkpoint = latest_checkpoint(folder)
    content = (folder / CONFIG).read_bytes() + f"{checkpoint.name} {checksum(checkpoint)}".encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _check_unseen(folder: Path, views: Views, learner: Views, test_names: Sequence[str]) -> None:
    seen = sorted((set(views.names) & set(test_names)) - set(learner.names))
    if seen:
        raise StageError(
            f"The teacher in {folder} was trained on {len(seen)} test photos of this scene ({listing(seen)}): what "
            "learns from it cannot be scored on them. Train it on the training photos alone, or name another."
        )


def _opened(folder: Path, device: torch.device) -> Tuple[Any, Views]:
    """The model of a run, and its training photos."""
    return _opened_by_record(folder, device) if (folder / RECORD).exists() else _opened_by_code(folder, device)


def _opened_by_record(folder: Path, device: torch.device) -> Tuple[Any, Views]:
    run = Run.at(folder)
    if not run.record.complete:
        raise StageError(f"{run} stopped at step {run.record.steps} of {run.record.total_steps}.")
    config = recorded_config(folder, photos_of(folder), device.type)
    scene = config.inputs.scene
    views = Views(scene.names(), scene.get_dataparser_outputs("train").cameras.camera_to_worlds)
    assembled = MethodName.parse(run.record.method).stage == "ensemble"
    return (reopen(config, folder).model if assembled else open_model(run, device)), views


def _opened_by_code(folder: Path, device: torch.device) -> Tuple[Any, Views]:
    """As nerfstudio's ``eval_setup``, on the device asked for. That one cannot read nerfstudio's own checkpoints with
    torch 2.6 and newer, as the schedules in them have numbers of numpy."""
    # Not at the top: it imports every method that is registered, ours too.
    from nerfstudio.configs.method_configs import all_methods

    say(CONSOLE, f"The teacher in {folder} is opened as nerfstudio does it, which runs what its files name.")
    try:
        config: Any = yaml.load((folder / CONFIG).read_text("utf8"), Loader=yaml.Loader)
        method: Any = all_methods[config.method_name]
        config.pipeline.datamanager._target = method.pipeline.datamanager._target
        pipeline = config.pipeline.setup(device=device, test_mode="inference")
        state = torch.load(latest_checkpoint(folder), map_location="cpu", weights_only=False)
        pipeline.load_pipeline(state["pipeline"], state["step"])
        manager, outputs = pipeline.datamanager, pipeline.datamanager.train_dataparser_outputs
    except (Exception, SystemExit) as error:  # whatever somebody else's code stumbles over
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StageError(f"nerfstudio cannot open the run in {folder} ({reason}).") from error
    data = Path(manager.config.data or config.data or manager.config.dataparser.data)
    root = data.parent if data.is_file() else data
    names = [view_name(os.path.relpath(photo, root)) for photo in outputs.image_filenames]
    return pipeline.model.to(device).requires_grad_(False).eval(), Views(names, outputs.cameras.camera_to_worlds)
