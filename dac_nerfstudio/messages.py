"""Messages on the console. Names of files and texts of errors are shown to the letter, never read as rich's markup."""

from __future__ import annotations

import re
from typing import Tuple, Union

from rich.console import Console
from rich.text import Text

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys instead of showing them, changes of direction among them; not tab and newline."""


def say(console: Console, *parts: Union[str, Tuple[str, str]]) -> None:
    """Print a line.

    Args:
        console: where.
        parts: texts, one after the other; with a style as pairs.
    """
    console.print(literally(*parts), soft_wrap=True)


def literally(*parts: Union[str, Tuple[str, str]]) -> Text:
    """Texts to print to the letter. A file's name may hold control characters and halves of characters: these are shown
    as their numbers."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((_visible(text), style) for text, style in pairs))


def _visible(text: str) -> str:
    whole = text.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), whole)
