"""The figures as Markdown, to paste where a page cannot go."""

from __future__ import annotations

from typing import Any, List, Sequence

from markupsafe import Markup

from dac_nerfstudio.report.tables import Grid
from dac_nerfstudio.style import render


def markdown(template: str, **values: Any) -> str:
    """What a template in `templates/` makes of what a page shows."""
    return render(template, plain=lambda text: Markup(plain(text)), table=lambda grid: Markup(table(grid)), **values)


def table(grid: Grid) -> str:
    """A table of GitHub's Markdown; what stands out is bold."""
    lines = [_row(grid.headings), "|" + " --- |" + " ---: |" * (len(grid.headings) - 1)]
    for number, row in enumerate(grid.rows):
        marks = [False, *(grid.best[number] if grid.best else [False] * (len(row) - 1))]
        lines.append(_row(row, marks))
    return "\n".join(lines)


def _row(cells: List[str], marks: Sequence[bool] = ()) -> str:
    shown = [plain(cell) for cell in cells]
    for number, mark in enumerate(marks):
        if mark:
            shown[number] = f"**{shown[number]}**"
    return "| " + " | ".join(shown) + " |"


def plain(text: str) -> str:
    """Text that stays text in Markdown."""
    for mark in ("\\", "|", "*", "_", "`", "<", "[", "#"):
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
