"""What studies share: their commands, the files of their settings and results, figures over seeds, stale pages."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from dac_nerfstudio.errors import StageError, UserError
from dac_nerfstudio.files import atomic_write

if sys.version_info >= (3, 11):
    pass
else:
    pass


def read_results(path: Path, program: str) -> dict[str, Any]:
    """The results that a program has written.

    Raises:
        StageError: the file holds none.
    """
    try:
        return json.loads(path.read_text("utf8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path} holds no results ({error}). Make them: python {program} run") from None


def write_results(path: Path, content: dict[str, Any]) -> None:
    """Write results as JSON, lists of numbers in one line each."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", "utf8")


def check_page(page: Path, text: str, results: Path, program: str) -> None:
    """Make sure that a page is what the results give.

    Raises:
        StageError: it is not.
    """
    if not page.exists() or page.read_text("utf8") != text:
        raise StageError(f"{page} is stale. Make it again: python {program} page {results} {page}")


def carry_out(about: str | None, **commands: Callable[..., None]) -> None:
    """Do what was typed; what is the user's to mend is said in a sentence.

    Args:
        about: the program's docstring.
        commands: by name.
    """
    try:
        tyro.extras.subcommand_cli_from_dict(commands, description=(about or "").partition("\n\n")[0])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)
