"""Numbers that no training can do anything with are refused before it begins, by the flag that sets them."""

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


SEEDS = "a whole number from 0 to 4294967295."


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("machine.seed", 2**70, SEEDS),
        ("machine.seed", -1, SEEDS),
        ("max_num_iterations", -5, "1 or more."),
        ("pipeline.datamanager.train_num_rays_per_batch", 0, "1 or more."),
        ("pipeline.inverse_temperature", -1.0, "0 or more."),
        ("pipeline.model.num_samples", 0, "1 or more."),
        ("pipeline.model.num_proposal_samples", (16, -1), "1 or more."),
        (
            "pipeline.model.num_proposal_samples",
            (64,),
            "one number for each proposal level, of which --pipeline.model.proposal-resolutions has 2.",
        ),
        ("pipeline.model.grid_base_resolution", 1, "2 or more."),
        ("pipeline.model.proposal_resolutions", (64, 1), "2 or"),
        ("pipeline.model.linear_decoder_layers", 0, "1 or more."),
        ("pipeline.model.multiscale_res", (), "one number at"),
        ("pipeline.model.regularizers.distortion", NAN, "a"),
        ("pipeline.model.far_plane", INF, "a number above 0."),
        ("pipeline.model.near_plane", 7.0, "0 or more, and less than the"),
        *(("optimizers.proposal_networks.optimizer.lr", rate, "a") for rate in (NAN, -1e-3, INF)),
    ],
)
def test_a_number_that_is_none_to_train_with_is_refused(name: str, value: Any, expected: str) -> None:
    config = config_of("finetune")
    *path, last = name.split(".")
    settings: Any = config
    for part in path:
        settings = settings[part] if isinstance(settings, dict) else getattr(settings, part)
    setattr(settings, last, value)
    with pytest.raises(StageError) as caught:
        validate(config)
    found = " ".join(map(str, value)) or "empty" if isinstance(value, tuple) else value
    told = str(caught.value)
    assert told.startswith(f"--{name.replace('_', '-')} is {found}; expected {expected}") and "\n" not in told


def test_ns_train_calls_a_scene_as_dac_does(tmp_path: Any) -> None:
    for name in ("scan_0.5m", "scan_0.8m"):
        config = config_of("baseline")
        config.pipeline.datamanager.data = tmp_path / name
        assert config.scene_dir.name == name == scene_name(tmp_path / name)
