"""Runs: found, judged and opened."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Rays, SaveRun, TinyModel

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.nerfacto.model import NerfactoConfig
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.settings import SHAPE, model_settings
from dac_nerfstudio.runs.store import Run, open_model, read_checkpoint, why_not


def test_weights_of_tiny_cuda_nn_are_of_another_shape(tiny_model: TinyModel, save_run: SaveRun) -> None:
    run = save_run(tiny_model())
    settings = {**run.record.settings, "model": {**run.record.settings["model"], "implementation": "tcnn"}}
    other = Stage("dac-expert", "scene", settings, 42, 10)
    assert why_not(run, ("expert",), run.record, shared=SHAPE) is None
    assert why_not(run, ("expert",), other, shared=SHAPE) == (
        f"The expert of group 1 in {run.folder} has implementation torch, this dac-expert tcnn. Give both the same "
        "--pipeline.model.implementation."
    )


@pytest.mark.parametrize(("name", "value"), [("log2_hashmap_size", 14), ("hidden_dim", 32), ("max_res", 512)])
def test_a_nerfacto_of_another_size_cannot_be_started_from(name: str, value: int) -> None:
    def record(**settings: Any) -> Stage:
        model = model_settings(NerfactoConfig(**settings))
        return Stage("dac-finetune-nerfacto", "scene", {"model": model, "data": {}}, 42, 10, steps=10)

    run, stages = Run(Path("run"), record()), ("distill", "finetune")
    assert why_not(run, stages, record(hash_decay=0.0), shared=SHAPE) is None
    told = why_not(run, stages, record(**{name: value}), shared=SHAPE)
    assert told is not None and f", this dac-finetune-nerfacto {value}. Give both the same " in told
    assert told.endswith(f"--pipeline.model.{name.replace('_', '-')}.")


def test_an_expert_reloads_equal_frozen_and_in_evaluation(tiny_model: TinyModel, save_run: SaveRun, rays: Rays) -> None:
    model = tiny_model(seed=3).eval()
    folder, stage = save_run(model)
    loaded = open_model(Run.at(folder), "cpu")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(rays(5))["rgb"], model(rays(5))["rgb"])


def test_the_furthest_checkpoint_is_loaded_also_one_of_a_multi_gpu_run(
    tiny_model: TinyModel, save_run: SaveRun
) -> None:
    folder, stage = save_run(tiny_model(seed=1))
    later = tiny_model(seed=2)
    state = {f"_model.module.{name}": value for name, value in later.state_dict().items()}
    content = {"step": 99, "pipeline": {**state, "datamanager.other": torch.zeros(1)}}
    torch.save(content, folder / "nerfstudio_models" / "step-000000099.ckpt")
    loaded = open_model(Run(folder, stage), "cpu").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in later.state_dict().items())


def test_a_checkpoint_of_another_model_is_named(tiny_model: TinyModel, save_run: SaveRun) -> None:
    folder, stage = save_run(tiny_model())
    stage.settings["model"]["grid_base_resolution"] = 5
    with pytest.raises(StageError, match=f"{folder}/nerf.*ckpt does not fit the model recorded in {folder}/stage.json"):
        open_model(Run(folder, stage), "cpu")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_named(tiny_model: TinyModel, save_run: SaveRun, share: float) -> None:
    folder, stage = save_run(tiny_model())
    path = folder / "nerfstudio_models" / "step-000000009.ckpt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(StageError) as error:
        open_model(Run(folder, stage), "cpu")
    assert str(error.value).startswith(f"The checkpoint {path} is damaged or not one of nerfstudio's (")
    assert str(error.value).endswith("Delete it and train that stage again.")


class Trap:
    """What would run code when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_that_is_more_than_tensors_is_refused_unopened(tmp_path: Path) -> None:
    path, marker = tmp_path / "step-000000001.ckpt", tmp_path / "was-here"
    torch.save({"step": 1, "pipeline": {"_model.x": Trap(marker)}}, path)
    with pytest.raises(StageError, match=f"The checkpoint {path} is damaged"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        *({"step": 1}, {"pipeline": {}}, [1, 2], 7, "text"),  # which torch reads
        *(b"not a checkpoint\n", b"\x80\x02}q\x00.", b"\x00" * 64, b"PK\x03\x04", None),  # and which it does not
    ],
    ids=repr,
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "step-000000001.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(StageError, match=f"The checkpoint {path} is damaged or not one of nerfstudio's"):
        read_checkpoint(path)
