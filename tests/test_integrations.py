"""What lies ready for other projects names what is there."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dac_nerfstudio import methods
from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.runs.layout import latest_checkpoint

INTEGRATIONS = Path(__file__).parent.parent / "integrations"
FOLDER = INTEGRATIONS / "nerfstudio"
REGISTERED = {
    value.config.method_name for value in vars(methods).values() if type(value).__name__ == "MethodSpecification"
}


def test_nerfstudios_entry_and_page_name_the_registered_methods() -> None:
    from nerfstudio.configs.external_methods import external_methods

    before = list(external_methods)
    try:
        runpy.run_path(str(FOLDER / "external_method.py"))
        (entry,) = external_methods[len(before) :]
    finally:
        external_methods[:] = before
    assert {name for name, _ in entry.configurations} == REGISTERED and len(REGISTERED) == 16
    page = (FOLDER / "dac.md").read_text("utf8")
    named = set(re.findall(r"`(dac-[a-z-]+)`", page))
    assert named == {name.removesuffix("-360") for name in REGISTERED}


class Cameras(SimpleNamespace):
    """As NerfBaselines has them."""

    def __len__(self) -> int:
        return len(self.poses)

    def __getitem__(self, index: Any) -> Cameras:
        return Cameras(**{name: value[index] for name, value in vars(self).items()})


@pytest.fixture
def nerfbaselines(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Our module for it, with as much of the package, which is none of our dependencies, as the module asks for."""
    registered: list[Any] = []
    package = ModuleType("nerfbaselines")
    vars(package).update(Method=object, register=registered.append)
    monkeypatch.setitem(sys.modules, "nerfbaselines", package)
    monkeypatch.syspath_prepend(str(INTEGRATIONS / "nerfbaselines"))
    monkeypatch.delitem(sys.modules, "dac_nerfbaselines", raising=False)
    runpy.run_path(str(INTEGRATIONS / "nerfbaselines" / "dac_spec.py"))
    return SimpleNamespace(module=importlib.import_module("dac_nerfbaselines"), registered=registered)


@pytest.fixture
def dataset(tmp_path: Path) -> dict[str, Any]:
    """The demo scene as NerfBaselines reads Blender's: cameras that look along +z, photos in memory."""
    scene = make_demo_scene(tmp_path / "demo", size=12, train=8, val=1, test=1)
    meta = json.loads((scene / "transforms_train.json").read_text())
    poses = np.array([frame["transform_matrix"] for frame in meta["frames"]], np.float32)[:, :3]
    poses[:, :, 1:3] *= -1
    focal = 6 / np.tan(meta["camera_angle_x"] / 2)
    cameras = Cameras(
        poses=poses,
        intrinsics=np.tile(np.array([focal, focal, 6, 6], np.float32), (8, 1)),
        image_sizes=np.full((8, 2), 12, np.int32),
        distortion_parameters=np.zeros((8, 0), np.float32),
    )
    photos = [np.asarray(Image.open(scene / f"{frame['file_path']}.png")) for frame in meta["frames"]]
    return {"cameras": cameras, "images": photos, "data": scene}


SMALL = {
    "max_num_iterations": "2",
    "expert.max_num_iterations": "3",
    "pipeline.model.grid_base_resolution": "8",
    "pipeline.model.grid_feature_dim": "4",
    "pipeline.model.linear_decoder_layers": "1",
    "pipeline.model.proposal_resolutions": "[8]",
    "pipeline.model.num_proposal_samples": "[8]",
    "pipeline.model.num_samples": "6",
    "pipeline.datamanager.train_num_rays_per_batch": "32",
}


def test_nerfbaselines_trains_all_stages_as_one_and_finds_the_student_again(
    nerfbaselines: SimpleNamespace, dataset: dict[str, Any], tmp_path: Path
) -> None:
    method = nerfbaselines.module.DivideAndConquer(train_dataset=dataset, config_overrides=SMALL)
    steps = method.get_info()["num_iterations"]
    assert steps == 4 * 3 + 2 + 2
    trained = []
    for step in range(steps):
        losses = method.train_iteration(step)
        trained.append(method.trainer.config.method_name)
        assert np.isfinite(losses["loss"])
    assert trained == ["dac-expert"] * 12 + ["dac-distill"] * 2 + ["dac-finetune"] * 2
    camera = dataset["cameras"][0]
    picture = method.render(camera)
    assert picture["color"].shape == (12, 12, 3) and picture["depth"].shape == (12, 12)
    method.save(str(tmp_path / "checkpoint"))
    again = nerfbaselines.module.DivideAndConquer(checkpoint=str(tmp_path / "checkpoint"))
    assert again.get_info()["loaded_step"] == steps
    for name, values in again.render(camera).items():
        np.testing.assert_allclose(values, picture[name], atol=1e-5)
    again.save(str(tmp_path / "copy"))  # as NerfBaselines does to know a checkpoint by its digest
    assert latest_checkpoint(tmp_path / "copy").read_bytes() == latest_checkpoint(tmp_path / "checkpoint").read_bytes()


def test_nerfbaselines_cameras_are_those_of_nerfstudios_own_parser(
    nerfbaselines: SimpleNamespace, dataset: dict[str, Any]
) -> None:
    from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

    theirs = BlenderDataParserConfig(data=dataset["data"]).setup().get_dataparser_outputs("train").cameras
    frame = nerfbaselines.module.Frame.of(nerfbaselines.module.opengl(dataset["cameras"].poses), unbounded=False)
    ours = frame.cameras(dataset["cameras"])
    torch.testing.assert_close(
        ours.generate_rays(3, keep_shape=True).directions, theirs.generate_rays(3, keep_shape=True).directions.float()
    )
    torch.testing.assert_close(ours.camera_to_worlds, theirs.camera_to_worlds)
    # A real scene's fill a box from -1 to 1.
    frame = nerfbaselines.module.Frame.of(nerfbaselines.module.opengl(dataset["cameras"].poses), unbounded=True)
    assert frame.cameras(dataset["cameras"]).camera_to_worlds[:, :, 3].abs().max() == pytest.approx(1, abs=1e-5)


def test_nerfbaselines_gets_to_know_classes_that_are_there(nerfbaselines: SimpleNamespace) -> None:
    assert [spec["id"] for spec in nerfbaselines.registered] == ["dac", "dac-baseline"]
    for spec in nerfbaselines.registered:
        name = spec["method_class"].removeprefix("dac_nerfbaselines:")
        assert issubclass(getattr(nerfbaselines.module, name), nerfbaselines.module.DivideAndConquer)
