"""The figures as Markdown, to paste where a page cannot go."""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence, Union

from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.report.results import Results
from dac_nerfstudio.report.runs import NAMES
from dac_nerfstudio.report.tables import (
    Grid,
    cost_grid,
    gain_grid,
    group_grid,
    headline,
    remarks,
    score_grid,
    view_grid,
)
from dac_nerfstudio.scores import SCORES


def markdown(results: Results) -> str:
    """A scene's figures."""
    parts: List[Union[str, Grid]] = [
        f"# {plain(results.scene)}: {plain(results.run)}",
        headline(results),
        score_grid(results),
        "Steps and time of the fine-tuned student include any distillation. The best single model in bold; experts are "
        "several.",
        bullets(remarks(results)),
        "## Per group",
    ]
    for score in results.scores:
        parts += [f"{SCORES[score].heading}, on the test views of each group:", group_grid(results, score)]
    parts.append("## Gain per view")
    if results.gain is None:
        parts.append("There is none without both baseline and fine-tuned student.")
    else:
        over = NAMES[results.gain.over]
        parts += [f"PSNR of the fine-tuned student minus that of the {over}:", gain_grid(results.gain)]
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    made = f"Made with {plain(versions)}; seed {results.seed}, partition {plain(results.partition)}."
    parts += ["## Costs", cost_grid(results), made]
    if results.commands:
        parts += ["## To repeat it", "```bash\n" + "\n".join(results.commands) + "\n```"]
    parts.append("## Per view")
    for score in results.scores:
        parts += [f"{SCORES[score].heading}:", view_grid(results, score)]
    return document(parts)


def document(parts: Sequence[Union[str, Grid]]) -> str:
    """Paragraphs and tables below each other; those that are empty are left out."""
    texts = [table(part) if isinstance(part, Grid) else part for part in parts]
    return "\n\n".join(filter(None, texts)) + "\n"


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


def bullets(lines: List[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def write_text(path: Path, text: str) -> None:
    """Write as a whole or not at all."""
    with atomic_write(path) as temporary:
        # A file name may be no valid Unicode.
        temporary.write_bytes(text.encode("utf-8", "xmlcharrefreplace"))
