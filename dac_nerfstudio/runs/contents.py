"""What photos hold, as a digest: it tells them from others of the same names and sizes."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Iterable, List

from dac_nerfstudio.files import chunks, read_json, write_json


def contents_digest(paths: Iterable[Path], kept: Path) -> str:
    """A digest of what files hold, in their order.

    Each is read once: its digest is kept by the file's path, size, and times of the last change of contents and entry.

    Args:
        kept: file of digests; written where its folder is there.
    """
    known = read_json(kept)
    known = known if isinstance(known, dict) else {}
    new: Dict[str, List[Any]] = {}
    digest = hashlib.sha256()
    for path in paths:
        name, status = str(path.absolute()), path.stat()
        marks = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        entry = known.get(name)
        if not isinstance(entry, list) or entry[:-1] != marks:
            entry = new[name] = [*marks, _digest_of(path)]
        digest.update(f"{entry[-1]}\n".encode())
    if new and kept.parent.is_dir():
        with suppress(OSError):  # somebody else's folder; then they are read again
            write_json(kept, {**known, **new})
    return digest.hexdigest()[:16]


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in chunks(path):
        digest.update(chunk)
    return digest.hexdigest()
