"""Ctrl-C, SIGTERM and a scheduler's warning, taken between two training steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Callable, Optional, Sequence

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2") if hasattr(signal, name))
"""What asks a process to stop; Windows lacks the last two. HUP comes when a terminal is closed, USR2 is what Slurm is
asked to send before a job's time is up, see `dac_nerfstudio.launch.slurm.options`."""


class Interrupted(SystemExit):
    """Training was asked to stop, and what it had reached is saved. As an exit code: 128 + the signal's number."""

    def __init__(self, number: int, steps: int) -> None:
        super().__init__(128 + number)
        self.steps = steps


class Request:
    """Whether somebody asked to stop."""

    signal: Optional[int] = None


@contextmanager
def handling(handler: Callable[[int, Optional[FrameType]], None], numbers: Sequence[int] = SIGNALS) -> Iterator[None]:
    """While in here, a handler hears what asks to stop. A signal that somebody chose to ignore stays ignored, and
    threads other than the first hear none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def stop_requests(wake: Callable[[], None] = lambda: None) -> Iterator[Request]:
    """While in here, signals are requests, but a second Ctrl-C interrupts at once.

    The others may come any number of times: shells and schedulers send them to a process, to its group, and once more.

    Args:
        wake: called at each request, for whoever waits for something else.
    """
    request = Request()

    def note(number: int, frame: Optional[FrameType]) -> None:
        request.signal = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        wake()

    with handling(note):
        yield request
