"""Fixtures: tiny models, run folders of tiny experts, rays, and a tiny scene."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import BOX, TINY, Rays, TinyModel, rays_towards_the_origin

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.runs.layout import run_dir
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.settings import model_settings
from dac_nerfstudio.runs.store import Run

SaveRun = Callable[..., Run]

# Tensors this small gain nothing from threads, which on a busy machine wait for each other: fifteen times as slow.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 8 training views of 16 x 16 pixels. Not to be changed."""
    return make_demo_scene(tmp_path_factory.mktemp("demo") / "scene", size=16, train=8, val=2, test=2)


@pytest.fixture
def rays() -> Rays:
    """Makes a bundle of rays between near and far; with `groups`, one per ray, in its metadata."""
    return partial(rays_towards_the_origin, near=2.0, far=6.0)


@pytest.fixture
def tiny_model() -> TinyModel:
    """Makes a model of a few hundred parameters that sees something: nearly opaque, and coloured."""

    def make(config: type[KPlanesModelConfig] = KPlanesModelConfig, seed: int = 0, **settings: Any) -> KPlanesModel:
        torch.manual_seed(seed)
        model = config(**{**TINY, **settings}).setup(scene_box=BOX, num_train_data=0)
        if hasattr(model, "field") and model.config.linear_decoder:
            with torch.no_grad():
                model.field.decoder.density_head.weight.uniform_(0.0, 60.0)
                model.field.decoder.basis[-1].weight.mul_(50.0)
        return model

    return make


@pytest.fixture
def save_run(tmp_path: Path) -> SaveRun:
    """Writes a run folder as training does: record and checkpoint. Keyword arguments are fields of the record."""

    def write(model: KPlanesModel, group: int | None = 1, run: str = "run", **changes: Any) -> Run:
        record: dict[str, Any] = {
            "method": "dac-expert",
            "scene": "scene",
            "settings": {
                "model": json.loads(json.dumps(model_settings(model.config))),
                "data": {"scale_factor": 1.0, "data": "views"},
            },
            "seed": 42,
            "total_steps": 10,
            "steps": 10,
            "partition": "0123456789abcdef",
            "group": group,
        }
        stage = Stage(**{**record, **changes})
        return save(run_dir(tmp_path / "outputs", stage.method, run, group), model, stage)

    return write


def save(folder: Path, model: KPlanesModel, stage: Stage) -> Run:
    """Writes record and checkpoint of ten steps into a new run folder."""
    state = {f"_model.{name}": value for name, value in model.state_dict().items()}
    (folder / "nerfstudio_models").mkdir(parents=True)
    torch.save({"step": 9, "pipeline": state}, folder / "nerfstudio_models" / "step-000000009.ckpt")
    stage.save(folder)
    return Run(folder, stage)
