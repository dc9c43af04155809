"""The program that makes videos."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dac_nerfstudio.files import temporary_beside


def provide_ffmpeg() -> None:
    """Put imageio-ffmpeg's program on PATH under the name that ``ns-render`` looks for, where there is no other.

    Where that cannot be done nothing happens: ``ns-render`` then says what it lacks, and nobody else needs it.
    """
    if shutil.which("ffmpeg"):
        return
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        program = Path(get_ffmpeg_exe()).resolve()
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dac-nerfstudio"
        link = folder / "ffmpeg"
        if link.resolve() != program:
            with temporary_beside(link) as temporary:
                temporary.symlink_to(program)
                os.replace(temporary, link)
    except (ImportError, RuntimeError, OSError):
        return
    os.environ["PATH"] = os.pathsep.join((os.environ.get("PATH", ""), str(folder)))
