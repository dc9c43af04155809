"""The numbers that a ray takes, against what training allocates on the CPU."""

from collections.abc import Callable

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox

from dac_nerfstudio.kplanes.model import KPlanesModelConfig
from dac_nerfstudio.training.optimizers import FusedAdamConfig


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
    config = KPlanesModelConfig(
        grid_base_resolution=16, grid_feature_dim=16, proposal_resolutions=(32,), num_proposal_samples=(48,),
        num_samples=20, implementation="torch", linear_decoder=linear,
    )  # fmt: skip
    model = config.setup(scene_box=SceneBox(torch.zeros(2, 3)), num_train_data=0).train()
    model.step = next(step for step in range(5000, 5010) if model.update_schedule.due(step))  # that takes most
    optimizer = FusedAdamConfig(lr=1e-3).setup([parameter for parameter in model.parameters() if parameter.numel()])

    def step(count: int) -> None:
        outputs = model(rays(count))
        losses = model.get_loss_dict(outputs, {"image": torch.rand(count, 4)})
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    step(16)
    bytes_of_rays = peak(lambda: step(512)) - peak(lambda: step(256))
    assert 0.33 < bytes_of_rays / (4 * config.numbers_per_ray * 256) <= 1.0
