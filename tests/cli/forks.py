"""Scripts in forks of the server that ``dac run`` forks its stages from: it has imported nerfstudio once, which takes a
script ten seconds."""

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from dac_nerfstudio.launch.process import PRELOAD
from dac_nerfstudio.signals import SIGNALS


def run_in_fork(
    script: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> tuple[int, str]:
    """The exit code of a script and what it printed, run in a folder and an environment.

    Raises:
        TimeoutError: it has not ended in so many seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as name:
        report = Path(name)
        fork = context.Process(target=_run, args=(script, arguments, folder, dict(environment), report))
        fork.start()
        fork.join(timeout)
        if fork.is_alive():
            fork.kill()
            raise TimeoutError(f"{script} {' '.join(arguments)}:\n{(report / 'output').read_text()[-4000:]}")
        # Not the process's exit code: of several threads that start and wait for processes, one may take another's.
        code = report / "code"
        return int(code.read_text()) if code.exists() else -1, (report / "output").read_text()


def _run(script: str, arguments: Sequence[str], folder: Path, environment: dict[str, str], report: Path) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the server blocks them
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with (report / "output").open("w") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    sys.argv = [script, *arguments]
    code = 0
    try:
        (entry,) = entry_points(group="console_scripts", name=script)
        entry.load()()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    (report / "code").write_text(str(code))
