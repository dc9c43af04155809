"""Numbers that no training can do anything with are refused before it begins, by the flag that sets them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dac_nerfstudio import methods
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.runs.layout import scene_name
from dac_nerfstudio.training.trainer import DaCTrainerConfig
from dac_nerfstudio.training.validation import validate

METHODS = [
    f"{stage}{suffix}" for stage in ("baseline", "expert", "distill", "finetune", "ensemble") for suffix in ("", "_360")
]
NAN, INF = float("nan"), float("inf")


def config_of(method: str) -> DaCTrainerConfig:
    config: DaCTrainerConfig = copy.deepcopy(getattr(methods, method).config)
    return config


@pytest.mark.parametrize("method", METHODS)
def test_registered_numbers_are_good(method: str) -> None:
    config = config_of(method)
    validate(config)
    if method == "ensemble":
        config.pipeline.inverse_temperature = INF  # type: ignore[attr-defined]
        validate(config)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("machine.seed", 2**70, f"--machine.seed is {2**70}; expected a whole number from 0 to 4294967295."),
        ("machine.seed", -1, "--machine.seed is -1; expected a whole number from 0 to 4294967295."),
        ("max_num_iterations", -5, "--max-num-iterations is -5; expected 1 or more."),
        (
            "pipeline.datamanager.train_num_rays_per_batch",
            0,
            "--pipeline.datamanager.train-num-rays-per-batch is 0; expected 1 or more.",
        ),
        ("pipeline.model.num_samples", 0, "--pipeline.model.num-samples is 0; expected 1 or more."),
        (
            "pipeline.model.num_proposal_samples",
            (16, -1),
            "--pipeline.model.num-proposal-samples is 16 -1; expected 1 or more.",
        ),
        (
            "pipeline.model.num_proposal_samples",
            (64,),
            "--pipeline.model.num-proposal-samples is 64; expected one number for each proposal level, of which "
            "--pipeline.model.proposal-resolutions has 2.",
        ),
        ("pipeline.model.grid_base_resolution", 1, "--pipeline.model.grid-base-resolution is 1; expected 2 or more."),
        (
            "pipeline.model.proposal_resolutions",
            (64, 1),
            "--pipeline.model.proposal-resolutions is 64 1; expected 2 or",
        ),
        ("pipeline.model.linear_decoder_layers", 0, "--pipeline.model.linear-decoder-layers is 0; expected 1 or more."),
        ("pipeline.model.multiscale_res", (), "--pipeline.model.multiscale-res is empty; expected one number at"),
        ("pipeline.model.regularizers.distortion", NAN, "--pipeline.model.regularizers.distortion is nan; expected a"),
        ("pipeline.model.far_plane", INF, "--pipeline.model.far-plane is inf; expected a number above 0."),
        ("pipeline.model.near_plane", 7.0, "--pipeline.model.near-plane is 7.0; expected 0 or more, and less than the"),
    ],
)
def test_a_number_that_is_none_to_train_with_is_refused(name: str, value: Any, message: str) -> None:
    config = config_of("baseline")
    *path, last = name.split(".")
    settings: Any = config
    for part in path:
        settings = getattr(settings, part)
    setattr(settings, last, value)
    with pytest.raises(StageError) as caught:
        validate(config)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["ensemble", "finetune"])
def test_experts_are_not_told_apart_the_wrong_way_round(method: str) -> None:
    config: Any = config_of(method)
    config.pipeline.inverse_temperature = -1.0
    with pytest.raises(StageError, match="--pipeline.inverse-temperature is -1.0; expected 0 or more."):
        validate(config)


@pytest.mark.parametrize("rate", [NAN, -1e-3, INF])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    config = config_of("finetune")
    config.optimizers["proposal_networks"]["optimizer"].lr = rate
    with pytest.raises(StageError, match=f"--optimizers.proposal-networks.optimizer.lr is {rate}; expected a"):
        validate(config)


def test_ns_train_calls_a_scene_as_dac_does(tmp_path: Any) -> None:
    for name in ("scan_0.5m", "scan_0.8m"):
        config = config_of("baseline")
        config.pipeline.datamanager.data = tmp_path / name
        assert config.scene_dir.name == name == scene_name(tmp_path / name)
