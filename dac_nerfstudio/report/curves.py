"""Learning curves, from the tensorboard files in run folders."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from dac_nerfstudio.report.runs import BASELINE, EXPERT, LONG, STUDENT, TITLES, Run, SceneRuns

TAGS = {
    "Train Metrics Dict/psnr": "train_psnr",
    "Eval Metrics Dict/psnr": "eval_psnr",
    "Train Loss": "train_loss",
}
"""What nerfstudio calls the curves that are drawn, and what they are called here."""
POINTS = 250
"""A curve of more is drawn by the means of so many parts."""


@dataclass(frozen=True)
class Curve:
    """One quantity in the course of a training."""

    steps: np.ndarray
    """[points]."""
    seconds: np.ndarray
    """[points] since the training's first step; time between interrupted trainings does not count. By the clock, or of
    the processor, see `courses`."""
    values: np.ndarray
    """[points]."""

    def smoothed(self) -> Curve:
        """Running means over a twelfth of the points, fewer at both ends; the same where points are few."""
        window = np.ones(max(1, len(self.steps) // 12))
        sums, counts = (np.convolve(values, window, "same") for values in (self.values, np.ones(len(self.values))))
        return Curve(self.steps, self.seconds, sums / counts)

    def thinned(self, points: int = POINTS) -> Curve:
        """Means over equal parts, where there are more points than asked for."""
        if len(self.steps) <= points:
            return self
        parts = np.array_split(np.arange(len(self.steps)), points)
        return Curve(*(np.array([column[part].mean() for part in parts]) for column in vars(self).values()))


Curves = Dict[str, Curve]
"""Curves by the names in ``TAGS``."""


def read_curves(run_dir: Path) -> Curves:
    """The curves of a run; empty where it has none, or in no readable file."""
    pieces: Dict[str, List[Tuple[np.ndarray, ...]]] = defaultdict(list)
    # Their names begin with the time at which they were begun: one for every time that the run was gone on with.
    for path in sorted(run_dir.glob("events.out.tfevents.*")):
        begun, found = _read_events(path)
        for name, points in found.items():
            steps, times, values = np.array(points, dtype=np.float64).T
            pieces[name].append((steps, times - begun, values))
    return {name: _joined(parts) for name, parts in sorted(pieces.items())}


def _read_events(path: Path) -> Tuple[float, Dict[str, List[Tuple[float, float, float]]]]:
    """When the first step was recorded, and (step, time, value) of each curve."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    try:
        events = EventAccumulator(str(path), {SCALARS: 0}).Reload()
        scalars = {tag: events.Scalars(tag) for tag in events.Tags()[SCALARS]}
    except Exception:  # of a file of another kind
        scalars = {}
    found = {
        name: [(event.step, event.wall_time, event.value) for event in scalars[tag] if np.isfinite(event.value)]
        for tag, name in TAGS.items()
        if tag in scalars
    }
    begun = min((events[0].wall_time for events in scalars.values()), default=0.0)
    return begun, {name: points for name, points in found.items() if points}


def _joined(parts: List[Tuple[np.ndarray, ...]]) -> Curve:
    """One curve of those of a run that was interrupted; what was done twice counts once."""
    whole = Curve(*parts[0])
    for steps, seconds, values in parts[1:]:
        kept = whole.steps < steps[0]
        before = whole.seconds[kept][-1] if kept.any() else 0.0
        columns = zip((whole.steps, whole.seconds, whole.values), (steps, seconds + before, values))
        whole = Curve(*(np.concatenate([old[kept], new]) for old, new in columns))
    return whole


@dataclass(frozen=True)
class Course:
    """A training to be drawn: the student's is distillation followed by fine-tuning, after trunk and experts."""

    title: str
    group: int
    """Group of an expert; otherwise 0."""
    parts: Tuple[Curves, ...]
    changes: Tuple[float, float] | None = None
    """Step and second at which distillation ended, if fine-tuning follows it."""


def courses(scene: SceneRuns, processor: bool) -> Tuple[List[Course], List[str]]:
    """All trainings that have curves, and a remark on each that has none.

    Experts begin where their trunk ended, and the student where all stages before it ended, as if they had been trained
    one after the other: that is what it cost.

    Args:
        scene: the runs.
        processor: give times of the processor, which stages that share one do not add to each other's; tensorboard's
            are by the clock, and are taken in proportion.
    """
    found, remarks = [], []

    def curves_of(title: str, run: Optional[Run], before: Sequence[Optional[Run]] = ()) -> Curves:
        if run is None:
            return {}
        curves = read_curves(run.folder)
        if not curves:
            remarks.append(f"There are no curves of {title}: its run folder has no tensorboard file.")
        pace = run.seconds(processor) / (run.stage.seconds or 1.0)
        steps, seconds = _cost(before, processor)
        return {name: Curve(c.steps + steps, c.seconds * pace + seconds, c.values) for name, c in curves.items()}

    experts = scene.runs[EXPERT]
    for run in experts:
        title = f"expert {run.stage.group}"
        if curves := curves_of(title, run, [scene.trunk]):
            found.append(Course(title, int(run.stage.group or 0), (curves,)))
    for method in (BASELINE, LONG):
        if curves := curves_of(TITLES[method], scene.only(method)):
            found.append(Course(TITLES[method], 0, (curves,)))
    tuned = scene.only(STUDENT)
    distilled = scene.distillation if tuned is not None else scene.only("dac-distill")
    before = [scene.trunk, *experts]
    parts = [curves_of("distillation", distilled, before), curves_of("fine-tuning", tuned, [*before, distilled])]
    if any(parts):
        changes = _cost([*before, distilled], processor) if distilled is not None and parts[1] else None
        found.append(Course("student", 0, tuple(part for part in parts if part), changes))
    return found, remarks


def _cost(runs: Sequence[Optional[Run]], processor: bool) -> Tuple[float, float]:
    """Steps and seconds of all together."""
    there = [run for run in runs if run is not None]
    return float(sum(run.stage.steps for run in there)), sum(run.seconds(processor) for run in there)
