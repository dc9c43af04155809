"""Reports of scenes, written and printed."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

from rich.console import Console

from dac_nerfstudio.errors import StageError, UserError, in_a_line
from dac_nerfstudio.messages import literally, say
from dac_nerfstudio.report import scenes, writing
from dac_nerfstudio.report.results import table
from dac_nerfstudio.report.tables import headline, remarks


def report_scenes(scene_dirs: Sequence[Path], run: Optional[str], console: Console) -> None:
    """Write the report of each scene, and one of all where there are several; print their tables.

    Args:
        scene_dirs: the scenes' folders of results.
        run: name of the runs to report; None takes the latest of each scene.
        console: where tables, and where the pages lie, are printed.

    Raises:
        StageError: some scenes cannot be reported; the others are.
    """
    reported, problems = {}, []
    for folder in scene_dirs:
        try:
            with console.status(literally(f"Reporting {folder} …")):
                results = writing.write_report(folder, run)
        except (UserError, OSError) as error:
            problems.append(in_a_line(error))
            continue
        console.print(table(results))
        say(console, headline(results))
        for remark in remarks(results):
            say(console, (remark, "yellow"))
        say(console, f"Report:  {writing.page_path(folder)}")
        reported[folder] = results
    if len(reported) > 1:
        combined = scenes.combine(list(reported.values()))
        console.print(scenes.terminal_table(combined))
        try:
            path = writing.write_combined(list(reported), combined)
        except OSError as error:
            problems.append(in_a_line(error))
        else:
            where = "not written, as these scenes lie in different folders" if path is None else str(path)
            say(console, f"All:     {where}")
    if problems:
        raise StageError("\n".join(problems))
