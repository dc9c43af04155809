"""Learning rates over a run."""

import copy
import io
from itertools import pairwise
from typing import Any

import pytest
import torch
from nerfstudio.plugins.types import MethodSpecification
from torch.optim.lr_scheduler import LambdaLR

from dac_nerfstudio.methods import distill, distill_360, finetune, finetune_360
from dac_nerfstudio.training.optimizers import FusedAdamConfig
from dac_nerfstudio.training.schedules import CosineScheduleConfig, rate_factor
from dac_nerfstudio.training.sources import carry_over


@pytest.mark.parametrize("name", ["cosine_with_warmup", "cosine_with_warmup_30001"])
def test_the_rate_is_the_references(reference: dict[str, Any], name: str) -> None:
    entry = reference[name]
    inputs = entry["inputs"]
    config = CosineScheduleConfig(max_steps=inputs["total_steps"])
    values = [rate_factor(step, config) for step in inputs["steps"]]
    # The reference stops at 0.999 of the half cosine; ours goes to its end, by which the rates differ by up to 0.0016.
    assert values == pytest.approx(entry["reference"], abs=2e-3)
    warm = [step for step in inputs["steps"] if step <= inputs["warmup_steps"]]
    assert values[: len(warm)] == pytest.approx(entry["reference"][: len(warm)], abs=1e-12)


def test_the_restart_is_the_references_from_its_step_30000_on(reference: dict[str, Any]) -> None:
    entry = reference["cosine_restart"]
    config = CosineScheduleConfig(max_steps=30000, begin=0.5)
    pairs = [(step - 30000, rate) for step, rate in zip(entry["inputs"]["steps"], entry["reference"]) if step >= 30000]
    assert len(pairs) == 5
    # Besides the 0.999, the cosine of the reference begins after 512 of its 60,000 steps, so that it is at 0.5075
    # where ours is at a half.
    assert [rate_factor(step, config) for step, _ in pairs] == pytest.approx([rate for _, rate in pairs], abs=8e-3)


@pytest.mark.parametrize(
    "stages, rate, total",
    [
        # The reference enters a cosine of 60,000 steps after its warm-up of 512, so that it is a little higher.
        ((distill, finetune), 9.39e-3, 205.0),
        ((distill_360, finetune_360), 5.07e-4, 5.53),
    ],
)
def test_fine_tuning_goes_on_with_the_students_whole_cosine_after_distillation(
    stages: tuple[MethodSpecification, MethodSpecification], rate: float, total: float
) -> None:
    before, config = (copy.deepcopy(method.config) for method in stages)
    config.teachers, config.student = ("taught by these, too",), "student"
    carry_over(config)
    for name, group in config.optimizers.items():
        full = group["optimizer"].lr
        assert before.optimizers[name]["optimizer"].lr == full
        rates = [full * rate_factor(step, group["scheduler"]) for step in range(config.max_num_iterations)]
        assert rates[0] == pytest.approx(rate, rel=0.015)
        assert sum(rates) == pytest.approx(total, rel=0.02)


def test_the_rate_climbs_from_0_to_1_and_falls_to_0_and_stays_there() -> None:
    config = CosineScheduleConfig(warmup_steps=100, max_steps=1000)
    rates = [rate_factor(step, config) for step in range(1400)]
    assert rates[0] == 0 and rates[50] == 0.5 and rates[100] == 1
    assert all(b > a for a, b in pairwise(rates[:101]))
    assert all(b < a for a, b in pairwise(rates[100:1001]))
    assert rates[550] == pytest.approx(0.5) and max(rates[1000:]) < 1e-12


def test_parts_of_a_cosine_make_the_whole() -> None:
    # Only the first warms up.
    parts = [
        CosineScheduleConfig(warmup_steps=10, max_steps=steps, begin=begin, end=end)
        for steps, begin, end in ((300, 0.2, 0.5), (500, 0.5, 1.0))
    ]
    rates = [rate_factor(step, part) for part in parts for step in range(part.max_steps)]
    whole = CosineScheduleConfig(warmup_steps=0, max_steps=1000)
    assert rates == pytest.approx([rate_factor(step, whole) for step in range(200, 1000)])


def test_a_run_shorter_than_its_warm_up_only_climbs() -> None:
    for steps in (20, 512):
        rates = [rate_factor(step, CosineScheduleConfig(max_steps=steps)) for step in (0, 10, steps)]
        assert rates == [0, 10 / 512, steps / 512]


def test_adam_moves_what_has_the_faintest_gradient() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.full((1,), 1e-10)
    FusedAdamConfig(lr=0.5).setup([parameter]).step()
    assert parameter.item() == pytest.approx(-0.5, rel=1e-3)


def scheduler(begin: float) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=0.01)
    config = CosineScheduleConfig(warmup_steps=4, max_steps=20, begin=begin)
    built = config.setup().get_scheduler(optimizer=optimizer, lr_init=0.01)
    assert isinstance(built, LambdaLR)
    return optimizer, built


@pytest.mark.parametrize("begin", [0.0, 0.5])
def test_state_reloads_as_plain_numbers_and_goes_on_where_it_was(begin: float) -> None:
    config = CosineScheduleConfig(warmup_steps=4, max_steps=20, begin=begin)
    optimizer, undisturbed = scheduler(begin)
    for _ in range(7):
        optimizer.step()
        undisturbed.step()
    file = io.BytesIO()
    torch.save({"scheduler": undisturbed.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed_optimizer, resumed = scheduler(begin)
    resumed_optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["scheduler"])
    assert resumed.last_epoch == 7
    for step in range(7, 20):
        assert resumed.get_last_lr() == undisturbed.get_last_lr() == pytest.approx([0.01 * rate_factor(step, config)])
        for one in (optimizer, resumed_optimizer):
            one.step()
        undisturbed.step()
        resumed.step()
