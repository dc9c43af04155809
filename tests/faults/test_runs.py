"""Whatever befalls a run, the same command goes on, and the end is that of a run that nothing befell."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from tiny_flags import TINY_FLAGS, steps_in

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.runs.record import Stage

FLAGS = f"""
[all]
max-num-iterations = 30
steps-per-save = 10
{TINY_FLAGS}"""
LONG = FLAGS.replace("iterations = 30", "iterations = 600").replace("save = 10", "save = 10000")
"""Nothing is saved on the way, unless it is asked for."""
DAC = "from dac_nerfstudio.cli import main; main()"
IN_FRESH_INTERPRETERS = (
    "import os; os.setpgrp(); from dac_nerfstudio.launch import local, process; "
    "local.Place = lambda *_: process.Place('cuda:0'); " + DAC
)
"""As on CUDA where tiny-cuda-nn is installed; there is no device here, but stages are told so when they start. In a
group of its own, so that it can be signalled with all its processes, as a terminal or a scheduler does."""
TINY_CUDA_NN = Path(__file__).parents[1] / "fixtures"
HOOKS = Path(__file__).parent / "hooks"
WHOLE = ["split", "expert-1", "expert-2", "ensemble", "distill", "finetune", "baseline", "video"]
"""Logs of a run, in the order of its stages."""
PATIENCE = 1800
"""Seconds, on a machine that does much else besides."""


class Runs:
    """`dac run` of a tiny scene, in processes of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        make_demo_scene(folder / "demo", size=32, train=16, val=2, test=4)
        (folder / "dac.toml").write_text(FLAGS)
        (folder / "long.toml").write_text(LONG)

    def start(self, outputs: str, *more: str, code: str = DAC, **environment: str) -> subprocess.Popen[str]:
        """A run into a folder; further flags, and variables of its environment."""
        search = os.pathsep.join([str(HOOKS), os.environ.get("PYTHONPATH", "")]) if environment else None
        flags = ("--preset", "quick", "--groups", "2", "--config", "dac.toml", "--devices", "cpu")
        process = subprocess.Popen(
            [sys.executable, "-c", code, "run", "--data", "demo", "--output-dir", outputs, *flags, *more],
            cwd=self.folder,
            env={
                **os.environ,
                **{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONWARNINGS": "ignore"},
                **({"PYTHONPATH": search} if search else {}),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def __call__(self, outputs: str, *more: str, fails: bool = False, **environment: str) -> str:
        """What a run prints that goes to its end."""
        process = self.start(outputs, *more, **environment)
        output, _ = process.communicate(timeout=PATIENCE)
        assert (process.returncode != 0) == fails, output
        return output

    def until(self, outputs: str, stage: str, process: subprocess.Popen[str], steps: int = 0) -> None:
        """Wait until a stage has begun, or got so far, by its log."""
        log, deadline = self.folder / outputs / "demo" / "logs" / f"{stage}.log", time.monotonic() + PATIENCE
        while not (log.exists() and steps_in(log) >= steps):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"{stage} does not begin"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    runs = Runs(tmp_path_factory.mktemp("runs"))
    yield runs
    for process in runs.started:
        process.kill()  # that of a test that failed; its stages notice


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> Path:
    runs("undisturbed")
    return runs.folder / "undisturbed" / "demo"


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a run and all its processes at once."""
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()
    psutil.wait_procs(everyone, timeout=30)


def compare(whole: Path, other: Path) -> None:
    """Same runs, scores of every view and weights; nothing half written is left."""
    for pattern in ("evaluation.json", "*.ckpt"):
        files = sorted(path.relative_to(whole) for path in whole.rglob(pattern))
        assert [path for path in files if (other / path).exists()] == files
        for path in files:
            if pattern == "*.ckpt":
                one, two = (torch.load(folder / path, weights_only=True)["pipeline"] for folder in (whole, other))
                torch.testing.assert_close(two, one, rtol=0, atol=1e-6)
            else:
                one, two = (json.loads((folder / path).read_text())["views"] for folder in (whole, other))
                assert [view["name"] for view in two] == [view["name"] for view in one]
                assert [view["psnr"] for view in two] == pytest.approx([view["psnr"] for view in one], abs=1e-3)
    assert not [path for path in other.rglob(".*") if path.name != ".dac-run.lock"]
    for video in whole.rglob("video.mp4"):
        assert (other / video.relative_to(whole)).stat().st_size > 1000


def test_sigkill_of_everything_in_every_stage(runs: Runs, undisturbed: Path) -> None:
    moments = random.Random(0)
    for stage in WHOLE:
        process = runs.start("killed")
        runs.until("killed", stage, process)
        time.sleep(moments.uniform(0, 1.5))
        kill_all(process)
    runs("killed")
    compare(undisturbed, runs.folder / "killed" / "demo")


def test_sigkill_of_a_stage_that_writes_a_checkpoint(runs: Runs, undisturbed: Path, tmp_path: Path) -> None:
    output = runs("half-written", KILL_IN_CHECKPOINT=str(tmp_path))
    told = list(tmp_path.iterdir())
    # Trainings save four times, an ensemble once: that is killed after half of it, and again when its record lacks.
    assert len(told) == len(WHOLE) - 2 and {path.read_text() for path in told} == {"xx"}
    assert output.count("started again from its last checkpoint") == 2 * len(told)
    compare(undisturbed, runs.folder / "half-written" / "demo")


@pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch knows nothing of CUDA")
def test_stages_in_fresh_interpreters_save_when_they_are_asked_to_stop_and_when_their_run_is_killed(runs: Runs) -> None:
    flags = ("--only", "baseline", "--config", "long.toml")
    search = os.pathsep.join([str(TINY_CUDA_NN), os.environ.get("PYTHONPATH", "")])
    run_dir = runs.folder / "afresh" / "demo" / "dac-baseline" / "quick-seed42"
    runs("long", *flags)

    process = runs.start("afresh", *flags, code=IN_FRESH_INTERPRETERS, PYTHONPATH=search)
    runs.until("afresh", "baseline", process, steps=100)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "The same command goes on from here" in output, output
    stopped = Stage.load(run_dir).steps
    assert 100 <= stopped < 600

    process = runs.start("afresh", *flags, code=IN_FRESH_INTERPRETERS, PYTHONPATH=search)
    runs.until("afresh", "baseline", process, steps=stopped + 100)
    process.kill()
    process.communicate()
    # At once: the stage, which notices, may still be saving.
    (step,) = re.findall(r"resumed at step (\d+)", runs("afresh", *flags))
    assert stopped + 100 <= int(step) < 600
    compare(runs.folder / "long" / "demo", runs.folder / "afresh" / "demo")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own, with so much room."""
    folder.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_folder_that_cannot_be_written_and_a_full_disk(runs: Runs, undisturbed: Path) -> None:
    folder = runs.folder / "disk"
    with small_disk(folder, "1500k"):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        output = runs("disk", fails=True)
        assert "cannot be worked in" in output and "Read-only file system" in output and "Traceback" not in output
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        output = runs("disk", fails=True)
        assert "No space left on device" in output or "Make room" in output, output
        subprocess.run(["mount", "-o", "remount,size=500m", str(folder)], check=True)
        runs("disk")
        compare(undisturbed, folder / "demo")


def test_a_clock_that_is_set_back_by_a_year(runs: Runs, undisturbed: Path) -> None:
    runs("past", "--only", "experts")
    runs("past", CLOCK_BACK="31536000")
    compare(undisturbed, runs.folder / "past" / "demo")
    output = runs("past", CLOCK_BACK="63072000")
    assert "made anew" not in output and not list((runs.folder / "past").rglob("*-before-*"))


def test_photos_that_are_replaced_between_stages(runs: Runs, undisturbed: Path) -> None:
    runs("replaced", "--only", "experts")
    data = runs.folder / "demo"
    kept = Path(shutil.copytree(data, runs.folder / "kept"))
    photo = data / "train" / "r_3.png"
    pixels = np.asarray(Image.open(photo)).copy()
    pixels[..., :3] = 255 - pixels[..., :3]
    status = photo.stat()
    Image.fromarray(pixels).save(photo)
    os.utime(photo, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        output = runs("replaced")
        assert len(re.findall("made anew .*photos was", output)) == 3, output
        digests = {Stage.load(path.parent).photos for path in (runs.folder / "replaced").rglob("stage.json")
                   if "-before-" not in str(path)}  # fmt: skip
        assert len(digests) == 1
    finally:
        shutil.rmtree(data)
        kept.rename(data)
    runs("replaced")
    compare(undisturbed, runs.folder / "replaced" / "demo")


def test_two_runs_a_split_and_a_report_at_once(runs: Runs, undisturbed: Path) -> None:
    first = runs.start("shared")
    runs.until("shared", "expert-1", first)
    second = runs.start("shared")

    def beside(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", DAC, *words], cwd=runs.folder, env={**os.environ, "COLUMNS": "200"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    split, report = beside("split", "--data", "demo", "--output-dir", "shared"), beside("report", "shared/demo")
    for process in (second, split):
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1 and f"another dac run: process {first.pid} on" in output, output
    output, _ = report.communicate(timeout=PATIENCE)
    assert "Traceback" not in output
    output, _ = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, output
    compare(undisturbed, runs.folder / "shared" / "demo")
