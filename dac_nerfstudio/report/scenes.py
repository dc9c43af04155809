"""Several scenes in one table: what methods reach on average."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, List, Optional, Sequence
from urllib.parse import quote

from dac_nerfstudio.report.results import Results
from dac_nerfstudio.report.runs import METHODS, TITLES
from dac_nerfstudio.report.tables import Grid
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.units import clock, signed


@dataclass(frozen=True)
class Row:
    """One figure of each scene, and its mean where all scenes have it."""

    per_scene: List[Optional[float]]
    mean: Optional[float]

    @classmethod
    def of(cls, values: Sequence[Optional[float]]) -> Row:
        known = [value for value in values if value is not None]
        return cls(list(values), fmean(known) if known and len(known) == len(values) else None)


@dataclass(frozen=True)
class Combined:
    """Figures of several scenes beside each other."""

    scenes: List[str]
    runs: List[str]
    partitions: List[str]
    scores: Dict[str, Dict[str, Row]]
    """By score and method: those that any scene has."""
    gain: Row
    """Of the fine-tuned student over plain training, see `results.Gain`."""
    seconds: Dict[str, List[Optional[float]]]
    """Training time by method."""
    notes: List[str]


def combine(results: Sequence[Results]) -> Combined:
    """Figures of several scenes beside each other; a mean only of what all scenes have."""
    present = [method for method in METHODS if any(method in one.methods for one in results)]
    scores: Dict[str, Dict[str, Row]] = {}
    for score, method in product(SCORES, present):
        values = [one.methods[method].scores.get(score) if method in one.methods else None for one in results]
        if any(value is not None for value in values):
            scores.setdefault(score, {})[method] = Row.of(values)
    lacking = [
        f"{one.scene} has no {TITLES[method]}, which therefore has no mean."
        for method in present
        for one in results
        if method not in one.methods
    ]
    lacking += [
        f"{one.scene} has no {SCORES[score].label} of every method: {why}"
        for one in results
        for score, why in one.left_out.items()
        if score in scores
    ]
    lacking += [
        f"{one.scene} was not compared at equal cost"
        + (": finished runs taught its student." if one.taught else ": --baseline total trains a baseline for as long.")
        for one in results
        if one.gain is not None and not one.gain.equal_cost
    ]
    return Combined(
        scenes=[one.scene for one in results],
        runs=[one.run for one in results],
        partitions=[one.partition for one in results],
        scores=scores,
        gain=Row.of([one.gain.mean if one.gain else None for one in results]),
        seconds={
            method: [one.costs[method].seconds if method in one.costs else None for one in results]
            for method in present
        },
        notes=lacking,
    )


def scene_grid(combined: Combined, score: str) -> Grid:
    """One score: methods in rows, scenes in columns, their mean last."""
    text = SCORES[score].text
    rows = [
        [TITLES[method], *map(text, row.per_scene), text(row.mean)] for method, row in combined.scores[score].items()
    ]
    if score == "psnr":
        gains = [*combined.gain.per_scene, combined.gain.mean]
        rows.append(["gain over plain training", *("–" if gain is None else signed(gain) for gain in gains)])
    return Grid(["", *combined.scenes, "mean"], rows)


def time_grid(combined: Combined) -> Grid:
    """Training times: methods in rows, scenes in columns."""
    rows = [
        [TITLES[method], *("–" if value is None else clock(value) for value in values)]
        for method, values in combined.seconds.items()
    ]
    return Grid(["", *combined.scenes], rows)


def contents_of(combined: Combined, pages: List[Path], beside: Path) -> Dict[str, Any]:
    """What their page shows, and their Markdown: all scores of all scenes, with links to the reports of each.

    Args:
        combined: what ``combine`` made.
        pages: of the scenes.
        beside: folder in which their page will lie.
    """
    count, gain = len(combined.scenes), combined.gain.mean
    if gain is None:
        text = "Not all scenes have both baseline and fine-tuned student, so there is no mean gain."
    else:
        text = f"Gain in PSNR of the fine-tuned student over plain training, mean of {count} scenes: {signed(gain)} dB."
    addresses = (quote(os.path.relpath(page, beside).replace(os.sep, "/")) for page in pages)
    return dict(
        title=f"{count} scenes: report",
        count=count,
        headline=text,
        remarks=combined.notes,
        scores=[(score, SCORES[score].heading, scene_grid(combined, score)) for score in combined.scores],
        times=time_grid(combined),
        links=list(zip(combined.scenes, combined.runs, addresses)),
    )
