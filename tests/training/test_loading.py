"""What a run goes on from is read as tensors and plain numbers, whichever flag names it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import small_config

from dac_nerfstudio import methods
from dac_nerfstudio.runs.layout import latest_checkpoint
from dac_nerfstudio.training.trainer import DaCTrainer


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trainer(demo: Path, tmp_path: Path) -> Callable[..., DaCTrainer]:
    """A small baseline's trainer, not set up; arguments are settings."""

    def make(**settings: Any) -> DaCTrainer:
        config = small_config(methods.baseline, demo, tmp_path / "outputs", **settings)
        made: DaCTrainer = config.setup(local_rank=0, world_size=1)
        return made

    return make


@pytest.mark.parametrize("flag", ["load_checkpoint", "load_dir", "load_step"])
def test_a_foreign_checkpoint_is_not_executed(
    trainer: Callable[..., DaCTrainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    first = trainer()
    first.setup()
    first.train_iteration(0)
    first.save_checkpoint(0)
    path = latest_checkpoint(first.base_dir)
    # As torch 2.4 and 2.5 have it.
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **named: load(*args, **{"weights_only": False, **named}))
    settings: dict[str, Any] = {"load_checkpoint": path} if flag == "load_checkpoint" else {"load_dir": path.parent}
    if flag == "load_step":
        settings["load_step"] = 0
    again = trainer(**settings)
    again.setup()
    assert again._start_step == 1
    content = load(path, weights_only=True)
    torch.save({**content, "more": Payload(tmp_path / "executed")}, path)
    foreign = trainer(**settings)
    with pytest.raises(SystemExit, match="is damaged or not one of nerfstudio's"):
        foreign.setup()
    assert not (tmp_path / "executed").exists()
