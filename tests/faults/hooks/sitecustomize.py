"""Faults within the processes of a run, by variables of the environment; Python imports this when it starts.

``KILL_IN_CHECKPOINT``, a folder: each training is killed at its first checkpoint when half of it is written, and at its
second when that is in its place and no record says so. ``CLOCK_BACK``, seconds: the clock is behind by so many.
"""

import os
import signal
import time
from pathlib import Path

_replace, _time = os.replace, time.time


def _killed(source: str, target: str) -> None:
    """Stands in for `os.replace`."""
    path = Path(target)
    if path.suffix != ".ckpt":
        return _replace(source, target)
    told = Path(os.environ["KILL_IN_CHECKPOINT"]) / path.parent.parent.as_posix().replace("/", "-")
    before = len(told.read_text()) if told.exists() else 0
    if before < 2:
        told.write_text("x" * (before + 1))
    if before == 0:
        os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    _replace(source, target)
    if before == 1:
        os.kill(os.getpid(), signal.SIGKILL)


if "KILL_IN_CHECKPOINT" in os.environ:
    os.replace = _killed
if "CLOCK_BACK" in os.environ:
    behind = float(os.environ["CLOCK_BACK"])
    time.time = lambda: _time() - behind
    _strftime, _localtime = time.strftime, time.localtime
    time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
    time.strftime = lambda text, when=None: _strftime(text, time.localtime() if when is None else when)
