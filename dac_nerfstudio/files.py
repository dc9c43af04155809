"""Files that are there as a whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`, and moves it there once the block has succeeded."""
    with temporary_beside(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yields an unused path in the folder of `path`, and removes what is left there in the end."""
    # Not from `tempfile`, whose files nobody else can read: a scene's folder may be shared.
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write as a whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf8")
