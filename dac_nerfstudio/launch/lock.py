"""One `dac run` at a time in a scene's folder."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import read_json

FILE_NAME = ".dac-run.lock"
PATIENCE = 120.0
"""Seconds for the stages of a killed run to notice that, save, and end."""
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""What locking comes to on file systems that know no locks, as many of clusters and networks do."""


@contextmanager
def scene_lock(scene_dir: Path, tell: Callable[[str], None] = lambda text: None) -> Iterator[int]:
    """Holds a scene's folder for this process, and for every other that inherits the file descriptor it yields.

    A stage holds it along with the run that started it: where that was killed, the next one waits for its stages.

    Args:
        scene_dir: made if it is not there.
        tell: takes a sentence on what is being waited for, or on why nothing can be held.

    Raises:
        StageError: another run holds it, and the message says who; or nothing can be written there.
    """
    with ExitStack() as stack:
        try:
            scene_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(scene_dir / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o666)
            stack.callback(os.close, descriptor)
            _hold(descriptor, scene_dir, tell)
        except OSError as error:
            raise StageError(
                f"{scene_dir} cannot be worked in: {error}. Change that, or use another --output-dir."
            ) from None
        yield descriptor


def _hold(descriptor: int, scene_dir: Path, tell: Callable[[str], None]) -> None:
    """Lock the file as soon as it is free, and write into it who did."""
    deadline = None
    while True:
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            found = read_json(scene_dir / FILE_NAME)
            holder = found if isinstance(found, dict) else {}
            pid = holder.get("pid")
            if _alive(holder) or (deadline is not None and time.monotonic() > deadline):
                raise StageError(
                    f"{scene_dir} is being worked on by another dac run: process {pid} on {holder.get('host')}, since "
                    f"{holder.get('since')}. Wait for it, stop it (kill {pid}; its progress is saved), or use "
                    "another --output-dir."
                ) from None
            if deadline is None:
                deadline = time.monotonic() + PATIENCE
                tell(f"Waiting for the stages of an earlier run of {scene_dir} to save what they have …")
            time.sleep(0.2)
        except (ImportError, OSError) as error:  # Windows has no fcntl
            if isinstance(error, OSError) and error.errno not in WITHOUT_LOCKS:
                raise
            tell(f"There are no locks for {scene_dir} here: see that no other dac run works there meanwhile.")
            break
    content = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(content).encode())


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
