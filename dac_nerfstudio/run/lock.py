"""One `dac run` at a time in a scene's folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict

from dac_nerfstudio.stage import StageError

FILE_NAME = ".dac-run.lock"
PATIENCE = 120.0
"""Seconds for the stages of a killed run to notice that, save, and end."""


@contextmanager
def scene_lock(scene_dir: Path, wait_told: Callable[[str], None] = lambda text: None) -> Iterator[int]:
    """Holds a scene's folder for this process, and for every other that inherits the file descriptor it yields.

    A stage holds it along with the run that started it: where that was killed, the next one waits for its stages.

    Args:
        scene_dir: made if it is not there.
        wait_told: told once what is being waited for.

    Raises:
        StageError: another run holds it; the message says who.
    """
    scene_dir.mkdir(parents=True, exist_ok=True)
    path = scene_dir / FILE_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = None
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _holder(path)
                if _alive(holder) or (deadline is not None and time.monotonic() > deadline):
                    raise StageError(
                        f"{scene_dir} is being worked on by another dac run: process {holder.get('pid')} on "
                        f"{holder.get('host')}, since {holder.get('since')}. Wait for it, stop it (kill "
                        f"{holder.get('pid')}; what it has reached is saved), or use another --output-dir."
                    ) from None
                if deadline is None:
                    deadline = time.monotonic() + PATIENCE
                    wait_told(f"Waiting for the stages of an earlier run of {scene_dir} to save what they have …")
                time.sleep(0.2)
        os.ftruncate(descriptor, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.pwrite(
            descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode(), 0
        )
        yield descriptor
    finally:
        os.close(descriptor)


def _holder(path: Path) -> Dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _alive(holder: Dict[str, Any]) -> bool:
    if holder.get("host") != socket.gethostname():
        return bool(holder)  # nothing is known of processes elsewhere
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, KeyError, TypeError):
        pass
    return True
