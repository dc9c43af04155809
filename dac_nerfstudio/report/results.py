"""Figures of a scene's runs, gathered from their records into ``report/results.json`` and a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any, Dict, List, Optional

from dac_nerfstudio.files import write_json
from dac_nerfstudio.partition import listing
from dac_nerfstudio.report.commands import commands
from dac_nerfstudio.report.runs import BASELINE, LONG, METHODS, STUDENT, TITLES, Run, SceneRuns, from_scratch
from dac_nerfstudio.runs.layout import report_folder
from dac_nerfstudio.scores import SCORES

FORMAT = 3
ALIKE = 1.05
"""Models are of one size if one has at most this many times the parameters of the other."""


@dataclass(frozen=True)
class Method:
    """Scores of one method, those of the experts taken together."""

    steps: int
    """Of one expert; of a fine-tuned student with its distillation's."""
    parameters: int
    """Of all experts together."""
    scores: Dict[str, Optional[float]]
    """Means over the views; None where there is no finite value."""
    per_group: Dict[str, List[Optional[float]]]
    """Means over the views of each group."""
    per_view: Dict[str, Dict[str, Optional[float]]]
    """``group`` and scores of each view by its name."""


@dataclass(frozen=True)
class Costs:
    """What a method took: all that differs between two runs that are otherwise equal."""

    seconds: float
    """Of training: of all experts together; of a fine-tuned student with its distillation's. Of the processor if
    `Results.processor`, otherwise by the clock."""
    seconds_of_runs: List[float]
    peak_memory: Dict[str, int]
    """Bytes, see `Stage.peak_memory`; of experts that of the one that had most."""
    seconds_per_view: Optional[float]
    """To render one."""


@dataclass(frozen=True)
class ViewGain:
    """How much better the fine-tuned student is in one view."""

    name: str
    group: Optional[int]
    gain: float
    """dB of PSNR."""


@dataclass(frozen=True)
class Gain:
    """What the fine-tuned student is better by than plain training, in dB of PSNR, over the views that both have."""

    over: str
    """The method that it is compared with: the better one of the baselines that are there."""
    equal_cost: bool
    """Whether one of them had as many steps as all stages together."""
    mean: float
    better: int
    """Views in which the student is better."""
    per_group: List[Optional[float]]
    views: List[ViewGain]
    """From the largest gain to the largest loss."""


@dataclass(frozen=True)
class Results:
    """All figures of a scene. PSNR is infinite where a rendering equals its photo, which JSON cannot say: it is None
    then, left out of means and gains, and noted."""

    format: int
    scene: str
    run: str
    partition: str
    groups: int
    seed: int
    versions: Dict[str, str]
    scores: List[str]
    """Those that any method has."""
    left_out: Dict[str, str]
    """Why a score is left out, for each that not all methods have."""
    missing: Dict[str, str]
    """Why a method cannot be compared."""
    notes: List[str]
    """What a reader should know before comparing."""
    taught: bool
    """Whether finished runs taught the student in place of experts and distillation. Their cost is not known."""
    methods: Dict[str, Method]
    gain: Optional[Gain]
    commands: List[str]
    processor: bool
    """Whether times are of the processor, as all runs recorded them, rather than by the clock."""
    costs: Dict[str, Costs]

    @property
    def views(self) -> int:
        """How many views the method was scored on that has most."""
        return max(len(method.per_view) for method in self.methods.values())


def figures(scene: SceneRuns) -> Results:
    """Figures of the runs that are finished and scored by the scene's current partition."""
    groups = scene.partition.num_groups
    runs = {method: found for method in METHODS if (found := scene.scored(method))}
    everything = [run for found in runs.values() for run in found]
    timed = [*everything, scene.distillation if STUDENT in runs else None]
    student = scene.only(STUDENT)
    processor = all(run.stage.processor_seconds for run in timed if run)
    methods, costs = {}, {}
    for method, found in runs.items():
        start = scene.distillation if method == STUDENT else None
        methods[method] = _method(found, groups, start.stage.steps if start else 0)
        costs[method] = _costs(found, start, processor)
    return Results(
        format=FORMAT,
        scene=everything[0].stage.scene,
        run=scene.name,
        partition=scene.partition.fingerprint,
        groups=groups,
        seed=everything[0].stage.seed,
        versions=_versions(everything),
        scores=[score for score in SCORES if any(score in entry.scores for entry in methods.values())],
        left_out=_left_out(scene, methods),
        missing=scene.missing,
        notes=[*map(str, scene.partition.notes), *_notes(methods, scene)],
        taught=student is not None and bool(scene.teachers_elsewhere) and from_scratch(student),
        methods=methods,
        gain=_gain(methods, groups),
        commands=commands(scene),
        processor=processor,
        costs=costs,
    )


def _method(runs: List[Run], groups: int, steps_before: int) -> Method:
    """One method's entry, from its runs: several for experts, else one."""
    views = _views(runs)
    scores = [score for score in SCORES if views and all(score in view for view in views)]

    def average(score: str, group: Optional[int] = None) -> Optional[float]:
        values = [view[score] for view in views if group in (None, view["group"])]
        return mean([value for value in values if isfinite(value)])

    return Method(
        steps=runs[0].stage.steps + steps_before,
        parameters=sum(run.stage.parameters for run in runs),
        scores={score: average(score) for score in scores},
        per_group={score: [average(score, group) for group in range(1, groups + 1)] for score in scores},
        per_view={
            view["name"]: {
                "group": view["group"],
                **{score: view[score] if isfinite(view[score]) else None for score in scores},
            }
            for view in sorted(views, key=lambda view: view["name"])
        },
    )


def _costs(runs: List[Run], start: Optional[Run], processor: bool) -> Costs:
    memory: Dict[str, int] = {}
    for run in runs:
        for name, peak in run.stage.peak_memory.items():
            memory[name] = max(peak, memory.get(name, 0))
    seconds = [run.seconds(processor) for run in runs]
    return Costs(
        seconds=sum(seconds) + (start.seconds(processor) if start else 0.0),
        seconds_of_runs=seconds,
        peak_memory=memory,
        seconds_per_view=mean([
            view["processor_seconds"] if "processor_seconds" in view else 1 / view["fps"]
            for view in _views(runs)
            if view.get("fps")
        ]),
    )  # fmt: skip


def _views(runs: List[Run]) -> List[Dict[str, Any]]:
    return [view for run in runs if run.evaluation for view in run.evaluation["views"]]


def mean(values: List[float]) -> Optional[float]:
    return fmean(values) if values else None


def _gain(methods: Dict[str, Method], groups: int) -> Optional[Gain]:
    """The gain over the better baseline; None without a view that both have."""
    baselines = {name: methods[name].scores.get("psnr") for name in (BASELINE, LONG) if name in methods}
    if not baselines or STUDENT not in methods:
        return None
    over = max(baselines, key=lambda name: baselines[name] or 0.0)
    before, after = methods[over].per_view, methods[STUDENT].per_view
    views = [
        ViewGain(name, None if group is None else int(group), own - other)
        for name, (group, own) in {name: (view["group"], view["psnr"]) for name, view in after.items()}.items()
        if own is not None and (other := before.get(name, {}).get("psnr")) is not None
    ]
    if not views:
        return None
    views.sort(key=lambda view: (-view.gain, view.name))
    return Gain(
        over=over,
        equal_cost=LONG in methods,
        mean=fmean(view.gain for view in views),
        better=sum(view.gain > 0 for view in views),
        per_group=[mean([view.gain for view in views if view.group == group]) for group in range(1, groups + 1)],
        views=views,
    )


def _versions(runs: List[Run]) -> Dict[str, str]:
    """Versions of each package; several where stages were made with different ones."""
    names = sorted({name for run in runs for name in run.stage.versions})
    found = {name: sorted({run.stage.versions[name] for run in runs if name in run.stage.versions}) for name in names}
    return {name: ", ".join(versions) for name, versions in found.items()}


def _left_out(scene: SceneRuns, methods: Dict[str, Method]) -> Dict[str, str]:
    reasons = {}
    for score in SCORES:
        lacking = [method for method, entry in methods.items() if entry.per_view and score not in entry.scores]
        if not lacking:
            continue
        evaluations = [run.evaluation or {} for method in lacking for run in scene.scored(method)]
        given = [evaluation["left_out"][score] for evaluation in evaluations if score in evaluation.get("left_out", {})]
        reasons[score] = given[0] if given else "not all views have it."
    return reasons


def _notes(methods: Dict[str, Method], scene: SceneRuns) -> List[str]:
    notes = []
    scored_on = [digest for method in methods for digest in _digests(scene.scored(method))]
    if len(set(scored_on)) > 1:
        notes.append(
            "The methods were not scored on the same photos: the data or --downscale has changed in between. The same "
            "dac run again scores those anew that it has to."
        )
    exact = {TITLES[m]: [n for n, v in e.per_view.items() if v["psnr"] is None] for m, e in methods.items()}
    notes += [
        f"{title}: PSNR of {listing(names)} is infinite, as the rendering equals the photo; means are without it."
        for title, names in exact.items()
        if names
    ]
    if len({frozenset(entry.per_view) for entry in methods.values()}) > 1:
        counts = ", ".join(f"{TITLES[method]}: {len(entry.per_view)}" for method, entry in methods.items())
        notes.append(f"The methods were not scored on the same views ({counts}); gains are over those they share.")
    made_from = [name for run in scene.scored(STUDENT) for name in run.stage.inputs]
    teachers = len(scene.teachers_elsewhere)
    if teachers:
        notes.append(f"The student was taught by finished runs ({teachers}), whose steps and time are not counted.")
    if STUDENT in methods and "student" in made_from and scene.distillation is None:
        notes.append(
            "The distilled student that the fine-tuned one started from is not here: steps and time of the fine-tuned "
            "student are without its distillation."
        )
    if BASELINE in methods and STUDENT in methods:
        steps, others = methods[STUDENT].steps, methods[BASELINE].steps
        if steps != others:
            notes.append(f"The student was trained for {steps} steps in all, the baseline for {others}.")
        if not of_one_size(methods):
            student, baseline = (methods[method].parameters for method in (STUDENT, BASELINE))
            notes.append(f"The student has {student:,} parameters, the baseline {baseline:,}.")
    return notes


def of_one_size(methods: Dict[str, Method]) -> bool:
    """Whether student and baseline are both there, with about as many parameters: decoders differ a little."""
    counts = [methods[method].parameters for method in (STUDENT, BASELINE) if method in methods]
    return len(counts) == 2 and max(counts) <= ALIKE * min(counts)


def _digests(runs: List[Run]) -> List[str]:
    """Digests of the photos that runs were scored on, as far as recorded."""
    return [run.evaluation["views_of"] for run in runs if run.evaluation and "views_of" in run.evaluation]


def save(results: Results, scene_dir: Path) -> Path:
    """Write ``report/results.json``; its path."""
    path = report_folder(scene_dir) / "results.json"
    write_json(path, asdict(results))
    return path
