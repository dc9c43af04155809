"""What surrounds a run: who may run, where, with which flags, and how it is stopped."""

from __future__ import annotations

import json
import multiprocessing.pool
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Shell

from dac_nerfstudio.partition import divide, read_views
from dac_nerfstudio.run.devices import find_devices
from dac_nerfstudio.run.flags import read_flags
from dac_nerfstudio.run.lock import FILE_NAME, scene_lock
from dac_nerfstudio.run.messages import Report
from dac_nerfstudio.run.plan import divide_settings
from dac_nerfstudio.run.table import Row
from dac_nerfstudio.stage import StageError


def test_flags_of_a_file_are_those_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "dac.toml"
    path.write_text(
        '[all]\npipeline.model.num-samples = 12\nmixed-precision = false\n"vis" = "tensorboard"\n'
        "[dac-expert]\nmax-num-iterations = 7\n[dac-expert.pipeline.model]\nmultiscale-res = [1, 2]\n"
    )
    assert read_flags(path) == {
        "all": ("--pipeline.model.num-samples", "12", "--mixed-precision", "False", "--vis", "tensorboard"),
        "dac-expert": ("--max-num-iterations", "7", "--pipeline.model.multiscale-res", "1", "2"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "There is no file"),
        ("[all", "is not valid TOML"),
        ("[dac-experts]\na = 1\n", r"unknown entry 'dac-experts'; expected tables \[all\], \[dac-baseline\]"),
        ("seed = 1\n", "unknown entry 'seed'"),
        ("[all]\nwhen = 2020-01-01\n", "when is datetime.date"),
    ],
)
def test_files_that_are_no_flags(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "dac.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StageError, match=message):
        read_flags(path)


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_devices("cpu") == ("cpu",)
    assert find_devices("cpu, cpu") == ("cpu", "cpu")
    assert find_devices("1,0,1") == ("cuda:1", "cuda:0", "cuda:1")
    for asked, message in (("2,1,7", "no CUDA device 2, 7 here, only 0 to 1"), ("gpu", "expected auto, cpu, mps")):
        with pytest.raises(StageError, match=message):
            find_devices(asked)
    with pytest.raises(StageError, match="expected auto"):
        find_devices("cpu,0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(StageError, match="no CUDA device 0 here, none"):
        find_devices("0")


HOLD = """
import sys, time
from pathlib import Path
from dac_nerfstudio.run.lock import scene_lock
with scene_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(StageError, match=rf"process {other.pid} on {socket.gethostname()}, since 20"):
            with scene_lock(tmp_path):
                pass
        other.kill()
    with scene_lock(tmp_path):
        assert json.loads((tmp_path / FILE_NAME).read_text())["pid"] == os.getpid()


def test_a_killed_run_is_waited_for_until_its_stages_are_gone(tmp_path: Path) -> None:
    """The lock belongs to whoever inherited it: here a child that outlives the holder by a second."""
    told: list[str] = []
    script = HOLD.replace('print("held", flush=True)', "import os; print('held', flush=True)").replace(
        "with scene_lock(Path(sys.argv[1])):",
        "with scene_lock(Path(sys.argv[1])) as held:\n    import os, subprocess\n"
        "    subprocess.Popen(['sleep', '2'], pass_fds=[held], stdout=subprocess.DEVNULL)",
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        other.kill()
    start = time.monotonic()
    with scene_lock(tmp_path, told.append):
        pass
    assert time.monotonic() - start > 0.5
    assert len(told) == 1 and "to save what they have" in told[0]


STOP = """
import os, signal, sys, time
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and len(sys.argv) < 4:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the background of a script
from dac_nerfstudio.conquer.interruption import stop_requests
with stop_requests() as request:
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.1)
    print(request.signal, flush=True)
    if len(sys.argv) > 2:
        os.kill(os.getpid(), int(sys.argv[2]))
        time.sleep(5)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    done = subprocess.run([sys.executable, "-c", STOP, str(int(number))], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{int(number)}\n")


def test_a_second_signal_is_no_request() -> None:
    term = str(int(signal.SIGTERM))
    done = subprocess.run([sys.executable, "-c", STOP, term, term], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM


def test_an_ignored_signal_stays_ignored() -> None:
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + STOP
    command = [sys.executable, "-c", script, "2", "2", "ignored"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "None\n")


def test_threads_other_than_the_first_hear_no_signals() -> None:
    from dac_nerfstudio.conquer.interruption import stop_requests

    with multiprocessing.pool.ThreadPool(1) as pool:

        def inside() -> object:
            with stop_requests() as request:
                return request.signal

        assert pool.apply(inside) is None


def test_time_left_is_told_by_the_pace_of_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    row = Row("expert 1")
    assert row.seconds_left() is None
    row.update(Report("training", 500, 1000))  # resumed: these steps are not this run's
    assert row.seconds_left() is None
    now = 110.0
    row.update(Report("training", 600, 1000, loss=0.5, psnr=20.0, rays_per_second=1e4))
    assert row.seconds_left() == pytest.approx(40.0)
    row.update(Report("evaluating", 0, 10))
    assert (row.loss, row.psnr) == (0.5, 20.0)
    assert row.seconds_left() is None


def test_what_is_asked_for_now_wins_over_what_was_asked_before(shell: Shell) -> None:
    views = read_views(shell.folder / "demo")
    before = divide(views, 3, "kmeans", softness=0.2)
    assert divide_settings(None, {"groups": 2}, 0.3) == {"softness": 0.3, "groups": 2}
    settings = divide_settings(before, {"groups": 5}, 0.3)
    assert (settings["groups"], settings["strategy"], settings["softness"]) == (5, "kmeans", 0.2)
    assert divide(views, **settings).num_groups == 5
    overlapping = divide_settings(before, {"overlap": 0.5}, 0.3)
    assert divide(views, **overlapping).settings["overlap"] == 0.5
    assert before.satisfies({"groups": 3, "strategy": "kmeans"}) and not before.satisfies({"groups": 4})
    by_itself = divide(views, "auto", "auto")
    assert by_itself.satisfies({"groups": "auto"}) and by_itself.satisfies({"strategy": "azimuth"})
