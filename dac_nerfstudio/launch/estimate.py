"""How long a stage will take, to the nearest half or double: what `dac run --dry-run` says."""

from __future__ import annotations

from dac_nerfstudio.kplanes.model import numbers_per_ray
from dac_nerfstudio.training.trainer import DaCTrainerConfig

NUMBERS_PER_CORE = 2e7
"""Numbers of rays that a training step gets through in a second of one core: the demo on two cores of a server took
some 65 ms a step of 512 rays."""
GPU_SECONDS = 0.017
"""Of a step: on a GPU as fast as an H200 it waits for Python, whatever its size."""
TEACHING = {"cuda": 4.0, "cpu": 1.5}
"""What a step of distillation takes beside a step on photos, as the experts answer in it."""


def seconds_of(config: DaCTrainerConfig, steps: int, cores: int) -> float:
    """Estimated training time.

    Args:
        config: of the stage.
        steps: still to be done.
        cores: of the processor, where it trains on that.
    """
    cuda = config.machine.device_type == "cuda"
    rays = config.pipeline.datamanager.train_num_rays_per_batch
    step = GPU_SECONDS if cuda else rays * numbers_per_ray(config.pipeline.model) / (NUMBERS_PER_CORE * cores)
    teaching = TEACHING["cuda" if cuda else "cpu"] if (config.method_name or "").startswith("dac-distill") else 1.0
    return steps * step * teaching


def about(minutes: float) -> str:
    """A duration to read."""
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.0f} hours"
