"""The process of a worker, as seen by the one that starts it, which never imports nerfstudio."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Mapping, NoReturn, Optional

from dac_nerfstudio.launch.plan import Job, Plan, Report
from dac_nerfstudio.signals import SIGNALS, Interrupted

PRELOAD = ["dac_nerfstudio.launch.server", "dac_nerfstudio.launch.worker"]
"""What the server imports from which jobs are forked, in this order. nerfstudio imports tiny-cuda-nn where there is
one, which makes forks useless for CUDA: those jobs then start in fresh interpreters."""


@dataclass(frozen=True)
class Place:
    """Where a job runs."""

    device: str
    """`cpu`, `mps` or `cuda:<number>`."""
    threads: Optional[int] = None
    """Threads of the CPU; None leaves it to torch. Several processes that each take all cores are many times slower."""


def start(job: Job, plan: Plan, place: Place, messages: Connection, lock: Any) -> None:
    """Entry of a worker's process.

    Args:
        job, plan: what to do.
        messages: where it reports; closed at the other end when the parent is gone.
        lock: a `multiprocessing.reduction.DupFd` of the scene's lock.
    """
    # Whoever sends Ctrl-C to single processes: the parent alone decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    held = lock.detach()  # until this process ends, whatever becomes of its parent
    if place.device.startswith("cuda:"):
        # Before anything here touches CUDA.
        number = int(place.device.removeprefix("cuda:"))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_device(number, os.environ)
        import torch

        # The server may have touched CUDA by what it imported, and CUDA then works there alone: tiny-cuda-nn asks what
        # the devices are capable of, and where the driver's management library is missing so does counting them.
        if torch.cuda._is_in_bad_fork():
            _start_afresh(job, plan, place, messages, held)
    _work(job, plan, place, messages)


def _start_afresh(job: Job, plan: Plan, place: Place, messages: Connection, held: int) -> NoReturn:
    """Do the same in a fresh interpreter, which takes the place of this one: in the same process, so that whoever
    started it signals it, waits for it and hears of its end as before."""
    with tempfile.TemporaryFile() as task:
        pickle.dump((job, plan, place, messages.fileno()), task)
        task.seek(0)
        for descriptor in (task.fileno(), messages.fileno(), held):
            os.set_inheritable(descriptor, True)
        if sys.stdin is not None:
            os.set_inheritable(sys.stdin.fileno(), True)
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from dac_nerfstudio.launch.process import go_on; go_on({task.fileno()})"
        )
        os.execv(sys.executable, [sys.executable, "-c", code])


def go_on(descriptor: int) -> None:
    """Entry of the fresh interpreter; the descriptor is that of the file which the forked process has just written."""
    with open(descriptor, "rb") as task:
        job, plan, place, messages = pickle.load(task)
    _work(job, plan, place, Connection(messages))


def _work(job: Job, plan: Plan, place: Place, messages: Connection) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the server blocks them
    threading.Thread(target=_follow_parent, args=(messages,), daemon=True).start()

    import torch

    from dac_nerfstudio.launch.worker import do

    def tell(report: Report) -> None:
        with suppress(BrokenPipeError):  # the parent is gone: its watcher has asked this process to stop
            messages.send(report)

    if place.threads is not None:
        torch.set_num_threads(place.threads)
    with suppress(Interrupted):
        do(job, plan, tell)


def visible_device(number: int, environment: Mapping[str, str]) -> str:
    """Value of CUDA_VISIBLE_DEVICES with which a process sees a single device.

    Args:
        number: of the device, among those visible so far, which `find_devices` has checked.
        environment: of a process that sees more. It may name devices by number, as GPU-… or as MIG-….
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return str(number) if visible is None else visible.split(",")[number].strip()


def _follow_parent(messages: Connection) -> None:
    """A worker whose parent is gone stops as if asked to."""
    try:
        messages.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
