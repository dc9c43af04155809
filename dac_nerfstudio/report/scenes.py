"""Several scenes in one table: what methods reach on average."""

from __future__ import annotations

from statistics import fmean
from typing import Any, Dict, List, Optional, Sequence

from dac_nerfstudio.report.results import Results
from dac_nerfstudio.report.runs import METHODS, TITLES
from dac_nerfstudio.report.tables import Grid
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.units import clock, signed

Row = Dict[str, Any]
"""One figure of each scene, ``per_scene``, and its ``mean`` where all scenes have it."""


def combine(results: Sequence[Results]) -> Dict[str, Any]:
    """Figures of several scenes beside each other, as results.json has them: ``scores`` by score and method, the
    ``gain`` of the fine-tuned student over plain training, training times in ``seconds``, and ``notes``."""
    present = [method for method in METHODS if any(method in one.methods for one in results)]
    scores: Dict[str, Dict[str, Row]] = {}
    for score in SCORES:
        for method in present:
            values = [one.methods[method].scores.get(score) if method in one.methods else None for one in results]
            if any(value is not None for value in values):
                scores.setdefault(score, {})[method] = _row(values)
    notes = [
        f"{one.scene} has no {TITLES[method]}, which therefore has no mean."
        for method in present
        for one in results
        if method not in one.methods
    ]
    notes += [
        f"{one.scene} has no {SCORES[score].label} of every method: {why}"
        for one in results
        for score, why in one.left_out.items()
        if score in scores
    ]
    notes += [
        f"{one.scene} was not compared at equal cost"
        + (": finished runs taught its student." if one.taught else ": --baseline total trains a baseline for as long.")
        for one in results
        if one.gain is not None and not one.gain.equal_cost
    ]
    return {
        "scenes": [one.scene for one in results],
        "runs": [one.run for one in results],
        "partitions": [one.partition for one in results],
        "scores": scores,
        "gain": _row([one.gain.mean if one.gain else None for one in results]),
        "seconds": {
            method: [one.costs[method].seconds if method in one.costs else None for one in results]
            for method in present
        },
        "notes": notes,
    }


def _row(values: List[Optional[float]]) -> Row:
    known = [value for value in values if value is not None]
    return {"per_scene": values, "mean": fmean(known) if known and len(known) == len(values) else None}


def scene_grid(combined: Dict[str, Any], score: str) -> Grid:
    """One score: methods in rows, scenes in columns, their mean last."""
    text = SCORES[score].text
    rows = [
        [TITLES[method], *map(text, row["per_scene"]), text(row["mean"])]
        for method, row in combined["scores"][score].items()
    ]
    if score == "psnr":
        gains = [*combined["gain"]["per_scene"], combined["gain"]["mean"]]
        rows.append(["gain over plain training", *("–" if gain is None else signed(gain) for gain in gains)])
    return Grid(["", *combined["scenes"], "mean"], rows)


def time_grid(combined: Dict[str, Any]) -> Grid:
    """Training times: methods in rows, scenes in columns."""
    rows = [
        [TITLES[method], *("–" if value is None else clock(value) for value in values)]
        for method, values in combined["seconds"].items()
    ]
    return Grid(["", *combined["scenes"]], rows)
