"""The real commands, each run once a session and two at a time.

Tests share runs: what is asked for first starts everything that all tests of its kind look at, in the background.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from commands import TEST_VIEWS, Shell, Trainings, make_real_scene

from dac_nerfstudio.demo import make_demo_scene


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Runs commands in a folder that holds the scene ``demo``."""
    folder = tmp_path_factory.mktemp("cli")
    make_demo_scene(folder / "demo", size=32, train=16, val=2, test=TEST_VIEWS)
    make_real_scene(folder / "demo", folder / "real")
    shell = Shell(folder)
    with pytest.MonkeyPatch.context() as patch:
        # What is forked from this process's server sees what commands see.
        for name in ("PYTHONWARNINGS", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "COLUMNS"):
            patch.setenv(name, shell.environment[name])
        yield shell


@pytest.fixture(scope="session")
def background() -> Iterator[ThreadPoolExecutor]:
    """Does two things at a time, in the order in which they were asked for."""
    pool = ThreadPoolExecutor(max_workers=2)
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def trainings(shell: Shell, background: ThreadPoolExecutor) -> Trainings:
    """All trainings, started."""
    return Trainings(shell, background)


@pytest.fixture(scope="session")
def relocated(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Shell]:
    """Makes a copy of scene and outputs elsewhere, with only the runs of the methods named, of the bounded scene."""

    def copy(*methods: str) -> Shell:
        source, folder = trainings.shell.folder, tmp_path_factory.mktemp("copy")
        shutil.copytree(source / "demo", folder / "demo")
        outputs = Path("outputs", "demo")
        for part in ("partition.json", "partitions", *methods):
            if (source / outputs / part).is_dir():
                shutil.copytree(source / outputs / part, folder / outputs / part)
            else:
                (folder / outputs).mkdir(parents=True, exist_ok=True)
                shutil.copy(source / outputs / part, folder / outputs / part)
        return Shell(folder)

    return copy


@pytest.fixture(scope="session")
def checkpoint() -> Callable[..., dict[str, Any]]:
    """Reads a run folder's checkpoint, by default the last, as safely as torch can."""

    def read(run_dir: Path, step: int | None = None) -> dict[str, Any]:
        import torch

        paths = sorted((run_dir / "nerfstudio_models").glob("*.ckpt"))
        path = paths[-1] if step is None else run_dir / "nerfstudio_models" / f"step-{step:09d}.ckpt"
        return torch.load(path, weights_only=True)

    return read


@pytest.fixture(scope="session")
def scalars() -> Callable[[Path, str], list[float]]:
    """Reads a curve from the tensorboard file in a run folder, in the order of its steps."""

    def read(run_dir: Path, name: str) -> list[float]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run_dir))
        events.Reload()
        return [event.value for event in events.Scalars(name)] if name in events.Tags()["scalars"] else []

    return read
