"""What surrounds a run: who may run, where, with which flags, and how it is stopped."""

import errno
import io
import json
import multiprocessing.pool
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from commands import Shell
from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch import local
from dac_nerfstudio.launch.devices import find_devices
from dac_nerfstudio.launch.division import divide_settings
from dac_nerfstudio.launch.flags import read_flags, words
from dac_nerfstudio.launch.local import Task, _signals_interrupt, _stop, startable, threads_each
from dac_nerfstudio.launch.lock import FILE_NAME, scene_lock
from dac_nerfstudio.launch.plan import Job, Plan, Report, Request
from dac_nerfstudio.launch.process import Place, visible_device
from dac_nerfstudio.launch.table import Row, draw, showing
from dac_nerfstudio.partition import divide
from dac_nerfstudio.presets import PRESETS
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.signals import SIGNALS


def test_flags_of_a_file_are_those_of_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "dac.toml"
    path.write_text(
        '[all]\npipeline.model.num-samples = 12\nmixed-precision = false\n"vis" = "tensorboard"\n'
        "[dac-expert]\nmax-num-iterations = 7\n[dac-expert.pipeline.model]\nmultiscale-res = [1, 2]\n"
    )
    assert read_flags(path)[0] == {
        "all": {"pipeline.model.num-samples": 12, "mixed-precision": False, "vis": "tensorboard"},
        "dac-expert": {"max-num-iterations": 7, "pipeline.model.multiscale-res": [1, 2]},
    }
    assert words(read_flags(path)[0]["all"]) == (
        "--pipeline.model.num-samples", "12", "--mixed-precision", "False", "--vis", "tensorboard",
    )  # fmt: skip
    assert words(read_flags(path)[0]["dac-expert"])[2:] == ("--pipeline.model.multiscale-res", "1", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "There is no file"),
        ("[all", "is not valid TOML"),
        ("[dac-experts]\na = 1\n", r"unknown entry 'dac-experts'; expected tables \[all\], \[dac-baseline\]"),
        ("seed = 1\n", "unknown entry 'seed'"),
        ("[all]\nwhen = 2020-01-01\n", "when is datetime.date"),
        ("[all]\ntimestamp = 'mine'\n", "timestamp cannot be set in a file. Runs are named by --preset and --seed."),
        ("[dac-expert.machine]\nseed = 3\n", "machine.seed cannot be set in a file. Say it with --seed."),
        ("[all]\nmax-num-iterations = 'abc'\n", "max-num-iterations is 'abc'; expected a whole number"),
        ("[dac-expert]\nmax_num_iterations = [5]\n", r"max_num_iterations is \[5\]; expected a whole number"),
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
from dac_nerfstudio.launch.lock import scene_lock
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


def test_a_file_system_without_locks_is_told_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def flock(descriptor: int, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("fcntl.flock", flock)

    def held() -> list[str]:
        told: list[str] = []
        with scene_lock(tmp_path, told.append):
            assert json.loads((tmp_path / FILE_NAME).read_text())["pid"] == os.getpid()
        return told

    warning = [f"There are no locks for {tmp_path} here: see that no other dac run works there meanwhile."]
    for number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
        refuse(number)
        assert held() == warning
    with monkeypatch.context() as windows:
        windows.setitem(sys.modules, "fcntl", None)
        assert held() == warning
    refuse(errno.EIO)
    with pytest.raises(StageError, match=r"cannot be worked in: .*Input/output error.*use another --output-dir"):
        with scene_lock(tmp_path):
            pass


@pytest.mark.parametrize(
    ("visible", "number", "expected"),
    [
        (None, 1, "1"),
        ("5,7", 1, "7"),
        ("3", 0, "3"),
        ("GPU-8932f937, GPU-d37b2c2e", 1, "GPU-d37b2c2e"),
        ("MIG-1/2/0,MIG-1/3/0", 0, "MIG-1/2/0"),
    ],
)
def test_a_device_is_one_of_those_visible(visible: str | None, number: int, expected: str) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert visible_device(number, environment) == expected


WINDOWS = """
import multiprocessing.reduction, signal, sys
import rich.console  # looks for fcntl where there is a terminal
del signal.SIGHUP, signal.SIGUSR2, signal.pthread_sigmask, multiprocessing.reduction.DupFd
sys.modules["fcntl"] = None
import dac_nerfstudio.errors, dac_nerfstudio.signals
import dac_nerfstudio.launch.process, dac_nerfstudio.launch.slurm.executor
from dac_nerfstudio.launch.local import run_plans
print(*map(int, dac_nerfstudio.signals.SIGNALS))
multiprocessing.get_all_start_methods = lambda: ["spawn"]
try:
    run_plans([], ["cpu"], rich.console.Console())
except dac_nerfstudio.errors.StageError as error:
    print(error)
"""


def test_imports_do_without_what_windows_lacks() -> None:
    done = subprocess.run([sys.executable, "-c", WINDOWS], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"{int(signal.SIGINT)} {int(signal.SIGTERM)}",
        "dac run works on Linux, on macOS and in WSL. On Windows itself train stage by stage, with ns-train.",
    ], done.stderr


STOP = """
import os, signal, sys, time
if len(sys.argv) < 4:  # in the background of a script, or of nohup, these are ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
from dac_nerfstudio.signals import stop_requests
with stop_requests() as request:
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.1)
    print(request.signal, flush=True)
    if len(sys.argv) > 2:
        os.kill(os.getpid(), int(sys.argv[2]))
        time.sleep(5)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    done = subprocess.run([sys.executable, "-c", STOP, str(int(number))], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{int(number)}\n")


def test_a_second_ctrl_c_is_no_request() -> None:
    number = str(int(signal.SIGINT))
    done = subprocess.run([sys.executable, "-c", STOP, number, number], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT


def test_other_signals_may_come_again() -> None:
    """A scheduler's are often followed by another, to the process or its group."""
    for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGHUP)):
        command = [sys.executable, "-c", STOP.replace("sleep(5)", "sleep(0.1)"), str(int(first)), str(int(second))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"{int(first)}\n")


@pytest.fixture
def in_the_foreground() -> Iterator[None]:
    """Nothing is ignored, as it is in the background of a script or of nohup."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_run_hears_one_request_and_then_ctrl_c_alone(in_the_foreground: None) -> None:
    for first in SIGNALS:
        with _signals_interrupt():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(first)
            for number in set(SIGNALS) - {signal.SIGINT}:
                signal.raise_signal(number)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)


def stubborn(messages: Connection) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: messages.send("asked"))
    messages.send("ready")
    while True:
        time.sleep(60)


def test_stages_that_were_asked_to_stop_are_killed_on_ctrl_c(in_the_foreground: None) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=stubborn, args=(theirs,))
    process.start()
    assert ours.recv() == "ready"
    job = Job("baseline", "train", Path("run"))
    plan = Plan(Request(Path("data"), Path("outputs"), "scene"), PRESETS["quick"], (job,))
    task = Task("baseline", plan=plan, job=job, process=process)

    def interrupt() -> None:
        assert ours.recv() == "asked"
        os.kill(os.getpid(), signal.SIGINT)

    with _signals_interrupt(), multiprocessing.pool.ThreadPool(1) as pool, pytest.raises(KeyboardInterrupt):
        pool.apply_async(interrupt)
        _stop([task], Console(quiet=True))
    assert process.exitcode == -signal.SIGKILL


def test_the_longest_stage_is_not_left_to_the_end_alone() -> None:
    split, expert, total = (Job(stage, "train", Path(stage)) for stage in ("split", "expert", "baseline total"))
    jobs = (split, replace(expert, needs=("split",)), replace(total, needs=("split",)))
    plan = Plan(Request(Path("data"), Path("outputs"), "scene"), PRESETS["few"], jobs)
    tasks = [Task(job.name, plan=plan, job=job) for job in jobs]
    assert [task.job.stage for task in startable(tasks, 2)] == ["split"]
    tasks[0].state, tasks[0].ended = "done", 1.0
    assert [task.job.stage for task in startable(tasks, 1)] == ["expert", "baseline total"]
    assert [task.job.stage for task in startable(tasks, 2)] == ["baseline total", "expert"]


def lost(messages: Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def finished(messages: Connection) -> None:
    messages.send(Report("done"))


@pytest.fixture
def run_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[bool, str]]:
    """Runs a plan of one job, whose processes, one after the other, do what is given; whether it succeeded, and what
    was printed."""

    def run(*acts: Callable[[Connection], None]) -> tuple[bool, str]:
        waiting, context = list(acts), multiprocessing.get_context("fork")

        def start(task: Task, place: Place, *_: Any) -> None:
            task.messages, theirs = context.Pipe()
            task.process = context.Process(target=waiting.pop(0), args=(theirs,))
            task.process.start()
            theirs.close()
            task.state, task.place = "starting", place

        monkeypatch.setattr(local, "_start", start)
        job = Job("baseline", "train", Path("run"))
        plan = Plan(Request(Path("data"), tmp_path, "scene"), PRESETS["quick"], (job,))
        console = Console(file=io.StringIO(), record=True, width=200)
        succeeded = local.run_plans([plan], ["cpu"], console)
        assert not waiting
        return succeeded, console.export_text()

    return run


def test_a_killed_job_is_started_again_twice_and_then_named(run_stand_ins: Callable[..., tuple[bool, str]]) -> None:
    succeeded, printed = run_stand_ins(lost, lost, finished)
    assert succeeded and printed.count("baseline: killed, as the kernel does when memory runs out; started again") == 2
    succeeded, printed = run_stand_ins(lost, lost, lost)
    assert not succeeded and "baseline: killed 3 times, as the kernel does" in printed


def test_a_number_of_threads_that_the_user_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_each(places) for places in (1, 2, 16)] == [None, 4, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_each(2) is None, "torch takes the three"


def test_an_ignored_signal_stays_ignored() -> None:
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + STOP
    command = [sys.executable, "-c", script, "2", "2", "ignored"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "None\n")


def test_threads_other_than_the_first_hear_no_signals() -> None:
    from dac_nerfstudio.signals import stop_requests

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
    row.update(Report("training", 600, 1000, psnr=20.0))
    assert row.seconds_left() == pytest.approx(40.0)
    row.update(Report("evaluating", 0, 10))
    assert row.psnr == 20.0
    assert row.seconds_left() is None


def a_run(devices: tuple[str, ...]) -> list[Row]:
    """A run in the middle."""
    rows = [Row("split", "kept", ended=1.0, started=0.0), Row("finetune")]
    for number, device in enumerate(devices):
        row = Row("baseline total" if number else "expert 1", device=device, started=time.monotonic() - 4000)
        row.update(Report("evaluating", 0, 150000))
        row.update(Report("evaluating", 149999, 150000, psnr=27.456))
        row._since -= 36000
        rows.append(row)
    return rows


@pytest.mark.parametrize("devices", [("cpu", "cpu"), ("cuda:0", "cuda:11")])
def test_the_table_of_a_run_fits_80_columns_and_cuts_nothing(devices: tuple[str, ...]) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, record=True)
    console.print(draw(a_run(devices)))
    printed = console.export_text()
    assert "…" not in printed and max(map(len, printed.splitlines())) <= 80
    for text in ("baseline total", "149999/150000", "27.46", "1:06:40", "0:00"):
        assert text in printed
    assert ("cuda:11" in printed) == ("cpu" not in devices) and " cpu" not in printed


def test_views_that_are_rendered_before_training_are_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    row, console = Row("finetune", "starting", started=now), Console(file=io.StringIO(), width=80)
    with showing([row], console) as tell:
        for now in (2.0, 62.0):
            row.update(Report("rendering", 1 + int(now // 5), 40))
            tell()
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "finetune: begun",
        "finetune: rendering, picture 13/40, time left 2:15",
    ]


def test_without_a_terminal_a_stage_is_a_line_when_it_begins_and_one_when_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rows, console = [Row("expert 1"), Row("expert 2")], Console(file=io.StringIO(), width=80)
    with showing(rows, console) as tell:
        tell()
        rows[0].started, rows[0].device, rows[0].state = now, "cpu", "starting"
        tell()
        rows[0].update(Report("training", 100, 1000))
        for now in (110.0, 120.0, 161.0, 170.0, 200.0):  # once a minute
            rows[0].update(Report("training", 100 + int(now), 1000, psnr=20.0))
            tell()
        rows[0].update(Report("done"))
        rows[0].ended = now
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "expert 1: begun on cpu",
        "expert 1: training, step 261/1000, training PSNR 20.00, time left 4:40",
        "expert 1: done after 1:40",
    ]


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


AT_ONCE = """
import sys
from dac_nerfstudio.cli import main
try:
    main()
finally:
    print([name for name in ("numpy", "torch", "nerfstudio") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["run"], "No scene is named. Name its folder: --data PATH."),
        (["view", "nothing"], "nothing holds no runs. Make some: dac run"),
        (["render", "nothing"], "nothing holds no runs. Make some: dac run"),
        (["view", "."], "holds no runs. Make some: dac run"),
    ],
)
def test_what_is_wrong_at_once_is_said_before_anything_heavy_is_imported(
    typed: list[str], told: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", AT_ONCE, *typed]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "[]\n" and told in done.stderr


def test_help_breaks_lines_where_they_end_and_shows_no_empty_defaults(shell: Shell) -> None:
    told = shell.dac("run", "--help").output
    assert "(transforms.json) or a COLMAP model (images/" in told
    assert "(default: 42)" in told and "(default: None)" not in told and not re.search(r"\(default:[\s│]*\)", told)
    assert "{None}" not in told and "--groups INT|{auto}" in told
