"""Divide and Conquer as a method of NerfBaselines (1.2.12), whose own nerfstudio method is made for nerfstudio 0.3.4.

All stages, one after another, are one training to it: experts, distillation, fine-tuning. Photos stay in memory, where
NerfBaselines has read them.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Optional

import numpy as np
import torch
import yaml
from nerfbaselines import Method
from nerfstudio.cameras import camera_utils
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.scene_box import SceneBox

from dac_nerfstudio import methods
from dac_nerfstudio.naming import UNBOUNDED
from dac_nerfstudio.runs.layout import RECORD, latest_checkpoint
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.settings import rebuild_config
from dac_nerfstudio.runs.store import read_weights
from dac_nerfstudio.training.datamanager import DaCDataManager
from dac_nerfstudio.training.trainer import DaCTrainer, DaCTrainerConfig

GROUPS = 4
STAGES = ("baseline", "expert", "distill", "finetune")
FRAME = "frame.json"
"""Beside the checkpoint: what poses become before the model sees them."""


@dataclass(frozen=True)
class Frame:
    """How the data's poses become the model's: turned and shifted, then scaled."""

    transform: tuple[tuple[float, ...], ...]
    """[3, 4]"""
    scale: float

    @classmethod
    def of(cls, poses: np.ndarray, unbounded: bool) -> Frame:
        """As nerfstudio's data parsers choose it: a synthetic scene stays, a real one is put upright in a box from -1
        to 1."""
        if not unbounded:
            return cls(tuple(map(tuple, np.eye(4)[:3].tolist())), 1.0)
        last = np.broadcast_to(np.eye(4)[3:], (len(poses), 1, 4))
        whole = torch.from_numpy(np.concatenate((poses, last), axis=1)).float()
        turned, transform = camera_utils.auto_orient_and_center_poses(whole, "up", "poses")
        return cls(tuple(map(tuple, transform.tolist())), 1.0 / float(turned[:, :3, 3].abs().max()))

    def cameras(self, cameras: Any) -> Cameras:
        """NerfBaselines' cameras as nerfstudio's.

        Raises:
            NotImplementedError: one is no pinhole camera; NerfBaselines undistorts photos for methods that say so.
        """
        if cameras.distortion_parameters.any():
            raise NotImplementedError("Cameras have to be pinholes.")
        poses = torch.from_numpy(opengl(cameras.poses)).float()
        transform = torch.tensor(self.transform)
        poses = torch.cat(
            (transform[:, :3] @ poses[:, :, :3], transform[:, :3] @ poses[:, :, 3:] + transform[:, 3:]), -1
        )
        poses[:, :, 3] *= self.scale
        fx, fy, cx, cy = torch.from_numpy(cameras.intrinsics).float().T[:, :, None]
        width, height = torch.from_numpy(cameras.image_sizes).long().T[:, :, None]
        return Cameras(poses, fx, fy, cx, cy, width, height, camera_type=CameraType.PERSPECTIVE)


def opengl(poses: np.ndarray) -> np.ndarray:
    """Poses of cameras that look along +z (OpenCV) as of ones that look along -z."""
    return poses[:, :3, :4] * np.array([1, -1, -1, 1], dtype=poses.dtype)


class DivideAndConquer(Method):
    """A student and the experts that teach it."""

    stages = (*["expert"] * GROUPS, "distill", "finetune")

    def __init__(
        self,
        *,
        checkpoint: Optional[str] = None,
        train_dataset: Optional[Any] = None,
        config_overrides: Optional[dict[str, Any]] = None,
    ) -> None:
        self.checkpoint, self.loaded_step = checkpoint, None
        self.trainer: Optional[DaCTrainer] = None
        if checkpoint is not None:
            self.open(Path(checkpoint))
            return
        assert train_dataset is not None, "There is neither a checkpoint nor a data set to train on."
        settings = {name: typed(value) for name, value in (config_overrides or {}).items()}
        unbounded = settings.pop("unbounded", False)
        self.place = TemporaryDirectory()
        self.frame = Frame.of(opengl(train_dataset["cameras"].poses), unbounded)
        self.configs = [configured(stage, unbounded, settings, Path(self.place.name)) for stage in self.stages]
        for number, (stage, config) in enumerate(zip(self.stages, self.configs), start=1):
            in_memory(config, train_dataset, self.frame)
            if stage == "expert":
                config.group = number
        self.steps = sum(config.max_num_iterations for config in self.configs)
        self.done = 0

    def open(self, folder: Path) -> None:
        """Take the model of a finished training from where `save` has put it."""
        content = json.loads((folder / FRAME).read_text("utf8"))
        self.frame = Frame(tuple(map(tuple, content["transform"])), content["scale"])
        self.steps = self.loaded_step = content["steps"]
        settings = Stage.load(folder).settings["model"]
        box = SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]))
        self.model = rebuild_config(settings, folder).setup(scene_box=box, num_train_data=0)
        weights = read_weights(latest_checkpoint(folder))["pipeline"].items()
        prefix = "_model."
        self.model.load_state_dict(
            {key.removeprefix(prefix): value for key, value in weights if key.startswith(prefix)}
        )
        self.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @classmethod
    def get_method_info(cls) -> Any:
        return {
            "method_id": "",  # the registry fills it in
            "required_features": frozenset(("color",)),
            "supported_camera_models": frozenset(("pinhole",)),
            "supported_outputs": ("color", "depth", "accumulation"),
            "can_resume_training": False,
        }

    def get_info(self) -> Any:
        return {
            **self.get_method_info(),
            "num_iterations": self.steps,
            "loaded_step": self.loaded_step,
            "loaded_checkpoint": self.checkpoint,
        }

    def train_iteration(self, step: int) -> dict[str, float]:
        """A step of the stage whose turn it is; the one before it is saved first, as others learn from it."""
        if self.trainer is None or self.done == self.trainer.config.max_num_iterations:
            if self.trainer is not None:
                self.trainer.save_checkpoint(self.done - 1)
            self.trainer = self.configs.pop(0).setup(local_rank=0, world_size=1)
            self.trainer.setup()
            self.model, self.done = self.trainer.pipeline.model, 0
        self.trainer.pipeline.train()
        loss, losses, _ = self.trainer.train_iteration(self.done)
        self.done += 1
        return {"loss": float(loss), **{name: float(value) for name, value in losses.items()}}

    @torch.no_grad()
    def render(self, camera: Any, *, options: Optional[Any] = None) -> dict[str, np.ndarray]:
        """A picture, on white."""
        self.model.eval()
        outputs = self.model.get_outputs_for_camera(self.frame.cameras(camera[None]).to(self.model.device))
        named = {
            "color": outputs["rgb"],
            "depth": outputs["depth"][..., 0],
            "accumulation": outputs["accumulation"][..., 0],
        }
        return {name: value.float().cpu().numpy() for name, value in named.items()}

    def save(self, path: str) -> None:
        """Save the model of the stage whose turn it is, or the one that was opened."""
        folder = Path(path)
        if self.trainer is None:
            assert self.checkpoint is not None, "Nothing has been trained yet."
            shutil.copytree(self.checkpoint, folder, dirs_exist_ok=True)
            return
        self.trainer.save_checkpoint(self.done - 1)
        checkpoint = latest_checkpoint(self.trainer.base_dir)
        (folder / checkpoint.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(self.trainer.base_dir / RECORD, folder / RECORD)
        shutil.copy(checkpoint, folder / checkpoint.parent.name / checkpoint.name)
        content = {"transform": self.frame.transform, "scale": self.frame.scale, "steps": self.steps}
        (folder / FRAME).write_text(json.dumps(content), "utf8")


class Baseline(DivideAndConquer):
    """K-Planes on all photos."""

    stages = ("baseline",)


def typed(value: Any) -> Any:
    """A setting from the command line, where everything is text."""
    return yaml.safe_load(value) if isinstance(value, str) else value


def configured(stage: str, unbounded: bool, overrides: dict[str, Any], folder: Path) -> DaCTrainerConfig:
    """The registered configuration of a stage, with the settings of all stages and then its own (``expert.…``).

    Raises:
        AttributeError, KeyError: there is no such setting.
    """
    config = copy.deepcopy(getattr(methods, stage + (UNBOUNDED.replace("-", "_") if unbounded else "")).config)
    config.output_dir, config.experiment_name, config.timestamp = folder, "scene", "run"
    config.vis, config.groups = "tensorboard", GROUPS
    own = {name.partition(".")[2]: value for name, value in overrides.items() if name.startswith(f"{stage}.")}
    for_all = {name: value for name, value in overrides.items() if name.partition(".")[0] not in STAGES}
    for name, value in {**for_all, **own}.items():
        *path, last = name.split(".")
        at: Any = config
        for part in path:
            at = at[part] if isinstance(at, dict) else getattr(at, part)
        getattr(at, last)
        setattr(at, last, tuple(value) if isinstance(value, list) else value)
    return config


def in_memory(config: DaCTrainerConfig, dataset: Any, frame: Frame) -> None:
    """Let a stage train on NerfBaselines' photos."""
    names = [Path("memory", f"{number:06d}.png") for number in range(len(dataset["cameras"]))]
    photos = dict(zip((path.name for path in names), dataset["images"]))

    class Parser(DataParser):
        def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
            return DataparserOutputs(
                names, frame.cameras(dataset["cameras"]), scene_box=SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))
            )

    class Photos(InputDataset):
        def get_numpy_image(self, image_idx: int) -> np.ndarray:
            return photos[self.image_filenames[image_idx].name]

    class Manager(DaCDataManager):
        dataset_type = Photos

    manager = config.pipeline.datamanager
    manager._target = Manager
    manager.data = Path("nowhere")
    manager.dataparser = DataParserConfig(_target=Parser, data=Path("nowhere"))
