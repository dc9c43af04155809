"""Messages on the console. Names of files and texts of errors are shown to the letter, never read as rich's markup."""

from __future__ import annotations

from typing import Tuple, Union

from rich.console import Console
from rich.text import Text


def say(console: Console, *parts: Union[str, Tuple[str, str]]) -> None:
    """Print a line.

    Args:
        console: where.
        parts: texts, one after the other; with a style as pairs.
    """
    console.print(literally(*parts), soft_wrap=True)


def literally(*parts: Union[str, Tuple[str, str]]) -> Text:
    """Texts to print to the letter; half of a character, which a file's name may hold, as its number."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((text.encode("utf-8", "backslashreplace").decode(), style) for text, style in pairs))
