"""A tiny scene, with tiny models that know nothing of it, but each something else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cameras import ring_of
from nerfstudio.cameras.cameras import Cameras
from tiny import BOX, TINY
from tiny_runs import save

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.files import write_json
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.kplanes.teaching import ExpertModel
from dac_nerfstudio.partition.split import split
from dac_nerfstudio.render.scene import Scene
from dac_nerfstudio.report.pictures import Comparison
from dac_nerfstudio.runs.layout import run_dir
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.settings import model_settings
from dac_nerfstudio.scene.data import read_views

SIZE = 16
"""Pixels a side of the photos."""
GAINS = (1.5, -0.5, 0.25)
"""Of the student in the test views, in dB."""
RUN = "quick-seed7"


def tiny_model(seed: int) -> KPlanesModel:
    """Nearly opaque, of a colour of its own."""
    torch.manual_seed(seed)
    config = KPlanesModelConfig(**{**TINY, "scene_radius": 1.3})
    model = ExpertModel(config, BOX, num_train_data=0)
    model.field.decoder.density_head.weight.uniform_(0.0, 60.0)  # type: ignore[union-attr, operator]
    model.field.decoder.basis[-1].weight.mul_(50.0)  # type: ignore[union-attr, index, operator]
    return model


def comparison(number: int, gain: float) -> Comparison:
    images = np.random.default_rng(number).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    return Comparison(f"test/r_{number}.png", 1, gain, *images, box=(2, 3, 8))


@pytest.fixture
def scene() -> Scene:
    """Four test views on a ring, two groups with an expert each."""
    poses = torch.from_numpy(ring_of([0, 90, 180, 270], height=0.0).camera_to_worlds).float()
    cameras = Cameras(poses, 20.0, 20.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
    return Scene(
        tiny_model(1),
        tiny_model(2),
        {1: tiny_model(3), 2: tiny_model(4)},
        cameras,
        [f"test/r_{number}.png" for number in range(4)],
        {1: 0, 2: 2},
        [comparison(0, 1.5), comparison(2, 0.25)],
        [comparison(1, -0.5)],
    )


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., Path]:
    """Writes a scene's folder of results as training and scoring leave it, but for the methods named in ``without``."""

    def write(without: tuple[str, ...] = ()) -> Path:
        from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

        from dac_nerfstudio.training.inputs import digest_of

        data, scene_dir = tmp_path / "demo", tmp_path / "outputs" / "demo"
        make_demo_scene(data, size=SIZE, train=8, val=2, test=len(GAINS))
        partition, path = split(read_views(data), scene_dir, read_views(data, "test"), groups=2)
        parser = BlenderDataParserConfig(data=data, alpha_color=None)
        digest = digest_of(parser.setup().get_dataparser_outputs(split="train"))
        places = [("dac-baseline", None), ("dac-expert", 1), ("dac-expert", 2), ("dac-finetune", None)]
        experts: dict[str, str] = {}
        for seed, (method, group) in enumerate(place for place in places if place[0] not in without):
            model, folder = tiny_model(seed), run_dir(scene_dir, method, RUN, group)
            settings: dict[str, Any] = {
                "model": json.loads(json.dumps(model_settings(model.config))),
                "resolution": 1.0,
                "data": {"_target": "Blender", "data": digest, "scale_factor": 1.0, "alpha_color": None},
            }
            stage = Stage(method, "demo", settings, 7, 10, partition.fingerprint, group, steps=10, seconds=1.0)
            if group is not None:
                experts[f"expert-{group}"] = stage.fingerprint
            elif method == "dac-finetune":
                stage.inputs = {**experts}
            save(folder, model, stage)
            (folder / "partition.json").write_bytes((scene_dir / "partition.json").read_bytes())
            (folder / "config.yml").write_text(f"data: !!python/object/apply:pathlib.PosixPath\n- {data}\n")
            views = [
                {
                    "name": f"test/r_{number}.png",
                    "group": 1 + number % 2,
                    "psnr": 20.0 + gain * (method == "dac-finetune"),
                    "ssim": 0.5,
                }
                for number, gain in enumerate(GAINS)
                if group in (None, 1 + number % 2)
            ]
            content = {"stage": stage.fingerprint, "partition": partition.fingerprint, "views": views}
            write_json(folder / "evaluation.json", content)
        return scene_dir

    return write
