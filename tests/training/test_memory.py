"""The arithmetic of memory, against what training allocates on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox

from dac_nerfstudio.kplanes.model import KPlanesModelConfig
from dac_nerfstudio.kplanes.teaching import StudentModelConfig
from dac_nerfstudio.memory import count_parameters, plan, training_need
from dac_nerfstudio.training.optimizers import FusedAdamConfig

SMALL = {
    "grid_base_resolution": 16,
    "grid_feature_dim": 16,
    "proposal_resolutions": (32,),
    "num_proposal_samples": (48,),
    "num_samples": 20,
    "implementation": "torch",
}


def build(config: KPlanesModelConfig) -> Any:
    return config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=0)


def peak(work: Callable[[], object]) -> int:
    """Most bytes that are allocated at a time beyond those at the start."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize("linear", [True, False])
def test_a_step_takes_what_was_reckoned(linear: bool, rays: Callable[..., RayBundle]) -> None:
    config = KPlanesModelConfig(**SMALL, linear_decoder=linear)  # type: ignore[arg-type]
    model = build(config).train()
    model.step = next(step for step in range(5000, 5010) if model.update_schedule.due(step))  # that takes most
    parameters = [parameter for parameter in model.parameters() if parameter.numel()]  # nerfstudio adds an empty one
    assert sum(parameter.numel() for parameter in parameters) == count_parameters(config)
    optimizer = FusedAdamConfig(lr=1e-3).setup(parameters)

    def step(count: int) -> None:
        outputs = model(rays(count))
        losses = model.get_loss_dict(outputs, {"image": torch.rand(count, 4)})
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    step(16)
    moments = [value for state in optimizer.state.values() for value in state.values() if value.numel() > 1]
    held = sum(tensor.nbytes for tensor in [*parameters, *(parameter.grad for parameter in parameters), *moments])
    assert held == pytest.approx(training_need(config, 0).weights, rel=1e-3)

    bytes_of_rays = peak(lambda: step(512)) - peak(lambda: step(256))
    assert 0.33 < bytes_of_rays / training_need(config, 256).rays <= 1.0


def test_experts_are_reckoned_in_half_precision() -> None:
    config = KPlanesModelConfig(**SMALL)  # type: ignore[arg-type]
    two = training_need(config, 64, experts=2)
    assert two.experts == sum(2 * p.numel() for _ in range(2) for p in build(config).half().parameters())
    assert two.total - training_need(config, 64).total == two.experts
    assert count_parameters(StudentModelConfig()) == count_parameters(KPlanesModelConfig()) == 33_609_568


@pytest.mark.parametrize(
    ("gigabytes", "words"),
    [(1, "--preset quick"), (3, "1 at a time (--devices 0)"), (8, "3 at a time (such as --devices 0,0)")],
)
def test_the_plan_fits_the_card(gigabytes: int, words: str) -> None:
    assert words in plan(gigabytes * 10**9)
