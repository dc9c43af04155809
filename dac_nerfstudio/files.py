"""Files that are there as a whole or not at all, and nerfstudio's records read as what they are: data."""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Optional


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`, and moves it there once the block has succeeded. After a power
    cut, too, there is the earlier file or this one."""
    with temporary_beside(path) as temporary:
        try:
            yield temporary
            move_in(temporary, path)
        except OSError as error:
            if error.errno is not None and error.filename in (None, temporary, str(temporary)):  # None: a full disk
                error.filename = str(path)
            raise


def move_in(temporary: Path, path: Path) -> None:
    """Put a whole file in the place of another; both are on the disk when this returns."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the file system knows such a thing."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or one that cannot be read."""
    try:
        return json.loads(path.read_text("utf8"))
    except (OSError, ValueError, RecursionError):
        return None


def checksum(path: Path) -> str:
    """A file's CRC-32, which tells it from what is left of it after an accident."""
    total = 0
    for chunk in chunks(path):
        total = zlib.crc32(chunk, total)
    return f"{total:08x}"


def chunks(path: Path) -> Iterator[bytes]:
    """What a file holds, a mebibyte at a time."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def write_text(path: Path, text: str) -> None:
    """Write as a whole or not at all."""
    with atomic_write(path) as temporary:
        # A file name may be no valid Unicode.
        temporary.write_bytes(text.encode("utf-8", "xmlcharrefreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write as a whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_config(path: Path) -> Dict[str, Any]:
    """What nerfstudio recorded of a run, as plain data: its classes are not needed, and nothing of it is run.

    Empty where there is no such file or it cannot be read.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        """Takes Python's objects for what they are made of."""

    def plain(loader: Plain, kind: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            parts = loader.construct_sequence(node, deep=True)
            return str(Path(*map(str, parts))) if "pathlib" in kind else parts
        return loader.construct_scalar(node)  # type: ignore[arg-type]

    Plain.add_multi_constructor("tag:yaml.org,2002:python/", plain)
    try:
        content: Optional[Any] = yaml.load(path.read_text("utf8"), Loader=Plain)  # noqa: S506 - a safe one
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
