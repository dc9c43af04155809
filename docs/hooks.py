"""What mkdocs does beside Markdown: the commands' page is what they say of themselves, formulas become MathML.

Browsers draw MathML themselves: no page loads a script for it.
"""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from dac_nerfstudio.cli import COMMANDS

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
INTRODUCTION = """# Commands

What each command says of itself with `--help`. Those of nerfstudio (`ns-train dac-expert --help` and so on) have
hundreds of flags and say them there; the methods are listed [here](methods.md)."""


def on_files(files: Files, config: Any) -> Files:
    """Add the page of the commands."""
    parts = [INTRODUCTION]
    for name in COMMANDS:
        parts += [f"## dac {name}", f"```text\n{help_of(name)}\n```"]
    files.append(File.generated(config, "commands.md", content="\n\n".join(parts)))
    return files


def help_of(command: str) -> str:
    """What a command prints for --help, without colours.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    words = (sys.executable, "-m", "dac_nerfstudio.cli", command, "--help")
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def on_page_content(content: str, **_: Any) -> str:
    """Draw formulas, which arithmatex has marked."""

    def drawn(found: re.Match[str]) -> str:
        return convert(html.unescape(found[2]).strip(), display="block" if found[1] == "div" else "inline")

    return FORMULA.sub(drawn, content)
