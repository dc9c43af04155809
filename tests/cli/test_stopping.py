"""A run that is stopped, politely or not, ends where an undisturbed one does."""

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch
from commands import Shell
from tiny_flags import TINY_FLAGS, TINY_MODEL, steps_in

from dac_nerfstudio.launch.flags import words
from dac_nerfstudio.runs.record import Stage

STEPS = 600
PATIENCE = 600
"""Seconds, on a machine that does much else besides."""
IN_A_GROUP_OF_ITS_OWN = "import os; os.setpgrp(); from dac_nerfstudio.cli import main; main()"
"""So that it can be signalled with all its processes, as a terminal or a scheduler does."""


@pytest.fixture(scope="module")
def run_baseline(shell: Shell) -> Callable[[str], Popen[str]]:
    """Starts `dac run` for a baseline of `typed` in a process of its own."""
    return lambda folder: shell.start("python", "-c", IN_A_GROUP_OF_ITS_OWN, *typed(folder))


@pytest.fixture(scope="module", autouse=True)
def config(shell: Shell) -> None:
    """The file of a tiny model, for which no checkpoint is due before the end."""
    rows = f"max-num-iterations = {STEPS}\nsteps-per-save = 10000\n{TINY_FLAGS}"
    (shell.folder / "tiny.toml").write_text(f"[all]\n{rows}")


def typed(folder: str) -> tuple[str, ...]:
    """What follows `dac`: a baseline in a folder of its own."""
    return (
        *("run", "--data", "demo", "--preset", "quick", "--groups", "2", "--only", "baseline", "--no-video"),
        *("--output-dir", folder, "--config", "tiny.toml", "--devices", "cpu"),
    )


def run_dir(shell: Shell, folder: str) -> Path:
    return shell.folder / folder / "demo" / "dac-baseline" / "quick-seed42"


def wait_for(steps: int, folder: Path, process: Popen[str]) -> None:
    """Until the run has got so far, by what it prints to its log."""
    log = folder / "logs" / "baseline.log"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        if steps_in(log) >= steps:
            return
        time.sleep(0.05)
    raise AssertionError("the run does not get on")


def weights(folder: Path) -> dict[str, Any]:
    checkpoint = torch.load(folder / "nerfstudio_models" / f"step-{STEPS - 1:09d}.ckpt", weights_only=True)
    return checkpoint["pipeline"]


@pytest.fixture(scope="module")
def undisturbed(shell: Shell) -> dict[str, Any]:
    done = shell.dac(*typed("undisturbed"))
    assert done.code == 0, done.output
    return weights(run_dir(shell, "undisturbed"))


# That each signal is heard alike is tested where processes are cheaper, in test_running.py; stages in fresh
# interpreters, and runs that are killed with their stages, in tests/faults.
def test_a_run_keeps_others_out_and_asked_to_stop_saves_and_goes_on(
    shell: Shell, run_baseline: Callable[[str], Popen[str]], undisturbed: dict[str, Any]
) -> None:
    process = run_baseline("stopped")
    wait_for(100, shell.folder / "stopped" / "demo", process)
    second = shell.dac(*typed("stopped"))
    assert second.code == 1 and f"another dac run: process {process.pid} on" in " ".join(second.output.split())
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert "The same command goes on from here" in output and "Traceback" not in output
    stopped = Stage.load(run_dir(shell, "stopped"))
    assert 100 <= stopped.steps < STEPS  # no checkpoint was due: this one was made for the occasion
    stopped.peak_memory["gpu"] = 123
    stopped.save(run_dir(shell, "stopped"))

    done = shell.dac(*typed("stopped"))
    assert done.code == 0 and f"resumed at step {stopped.steps}" in done.output, done.output
    torch.testing.assert_close(weights(run_dir(shell, "stopped")), undisturbed, rtol=0, atol=1e-6)
    assert Stage.load(run_dir(shell, "stopped")).peak_memory["gpu"] == 123  # of the process before


def test_the_stages_of_a_killed_run_save_and_the_next_one_waits_for_them(
    shell: Shell, run_baseline: Callable[[str], Popen[str]], undisturbed: dict[str, Any]
) -> None:
    scene_dir = shell.folder / "orphaned" / "demo"
    process = run_baseline("orphaned")
    wait_for(120, scene_dir, process)
    process.kill()
    process.communicate()
    # At once: its stage, which notices, may still be saving.
    done = shell.dac(*typed("orphaned"))
    (step,) = re.findall(r"resumed at step (\d+)", done.output)
    assert done.code == 0, done.output
    (saved,) = re.findall(rf"Stopped at step (\d+) of {STEPS}", (scene_dir / "logs" / "baseline.log").read_text())
    assert 120 <= int(saved) == int(step) < STEPS
    torch.testing.assert_close(weights(run_dir(shell, "orphaned")), undisturbed, rtol=0, atol=1e-6)


@pytest.fixture
def trainer_in(shell: Shell, tmp_path: Path) -> Callable[[str], Any]:
    """Makes a trainer that is set up, in one of the states that nerfstudio's viewer knows."""

    def make(state: str) -> Any:
        from dac_nerfstudio.launch.commands import parse

        flags = ("--data", str(shell.folder / "demo"), "--output-dir", str(tmp_path), "--vis", "tensorboard")
        more = ("--max-num-iterations", str(STEPS), "--machine.device-type", "cpu")
        trainer: Any = parse(("dac-baseline", *flags, *more, *words(TINY_MODEL))).setup(local_rank=0, world_size=1)
        trainer.setup()
        trainer.training_state = state
        return trainer

    return make


@pytest.mark.parametrize("asked", [True, False])
def test_asked_to_stop_while_the_last_step_is_saved(
    asked: bool, trainer_in: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage is finished, but no other begins."""
    from nerfstudio.engine.trainer import Trainer

    from dac_nerfstudio.signals import Interrupted

    monkeypatch.setattr(Trainer, "train", lambda self: signal.raise_signal(signal.SIGTERM) if asked else None)
    with pytest.raises(Interrupted) if asked else nullcontext() as stop:
        trainer_in("completed").train()
    if asked:
        assert (stop.value.steps, stop.value.code) == (STEPS, 128 + signal.SIGTERM)


def test_a_paused_training_that_is_asked_to_stop_goes_on_to_where_it_can(
    trainer_in: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nerfstudio.engine.trainer import Trainer

    from dac_nerfstudio.signals import Interrupted

    monkeypatch.setattr(Trainer, "train", lambda self: signal.raise_signal(signal.SIGTERM))
    trainer = trainer_in("paused")
    with pytest.raises(Interrupted):
        trainer.train()
    assert trainer.training_state == "training"


@pytest.mark.parametrize("early", [True, False])
def test_a_finished_training_in_the_viewer_ends_when_asked(
    early: bool, trainer_in: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nerfstudio.engine.trainer import Trainer

    from dac_nerfstudio.signals import Interrupted

    waiting = []

    # Not Ctrl-C's signal: a shell has what it starts in the background ignore that one.
    def train(self: Any) -> None:
        if early:
            signal.raise_signal(signal.SIGTERM)
        self._train_complete_viewer()

    def wait_for_ever(self: Any) -> None:
        waiting.append("asked")
        signal.raise_signal(signal.SIGTERM)
        waiting.append("deaf")

    monkeypatch.setattr(Trainer, "train", train)
    monkeypatch.setattr(Trainer, "_train_complete_viewer", wait_for_ever)
    with pytest.raises(Interrupted) as stop:
        trainer_in("completed").train()
    assert (waiting, stop.value.code) == ([] if early else ["asked"], 128 + signal.SIGTERM)


def test_ns_train_asked_to_stop_saves_as_well(shell: Shell, undisturbed: dict[str, Any]) -> None:
    flags = (*words(TINY_MODEL), "--pipeline.datamanager.train-num-rays-per-batch", "64", "--vis", "tensorboard")
    process = shell.start(
        *("ns-train", "dac-baseline", "--data", "demo", "--output-dir", "by-hand", "--timestamp", "run", *flags),
        *("--max-num-iterations", "5000", "--logging.steps-per-log", "1"),
    )
    events = shell.folder / "by-hand" / "demo" / "dac-baseline" / "run"
    deadline = time.monotonic() + PATIENCE
    while not list(events.glob("events.out.*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    time.sleep(1)
    process.terminate()
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM, output
    stopped = Stage.load(events)
    assert 0 < stopped.steps < 5000 and "which is saved" in output
