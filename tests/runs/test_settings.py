"""Settings of a model survive their record."""

import json
from pathlib import Path
from typing import Any

import pytest

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.model import KPlanesModelConfig, RegularizerWeights
from dac_nerfstudio.kplanes.teaching import StudentModelConfig
from dac_nerfstudio.runs.settings import model_settings, rebuild_config


def test_model_settings_survive_json_and_rebuild_the_config() -> None:
    config = KPlanesModelConfig(
        near_plane=0.5,
        multiscale_res=(1, 3),
        linear_decoder=False,
        background_color="black",
        regularizers=RegularizerWeights(distortion=0.25, plane_tv=0.0),
    )
    settings = json.loads(json.dumps(model_settings(config)))
    rebuilt = rebuild_config(settings, Path("here"))
    assert rebuilt == config
    assert rebuilt.multiscale_res == (1, 3) and rebuilt.regularizers.distortion == 0.25
    assert model_settings(rebuilt) == settings


def test_a_students_settings_are_those_of_the_plain_model() -> None:
    assert model_settings(StudentModelConfig()) == model_settings(KPlanesModelConfig())


@pytest.mark.parametrize(
    "change", [{"grid_base_resolutoin": 3}, {"regularizers": {"plane_vt": 1.0}}, {"regularizers": None}], ids=str
)
def test_settings_of_another_model_are_rejected(change: dict[str, Any]) -> None:
    settings = {**model_settings(KPlanesModelConfig()), **change}
    with pytest.raises(StageError, match="The model settings recorded in here are not those of a K-Planes model"):
        rebuild_config(settings, Path("here"))
    with pytest.raises(StageError, match="recorded in here"):
        rebuild_config({}, Path("here"))
