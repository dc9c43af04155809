"""A training that comes to numbers that are none stops, says where, and leaves what was good."""

import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import SaveRun, TinyModel
from tiny_training import small_config

from dac_nerfstudio import files, methods
from dac_nerfstudio.errors import DivergenceError, StageError
from dac_nerfstudio.runs.divergence import INTERVAL, Divergence, LossWatch, not_finite
from dac_nerfstudio.runs.layout import checkpoints
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.store import open_model
from dac_nerfstudio.training.trainer import DaCTrainer

NAN, INF = float("nan"), float("inf")


def terms(rgb: float, distortion: float = 0.5) -> dict[str, torch.Tensor]:
    return {"rgb_loss": torch.tensor(rgb), "distortion_loss": torch.tensor(distortion)}


def test_the_first_of_several_bad_losses_is_the_one_that_is_named() -> None:
    watch = LossWatch()
    for step, losses in ((7, terms(1.0)), (8, terms(2.0, INF)), (9, terms(NAN, NAN))):
        assert watch.note(step, losses) is None
    assert watch.look() == Divergence(8, "distortion_loss", INF)
    assert watch.look() is None, "what was looked at is not looked at again"


def test_losses_are_looked_at_now_and_then_by_themselves() -> None:
    watch = LossWatch()
    assert [watch.note(step, terms(1.0)) for step in range(2 * INTERVAL)] == [None] * 2 * INTERVAL
    found = [watch.note(step, terms(1.0 if step % INTERVAL else NAN)) for step in range(INTERVAL)]
    assert found[:-1] == [None] * (INTERVAL - 1) and found[-1] is not None and found[-1].step == 0


def test_the_weight_that_is_not_finite_is_named() -> None:
    weights = {"planes": torch.zeros(3), "count": torch.tensor(4), "basis": torch.tensor([1.0, -INF])}
    assert not_finite(weights.items()) == "basis"
    weights["basis"] = torch.ones(2)
    assert not_finite(weights.items()) is None


@pytest.fixture
def trainer(demo: Path, tmp_path: Path) -> Callable[..., DaCTrainer]:
    """Sets an expert's training up, small; arguments are its learning rate and settings."""

    def make(rate: float = 1e-2, **settings: Any) -> DaCTrainer:
        config = small_config(methods.expert, demo, tmp_path / "outputs", rays=32, group=2, **settings)
        for group in config.optimizers.values():
            group["optimizer"].lr, group["scheduler"].warmup_steps = rate, 0
        made = config.setup(local_rank=0, world_size=1)
        made.setup()
        return made  # type: ignore[no-any-return]

    return make


def test_a_loss_that_is_none_stops_training_and_keeps_the_last_good_checkpoint(
    trainer: Callable[..., DaCTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(max_num_iterations=20, steps_per_save=3, save_only_latest_checkpoint=False)
    compute = made.pipeline.get_train_loss_dict

    def spoilt(step: int) -> Any:
        outputs, losses, metrics = compute(step)
        if step == 7:
            losses["rgb_loss"] = losses["rgb_loss"] * NAN
        return outputs, losses, metrics

    monkeypatch.setattr(made.pipeline, "get_train_loss_dict", spoilt)
    with pytest.raises(SystemExit) as caught:
        made.train()
    message = str(caught.value.code)
    assert "The training of dac-expert of group 2 has diverged: rgb_loss is nan at step 7;" in message
    assert "--optimizers.fields.optimizer.lr 0.01" in message
    kept = checkpoints(made.base_dir)
    assert [path.name for path in kept] == ["step-000000003.ckpt", "step-000000006.ckpt"] and str(kept[-1]) in message
    assert Stage.load(made.base_dir).steps == 7 and not Stage.load(made.base_dir).complete
    assert all(value.isfinite().all() for value in torch.load(kept[-1], weights_only=True)["pipeline"].values())


def test_rates_beyond_reason_end_in_no_result(trainer: Callable[..., DaCTrainer]) -> None:
    made = trainer(rate=1e12, max_num_iterations=2 * INTERVAL)
    with pytest.raises(SystemExit, match="has diverged: .*; nothing was saved before that"):
        made.train()
    assert checkpoints(made.base_dir) == []


def test_weights_that_are_none_are_not_saved(trainer: Callable[..., DaCTrainer]) -> None:
    made = trainer()
    made.train_iteration(0)
    name, weight = list(made.pipeline.model.named_parameters())[1]
    with torch.no_grad():
        weight.view(-1)[-1] = INF
    with pytest.raises(DivergenceError, match=f"{name} holds what is no finite number after step 0"):
        made.save_checkpoint(0)
    assert checkpoints(made.base_dir) == []


def test_nobody_learns_from_weights_that_are_none(tiny_model: TinyModel, save_run: SaveRun) -> None:
    model = tiny_model()
    with torch.no_grad():
        next(weight for weight in model.parameters() if weight.numel()).view(-1)[0] = NAN
    with pytest.raises(StageError, match="holds what is no finite number: its training diverged"):
        open_model(save_run(model), "cpu")


def test_a_disk_that_is_full_is_told_in_words_and_leaves_no_half_of_a_checkpoint(
    trainer: Callable[..., DaCTrainer],
) -> None:
    made = trainer(max_num_iterations=20, steps_per_save=5)
    made.train_iteration(0)
    made.save_checkpoint(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            StageError, match="The checkpoint of step 5 cannot be written in .* MB are free .*Make room"
        ):
            made.save_checkpoint(5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    (kept,) = checkpoints(made.base_dir)
    assert kept.name == "step-000000000.ckpt" and not Stage.load(made.base_dir).damage(kept)
    assert not list(made.base_dir.glob(".step-*"))


def test_an_older_checkpoint_goes_when_the_newer_one_is_on_the_disk(
    trainer: Callable[..., DaCTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer()
    made.train_iteration(0)
    made.save_checkpoint(0)
    done: list[str] = []
    sync, unlink = files.sync, Path.unlink
    monkeypatch.setattr(files, "sync", lambda path: (done.append(f"synced {path.name.lstrip('.')}"), sync(path)))
    monkeypatch.setattr(Path, "unlink", lambda path, **named: (done.append(f"gone {path.name}"), unlink(path, **named)))
    made.save_checkpoint(5)
    newer, folder = done.index("synced step-000000005.ckpt"), done.index("synced nerfstudio_models")
    assert newer < folder < done.index("gone step-000000000.ckpt") == len(done) - 1
