"""Flags of ``ns-train``: from a file with one table per method, and as the words of a command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Tuple

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.naming import UNBOUNDED
from dac_nerfstudio.presets import Flags

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLES = (
    "all", "dac-baseline", "dac-expert", "dac-distill", "dac-finetune",
    "dac-baseline-nerfacto", "dac-expert-nerfacto", "dac-finetune-nerfacto",
)  # fmt: skip
"""What a file may set flags for; the methods' names without -360. Flags of the model in `all` are K-Planes's."""


def table_of(method: str) -> str:
    """The table with a method's flags."""
    return method.removesuffix(UNBOUNDED)


OWNED = {
    "data": "Say it with --data",
    "output-dir": "Say it with --output-dir",
    "experiment-name": "Say it with --scene",
    "timestamp": "Runs are named by --preset and --seed",
    "machine.seed": "Say it with --seed",
    "machine.device-type": "Say it with --devices",
    "partition": "dac run takes the partition.json in the scene's folder of results: copy the file there",
    "group": "There is an expert of every group",
    "experts": "Say it with --experts",
    "teachers": "Say it with --teachers",
    "student": "Fine-tuning starts from the student of the same run",
    **dict.fromkeys(
        ("load-dir", "load-checkpoint", "load-step", "load-config"), "What was interrupted goes on by itself"
    ),
    **dict.fromkeys(("method-name", "relative-model-dir"), "dac run finds runs by where nerfstudio puts them"),
    **dict.fromkeys(("pipeline.datamanager.data", "pipeline.datamanager.dataparser.data"), "Say it with --data"),
    "pipeline.datamanager.partition": "dac run takes the partition.json in the scene's folder of results",
    "machine.num-devices": "Every stage runs on one device; --devices says on which",
}
"""Flags that tell stages apart or tie them together, and what to do about them instead."""


def words(flags: Flags) -> Tuple[str, ...]:
    """Flags as they are typed: a name with two dashes, then its value or values."""
    return tuple(word for name, value in flags.items() for word in (f"--{name}", *map(str, _values(value))))


def _values(value: Any) -> Tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def read_flags(path: Path) -> Tuple[Dict[str, Flags], bytes]:
    """Flags per table of a TOML file such as

        [all]
        pipeline.model.num-samples = 64

        [dac-expert]
        max-num-iterations = 3000

    Names are those that `ns-train METHOD --help` lists, without the dashes in front. `all` comes before a method's own.

    Returns:
        The flags, and the file's bytes: later it may hold others.

    Raises:
        StageError: the file is missing, is not of this form, or sets what is dac run's to decide.
    """
    expected = ", ".join(f"[{name}]" for name in TABLES)
    try:
        content = path.read_bytes()
        tables = tomllib.loads(content.decode("utf8"))
    except FileNotFoundError:
        raise StageError(f"There is no file {path}. --config takes a TOML file with tables {expected}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StageError(f"{path} is not valid TOML: {error}.") from None
    for name, table in tables.items():
        if name not in TABLES or not isinstance(table, dict):
            raise StageError(f"{path}: unknown entry '{name}'; expected tables {expected}.")
    return {name: dict(_flags(table, "", path)) for name, table in tables.items()}, content


def _flags(table: Mapping[str, Any], prefix: str, source: Path) -> Iterator[Tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flags(value, f"{prefix}{name}.", source)
            continue
        flag = f"{prefix}{name}".replace("_", "-")  # ns-train takes either
        if flag in OWNED:
            raise StageError(f"{source}: {prefix}{name} cannot be set in a file. {OWNED[flag]}.")
        if not all(isinstance(word, (str, int, float)) for word in _values(value)):
            raise StageError(
                f"{source}: {prefix}{name} is {value!r}; expected text, a number, true or false, or a list."
            )
        if flag == "max-num-iterations" and not str(value).isdecimal():  # planning adds them up
            raise StageError(f"{source}: {prefix}{name} is {value!r}; expected a whole number, 1 or more.")
        yield flag, value
