"""Ctrl-C, SIGTERM and a scheduler's warning, taken between two training steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Optional

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""USR2 is what Slurm is told to send before a job's time is up, see `dac_nerfstudio.run.slurm`."""


class Interrupted(SystemExit):
    """Training was asked to stop, and what it had reached is saved. As an exit code: 128 + the signal's number."""

    def __init__(self, number: int, steps: int) -> None:
        super().__init__(128 + number)
        self.steps = steps


class Request:
    """Whether somebody asked to stop."""

    signal: Optional[int] = None


@contextmanager
def stop_requests() -> Iterator[Request]:
    """While in here, the first signal is a request; a second one acts as it always does."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals are not for other threads
        return

    def note(number: int, frame: Optional[FrameType]) -> None:
        request.signal = number
        restore()

    # One that somebody chose to ignore stays ignored.
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield request
    finally:
        restore()
