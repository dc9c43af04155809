"""What a run is made from is told from what it is not made from."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from tiny_runs import SaveRun, TinyModel

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.settings import model_settings
from dac_nerfstudio.training import sources
from dac_nerfstudio.training.ensemble import EnsembleModelConfig
from dac_nerfstudio.training.inputs import digest_of


def views(**lens: Any) -> Any:
    """Two views of no files, through a lens."""
    poses = torch.eye(4)[:3].repeat(2, 1, 1)
    cameras = Cameras(poses, 30.0, 31.0, 8.0, 9.0, 16, 18, **lens)
    return SimpleNamespace(cameras=cameras, image_filenames=[Path("a.png"), Path("b.png")])


def test_digests_tell_lenses_apart() -> None:
    bent = torch.zeros(2, 6)
    bent[1, 0] = 0.1
    lenses: list[dict[str, Any]] = [
        {}, {"distortion_params": bent}, {"distortion_params": 2 * bent}, {"camera_type": CameraType.FISHEYE}
    ]  # fmt: skip
    assert len({digest_of(views(**lens)) for lens in lenses}) == 4


def test_digests_of_pinholes_are_those_of_records_that_know_no_lens() -> None:
    cameras = views().cameras
    content = [cameras.camera_to_worlds, *(torch.full((2, 1), number) for number in (30.0, 31.0, 8.0, 9.0))]
    known = b"".join(tensor.numpy().tobytes() for tensor in content) + b"a.png 0\nb.png 0\n"
    assert digest_of(views()) == digest_of(views(distortion_params=torch.zeros(2, 6)))
    assert digest_of(views()) == hashlib.sha256(known).hexdigest()[:16]


@pytest.fixture
def partition() -> Any:
    """A partition of one group, current in the fixtures' runs."""
    return SimpleNamespace(fingerprint="0123456789abcdef", num_groups=1)


def record_of(method: str, model: KPlanesModel) -> Stage:
    """A record of the views that runs of the fixture have seen."""
    data = {"scale_factor": 1.0, "data": "views"}
    settings = {"data": data, "model": json.loads(json.dumps(model_settings(model.config)))}
    return Stage(method, "scene", settings, 42, 10, "0123456789abcdef", photos="these")


@pytest.mark.parametrize("changes", [{"photos": "others"}, {"settings": {"data": {"data": "others"}}}], ids=str)
def test_a_student_of_other_photos_is_not_fine_tuned(
    tiny_model: TinyModel, save_run: SaveRun, partition: Any, changes: dict[str, Any]
) -> None:
    folder, _ = save_run(tiny_model(), None, method="dac-distill", **changes)
    message = f"^The student in {folder} has seen other photos than those of this dac-finetune.$"
    with pytest.raises(StageError, match=message):
        found = SimpleNamespace(student=folder, teachers=())
        sources._finetune(found, record_of("dac-finetune", tiny_model()), partition)


def test_an_ensemble_sees_the_rays_of_an_expert_that_it_can_take(
    tiny_model: TinyModel, save_run: SaveRun, partition: Any, tmp_path: Path
) -> None:
    good, _ = save_run(tiny_model(near_plane=0.5), run="good")
    for number, changes in enumerate(({"steps": 4}, {"partition": "another"}, {"photos": "others"})):
        save_run(tiny_model(near_plane=1.5), run=f"later-{number}", **changes)
    pipeline = SimpleNamespace(model=EnsembleModelConfig(), inverse_temperature=None)
    config: Any = SimpleNamespace(scene_dir=tmp_path / "outputs", experts=(), pipeline=pipeline)
    record = record_of("dac-ensemble", tiny_model())
    sources._ensemble(config, record, partition)
    assert (config.experts, pipeline.model.near_plane, pipeline.model.groups) == ((good,), 0.5, (1,))
    assert record.settings["experts"][0]["model"]["near_plane"] == 0.5
