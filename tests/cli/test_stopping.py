"""A run that is stopped, politely or not, ends where an undisturbed one does."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from commands import TINY_MODEL, Shell

from dac_nerfstudio.stage import Stage

STEPS = 600
IN_A_GROUP_OF_ITS_OWN = "import os; os.setpgrp(); from dac_nerfstudio.cli import main; main()"
"""So that it can be signalled with all its processes, as a terminal or a scheduler does."""
ON_A_CUDA_DEVICE = "from dac_nerfstudio.run import local, process; local.Place = lambda *_: process.Place('cuda:0'); "
"""There is none here: stages that train on the CPU are told so when they start."""
FIXTURES = Path(__file__).parents[1] / "fixtures"
AFRESH = pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch knows nothing of CUDA")
WAYS = ["forked", pytest.param("afresh", marks=AFRESH)]
"""How stages start: forked from the server, or in fresh interpreters, as on CUDA where tiny-cuda-nn is installed."""


@pytest.fixture(scope="module")
def run_baseline(shell: Shell) -> Callable[..., Popen[str]]:
    """Starts `dac run` for a baseline in a folder of its own, with a checkpoint every so many steps."""
    flags = dict(zip(TINY_MODEL[::2], TINY_MODEL[1::2]))
    rows = [f"{name.lstrip('-')} = {value}" for name, value in flags.items()]
    rows += [f"max-num-iterations = {STEPS}", "pipeline.datamanager.train-num-rays-per-batch = 64"]
    spoilt = Shell(shell.folder)
    spoilt.environment["PYTHONPATH"] = os.pathsep.join([str(FIXTURES), shell.environment.get("PYTHONPATH", "")])

    def start(folder: str, every: int, way: str = "forked") -> Popen[str]:
        config = shell.folder / f"{folder}.toml"
        config.write_text("\n".join(["[all]", *rows, f"steps-per-save = {every}"]))
        return (spoilt if way == "afresh" else shell).start(
            *(
                "python",
                "-c",
                (ON_A_CUDA_DEVICE if way == "afresh" else "") + IN_A_GROUP_OF_ITS_OWN,
                "run",
                "--data",
                "demo",
                "--preset",
                "demo",
                "--groups",
                "2",
                "--only",
                "baseline",
            ),
            *("--output-dir", folder, "--config", config.name, "--devices", "cpu", "--no-video"),
        )

    return start


def run_dir(shell: Shell, folder: str) -> Path:
    return shell.folder / folder / "demo" / "dac-baseline" / "demo-seed42"


def wait_for(steps: int, folder: Path, process: Popen[str]) -> None:
    """Until the run has got so far, by what it prints to its log."""
    log = folder / "logs" / "baseline.log"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        done = [line.split()[0] for line in (log.read_text().splitlines() if log.exists() else []) if "%)" in line]
        if any(word.isdecimal() and int(word) >= steps for word in done):
            return
        time.sleep(0.05)
    raise AssertionError("the run does not get on")


def weights(folder: Path) -> dict[str, Any]:
    checkpoint = torch.load(folder / "nerfstudio_models" / f"step-{STEPS - 1:09d}.ckpt", weights_only=True)
    return checkpoint["pipeline"]


@pytest.fixture(scope="module")
def undisturbed(shell: Shell, run_baseline: Callable[..., Popen[str]]) -> dict[str, Any]:
    process = run_baseline("undisturbed", 10000)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return weights(run_dir(shell, "undisturbed"))


# A fresh interpreter imports nerfstudio twice more; one signal there is enough.
@pytest.mark.parametrize(
    "number, way",
    [(signal.SIGINT, "forked"), (signal.SIGTERM, "forked"), pytest.param(signal.SIGTERM, "afresh", marks=AFRESH)],
)
def test_a_run_asked_to_stop_saves_and_goes_on(
    number: signal.Signals, way: str, shell: Shell, run_baseline: Callable[..., Popen[str]], undisturbed: dict[str, Any]
) -> None:
    folder = f"stopped-{way}-{int(number)}"
    process = run_baseline(folder, 10000, way)
    wait_for(100, shell.folder / folder / "demo", process)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "The same command goes on from here" in output and "Traceback" not in output
    stopped = Stage.load(run_dir(shell, folder))
    assert 100 <= stopped.steps < STEPS  # no checkpoint was due: this one was made for the occasion
    stopped.peak_memory["gpu"] = 123
    stopped.save(run_dir(shell, folder))

    process = run_baseline(folder, 10000, way)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and f"resumed at step {stopped.steps}" in output, output
    torch.testing.assert_close(weights(run_dir(shell, folder)), undisturbed, rtol=0, atol=1e-6)
    assert Stage.load(run_dir(shell, folder)).peak_memory["gpu"] == 123  # of the process before


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    way: str, shell: Shell, run_baseline: Callable[..., Popen[str]], undisturbed: dict[str, Any]
) -> None:
    folder = f"killed-{way}"
    scene_dir = shell.folder / folder / "demo"
    process = run_baseline(folder, 100, way)
    wait_for(120, scene_dir, process)
    process.kill()
    process.communicate()
    # At once: its stage, which notices, may still be saving.
    process = run_baseline(folder, 100, way)
    wait_for(320, scene_dir, process)
    processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in processes:
        one.kill()
    process.communicate()
    psutil.wait_procs(processes, timeout=30)
    assert Stage.load(run_dir(shell, folder)).steps % 100 == 1  # as a checkpoint was due

    process = run_baseline(folder, 100, way)
    output, _ = process.communicate(timeout=300)
    (step,) = re.findall(r"resumed at step (\d+)", output)
    assert process.returncode == 0 and int(step) > 300, output
    (saved,) = re.findall(rf"Stopped at step (\d+) of {STEPS}", (scene_dir / "logs" / "baseline.log").read_text())
    assert 120 <= int(saved) < 320
    torch.testing.assert_close(weights(run_dir(shell, folder)), undisturbed, rtol=0, atol=1e-6)


@pytest.mark.parametrize("asked", [True, False])
def test_asked_to_stop_while_the_last_step_is_saved(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage is finished, but no other begins."""
    from nerfstudio.engine.trainer import Trainer

    from dac_nerfstudio.conquer.trainer import DaCTrainer
    from dac_nerfstudio.signals import Interrupted

    monkeypatch.setattr(Trainer, "train", lambda self: signal.raise_signal(signal.SIGTERM) if asked else None)
    trainer = object.__new__(DaCTrainer)
    trainer.config, trainer.stage = SimpleNamespace(max_num_iterations=STEPS), SimpleNamespace(seconds=0.0)
    trainer._start_step = 0
    with pytest.raises(Interrupted) if asked else nullcontext() as stop:
        trainer.train()
    if asked:
        assert (stop.value.steps, stop.value.code) == (STEPS, 128 + signal.SIGTERM)


def test_ns_train_asked_to_stop_saves_as_well(shell: Shell, undisturbed: dict[str, Any]) -> None:
    flags = (*TINY_MODEL, "--pipeline.datamanager.train-num-rays-per-batch", "64", "--vis", "tensorboard")
    process = shell.start(
        *("ns-train", "dac-baseline", "--data", "demo", "--output-dir", "by-hand", "--timestamp", "run", *flags),
        *("--max-num-iterations", "5000", "--logging.steps-per-log", "1"),
    )
    events = shell.folder / "by-hand" / "demo" / "dac-baseline" / "run"
    deadline = time.monotonic() + 240
    while not list(events.glob("events.out.*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    time.sleep(1)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    stopped = Stage.load(events)
    assert 0 < stopped.steps < 5000 and "which is saved" in output


def test_two_runs_in_one_folder_are_kept_apart(shell: Shell, run_baseline: Callable[..., Popen[str]]) -> None:
    first = run_baseline("shared", 10000)
    lock = shell.folder / "shared" / "demo" / ".dac-run.lock"
    deadline = time.monotonic() + 120
    while not (lock.exists() and lock.read_text()):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    second = run_baseline("shared", 10000)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 1 and f"another dac run: process {first.pid} on" in output
    first.terminate()
    first.communicate(timeout=120)
