"""``dac run --executor slurm``: what it submits, what it refuses, and a whole run on a cluster of one node."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import GROUPS, TEST_VIEWS, Shell, planned
from rich.console import Console
from slurm_cluster import cluster, lacking
from tiny_flags import TINY_FLAGS, steps_in

from dac_nerfstudio.cli import main
from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.plan import Plan
from dac_nerfstudio.launch.slurm.executor import check_executor, follow, run_on_slurm, submit
from dac_nerfstudio.launch.slurm.job import _interrupt, end_or_requeue
from dac_nerfstudio.launch.slurm.options import DEFAULTS, RESTART, SlurmOptions, minutes
from dac_nerfstudio.launch.slurm.queue import refuse_queued
from dac_nerfstudio.runs.layout import SLURM_JOBS
from dac_nerfstudio.runs.record import Stage

FAKE = {
    # Keeps each script under the number it gives the job; does not take the one whose number is in the file `refuse`.
    "sbatch": """
        number=$(( $(ls *.sh 2>/dev/null | wc -l) + 1 ))
        if [ -e refuse ] && [ "$(cat refuse)" = $number ]; then
            echo "sbatch: error: invalid partition specified: nowhere" >&2
            echo "sbatch: error: Batch job submission failed: Invalid partition name specified" >&2
            exit 1
        fi
        cp "$1" $number.sh
        echo "Submitted batch job $number"
    """,
    "squeue": """
        [ -e queue ] || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
        cat queue
    """,
    "scancel": "echo $@ >> cancelled",
    "scontrol": "exit 0",
    "srun": "exit 0",
}


class FakeSlurm:
    """Commands of Slurm's that only write down what they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, body in FAKE.items():
            path = folder / "bin" / name
            path.write_text(f"#!/bin/bash\ncd {folder}\n{body}\n")
            path.chmod(0o755)

    def script(self, number: str) -> str:
        return (self.folder / f"{number}.sh").read_text()

    def options(self, number: str) -> dict[str, str]:
        """What a job's script asks for."""
        words = [word for line in re.findall("^#SBATCH (.*)$", self.script(number), re.M) for word in shlex.split(line)]
        return {name: value for name, _, value in (word.lstrip("-").partition("=") for word in words)}

    def queue(self, **states: str) -> None:
        """What squeue says: states by the jobs' ids, written _1 or _1_0 here."""
        lines = [f"{number[1:]}|{state}" for number, state in states.items()]
        (self.folder / "queue").write_text("\n".join(lines) + "\n")

    @property
    def cancelled(self) -> str:
        path = self.folder / "cancelled"
        return path.read_text().strip() if path.exists() else ""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    (tmp_path / "slurm").mkdir()
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return fake


@pytest.fixture
def on_gpu(shell: Shell, tmp_path: Path) -> Callable[..., Plan]:
    """What ``dac run`` plans for the scene by default, in two groups, on a GPU."""
    return partial(planned, shell, output_dir=tmp_path / "outputs", device="cuda")


def test_experts_are_an_array_and_each_stage_waits_for_what_it_needs(
    fake: FakeSlurm, on_gpu: Callable[..., Plan]
) -> None:
    (submitted,) = submit([on_gpu()], DEFAULTS)
    assert submitted.jobs == {
        **{"expert 1": "1_0", "expert 2": "1_1", "ensemble": "2", "distill": "3", "finetune": "4"},
        **{"baseline": "5", "video": "6", "report": "7"},
    }
    assert fake.options("1")["array"] == "0-1%2"
    waits = {number: fake.options(number).get("dependency", "") for number in submitted.ids}
    assert waits == {
        **{"1": "", "2": "afterok:1", "3": "afterok:1", "4": "afterok:3", "5": "", "6": "afterok:4"},
        "7": "afterany:1:2:3:4:5",
    }
    # One that can never start does not stay in the queue.
    assert {fake.options(number)["kill-on-invalid-dep"] for number in submitted.ids} == {"yes"}


def test_options_reach_sbatch(fake: FakeSlurm, on_gpu: Callable[..., Plan]) -> None:
    options = SlurmOptions(
        partition="gpu", account="vision", time="1-00:00:30", gpus=0, cpus=3, mem="16G",
        setup=("module load cuda", "export A=1"), extra=("qos=high", "exclusive"),
    )  # fmt: skip
    (submitted,) = submit([on_gpu()], options)
    for number in submitted.ids:
        asked = fake.options(number)
        found = {name: asked[name] for name in ("partition", "account", "time", "cpus-per-task", "mem", "qos")}
        assert found == {
            **{"partition": "gpu", "account": "vision", "time": "1441", "cpus-per-task": "3", "mem": "16G"},
            **{"qos": "high"},
        }
        assert "exclusive" in asked and "gpus-per-node" not in asked
        lines = fake.script(number).splitlines()
        (run,) = (line for line in lines if line.startswith("srun"))
        assert "--cpus-per-task=3" in run
        assert lines.index("module load cuda") < lines.index("export A=1") < lines.index(run)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", 5), ("90", 90), ("90:30", 91), ("04:00:00", 240), ("1-12", 2160), ("1-00:01", 1441), ("2-00:00:00", 2880)],
)
def test_time_limits_are_written_as_slurm_writes_them(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "4:59", "four", "1:2:3:4", "4h"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(StageError, match=re.escape(f"--slurm.time {text}: expected at least 5 minutes, as minutes,")):
        minutes(text)


def test_all_or_nothing_is_submitted(fake: FakeSlurm, on_gpu: Callable[..., Plan]) -> None:
    (fake.folder / "refuse").write_text("3")
    plan = on_gpu()
    with pytest.raises(StageError) as refused:
        submit([plan], DEFAULTS)
    assert "Slurm refuses a job, so none is submitted: Batch job submission failed: Invalid partition" in str(
        refused.value
    )
    assert "--slurm.partition" in str(refused.value)
    assert fake.cancelled == "1 2"
    assert not (plan.scene_dir / SLURM_JOBS).exists()


def test_scene_with_queued_jobs_is_left_alone(fake: FakeSlurm, on_gpu: Callable[..., Plan]) -> None:
    plan = on_gpu()
    refuse_queued(plan.scene_dir)
    submit([plan], DEFAULTS)
    fake.queue(_1_0="COMPLETED", _1_1="RUNNING", _3="PENDING", _7="PENDING")
    with pytest.raises(StageError) as refused:
        submit([plan], DEFAULTS)
    assert f"Jobs submitted earlier for {plan.scene_dir} are queued or running: expert 2, distill, report." in str(
        refused.value
    )
    assert "scancel 1 3 7" in str(refused.value)
    assert not (fake.folder / "8.sh").exists()

    fake.queue(_1_0="COMPLETED", _1_1="CANCELLED", _3="CANCELLED", _7="FAILED")
    submit([plan], DEFAULTS)
    assert json.loads((plan.scene_dir / SLURM_JOBS).read_text())["jobs"]["report"] == "14"
    (fake.folder / "bin" / "squeue").write_text("#!/bin/bash\necho 'squeue: error: timed out' >&2\nexit 1\n")
    with pytest.raises(StageError) as unknown:
        refuse_queued(plan.scene_dir)
    assert str(unknown.value) == (
        "squeue does not answer: squeue: error: timed out\n"
        f"If no job of this scene is queued any more, delete {plan.scene_dir / SLURM_JOBS}."
    )


def test_followed_jobs_tell_why_they_did_not_succeed(
    fake: FakeSlurm, on_gpu: Callable[..., Plan], tmp_path: Path
) -> None:
    plan = on_gpu(video=False)
    (submitted,) = submit([plan], DEFAULTS)
    log = plan.scene_dir / "logs" / "expert-1.log"
    log.write_text("failed no such group\n")
    fake.queue(
        _1_0="FAILED", _1_1="COMPLETED", _2="CANCELLED", _3="CANCELLED", _4="CANCELLED", _5="NODE_FAIL",
    )  # fmt: skip
    with (tmp_path / "told").open("w") as file:
        console = Console(file=file, width=200, record=True)
        assert not follow([submitted], console, patience=0)
    printed = console.export_text()
    assert f"expert 1: job 1_0 is FAILED. The end of {log}:\nfailed no such group\n" in printed
    assert "finetune: cancelled by somebody, or left out as a stage that job 4 needs failed" in printed
    assert "baseline: job 5 is NODE_FAIL. The end of " in printed
    assert "demo: expert 2: completed" in printed
    assert "report: job 6 is gone from Slurm's queue" in printed


def test_ctrl_c_leaves_the_jobs_and_says_how_to_cancel_them(
    fake: FakeSlurm, on_gpu: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dac_nerfstudio.launch.slurm.executor.run_plans", lambda *arguments, **named: True)
    monkeypatch.setattr(time, "sleep", interrupted)
    plan = on_gpu(video=False)
    with (tmp_path / "told").open("w") as file:
        console = Console(file=file, width=200, record=True)
        with pytest.raises(SystemExit) as ended:
            run_on_slurm([plan], DEFAULTS, True, console)
    assert ended.value.code == 130
    assert console.export_text().rstrip().endswith("The jobs go on. To cancel them: scancel 1 2 3 4 5 6")
    assert fake.cancelled == ""


def test_slurm_without_submitit_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dac_nerfstudio.launch.slurm.executor.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["dac", "run", "--executor", "slurm", "--data", "demo"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.strip() == (
        "Error: --executor slurm needs submitit, which is not installed: pip install 'submitit>=1.5,<2', or in a clone "
        "of this repository: pip install '.[slurm]'"
    )


def test_slurm_where_there_is_none_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match=r"finds no sbatch on PATH. Run it on a login node of the cluster"):
        check_executor("slurm", DEFAULTS, "auto")


def test_options_that_would_be_ignored_are_refused(fake: FakeSlurm) -> None:
    with pytest.raises(StageError, match=r"--devices is about this machine. On the cluster: --slurm.gpus 1"):
        check_executor("slurm", DEFAULTS, "0,1")
    with pytest.raises(StageError, match=r"are for --executor slurm, which was not asked for"):
        check_executor("local", SlurmOptions(partition="gpu"), "auto")
    with pytest.raises(StageError, match=r"--slurm.gpus -1 --slurm.cpus 4: expected 0 or more"):
        check_executor("slurm", SlurmOptions(gpus=-1), "auto")
    check_executor("slurm", DEFAULTS, "auto")
    check_executor("local", DEFAULTS, "cpu")


@pytest.mark.parametrize(
    ("number", "state", "outcome"),
    [
        (signal.SIGUSR2, "RUNNING", "requeued"),
        (signal.SIGTERM, "RUNNING", "requeued"),  # grace time before a preemption
        (signal.SIGTERM, "COMPLETING", "143"),  # cancelled, or requeued by hand
    ],
)
def test_interrupted_stage_comes_back_unless_slurm_has_decided(
    number: int, state: str, outcome: str, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dac_nerfstudio.signals import Interrupted, handling

    def submitits(received: int, frame: object) -> None:
        raise SystemExit("requeued")

    monkeypatch.setenv("SLURM_JOB_ID", "1")
    (fake.folder / "queue").write_text(state)
    before = signal.signal(signal.SIGUSR2, submitits)
    try:
        with pytest.raises(Interrupted), handling(_interrupt, (signal.SIGUSR2, signal.SIGTERM)):
            signal.raise_signal(number)
        with pytest.raises(SystemExit) as ended:
            end_or_requeue(number, "1")
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert str(ended.value) == outcome


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "7"}, "7"),
        # The last task of array 7 to start has the array's own id; as one of all tasks, that would requeue them all.
        ({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}, "7_1"),
        ({"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}, "7_0"),
    ],
)
def test_killed_stage_is_requeued_alone(environment: dict[str, str], job: str, fake: FakeSlurm) -> None:
    for name in ("squeue", "scontrol"):
        (fake.folder / "bin" / name).write_text(f'#!/bin/bash\necho {name} "$@" >> {fake.folder}/told\necho RUNNING\n')
    script = f"(exit 137)\n{RESTART}"
    done = subprocess.run(["bash", "-c", script], env={"PATH": os.environ["PATH"], **environment}, capture_output=True)
    assert done.returncode == 137, done.stderr
    assert (fake.folder / "told").read_text().splitlines() == [
        f"squeue --noheader --jobs {job} --format %T",
        f"scontrol requeue {job}",
    ]


TINY = f"""
[all]
steps-per-save = 20
max-num-iterations = 8
{TINY_FLAGS}
[dac-expert]
max-num-iterations = 400

[dac-baseline]
max-num-iterations = 400
"""
PATIENCE = 900
"""Seconds, on a machine that does much else besides."""
ON_SLURM = (
    *("dac", "run", "--executor", "slurm", "--data", "demo", "--preset", "reference", "--groups", str(GROUPS)),
    *("--no-video", "--slurm.gpus", "0", "--slurm.cpus", "1"),
)


class ClusterShell(Shell):
    """Runs commands on a login node, so to speak."""

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        deadline = time.monotonic() + patience
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.1)
        return found

    def slurm(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def raw(self, job: str) -> str:
        """A job's own id; of one task of an array it is that of the array."""
        return self.slurm("squeue", "--noheader", "--jobs", job, "--format", "%A").strip()

    def restarts(self, job: str) -> int:
        return int(re.findall(r"Restarts=(\d+)", self.slurm("scontrol", "show", "job", job))[0])

    def process_of(self, job: str) -> int:
        """The process of a running job's step, as the kernel knows it."""
        rows = [line.split() for line in self.slurm("scontrol", "listpids", self.raw(job)).splitlines()]
        return next(int(row[0]) for row in rows if row[2] == "0" and row[3] == "0")


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterShell]:
    """A shell in a folder with the scene ``demo``, and a cluster of one node with two cores."""
    if lacking():
        pytest.skip(lacking())
    shell = ClusterShell(tmp_path_factory.mktemp("cluster"))
    make_demo_scene(shell.folder / "demo", size=32, train=16, val=2, test=TEST_VIEWS)
    (shell.folder / "tiny.toml").write_text(TINY)
    (shell.folder / "broken.toml").write_text(TINY + "\n[dac-distill]\ngroups = 9\n")
    with cluster() as environment:
        shell.environment.update(environment)
        yield shell


def test_run_on_a_cluster_survives_kills_requeues_and_time_limits(login: ClusterShell) -> None:
    scene_dir = login.folder / "outputs" / "demo"
    command = (*ON_SLURM, "--config", "tiny.toml")
    with login.start(*command, "--wait") as process:
        login.until((scene_dir / SLURM_JOBS).exists, "jobs to be submitted")
        jobs = json.loads((scene_dir / SLURM_JOBS).read_text())["jobs"]
        assert list(jobs) == ["expert 1", "expert 2", "ensemble", "distill", "finetune", "baseline", "report"]

        def trained(name: str, steps: int) -> bool:
            return steps_in(scene_dir / "logs" / f"{name.replace(' ', '-')}.log") >= steps

        login.until(lambda: trained("expert 1", 1), "expert 1")
        login.slurm("scontrol", "requeue", jobs["expert 1"])
        login.until(lambda: trained("expert 2", 40), "expert 2 to have saved something")
        assert login.raw(jobs["expert 2"]) == jobs["expert 2"].partition("_")[0]
        os.kill(login.process_of(jobs["expert 2"]), signal.SIGKILL)
        login.until(lambda: trained("baseline", 1), "the baseline, in the place of one of them")
        login.slurm("scancel", "--signal=USR2", jobs["baseline"])
        with login.start(*command) as second:
            refusal, _ = second.communicate(timeout=PATIENCE)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    assert [login.restarts(jobs[name]) for name in ("expert 1", "expert 2", "baseline")] == [1, 1, 1]
    assert second.returncode == 1 and "are queued or running: " in refusal and "report" in refusal

    results = json.loads((scene_dir / "report" / "results.json").read_text())
    assert set(results["methods"]) == {"dac-baseline", "dac-expert", "dac-distill", "dac-finetune"}
    assert results["missing"] in ({}, [])
    for name, folder in (
        ("expert-1", "dac-expert/group-1"), ("expert-2", "dac-expert/group-2"), ("baseline", "dac-baseline"),
    ):  # fmt: skip
        (stage,) = (Stage.load(path) for path in (scene_dir / folder).iterdir())
        assert stage.complete and stage.steps == 400
        (step,) = re.findall(r"^done resumed at step (\d+)$", (scene_dir / "logs" / f"{name}.log").read_text(), re.M)
        assert 0 < int(step) < 400, name
    # The one that was killed goes on from a checkpoint; those that were asked to stop, from where they were.
    log = (scene_dir / "logs" / "expert-2.log").read_text()
    assert int(re.findall(r"resumed at step (\d+)", log)[0]) % 20 == 1
    for name in ("expert-1", "baseline"):
        log = (scene_dir / "logs" / f"{name}.log").read_text()
        assert re.findall(r"Stopped at step (\d+) of 400", log) == re.findall(r"resumed at step (\d+)", log)


def test_failed_stage_is_named_and_what_needs_it_is_not_started(
    login: ClusterShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the run before, with its experts."""
    scene_dir = login.folder / "outputs" / "demo"
    experts = [str(path) for path in sorted(scene_dir.glob("dac-expert/group-*/*"))]
    more = ("--experts", *experts, "--baseline", "no", "--wait")
    with login.start(*ON_SLURM, "--config", "broken.toml", *more) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "distill: job " in output and "\nfailed --groups 9, but" in output
    assert "finetune: cancelled by somebody, or left out" in output
    jobs = json.loads((scene_dir / SLURM_JOBS).read_text())["jobs"]
    assert list(jobs) == ["ensemble", "distill", "finetune", "report"]
    states = dict(
        line.split() for line in login.slurm("squeue", "-h", "-r", "-t", "all", "--format", "%i %T").splitlines()
    )
    assert [states[number] for number in jobs.values()] == ["COMPLETED", "FAILED", "CANCELLED", "COMPLETED"]
    # All have ended: the scene is free for the next run.
    monkeypatch.setenv("SLURM_CONF", login.environment["SLURM_CONF"])
    refuse_queued(scene_dir)
