"""Validates numeric settings before training begins."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any, Iterator, Tuple

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.model import KPlanesModelConfig
from dac_nerfstudio.presets import SEEDS

LEAST = {
    "max_num_iterations": 1,
    "pipeline.datamanager.train_num_rays_per_batch": 1,
    "pipeline.inverse_temperature": 0,
    "pipeline.model.grid_base_resolution": 2,  # points along each side of a grid
    "pipeline.model.grid_feature_dim": 1,
    "pipeline.model.linear_decoder_layers": 1,
    "pipeline.model.multiscale_res": 1,
    "pipeline.model.proposal_resolutions": 2,
    "pipeline.model.proposal_feature_dim": 1,
    "pipeline.model.num_proposal_samples": 1,
    "pipeline.model.num_samples": 1,
    "pipeline.model.proposal_update_every": 1,
    "pipeline.model.proposal_warmup": 0,
    "pipeline.model.eval_num_rays_per_chunk": 1,
}
"""The least that a setting may be, or each of its numbers, of which there has to be one."""
POSITIVE = ("pipeline.model.far_plane", "pipeline.model.scene_radius", "pipeline.datamanager.camera_res_scale_factor")


def validate(config: Any) -> None:
    """Make sure that a run's numbers can be trained with.

    Raises:
        StageError: one cannot; it is named as the flag of ``ns-train`` that sets it.
    """
    seed = config.machine.seed
    if not 0 <= seed < SEEDS:
        raise _refusal("machine.seed", seed, f"a whole number from 0 to {SEEDS - 1}")
    values = dict(_numbers(config, ""))
    for group, settings in config.optimizers.items():
        for part in ("optimizer", "scheduler"):
            values.update(_numbers(settings[part], f"optimizers.{group}.{part}."))
        values[f"optimizers.{group}.optimizer.lr"] = settings["optimizer"].lr
    for name, value in values.items():
        if name in LEAST and value == ():
            raise _refusal(name, "empty", "one number at least")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and math.isnan(number):
                raise _refusal(name, value, "a number")
            least = 0 if name.endswith("warmup_steps") else LEAST.get(name, -math.inf)
            if number < least:
                raise _refusal(name, value, f"{least} or more")
            if name in POSITIVE and not 0 < number < math.inf:
                raise _refusal(name, value, "a number above 0")
            if name.endswith("optimizer.lr") and not 0 <= number < math.inf:
                raise _refusal(name, value, "a learning rate, 0 or more")
    model = config.pipeline.model
    if isinstance(model, KPlanesModelConfig) and len(model.num_proposal_samples) != len(model.proposal_resolutions):
        levels = len(model.proposal_resolutions)
        expected = f"one number for each proposal level, of which --pipeline.model.proposal-resolutions has {levels}"
        raise _refusal("pipeline.model.num_proposal_samples", model.num_proposal_samples, expected)
    near, far = model.near_plane, model.far_plane
    if not 0 <= near < far:
        raise _refusal("pipeline.model.near_plane", near, f"0 or more, and less than the far plane, {far}")


def _numbers(config: Any, prefix: str) -> Iterator[Tuple[str, Any]]:
    """The numbers of nested settings, and tuples of numbers, by dotted names."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _numbers(value, f"{prefix}{field.name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{field.name}", value
        elif isinstance(value, tuple) and all(isinstance(number, (int, float)) for number in value):
            yield f"{prefix}{field.name}", value


def _refusal(name: str, value: Any, expected: str) -> StageError:
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return StageError(f"--{name.replace('_', '-')} is {shown}; expected {expected}.")
