"""Reports as files, of each scene in its own folder and of several beside them, and as tables on the console."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

from rich.console import Console

from dac_nerfstudio.errors import StageError, UserError, in_a_line
from dac_nerfstudio.files import write_json, write_text
from dac_nerfstudio.messages import literally, say
from dac_nerfstudio.report.markdown import markdown
from dac_nerfstudio.report.page import contents
from dac_nerfstudio.report.results import Results, figures, save
from dac_nerfstudio.report.runs import read_scene
from dac_nerfstudio.report.scenes import combine, scene_grid, time_grid
from dac_nerfstudio.report.tables import headline, remarks, summary, terminal
from dac_nerfstudio.runs.layout import report_folder
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.style import render

REPORT, TEXT = "report.html", "results.md"


def write_report(scene_dir: Path, run: Optional[str] = None) -> Results:
    """Write results.json, results.md and report.html into ``report/`` of a scene's folder of results; the figures.

    Raises:
        StageError: there are no finished runs of this name.
    """
    scene = read_scene(scene_dir, run)
    results = figures(scene)
    save(results, scene_dir)
    shown = contents(results, scene)
    write_text(report_folder(scene_dir) / TEXT, markdown("results.md", **shown))
    write_text(page_path(scene_dir), render("report.html", **shown))
    return results


def page_path(scene_dir: Path) -> Path:
    """The page of a scene."""
    return report_folder(scene_dir) / REPORT


def report_scenes(scene_dirs: Sequence[Path], run: Optional[str], console: Console) -> None:
    """Write the report of each scene, and a table of all where there are several; print their tables.

    Raises:
        StageError: some scenes cannot be reported; the others are.
    """
    reported, problems = {}, []
    for folder in scene_dirs:
        try:
            with console.status(literally(f"Reporting {folder} …")):
                results = write_report(folder, run)
        except (UserError, OSError) as error:
            problems.append(in_a_line(error))
            continue
        console.print(summary(results))
        say(console, headline(results))
        for remark in remarks(results):
            say(console, (remark, "yellow"))
        say(console, f"Report:  {page_path(folder)}")
        reported[folder] = results
    if len(reported) > 1:
        combined = combine(list(reported.values()))
        console.print(terminal(scene_grid(combined, "psnr"), "PSNR on the test views"))
        where = "not written, as these scenes lie in different folders"
        if len({path.resolve().parent for path in reported}) == 1:
            folder = next(iter(reported)).parent
            grids = [(SCORES[score].heading, scene_grid(combined, score)) for score in combined["scores"]]
            grids.append(("Training time", time_grid(combined)))
            where = str(folder / TEXT)
            try:
                write_json(folder / "results.json", combined)
                write_text(folder / TEXT, markdown("scenes.md", grids=grids, **combined))
            except OSError as error:
                raise StageError("\n".join([*problems, in_a_line(error)])) from None
        say(console, f"All:     {where}")
    if problems:
        raise StageError("\n".join(problems))
