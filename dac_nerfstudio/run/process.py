"""The process of a worker, as seen by the one that starts it, which never imports nerfstudio."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Mapping, Optional

from dac_nerfstudio.run.plan import Job, Plan
from dac_nerfstudio.signals import SIGNALS

PRELOAD = ["dac_nerfstudio.run.server", "dac_nerfstudio.run.worker"]
"""What the server imports from which jobs are forked, in this order."""


@dataclass(frozen=True)
class Place:
    """Where a job runs."""

    device: str
    """`cpu`, `mps` or `cuda:<number>`."""
    threads: Optional[int] = None
    """Of the CPU; None leaves it to torch. Several processes that each take all cores are many times slower."""


def start(job: Job, plan: Plan, place: Place, log: Path, messages: Connection, lock: Any) -> None:
    """Entry of a worker's process.

    Args:
        job, plan: what to do.
        place: where.
        log: file that everything it prints is added to.
        messages: where it reports; closed at the other end when the parent is gone.
        lock: a `multiprocessing.reduction.DupFd` of the scene's lock.
    """
    # Whoever sends Ctrl-C to single processes: the parent alone decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the server blocks them
    if place.device.startswith("cuda:"):
        # Before anything touches CUDA, which the server it was forked from has not.
        number = int(place.device.removeprefix("cuda:"))
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_device(number, os.environ)
    lock.detach()  # held until this process ends, whatever becomes of its parent
    threading.Thread(target=_follow_parent, args=(messages,), daemon=True).start()

    import torch

    from dac_nerfstudio.run.worker import work

    if place.threads is not None:
        torch.set_num_threads(place.threads)
    work(job, plan, log, messages)


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
