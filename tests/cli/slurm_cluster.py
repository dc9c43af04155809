"""A Slurm cluster of one node, this machine, out of a temporary folder: munged, slurmctld and slurmd of its own."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
CredType=cred/munge
# A job that is requeued waits until the credentials of its first run are no longer valid.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=0,bf_interval=2
ReturnToService=2
MpiDefault=none
KillWait=15
# A job that has ended is remembered as long as a slow run may take.
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
{more}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Why no cluster can be had here; empty where one can."""
    missing = [name for name in DAEMONS if shutil.which(name, path=search_path()) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)} not found); Debian: apt-get install slurm-wlm munge"
    return "" if os.getuid() == 0 else "slurmd can only be started by root"


def search_path() -> str:
    """Daemons lie where only root looks."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@contextmanager
def cluster(cpus: int = 2, more: str = "") -> Iterator[Mapping[str, str]]:
    """Brings a cluster up and, whatever happens, down again.

    Args:
        cpus: that the node has, by its own account.
        more: further lines of slurm.conf.

    Yields:
        What the environment of Slurm's commands needs.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # paths of sockets must be short
    folder.chmod(0o755)
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": search_path()}
    controller, node = _free_ports(2)
    host = socket.gethostname().partition(".")[0]
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(folder=folder, host=host, controller=controller, node=node, cpus=cpus, more=more)
    )
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    files = (f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(_daemon(["munged", "--foreground", f"--socket={folder}/munge.socket", *files], environment))
        _until(lambda: (folder / "munge.socket").exists(), "munged", folder)
        stack.enter_context(_daemon(["slurmctld", "-D"], environment))
        stack.enter_context(_daemon(["slurmd", "-D"], environment))
        stack.callback(_cancel_all, environment)
        _until(lambda: _ask(environment, "sinfo", "--noheader", "--format=%T") == "idle", "the node", folder)
        yield environment


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _daemon(command: list[str], environment: Mapping[str, str]) -> Iterator[None]:
    program = shutil.which(command[0], path=environment["PATH"])
    assert program is not None
    process = subprocess.Popen(
        [program, *command[1:]],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(environment: Mapping[str, str], *command: str) -> str:
    found = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    return found.stdout.strip()


def _until(condition: Callable[[], bool], what: str, folder: Path, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
            raise TimeoutError(f"{what} did not come up within {patience:.0f} s:\n{logs}")
        time.sleep(0.1)


def _cancel_all(environment: Mapping[str, str]) -> None:
    """No stage is left behind: processes of jobs are children of none of the daemons."""
    with suppress(subprocess.SubprocessError, OSError):
        if not _ask(environment, "squeue", "--noheader"):
            return
        _ask(environment, "scancel", "--state=PENDING", "--user=root")
        _ask(environment, "scancel", "--full", "--signal=KILL", "--user=root")
        _ask(environment, "scancel", "--user=root")
        deadline = time.monotonic() + 60
        while _ask(environment, "squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.2)
