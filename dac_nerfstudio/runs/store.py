"""The one store of runs: found in a scene's folder, judged by their records, opened read-only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.utils.rich_utils import CONSOLE

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import read_config
from dac_nerfstudio.kplanes.teaching import ExpertModel
from dac_nerfstudio.messages import say
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.nerfacto.model import Nerfacto, NerfactoConfig
from dac_nerfstudio.runs.divergence import not_finite
from dac_nerfstudio.runs.layout import CONFIG, RECORD, latest_checkpoint, run_dirs, run_folder
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.settings import kind_named, rebuild_config


class Run(NamedTuple):
    """A run folder and its record."""

    folder: Path
    record: Stage

    @classmethod
    def at(cls, path: Path) -> Run:
        """The run whose folder, or a file or folder in it, the user named.

        Raises:
            StageError: there is none.
        """
        folder = run_folder(path)
        return cls(folder, Stage.load(folder))

    def __str__(self) -> str:
        stage = MethodName.parse(self.record.method).stage
        kind = {"distill": "student", "finetune": "student"}.get(stage, stage)
        group = f" of group {self.record.group}" if self.record.group else ""
        return f"The {kind}{group} in {self.folder}"


# Found


def find(scene_dir: Path, method: MethodName, group: int | None = None) -> List[Run]:
    """Runs of a method in a scene's folder of results, finished or not, latest first; of experts those of a group or of
    all. Those that cannot be read are passed over with a warning."""
    folders = run_dirs(scene_dir, str(method), group)
    latest_first = sorted(folders, key=lambda folder: (folder / RECORD).stat().st_mtime, reverse=True)
    return [run for folder in latest_first if (run := _readable(folder, warn=True))]


def made_from(run: Run) -> Dict[str, Run | None]:
    """The runs that a run was made from, by their names in its record, for example ``expert-3``. They are looked for
    where its configuration has them and in the scene's folder; None for one that is gone, was trained again, or is of
    another project's method."""
    config, scene_dir = read_config(run.folder / CONFIG), scene_of(run)
    method, found = MethodName.parse(run.record.method), {}
    for name, fingerprint in run.record.inputs.items():
        if name == "partition":
            continue
        several = {"expert": "experts", "teacher": "teachers"}.get(name.partition("-")[0], name)
        named = config.get(several) or ()
        stages = ("distill", "finetune") if name == "student" else ("expert",)
        folders = [Path(path) for path in ([named] if isinstance(named, str) else named)]
        folders += [folder for stage in stages for folder in run_dirs(scene_dir, str(method.beside(stage)))]
        runs = (_readable(folder) for folder in folders)
        found[name] = next(
            (one for one in runs if one and one.record.complete and one.record.fingerprint == fingerprint), None
        )
    return found


def scene_of(run: Run) -> Path:
    """The scene's folder of results that a run lies in."""
    return run.folder.absolute().parents[1 if run.record.group is None else 2]


def _readable(folder: Path, warn: bool = False) -> Run | None:
    try:
        return Run(folder, Stage.load(folder))
    except StageError as error:
        if warn:
            say(CONSOLE, (str(error), "yellow"))
        return None


# Judged


def why_not(
    run: Run, stages: Sequence[str], of: Stage, partition: bool = False, shared: Sequence[str] = ()
) -> str | None:
    """The reason why another run cannot make use of this one, or None.

    Args:
        stages: what it may be, for example ``expert``.
        of: record of the other run: of the same views and photos.
        partition: whether the two have to be of the same partition.
        shared: settings of the model that they have to share.
    """
    record = run.record
    method, model = MethodName.parse(record.method), MethodName.parse(of.method).model
    if method.stage not in stages or method.model != model:
        expected = " or ".join(str(MethodName(stage, model=model)) for stage in stages)
        return f"{run.folder} holds a {record.method}; expected a {expected}."
    if not record.complete:
        return f"{run} stopped at step {record.steps} of {record.total_steps}."
    if partition and record.partition != of.partition:
        return f"{run} was trained for partition {record.partition}; the current one is {of.partition}."
    if not of.has_data_of(record):
        return f"{run} has seen other photos than those of this {of.method}."
    has, wanted = record.settings.get("model", {}), of.settings.get("model", {})
    for name in shared:
        if has.get(name) != wanted.get(name):
            return (
                f"{run} has {name} {has.get(name)}, this {of.method} {wanted.get(name)}. Give both the same "
                f"--pipeline.model.{name.replace('_', '-')}."
            )
    return None


# Opened


def open_model(run: Run, device: torch.device | str) -> Any:
    """The model of a run, frozen: an `ExpertModel`, on CUDA with planes in half precision, or a `Nerfacto`.

    Raises:
        StageError: the checkpoint is missing, cannot be read, is of another model, or of a training that diverged.
    """
    path = latest_checkpoint(run.folder)
    kind = kind_named(run.record.method)
    config = rebuild_config(run.record.settings.get("model", {}), run.folder, kind)
    state, prefix = read_weights(path)["pipeline"], "_model."
    weights = {
        key[len(prefix) :].removeprefix("module."): value for key, value in state.items() if key.startswith(prefix)
    }
    box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
    model: Any = (Nerfacto if kind is NerfactoConfig else ExpertModel)(config, box, num_train_data=0)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise StageError(f"{path} does not fit the model recorded in {run.folder / RECORD}: {error}") from None
    return model.teach_on(device)


def read_checkpoint(path: Path) -> Dict[str, Any]:
    """A checkpoint's content, tensors and plain numbers only.

    Raises:
        StageError: the file is damaged, or holds more than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _damaged(path, reason) from None
    if not isinstance(content, dict) or not isinstance(content.get("pipeline"), dict) or "step" not in content:
        raise _damaged(path, "it holds no pipeline")
    return content


def read_weights(path: Path) -> Dict[str, Any]:
    """The content of a checkpoint that others learn from or start from.

    Raises:
        StageError: as of `read_checkpoint`; or a weight is not finite.
    """
    content = read_checkpoint(path)
    weights = ((name, value) for name, value in content["pipeline"].items() if isinstance(value, torch.Tensor))
    weight = not_finite(weights)
    if weight is not None:
        raise _damaged(path, f"{weight} holds what is no finite number: its training diverged")
    return content


def _damaged(path: Path, reason: str) -> StageError:
    return StageError(
        f"The checkpoint {path} is damaged or not one of nerfstudio's ({reason}). Delete it and train that stage again."
    )
