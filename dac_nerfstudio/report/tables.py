"""The figures as tables of text and sentences, for whatever shows them: pages, Markdown, terminals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Optional

from rich import box
from rich.table import Table

from dac_nerfstudio.messages import literally
from dac_nerfstudio.report.results import Gain, Results, of_one_size
from dac_nerfstudio.report.runs import BASELINE, EXPERT, LONG, STUDENT, TITLES
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.style import counted
from dac_nerfstudio.units import clock, signed, size

FEW_VIEWS = 8
"""Fewer test views than this get a remark."""
PSNR = SCORES["psnr"]


@dataclass(frozen=True)
class Grid:
    """A table: the first column names the rows."""

    headings: List[str]
    rows: List[List[str]]
    best: List[List[bool]] = field(default_factory=list)
    """[rows][columns after the first]: what stands out; empty for nothing."""


def terminal(grid: Grid, title: str = "", caption: str = "") -> Table:
    """A grid as a table for a terminal."""
    shown = Table(
        title=literally(title), caption=caption or None, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for number, name in enumerate(grid.headings):
        shown.add_column(literally(name), justify="right" if number else "left", overflow="fold")
    for row in grid.rows:
        shown.add_row(*row)
    return shown


def summary(results: Results) -> Table:
    """The figures in short, as a table that fits a terminal."""
    groups = range(results.groups)
    rows = []
    for method, entry in results.methods.items():
        per_group = entry.per_group.get("psnr", [None] * results.groups)
        scores = [SCORES[score].text(entry.scores.get(score)) for score in ("psnr", "ssim")]
        cost = [steps_text(results, method), _time(results, method)]
        rows.append([TITLES[method], *scores, *map(PSNR.text, per_group), *cost])
    sizes = "Baseline and student are of one size. " if of_one_size(results.methods) else ""
    return terminal(
        Grid(["", "PSNR", "SSIM", *(f"g{group + 1}" for group in groups), "steps", time_heading(results)], rows),
        f"{results.scene}: test views, seed {results.seed}",
        f"g1 to g{results.groups}: PSNR on the test views of each group. {sizes}Steps and time of the fine-tuned "
        "student include any distillation.",
    )


def score_grid(results: Results) -> Grid:
    """Every method's mean scores, with what it cost in steps and time."""
    methods, scores = results.methods, results.scores
    columns = {score: [entry.scores.get(score) for entry in methods.values()] for score in scores}
    best = {score: _best(score, column, list(methods)) for score, column in columns.items()}
    rows, marks = [], []
    for number, (method, entry) in enumerate(methods.items()):
        figures = [SCORES[score].text(columns[score][number]) for score in scores]
        views = str(len(entry.per_view))
        rows.append([TITLES[method], *figures, views, steps_text(results, method), _time(results, method)])
        marks.append([*(best[score][number] for score in scores), False, False, False])
    headings = ["", *(SCORES[score].heading for score in scores), "views", "steps", time_heading(results)]
    return Grid(headings, rows, marks)


def group_grid(results: Results, score: str) -> Grid:
    """One score of every method on the test views of each group."""
    methods = {name: entry for name, entry in results.methods.items() if score in entry.scores}
    groups = range(results.groups)
    best = [
        _best(score, [entry.per_group[score][group] for entry in methods.values()], list(methods)) for group in groups
    ]
    rows = [
        [TITLES[method], *(SCORES[score].text(value) for value in entry.per_group[score])]
        for method, entry in methods.items()
    ]
    marks = [[best[group][number] for group in groups] for number in range(len(methods))]
    return Grid(["", *(f"group {group + 1}" for group in groups)], rows, marks)


def view_grid(results: Results, score: str) -> Grid:
    """One score of every method on each test view."""
    methods = {name: entry for name, entry in results.methods.items() if score in entry.scores}
    groups = {name: view["group"] for entry in methods.values() for name, view in entry.per_view.items()}
    rows = []
    for name in sorted(groups):
        values = [entry.per_view.get(name, {}).get(score) for entry in methods.values()]
        rows.append([name, _group(groups[name]), *(SCORES[score].text(value) for value in values)])
    return Grid(["view", "group", *(TITLES[method] for method in methods)], rows)


def gain_grid(gain: Gain) -> Grid:
    """Gain of the fine-tuned student on each view, sorted."""
    rows = [[view.name, _group(view.group), signed(view.gain)] for view in gain.views]
    return Grid(["view", "group", "gain, dB"], rows)


def cost_grid(results: Results) -> Grid:
    """What every method took."""
    rows = []
    for method, entry in results.methods.items():
        costs = results.costs[method]
        rows.append(
            [
                TITLES[method],
                steps_text(results, method),
                _time(results, method),
                "–" if costs.seconds_per_view is None else f"{costs.seconds_per_view:.2f} s",
                *(size(costs.peak_memory[name]) if name in costs.peak_memory else "–" for name in ("process", "gpu")),
                f"{entry.parameters / 1e6:.2f} M",
                size(4 * entry.parameters),
            ]
        )
    headings = ["", "steps", f"training {time_heading(results)}", "to render a view", "peak memory", "on the GPU"]
    return Grid([*headings, "parameters", "size of weights"], rows)


def time_heading(results: Results) -> str:
    """What the column of training times is called."""
    return "CPU time" if results.processor else "time"


def steps_text(results: Results, method: str) -> str:
    """Steps of a method, those of one expert times their number."""
    many = f"{results.groups}x" if method == EXPERT else ""
    return f"{many}{results.methods[method].steps}"


def headline(results: Results) -> str:
    """What came out, in a few sentences: beside plain training at equal cost where there is one."""
    gain, methods = results.gain, results.methods
    if gain is None:
        having = ", ".join(f"{TITLES[m]} {PSNR.text(e.scores.get('psnr'))} dB" for m, e in methods.items())
        return f"PSNR on the test views: {having}. Without both baseline and fine-tuned student there is no comparison."
    student, plain = (PSNR.text(methods[method].scores["psnr"]) for method in (STUDENT, gain.over))
    views = counted(len(gain.views), "test view")
    figures = f"PSNR {student} against {plain} dB on {views}"
    if not gain.equal_cost:
        return (
            f"The fine-tuned student {_verdict(gain.mean, 'the baseline')} ({figures}; better on "
            f"{gain.better or 'none'} of them). {_not_equal(results)}"
        )
    if gain.mean < -0.005:
        plainly = "Plain training for as long" if gain.over == LONG else "Plain training for fewer steps"
        return (
            f"{plainly} is better here, by {-gain.mean:.2f} dB. The method pays off only where longer training no "
            f"longer helps. The fine-tuned student reaches {student} dB on {views}. {_baselines(results)}"
        )
    return (
        f"At equal cost the fine-tuned student {_verdict(gain.mean, 'plain training')} ({figures}; better on "
        f"{gain.better or 'none'} of them). {_baselines(results)}"
    )


def _verdict(mean: float, than: str) -> str:
    if abs(mean) < 0.005:
        return f"equals {than} to the second decimal"
    return f"is {abs(mean):.2f} dB {'better' if mean > 0 else 'worse'} than {than}"


def _not_equal(results: Results) -> str:
    """That the baseline had less than all stages, and what to do about it."""
    if results.taught:
        return "They were not compared at equal cost."
    costs = results.costs
    ratio = ""
    if EXPERT in costs and results.costs[BASELINE].seconds:
        # The student's time has its distillation in it.
        times = (costs[EXPERT].seconds + costs[STUDENT].seconds) / costs[BASELINE].seconds
        ratio = f": all stages together took {times:.1f} times the baseline's time"
    return (
        f"They were not compared at equal cost{ratio}. To train a baseline for as many steps as all stages, repeat "
        "dac run with --baseline total."
    )


def _baselines(results: Results) -> str:
    """Which baselines there are, and how good each is."""
    known = [
        f"{results.methods[name].steps} steps{whole} {PSNR.text(results.methods[name].scores.get('psnr'))} dB"
        for name, whole in ((BASELINE, ""), (LONG, " (as many as all stages together)"))
        if name in results.methods
    ]
    return f"Plain training: {', '.join(known)}" + ("; the better one counts." if len(known) > 1 else ".")


def remarks(results: Results) -> List[str]:
    """What is missing, and what to know before comparing."""
    few = []
    if results.views < FEW_VIEWS:
        few = [
            f"There are only {counted(results.views, 'test view')}: differences of a few tenths of a dB may be chance."
        ]
    left_out = [
        f"{SCORES[score].label} is left out{'' if score not in results.scores else ' of some rows'}: {why}"
        for score, why in results.left_out.items()
    ]
    return [*results.missing.values(), *few, *results.notes, *left_out]


def _group(group: Optional[float]) -> str:
    return "–" if group is None else str(group)


def _time(results: Results, method: str) -> str:
    return clock(results.costs[method].seconds)


def _best(score: str, values: List[Optional[float]], methods: List[str]) -> List[bool]:
    """Which value is the best of the single models: experts are several."""
    single = [value is not None and method not in (EXPERT, "dac-ensemble") for value, method in zip(values, methods)]
    rivals = [value for value, one in zip(values, single) if one and value is not None]
    best = (max if SCORES[score].higher else min)(rivals) if len(rivals) > 1 else None
    return [one and value == best for value, one in zip(values, single)]
