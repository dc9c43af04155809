"""Experts that have been trained: found by their records, verified, and loaded."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import torch
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.utils.rich_utils import CONSOLE

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import read_config
from dac_nerfstudio.kplanes.model import KPlanesModelConfig, RegularizerWeights
from dac_nerfstudio.naming import UNBOUNDED, MethodName
from dac_nerfstudio.runs.divergence import not_finite
from dac_nerfstudio.runs.layout import CONFIG, RECORD, latest_checkpoint, run_dirs, run_folder
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.teachers.models import ExpertModel

GEOMETRY = ("near_plane", "far_plane", "scene_radius", "is_contracted", "background_color")
"""Settings in which teacher and student must agree to speak of the same rays."""
SHAPE = (
    "grid_base_resolution", "grid_feature_dim", "multiscale_res", "linear_decoder", "linear_decoder_layers",
    "proposal_resolutions", "proposal_feature_dim", "is_contracted", "scene_radius", "implementation",
)  # fmt: skip
"""Settings of a model without which its weights mean something else."""


def model_settings(config: KPlanesModelConfig) -> Dict[str, Any]:
    """What a K-Planes model is rebuilt from, as JSON: the fields of ``KPlanesModelConfig`` itself."""
    suppressed = {
        "_target",
        "eval_num_rays_per_chunk",
        "enable_collider",
        "collider_params",
        "loss_coefficients",
        "prompt",
    }
    names = [f.name for f in fields(KPlanesModelConfig) if f.name not in suppressed]
    settings = {name: getattr(config, name) for name in names}
    settings["regularizers"] = vars(config.regularizers).copy()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def rebuild_config(settings: Dict[str, Any], source: Path) -> KPlanesModelConfig:
    """The inverse of ``model_settings``.

    Raises:
        StageError: the settings are not those of a K-Planes model.
    """
    try:
        values: Dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        values["regularizers"] = RegularizerWeights(**values["regularizers"])
        return KPlanesModelConfig(**values)
    except (TypeError, KeyError) as error:
        raise StageError(
            f"The model settings recorded in {source} are not those of a K-Planes model: {error}."
        ) from None


def same_shape(one: Dict[str, Any], other: Dict[str, Any]) -> bool:
    """Whether weights of a model of these settings can be those of the other."""
    return all(one.get(name) == other.get(name) for name in SHAPE)


def runs_of(scene_dir: Path, method: MethodName, group: int | None = None) -> List[Tuple[Path, Stage]]:
    """Runs of a method in a scene's output folder, finished or not, latest first. Unreadable ones are passed over."""
    found = []
    folders = run_dirs(scene_dir, str(method), group)
    for folder in sorted(folders, key=lambda folder: (folder / RECORD).stat().st_mtime, reverse=True):
        try:
            found.append((folder, Stage.load(folder)))
        except StageError as error:
            CONSOLE.print(f"[yellow]{error}")
    return found


def find_experts(
    scene_dir: Path, stage: Stage, groups: int, named: Sequence[Path], student: KPlanesModelConfig
) -> List[Tuple[Path, Stage]]:
    """Run folder and record of finished experts, in the order of the groups: of each group the latest, or all that are
    named.

    Args:
        scene_dir: where experts are looked for, as ``dac-expert*/group-<k>/<run>``, if none are named.
        stage: record of who learns from them: of the same partition and photos.
        groups: how many there must be.
        named: run folders given by the user; any order.
        student: whose rays they will have to answer.

    Raises:
        StageError: an expert is missing, unfinished, of another partition, of other photos or of another geometry.
    """
    if named:
        candidates = [(folder, Stage.load(folder)) for folder in map(run_folder, named)]
    else:
        candidates = [
            run for suffix in ("", UNBOUNDED) for group in range(1, groups + 1)
            for run in runs_of(scene_dir, MethodName("expert", suffix), group)
        ]  # fmt: skip
    experts: Dict[int, List[Tuple[Path, Stage]]] = {}
    strangers: Dict[int, str] = {}
    for folder, expert in candidates:
        problem = stranger(folder, expert, stage) or _other_rays(folder, expert, student)
        if problem is None:
            of_group = experts.setdefault(int(expert.group or 0), [])
            if named and folder in [other for other, _ in of_group]:
                raise StageError(f"{folder} is named twice.")
            if named or not of_group:
                of_group.append((folder, expert))
        elif named:
            raise StageError(problem)
        else:
            strangers.setdefault(int(expert.group or 0), problem)
    missing = [group for group in range(1, groups + 1) if group not in experts]
    if missing:
        where = "among those named" if named else f"in {scene_dir}"
        lines = [
            f"No usable expert of group {', '.join(map(str, missing))} {where}; the partition has {groups} groups."
        ]
        lines += [strangers[group] for group in missing if group in strangers]
        method = MethodName("expert", UNBOUNDED if student.is_contracted else "")
        lines.append(f"Train it: ns-train {method} --group {missing[0]} --data …")
        raise StageError("\n".join(lines))
    return [expert for group in range(1, groups + 1) for expert in experts[group]]


def stranger(folder: Path, expert: Stage, stage: Stage) -> str | None:
    """Why a run is no finished expert of the partition and the photos of another run, or None."""
    if MethodName.parse(expert.method).stage != "expert" or expert.group is None:
        return f"{folder} holds a {expert.method}, not an expert."
    name = f"The expert of group {expert.group} in {folder}"
    if not expert.complete:
        return f"{name} stopped at step {expert.steps} of {expert.total_steps}."
    if expert.partition != stage.partition:
        return f"{name} was trained for partition {expert.partition}; the current one is {stage.partition}."
    if not stage.has_data_of(expert):
        return f"{name} has seen other photos than those that the student is to learn."
    return None


def _other_rays(folder: Path, expert: Stage, student: KPlanesModelConfig) -> str | None:
    """Why an expert cannot answer the rays of a student, or None."""
    has, wanted = expert.settings.get("model", {}), model_settings(student)
    for setting in GEOMETRY:
        if has.get(setting) != wanted[setting]:
            return (
                f"The expert of group {expert.group} in {folder} has {setting} {has.get(setting)}, the student "
                f"{wanted[setting]}: they would not see the same rays."
            )
    return None


def teachers_of(run_dir: Path, stage: Stage) -> Dict[str, Tuple[Path, Stage] | None]:
    """Run folder and record of each expert that a student learned from, wherever it lies by now: where the student's
    configuration has it, or in the scene's folder. None for one that is gone or was trained again.

    Args:
        run_dir: the student's run folder.
        stage: its record.

    Returns:
        The experts by what the record calls them, such as ``expert-3``, in the order of their groups.
    """
    config, scene_dir = read_config(run_dir / CONFIG), run_dir.absolute().parents[1]
    method = MethodName.parse(stage.method)
    names = [name for name in stage.inputs if name.startswith("expert-")]
    if not names and "student" in stage.inputs:
        recorded = [Path(str(config["student"]))] if config.get("student") else []
        folders = [folder for of in ("distill", "finetune") for folder in run_dirs(scene_dir, str(method.beside(of)))]
        distilled = _run_with(stage.inputs["student"], [*recorded, *folders])
        return teachers_of(*distilled) if distilled else {}
    folders = [*map(Path, config.get("experts") or ()), *run_dirs(scene_dir, str(method.beside("expert")))]
    return {name: _run_with(stage.inputs[name], folders) for name in names}


def _run_with(fingerprint: str, folders: Sequence[Path]) -> Tuple[Path, Stage] | None:
    """The first finished run of a fingerprint. What is unreadable is passed over."""
    for folder in folders:
        try:
            stage = Stage.load(folder)
        except StageError:
            continue
        if stage.complete and stage.fingerprint == fingerprint:
            return folder, stage
    return None


def baseline_of(run_dir: Path, stage: Stage) -> Tuple[Path, Stage] | None:
    """Run folder and record of a finished baseline of the same photos beside a student: of the same name, or else the
    latest. Arguments as of `teachers_of`."""
    runs = runs_of(run_dir.absolute().parents[1], MethodName.parse(stage.method).beside("baseline"))
    usable = [
        (folder, run) for folder, run in runs
        if run.complete and run.has_data_of(stage)
    ]  # fmt: skip
    return min(usable, key=lambda found: found[0].name != run_dir.name, default=None)


def load_expert(folder: Path, stage: Stage, device: torch.device | str) -> ExpertModel:
    """The expert of a run folder, ready to teach.

    Args:
        folder: the run folder.
        stage: its record.
        device: where the expert is going to answer.

    Raises:
        StageError: the checkpoint is missing, cannot be read, is of another model, or of a training that diverged.
    """
    path = latest_checkpoint(folder)
    config = rebuild_config(stage.settings.get("model", {}), folder)
    state = read_weights(path)["pipeline"]
    prefix = "_model."
    weights = {
        key[len(prefix) :].removeprefix("module."): value for key, value in state.items() if key.startswith(prefix)
    }
    model = ExpertModel(config, SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=0)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise StageError(f"{path} does not fit the model recorded in {folder}/stage.json: {error}") from None
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
    """The content of a checkpoint that others are to learn from, or to start from.

    Raises:
        StageError: as of `read_checkpoint`; or a weight is no finite number.
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
