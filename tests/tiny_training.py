"""Registered methods' configurations, small enough to train in a test."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "grid_base_resolution": 8,
    "grid_feature_dim": 4,
    "multiscale_res": (1, 2),
    "linear_decoder_layers": 1,
    "proposal_resolutions": (8,),
    "num_proposal_samples": (12,),
    "num_samples": 8,
}
"""Settings of a small K-Planes model."""


def small_config(
    method: Any, data: Path, outputs: Path, /, model: Mapping[str, Any] = SMALL, rays: int = 64, **settings: Any
) -> Any:
    """What is registered for a method, to be trained on the CPU; keyword arguments are fields of the configuration."""
    config = copy.deepcopy(method.config)
    config.output_dir, config.vis, config.groups, config.timestamp = outputs, "tensorboard", 2, "run"
    config.machine.device_type = "cpu"
    config.data = config.pipeline.datamanager.data = data
    config.pipeline.datamanager.train_num_rays_per_batch = rays
    for owner, values in ((config.pipeline.model, model), (config, settings)):
        for name, value in values.items():
            setattr(owner, name, value)
    return config
