"""Settings of a model as JSON and back, and which of them two K-Planes models have to share."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, Type

from nerfstudio.models.base_model import ModelConfig

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.model import KPlanesModelConfig, RegularizerWeights
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.nerfacto.model import NerfactoConfig

GEOMETRY = ("near_plane", "far_plane", "scene_radius", "is_contracted", "background_color")
"""Settings that teacher and student share: those of the rays."""
SHAPE = (
    "grid_base_resolution", "grid_feature_dim", "multiscale_res", "linear_decoder", "linear_decoder_layers",
    "proposal_resolutions", "proposal_feature_dim", "is_contracted", "scene_radius", "implementation",
    # and nerfacto's
    "hidden_dim", "hidden_dim_color", "num_levels", "base_res", "max_res", "log2_hashmap_size", "features_per_level",
    "num_proposal_iterations", "use_same_proposal_network", "proposal_net_args_list", "disable_scene_contraction",
)  # fmt: skip
"""Settings that a model shares with the one that it starts from: those of the weights."""
_FIXED = (
    "_target", "eval_num_rays_per_chunk", "enable_collider", "collider_params", "loss_coefficients", "prompt",
    "camera_optimizer",
)  # fmt: skip


def kind_of(config: ModelConfig) -> Type[ModelConfig]:
    """The class whose fields a model is rebuilt from: students and ensembles have more."""
    return NerfactoConfig if isinstance(config, NerfactoConfig) else KPlanesModelConfig


def kind_named(method: str) -> Type[ModelConfig]:
    """The same of a registered method's model."""
    return NerfactoConfig if MethodName.parse(method).model else KPlanesModelConfig


def model_settings(config: ModelConfig) -> Dict[str, Any]:
    """What a model is rebuilt from, as JSON: the fields of its `kind_of`."""
    settings = {f.name: getattr(config, f.name) for f in fields(kind_of(config)) if f.name not in _FIXED}
    if isinstance(config, KPlanesModelConfig):
        settings["regularizers"] = vars(config.regularizers).copy()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def rebuild_config(settings: Dict[str, Any], source: Path, kind: Type[ModelConfig] = KPlanesModelConfig) -> Any:
    """The inverse of ``model_settings``.

    Raises:
        StageError: the settings are not those of such a model.
    """
    try:
        values: Dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        if kind is KPlanesModelConfig:
            values["regularizers"] = RegularizerWeights(**values["regularizers"])
        return kind(**values)
    except (TypeError, KeyError) as error:
        model = "K-Planes" if kind is KPlanesModelConfig else "nerfacto"
        text = f"The model settings recorded in {source} are not those of a {model} model: {error}."
        raise StageError(text) from None
