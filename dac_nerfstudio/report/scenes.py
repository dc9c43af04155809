"""Several scenes in one table: what methods reach on average."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, List, Optional

from rich import box
from rich.table import Table

from dac_nerfstudio.report.markdown import bullets, plain
from dac_nerfstudio.report.markdown import table as markdown_table
from dac_nerfstudio.report.methods import METHODS, TITLES
from dac_nerfstudio.report.tables import Grid
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.style import render
from dac_nerfstudio.units import clock, signed


def combine(all_results: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Figures of several scenes beside each other; a mean only of what all scenes have.

    Args:
        all_results: one per scene, as ``results.figures`` makes them.
    """
    present = [method for method in METHODS if any(method in results["methods"] for results in all_results)]
    methods: Dict[str, Any] = {}
    for method in present:
        entries = [results["methods"].get(method, {}) for results in all_results]
        per_scene = {score: [entry.get("scores", {}).get(score) for entry in entries] for score in SCORES}
        methods[method] = {
            "per_scene": {score: values for score, values in per_scene.items() if any(v is not None for v in values)},
            "mean": {
                score: fmean(v for v in values if v is not None)
                for score, values in per_scene.items()
                if all(v is not None for v in values)
            },
        }
    gains = [results["gain"]["mean"] if results["gain"] else None for results in all_results]
    lacking = [
        f"{results['scene']} has no {TITLES[method]}, which therefore has no mean."
        for method in present
        for results in all_results
        if method not in results["methods"]
    ]
    lacking += [
        f"{results['scene']} has no {SCORES[score].label} of every method: {why}"
        for results in all_results
        for score, why in results["left_out"].items()
        if any(score in entry["per_scene"] for entry in methods.values())
    ]
    known = [gain for gain in gains if gain is not None]
    return {
        "scenes": [results["scene"] for results in all_results],
        "runs": [results["run"] for results in all_results],
        "partitions": [results["partition"] for results in all_results],
        "methods": methods,
        "gain": {"per_scene": gains, "mean": fmean(known) if known and len(known) == len(gains) else None},
        "notes": lacking,
        "costs": {
            "seconds": {
                method: [results["costs"].get(method, {}).get("seconds") for results in all_results]
                for method in present
            }
        },
    }


def scene_grid(combined: Dict[str, Any], score: str) -> Grid:
    """One score: methods in rows, scenes in columns, their mean last."""
    methods = {name: entry for name, entry in combined["methods"].items() if score in entry["per_scene"]}
    rows = [
        [
            TITLES[method],
            *map(SCORES[score].text, entry["per_scene"][score]),
            SCORES[score].text(entry["mean"].get(score)),
        ]
        for method, entry in methods.items()
    ]
    if score == "psnr":
        gains = [*combined["gain"]["per_scene"], combined["gain"]["mean"]]
        rows.append(["gain over the baseline", *("–" if gain is None else signed(gain) for gain in gains)])
    return Grid(["", *combined["scenes"], "mean"], rows)


def time_grid(combined: Dict[str, Any]) -> Grid:
    """Training times: methods in rows, scenes in columns."""
    rows = [
        [TITLES[method], *("–" if value is None else clock(value) for value in values)]
        for method, values in combined["costs"]["seconds"].items()
    ]
    return Grid(["", *combined["scenes"]], rows)


def scores_of(combined: Dict[str, Any]) -> List[str]:
    """Those that any method has anywhere."""
    return [s for s in SCORES if any(s in entry["per_scene"] for entry in combined["methods"].values())]


def terminal_table(combined: Dict[str, Any]) -> Table:
    """PSNR of all scenes, as a table for a terminal."""
    grid = scene_grid(combined, "psnr")
    shown = Table(title="PSNR on the test views", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(grid.headings):
        shown.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in grid.rows:
        shown.add_row(*row)
    return shown


def markdown_of(combined: Dict[str, Any]) -> str:
    """All scores of all scenes."""
    parts = [f"# {len(combined['scenes'])} scenes"]
    if combined["notes"]:
        parts.append(bullets(combined["notes"]))
    for score in scores_of(combined):
        parts += [f"## {SCORES[score].heading}", markdown_table(scene_grid(combined, score))]
    parts += ["## Training time", markdown_table(time_grid(combined))]
    runs = ", ".join(f"{plain(scene)}: {plain(run)}" for scene, run in zip(combined["scenes"], combined["runs"]))
    return "\n\n".join([*parts, f"Runs: {runs}."]) + "\n"


def page_of(combined: Dict[str, Any], pages: List[Path], beside: Path) -> str:
    """All scores of all scenes, with links to the reports of each.

    Args:
        combined: what ``combine`` made.
        pages: of the scenes.
        beside: folder in which this page will lie.
    """
    count = len(combined["scenes"])
    gain = combined["gain"]["mean"]
    if gain is None:
        text = "Not all scenes have both baseline and fine-tuned student, so there is no mean gain."
    else:
        text = f"Gain in PSNR of the fine-tuned student over the baseline, mean of {count} scenes: {signed(gain)} dB."
    addresses = (_relative(page, beside) for page in pages)
    return render(
        "scenes.html",
        title=f"{count} scenes: report",
        count=count,
        headline=text,
        remarks=combined["notes"],
        scores=[(score, SCORES[score].heading, scene_grid(combined, score)) for score in scores_of(combined)],
        times=time_grid(combined),
        links=list(zip(combined["scenes"], combined["runs"], addresses)),
    )


def _relative(page: Path, beside: Path) -> str:
    from urllib.parse import quote

    return quote(os.path.relpath(page, beside).replace(os.sep, "/"))


def common_folder(scene_dirs: List[Path]) -> Optional[Path]:
    """The folder in which all scenes lie, if it is one."""
    parents = {path.resolve().parent for path in scene_dirs}
    return scene_dirs[0].parent if len(parents) == 1 else None
