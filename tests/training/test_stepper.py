"""The step that can be captured is nerfstudio's step, and nothing in it is baked, waits or comes from the host."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
import torch
from tape import Launches, Legal, Tapes
from tiny_training import small_config
from torch import Tensor

from dac_nerfstudio import methods
from dac_nerfstudio.kplanes import lookup, mlp, rays, regularizers
from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.teachers.rendered_views import RenderedViews
from dac_nerfstudio.teachers.slots import Slots
from dac_nerfstudio.training.stepper import WARM_UP, Stepper, can_capture
from dac_nerfstudio.training.trainer import DaCTrainer

Make = Callable[..., DaCTrainer]
ROUNDING = 1e-8
"""Gradients below this may be nothing but rounding."""
SHAPE = {
    "grid_base_resolution": 4, "grid_feature_dim": 4, "multiscale_res": (1,), "proposal_resolutions": (8,),
    "num_proposal_samples": (8,), "num_samples": 6, "proposal_weights_anneal_max_num_iters": 40,
}  # fmt: skip


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain PyTorch alone: what numba computes no dispatch mode sees."""
    for module in (lookup, mlp, rays):
        monkeypatch.setattr(module, "choose", lambda *_: "reference")
    monkeypatch.setattr(regularizers, "smoothness_case_of", lambda _: None)


@pytest.fixture
def make(demo: Path, tmp_path: Path) -> Make:
    """Trainers of small models, set up; the same settings give the same trainer."""

    def made(
        method: Any = methods.baseline, run: str = "run", shape: Optional[dict[str, Any]] = None, **settings: Any
    ) -> DaCTrainer:
        settings = {"timestamp": run, "max_num_iterations": 60, **settings}
        config = small_config(method, demo, tmp_path / "outputs", {**SHAPE, **(shape or {})}, 32, **settings)
        for group in config.optimizers.values():
            group["scheduler"] = replace(group["scheduler"], warmup_steps=10)
        torch.manual_seed(0)
        trainer: DaCTrainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
        return trainer

    return made


def state_of(trainer: DaCTrainer) -> list[Tensor]:
    """All that a step changes."""
    state = list(trainer.pipeline.model.parameters())
    for optimizer in trainer.optimizers.optimizers.values():
        for moments in optimizer.state.values():
            state += [value for value in moments.values() if isinstance(value, Tensor)]
    return state


def farthest(one: DaCTrainer, other: DaCTrainer) -> float:
    """Largest difference of any weight."""
    pairs = zip(one.pipeline.model.parameters(), other.pipeline.model.parameters())
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel())


def slots_of(trainer: DaCTrainer) -> Optional[Slots]:
    """Those of the teachers who answer in every step."""
    teach = getattr(trainer.pipeline.model, "teach", None)
    return None if teach is None else Slots(teach.__self__, "cpu")


def test_replayed_steps_are_those_of_nerfstudios_trainer(make: Make) -> None:
    """Their learning rate and their annealing change from step to step."""
    eager, trainer = make(run="eager"), make(run="replayed")
    tapes: Any = Tapes(lambda: state_of(trainer))
    trainer.stepper = Stepper(trainer, tapes, slots_of(trainer))
    for step in range(40):
        expected, found = eager.train_iteration(step), trainer.train_iteration(step)
        assert list(expected[1]) == list(found[1]) and list(expected[2]) == list(found[2])
        both = (torch.stack([one[0], *one[1].values(), *one[2].values()]).detach() for one in (expected, found))
        torch.testing.assert_close(*both, rtol=0, atol=1e-5)
    for group, other in zip(trainer.optimizers.optimizers.values(), eager.optimizers.optimizers.values()):
        assert group.param_groups[0]["lr"] == other.param_groups[0]["lr"], "a number, as nerfstudio's"
    assert len(tapes.tapes) == 2, "with updates of the proposals, and without"
    assert tapes.replayed == 40 - 2 * WARM_UP and farthest(eager, trainer) < 1e-6


def test_replayed_steps_of_distillation_are_those_that_python_takes(make: Make) -> None:
    eager, plain, trainer = (distilled(make, run) for run in ("eager", "plain", "replayed"))
    tapes: Any = Tapes(lambda: state_of(trainer))
    plain.stepper = Stepper(plain, None, slots_of(plain))
    trainer.stepper = Stepper(trainer, tapes, slots_of(trainer))
    for step in range(30):
        expected, found = eager.train_iteration(step), trainer.train_iteration(step)
        plain.train_iteration(step)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-8)
    assert tapes.replayed == 30 - 2 * WARM_UP
    assert farthest(plain, trainer) == 0
    # nerfstudio's rate has more digits. Where a gradient is nothing but rounding, Adam goes by its sign.
    moments = {key: value for each in eager.optimizers.optimizers.values() for key, value in each.state.items()}
    difference = [
        ((one - other).abs() > 1e-4) & (moments[one]["exp_avg_sq"].sqrt() > ROUNDING)
        for one, other in zip(eager.pipeline.model.parameters(), trainer.pipeline.model.parameters())
        if one in moments
    ]
    assert torch.cat([far.flatten() for far in difference]).float().mean() < 1e-3


def held_by(trainer: DaCTrainer, stepper: Stepper) -> list[Tensor]:
    """Memory that a captured step may read from outside."""
    model, rays = trainer.pipeline.model, stepper.rays
    held = [*state_of(trainer), *model.buffers(), stepper.anneal, *stepper.rates.values(), *stepper.batch.values()]
    for teacher in stepper.slots.ensemble.models if stepper.slots else ():
        held += [*teacher.parameters(), *teacher.buffers()]
    held += [stepper.slots.table] if stepper.slots else []
    return held + [value for value in (*vars(rays).values(), *rays.metadata.values()) if isinstance(value, Tensor)]


def broken_by(trainer: DaCTrainer) -> set[str]:
    """What in a step of each kind cannot be captured."""
    stepper, found = Stepper(trainer, None, slots_of(trainer)), set()
    trainer.stepper = stepper
    for step in range(14):
        trainer.train_iteration(step)
    kinds = set()
    for step in (14, 15, 16):
        trainer.pipeline.model.begin_step(step)
        learn = stepper.load(step)
        kinds.add(learn)
        with Legal(held_by(trainer, stepper)) as legal:
            stepper.body(learn)
        found.update(legal.broken)
    assert kinds == {True, False}
    return found


def baseline(make: Make) -> DaCTrainer:
    return make()


def expert(make: Make) -> DaCTrainer:
    return make(methods.expert, group=1)


def white(make: Make) -> DaCTrainer:
    """A real scene's settings, whose background is no random one."""
    method = copy.deepcopy(methods.baseline)
    model = method.config.pipeline.model
    model.is_contracted, model.near_plane, model.background_color, model.linear_decoder = True, 0.0, "white", False
    return make(method)


def finetuned(make: Make) -> DaCTrainer:
    """A student that learns from photos and from what experts rendered."""
    trainer = make()
    manager = trainer.pipeline.datamanager
    poses, picture = manager.train_dataset.cameras.camera_to_worlds[:2], torch.full((16, 16, 4), 128, dtype=torch.uint8)
    clear = torch.ones(16, 16, dtype=torch.bool)
    manager.rendered = RenderedViews(poses, torch.tensor([0, 1]), [picture, picture], [clear, clear])
    manager.rendered_share = 0.5
    return trainer


def distilled(make: Make, run: str = "run") -> DaCTrainer:
    """A student of two groups' experts."""
    for group in (1, 2):
        expert = make(methods.expert, group=group, groups=2, run=run)
        with torch.no_grad():
            for number, weight in enumerate(expert.pipeline.model.parameters()):
                weight.mul_(1 + 0.1 * group * (number % 3))
        expert.save_checkpoint(59)
    return make(methods.distill, run=run)


@pytest.mark.parametrize("method", [distilled, baseline, expert, white, finetuned])
def test_a_step_waits_for_nothing_and_reads_nothing_of_the_host(
    make: Make, method: Callable[[Make], DaCTrainer]
) -> None:
    assert broken_by(method(make)) == set()


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, without one: a launch of a Triton kernel is an operation, and leaves its results unwritten.
    No branch of a step depends on them."""
    jit = pytest.importorskip("triton.runtime.jit")
    monkeypatch.setattr(jit.KernelInterface, "__getitem__", lambda self, grid: lambda *_, **__: torch.zeros(()))
    for module in (lookup, rays):
        monkeypatch.setattr(module, "choose", lambda *_: "triton")
    fast = partial(regularizers.squared_differences, backend="triton")
    monkeypatch.setattr(regularizers, "squared_differences", fast)


@pytest.mark.parametrize("method", [distilled, baseline, white])
def test_nor_does_a_step_of_tritons_kernels(make: Make, launched: None, method: Callable[[Make], DaCTrainer]) -> None:
    assert broken_by(method(make)) == set()


@pytest.mark.parametrize(
    ("method", "learning", "resting"),
    [(baseline, 196, 155), (expert, 196, 155), (finetuned, 196, 155), (white, 315, 278), (distilled, 410, 368)],
)
def test_a_step_starts_no_more_operations_than_it_did(
    make: Make, launched: None, method: Callable[[Make], DaCTrainer], learning: int, resting: int
) -> None:
    """With the reference's numbers of scales, levels and layers, on which alone it depends, and two experts; on steps
    on which the proposals learn, and on which they rest. Where there are fewer now, lower the number."""
    shape = {"multiscale_res": (1, 2, 4), "proposal_resolutions": (4, 8), "num_proposal_samples": (8, 6)}
    trainer = method(partial(make, shape=shape))
    stepper = trainer.stepper = Stepper(trainer, None, slots_of(trainer))
    found = {}
    for step in range(16):
        trainer.train_iteration(step)
        learn = stepper.load(step)
        with Launches() as launches:
            stepper.body(learn)
        found[learn] = launches.count
    assert found[True] <= learning and found[False] <= resting, found


class Refusing(Tapes):
    """Captures nothing: as on CUDA, the operation fails, and then the end of the capture."""

    def capture(self, body: Callable[[], Tensor]) -> Any:
        try:
            torch.zeros(2).view(3)
        finally:
            raise RuntimeError("the capture was invalidated")


def test_what_cannot_be_captured_is_trained_all_the_same(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    eager, trainer = make(run="eager"), make(run="refused")
    trainer.stepper = Stepper(trainer, Refusing(lambda: state_of(trainer)))  # type: ignore[arg-type]
    capsys.readouterr()
    for step in range(20):
        eager.train_iteration(step), trainer.train_iteration(step)
    assert farthest(eager, trainer) < 1e-6
    assert trainer.stepper.graphs is None
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("cannot be captured") == 1, "said once"
    assert "torch.zeros(2).view(3) (test_stepper.py:" in printed and "invalid for input of size 2" in printed


@pytest.mark.parametrize("captured", [False, True])
def test_a_run_resumed_in_the_middle_is_the_undisturbed_one(make: Make, captured: bool) -> None:
    def stepped(**settings: Any) -> DaCTrainer:
        trainer = make(**settings)
        graphs: Any = Tapes(lambda: state_of(trainer)) if captured else None
        trainer.stepper = Stepper(trainer, graphs)
        return trainer

    undisturbed = stepped()
    for step in range(24):
        undisturbed.train_iteration(step)
        if step == 12:
            undisturbed.save_checkpoint(step)
    resumed = stepped(load_dir=undisturbed.checkpoint_dir)
    assert resumed._start_step == 13
    for step in range(13, 24):
        resumed.train_iteration(step)
    assert farthest(undisturbed, resumed) == 0


def test_who_cannot_be_captured_is_left_to_nerfstudio(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make()
    assert not can_capture(trainer), "on the CPU"
    monkeypatch.setattr(KPlanesModel, "device", torch.device("cuda"))
    assert not trainer.mixed_precision and not trainer.config.mixed_precision, "these decoders are PyTorch's"
    assert can_capture(trainer)
    config = trainer.config
    adam = config.optimizers["fields"]["optimizer"]
    scaler = type("Scaler", (), {"is_enabled": lambda self: True})()
    for owner, name, value in (
        (config, "cuda_graphs", False),
        (config, "log_gradients", True),
        (config, "gradient_accumulation_steps", {"fields": 2}),
        (adam, "max_norm", 1.0),
        (trainer, "world_size", 2),
        (trainer, "grad_scaler", scaler),
        (trainer.pipeline.model.config, "implementation", "tcnn"),
        (trainer.optimizers.optimizers["fields"].param_groups[0], "fused", None),
    ):
        with monkeypatch.context() as patch:
            (patch.setitem if isinstance(owner, dict) else patch.setattr)(owner, name, value)  # type: ignore[operator]
            assert not can_capture(trainer), name
    assert not can_capture(trainer, [SimpleNamespace(config=SimpleNamespace(implementation="tcnn"))]), "a teacher's"
