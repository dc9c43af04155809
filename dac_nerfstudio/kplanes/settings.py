"""Settings of a K-Planes model as JSON and back, and which of them two models have to share."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Dict

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.model import KPlanesModelConfig, RegularizerWeights

GEOMETRY = ("near_plane", "far_plane", "scene_radius", "is_contracted", "background_color")
"""Settings that teacher and student share: those of the rays."""
SHAPE = (
    "grid_base_resolution", "grid_feature_dim", "multiscale_res", "linear_decoder", "linear_decoder_layers",
    "proposal_resolutions", "proposal_feature_dim", "is_contracted", "scene_radius", "implementation",
)  # fmt: skip
"""Settings that a model shares with the one that it starts from: those of the weights."""
_FIXED = ("_target", "eval_num_rays_per_chunk", "enable_collider", "collider_params", "loss_coefficients", "prompt")


def model_settings(config: KPlanesModelConfig) -> Dict[str, Any]:
    """What a K-Planes model is rebuilt from, as JSON: the fields of ``KPlanesModelConfig`` itself."""
    settings = {f.name: getattr(config, f.name) for f in fields(KPlanesModelConfig) if f.name not in _FIXED}
    settings["regularizers"] = vars(config.regularizers).copy()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def rebuild_config(settings: Dict[str, Any], source: Path) -> KPlanesModelConfig:
    """The inverse of ``model_settings``.

    Raises:
        StageError: the settings are not those of a K-Planes model.
    """
    try:
        values: Dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        values["regularizers"] = RegularizerWeights(**values["regularizers"])
        return KPlanesModelConfig(**values)
    except (TypeError, KeyError) as error:
        raise StageError(
            f"The model settings recorded in {source} are not those of a K-Planes model: {error}."
        ) from None
