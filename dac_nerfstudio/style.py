"""What all pages and pictures share: the colours of groups, ink and fonts, and the templates of pages."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
MARKERS = ("o", "s", "^", "D")
"""The next one for every round through the palette."""
INK, FAINT, GREY = "#333333", "#BBBBBB", "#666666"
"""Text and outlines; lines that stay in the background; captions."""
SHADES = ("#FFFFFF", "#D5DDE4", "#7C92A5", "#31485C", "#0D1B26")
"""Similarities, from the lowest to the highest; no group's colour is among them."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
"""Whatever the reader's system has."""
TEMPLATES = Path(__file__).parent / "templates"


def colour(group: int) -> str:
    """`#RRGGBB` of a group, counted from 1."""
    return COLOURS[(group - 1) % len(COLOURS)]


def marker(group: int) -> str:
    """matplotlib's name of a group's marker."""
    return MARKERS[(group - 1) // len(COLOURS) % len(MARKERS)]


def counted(number: int, noun: str) -> str:
    """`1 view`, `2 views`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def group_named(text: str) -> int | None:
    """The group whose name this is, such as `group 3`."""
    named = re.fullmatch(r"group (\d+)", text)
    return int(named[1]) if named else None


def address(picture: Image, kind: str, **options: Any) -> str:
    """A picture as an address that holds it, for pages that fetch nothing; `kind` and options as of Pillow's `save`."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def render(template: str, **values: Any) -> str:
    """A page, from a file in `templates/`. Every value is escaped: what comes from data is text and never markup.

    Raises:
        jinja2.UndefinedError: the template names a value that was not given.
    """
    return _environment().get_template(template).render(**values)


def source(program: str) -> str:
    """A program of a page as its content policy names it: by what it is."""
    return "sha256-" + base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    # A number that is not finite is no JSON: it must not reach a page.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters["source"] = source
    # Quotes in the font's name belong to the style sheet.
    environment.globals.update(
        colour=colour, counted=counted, group_named=group_named, INK=INK, FAINT=FAINT, GREY=GREY, FONT=Markup(FONT)
    )
    return environment
