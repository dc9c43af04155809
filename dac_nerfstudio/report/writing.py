"""Reports as files: of each scene in its own folder, and of several beside them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import List, Optional

from dac_nerfstudio.files import write_json
from dac_nerfstudio.report.markdown import markdown, write_text
from dac_nerfstudio.report.page import page
from dac_nerfstudio.report.results import Results, figures, save
from dac_nerfstudio.report.runs import latest_run, read_scene
from dac_nerfstudio.report.scenes import Combined, common_folder, markdown_of, page_of
from dac_nerfstudio.runs.layout import report_folder

REPORT, TEXT = "report.html", "results.md"


def write_report(scene_dir: Path, run: Optional[str] = None) -> Results:
    """Write results.json, results.md and report.html into ``report/`` of a scene's folder of results; the figures.

    Args:
        scene_dir: such as outputs/lego.
        run: name of the runs; by default of those worked on last.

    Raises:
        StageError: there are no finished runs of this name.
    """
    scene = read_scene(scene_dir, run or latest_run(scene_dir))
    results = figures(scene)
    save(results, scene_dir)
    write_text(report_folder(scene_dir) / TEXT, markdown(results))
    write_text(page_path(scene_dir), page(results, scene))
    return results


def page_path(scene_dir: Path) -> Path:
    """The page of a scene."""
    return report_folder(scene_dir) / REPORT


def write_combined(scene_dirs: List[Path], combined: Combined) -> Optional[Path]:
    """Write the same three files for several scenes into the folder that they share; its page, or None without one."""
    folder = common_folder(scene_dirs)
    if folder is None:
        return None
    write_json(folder / "results.json", asdict(combined))
    write_text(folder / TEXT, markdown_of(combined))
    write_text(folder / REPORT, page_of(combined, [page_path(scene_dir) for scene_dir in scene_dirs], folder))
    return folder / REPORT
