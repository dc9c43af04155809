"""Messages on the console. Names of files and texts of errors are shown to the letter, never read as rich's markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Callable, Optional, Sequence, Tuple, TypeVar, Union

from rich.console import Console
from rich.text import Text

T = TypeVar("T")

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys instead of showing them, changes of direction among them; not tab and newline."""


def say(console: Console, *parts: Union[str, Tuple[str, str]]) -> None:
    """Print a line of texts, one after the other; with a style as pairs."""
    console.print(literally(*parts), soft_wrap=True)


def literally(*parts: Union[str, Tuple[str, str]]) -> Text:
    """Texts to print to the letter. A file's name may hold control characters and halves of characters: these are shown
    as their numbers."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((_visible(text), style) for text, style in pairs))


def tracked(items: Sequence[T], what: str, progress: Optional[Callable[[int, int], None]] = None) -> Iterator[T]:
    """Yields items; ``progress`` is called with the number of those done and their total, without it a bar is drawn."""
    if progress is None:
        from rich.progress import track

        yield from track(items, what, transient=True)
        return
    for done, item in enumerate(items, start=1):
        yield item
        progress(done, len(items))


def _visible(text: str) -> str:
    whole = text.encode("utf-8", "backslashreplace").decode()
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), whole)
