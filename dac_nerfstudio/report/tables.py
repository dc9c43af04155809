"""The figures as tables of text, for whatever shows them: pages, Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from dac_nerfstudio.report.methods import LONG, TITLES
from dac_nerfstudio.report.results import steps_text
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.units import clock, signed, size


@dataclass
class Grid:
    """A table: the first column names the rows."""

    headings: List[str]
    rows: List[List[str]]
    best: List[List[bool]] = field(default_factory=list)
    """[rows][columns after the first]: what stands out; empty for nothing."""


def score_grid(results: Dict[str, Any]) -> Grid:
    """Every method's mean scores, with what it cost in steps and time."""
    methods, scores = results["methods"], results["scores"]
    columns = {score: [entry["scores"].get(score) for entry in methods.values()] for score in scores}
    best = {score: _best(score, column, list(methods)) for score, column in columns.items()}
    rows, marks = [], []
    for number, method in enumerate(methods):
        figures = [SCORES[score].text(columns[score][number]) for score in scores]
        views = str(len(methods[method]["per_view"]))
        rows.append([TITLES[method], *figures, views, steps_text(results, method), _time(results, method)])
        marks.append([*(best[score][number] for score in scores), False, False, False])
    headings = ["", *(SCORES[score].heading for score in scores), "views", "steps", "time"]
    return Grid(headings, rows, marks)


def group_grid(results: Dict[str, Any], score: str) -> Grid:
    """One score of every method on the test views of each group."""
    methods = {name: entry for name, entry in results["methods"].items() if score in entry["scores"]}
    groups = range(results["groups"])
    best = [
        _best(score, [entry["per_group"][score][group] for entry in methods.values()], list(methods))
        for group in groups
    ]
    rows = [
        [TITLES[method], *(SCORES[score].text(value) for value in entry["per_group"][score])]
        for method, entry in methods.items()
    ]
    marks = [[best[group][number] for group in groups] for number in range(len(methods))]
    return Grid(["", *(f"group {group + 1}" for group in groups)], rows, marks)


def view_grid(results: Dict[str, Any], score: str) -> Grid:
    """One score of every method on each test view."""
    methods = {name: entry for name, entry in results["methods"].items() if score in entry["scores"]}
    groups = {name: view["group"] for entry in methods.values() for name, view in entry["per_view"].items()}
    rows = []
    for name in sorted(groups):
        values = [entry["per_view"].get(name, {}).get(score) for entry in methods.values()]
        rows.append([name, str(groups[name] or "–"), *(SCORES[score].text(value) for value in values)])
    return Grid(["view", "group", *(TITLES[method] for method in methods)], rows)


def gain_grid(results: Dict[str, Any]) -> Grid:
    """Gain of the fine-tuned student over the baseline on each view, sorted."""
    views = (results["gain"] or {"views": []})["views"]
    rows = [[view["name"], str(view["group"] or "–"), signed(view["gain"])] for view in views]
    return Grid(["view", "group", "gain, dB"], rows)


def cost_grid(results: Dict[str, Any]) -> Grid:
    """What every method took."""
    rows = []
    for method, entry in results["methods"].items():
        costs = results["costs"][method]
        speed = costs["seconds_per_view"]
        memory = costs["peak_memory"]
        rows.append(
            [
                TITLES[method],
                steps_text(results, method),
                _time(results, method),
                "–" if speed is None else f"{speed:.2f} s",
                size(memory["process"]) if "process" in memory else "–",
                size(memory["gpu"]) if "gpu" in memory else "–",
                f"{entry['parameters'] / 1e6:.2f} M",
                size(4 * entry["parameters"]),
            ]
        )
    headings = [
        "",
        "steps",
        "training time",
        "to render a view",
        "peak memory",
        "on the GPU",
        "parameters",
        "as floats",
    ]
    return Grid(headings, rows)


def headline(results: Dict[str, Any]) -> str:
    """What came out, in a sentence."""
    gain, methods = results["gain"], results["methods"]
    if gain is None:
        having = ", ".join(f"{TITLES[m]} {SCORES['psnr'].text(e['scores'].get('psnr'))} dB" for m, e in methods.items())
        return f"PSNR on the test views: {having}. Without both baseline and fine-tuned student there is no comparison."
    one, other = (SCORES["psnr"].text(methods[m]["scores"]["psnr"]) for m in ("dac-finetune", "dac-baseline"))
    mean, count = gain["mean"], len(gain["views"])
    if abs(mean) < 0.005:
        verdict = "equals the baseline to the second decimal"
    else:
        verdict = f"is {abs(mean):.2f} dB {'better' if mean > 0 else 'worse'} than the baseline"
    steps, others = methods["dac-finetune"]["steps"], methods["dac-baseline"]["steps"]
    counts = "for as many steps of the student" if steps == others else f"for {steps} steps against {others}"
    parts = [
        f"On {count} test views the fine-tuned student {verdict} (PSNR {one} against {other} dB) {counts}. It is "
        f"better on {gain['better'] or 'none'} of them.",
        _whole_cost(results),
        _against_long(results),
    ]
    return " ".join(part for part in parts if part)


def _whole_cost(results: Dict[str, Any]) -> str:
    """What all stages together took beside the baseline; nothing where not all of them are here."""
    costs = results["costs"]
    if not {"dac-expert", "dac-distill"} <= costs.keys() or not costs["dac-baseline"]["seconds"]:
        return ""
    # The student's time has its distillation in it, the experts' their trunk.
    times = (costs["dac-expert"]["seconds"] + costs["dac-finetune"]["seconds"]) / costs["dac-baseline"]["seconds"]
    return f"All stages together took {times:.1f} times the baseline's time."


def _against_long(results: Dict[str, Any]) -> str:
    """How the student fares against a baseline of as many steps as all stages together, where there is one."""
    methods = results["methods"]
    student, long = (methods.get(method, {}).get("scores", {}).get("psnr") for method in ("dac-finetune", LONG))
    if student is None or long is None:
        return ""
    times = results["costs"][LONG]["seconds"] / results["costs"]["dac-baseline"]["seconds"]
    how = "better" if long > student else "worse"
    return (
        f"A baseline of as many steps as all stages together ({methods[LONG]['steps']}, {times:.1f} times the "
        f"baseline's time) is {abs(long - student):.2f} dB {how} than the student (PSNR {long:.2f} dB)."
    )


def remarks(results: Dict[str, Any]) -> List[str]:
    """What is missing, and what to know before comparing."""
    left_out = [f"{SCORES[score].label} is left out: {why}" for score, why in results["left_out"].items()
                if score not in results["scores"]]  # fmt: skip
    partly = [f"{SCORES[score].label} is left out of some rows: {why}" for score, why in results["left_out"].items()
              if score in results["scores"]]  # fmt: skip
    return [*results["missing"].values(), *results["notes"], *left_out, *partly]


def _time(results: Dict[str, Any], method: str) -> str:
    return clock(results["costs"][method]["seconds"])


def _best(score: str, values: List[Optional[float]], methods: List[str]) -> List[bool]:
    """Which value is the best of the single models: experts are several."""
    rivals = [v for v, m in zip(values, methods) if v is not None and m not in ("dac-expert", "dac-ensemble")]
    if len(rivals) < 2:
        return [False] * len(values)
    best = (max if SCORES[score].higher else min)(rivals)
    return [
        value is not None and value == best and method not in ("dac-expert", "dac-ensemble")
        for value, method in zip(values, methods)
    ]
