"""What training takes of a GPU's memory, by arithmetic: what `dac check` says and the table in docs/install.md has.

Compared with what training allocates on the CPU (tests/training/test_memory.py), where the estimate of a step is never
less and at most three times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from nerfstudio.data.scene_box import SceneBox

from dac_nerfstudio.kplanes.model import SHARE_FOR_RENDERING, KPlanesModelConfig
from dac_nerfstudio.training.datamanager import ROOM

PROCESS = 600_000_000
"""Bytes that CUDA, its libraries and PyTorch's workspaces take in each process. An assumption."""


@dataclass(frozen=True)
class Need:
    """Bytes on the device while a stage trains, photos not counted: they move to memory where there is no room."""

    weights: int
    """The model's weights in single precision, with their gradients and Adam's two moments."""
    rays: int
    """What a step makes of its rays."""
    experts: int
    """All experts at a time, in half precision, as they answer in distillation."""

    @property
    def total(self) -> int:
        """The sum, with what CUDA itself takes."""
        return self.weights + self.rays + self.experts + PROCESS


def training_need(config: KPlanesModelConfig, rays: int, experts: int = 0) -> Need:
    """What training a model takes.

    Args:
        config: the model's.
        rays: per step.
        experts: of the same size that answer in the same step.
    """
    parameters = count_parameters(config)
    return Need(4 * 4 * parameters, 4 * config.numbers_per_ray * rays, 2 * parameters * experts)


def count_parameters(config: KPlanesModelConfig) -> int:
    """Parameters of the model, which is laid out without taking any memory for it."""
    with torch.device("meta"):
        model = replace(config, implementation="torch").setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=0)
    return sum(parameter.numel() for parameter in model.parameters())


def plan(total: int) -> str:
    """What a GPU with so many bytes has room for with the reference's models, in words.

    Stages that run at a time each have a copy of the photos there; 100 of NeRF-synthetic's are reckoned with.
    """
    config, photo = KPlanesModelConfig(), 4 * 800 * 800
    stage, distillation = training_need(config, 4096), training_need(config, 4096, experts=4)
    at_a_time = total // (distillation.total + 100 * photo)
    if not at_a_time:
        return f"The reference's models want {distillation.total / 1e9:.1f} GB: take --preset quick."
    devices = "--devices 0" if at_a_time == 1 else "such as --devices 0,0"
    photos = ROOM * (total - stage.total)
    rays = int(SHARE_FOR_RENDERING * (total - stage.total)) // (4 * config.numbers_per_ray)
    return (
        f"By arithmetic, for models of the reference's size: a stage takes {stage.total / 1e9:.1f} GB, distillation "
        f"{distillation.total / 1e9:.1f} GB with all of 4 experts at a time, so there is room for {at_a_time} "
        f"at a time ({devices}); photos lie on the GPU up to {photos / 1e9:.1f} GB (some {int(photos / photo)} of "
        f"800x800 pixels), otherwise in memory; about {rays} rays are rendered at a time."
    )
