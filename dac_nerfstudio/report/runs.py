"""The run folders of a scene: which belong together, and why one does not count."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Set

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.naming import UNBOUNDED, MethodName
from dac_nerfstudio.partition import Partition
from dac_nerfstudio.presets import KINDS, TOTAL
from dac_nerfstudio.runs.layout import EVALUATION, PARTITION, RECORD, run_dirs
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.scores import SCORES

BASELINE, EXPERT, STUDENT = "dac-baseline", "dac-expert", "dac-finetune"
LONG = "dac-baseline-total"
"""The baseline of as many steps as all stages together: a dac-baseline whose run has a name of its own."""
TITLES = {
    BASELINE: "baseline",
    LONG: "baseline, all steps",
    EXPERT: "experts, own views",
    "dac-ensemble": "ensemble of experts",
    "dac-distill": "student, distilled",
    STUDENT: "student, fine-tuned",
}
"""What methods are called in tables, in the order in which they are shown."""
METHODS = tuple(TITLES)
NAMES = {
    BASELINE: "baseline",
    LONG: "baseline of as many steps as all stages together",
    EXPERT: "expert",
    "dac-ensemble": "ensemble",
    "dac-distill": "distilled student",
    STUDENT: "fine-tuned student",
}
"""What a single run of each is called in sentences."""


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path
    stage: Stage
    evaluation: Optional[Dict[str, Any]]
    """Scores of its views, if they are of this very run."""
    problem: str
    """Why its scores do not count; empty where they do."""

    def seconds(self, processor: bool) -> float:
        """How long it trained: of the processor, or by the clock."""
        return self.stage.processor_seconds if processor else self.stage.seconds


@dataclass(frozen=True)
class SceneRuns:
    """The runs of one name in a scene's folder of results, by method without a suffix."""

    folder: Path
    name: str
    partition: Partition
    runs: Dict[str, List[Run]]
    """All that there are; several for the experts."""
    missing: Dict[str, str]
    """Why a method cannot be compared, for each that cannot, in a sentence or two."""

    def scored(self, method: str) -> List[Run]:
        """The runs of a method that can be compared with other methods: none if it is missing."""
        return [] if method in self.missing else self.runs.get(method, [])

    @property
    def distillation(self) -> Optional[Run]:
        """The run that the fine-tuned student started from, if it is still there."""
        distilled, tuned = self.only("dac-distill"), self.only("dac-finetune")
        started = distilled and tuned and tuned.stage.inputs.get("student") == distilled.stage.fingerprint
        return distilled if started else None

    @property
    def teachers_elsewhere(self) -> Set[str]:
        """Fingerprints of the finished runs that taught the student and are no experts of these runs."""
        student = self.only(STUDENT)
        taught = taught_by(student) if student else set()
        return taught - {run.stage.fingerprint for run in self.runs.get(EXPERT, [])}

    def only(self, method: str) -> Optional[Run]:
        """The run of a method that has one, scored or not."""
        runs = self.runs.get(method, [])
        return runs[0] if runs else None


def from_scratch(student: Run) -> bool:
    """Whether finished runs taught a student that was not distilled from experts first."""
    return bool(taught_by(student)) and "student" not in student.stage.inputs


def taught_by(student: Run) -> Set[str]:
    """Fingerprints of the finished runs that taught a student."""
    return {fingerprint for name, fingerprint in student.stage.inputs.items() if name.startswith("teacher-")}


class _Place(NamedTuple):
    """Where a run lies, by what it is."""

    method: str
    suffix: str
    run: str
    """Its name, without that of a baseline of all steps."""
    folder: Path

    @property
    def written(self) -> float:
        return (self.folder / RECORD).stat().st_mtime


def _places(scene_dir: Path) -> List[_Place]:
    """All runs that have a record."""
    found = []
    stages = ("baseline", "expert", "ensemble", "distill", "finetune")
    for stage, suffix, model in product(stages, ("", UNBOUNDED), KINDS.values()):
        for folder in run_dirs(scene_dir, str(MethodName(stage, suffix, model))):
            total = TOTAL if stage == "baseline" and folder.name.endswith(TOTAL) else ""
            found.append(_Place(f"dac-{stage}{total}", suffix, folder.name.removesuffix(total), folder))
    return sorted(found, key=lambda place: place.folder)


def read_scene(scene_dir: Path, run: Optional[str] = None) -> SceneRuns:
    """The runs named ``run`` of a scene, by default those worked on last, seen from its current partition.

    Raises:
        StageError: the folder holds no results, or none of these can be compared.
    """
    places = _places(scene_dir)
    if run is None:
        if not places:
            raise StageError(f"{scene_dir} holds no runs. Make some: dac run --data …")
        run = max(places, key=lambda place: place.written).run
    if not (scene_dir / PARTITION).exists():
        raise StageError(f"{scene_dir} is no folder of results: it holds no {PARTITION}. Make one: dac run --data …")
    partition = Partition.load(scene_dir / PARTITION)
    names = {place.run for place in places}
    if run not in names:
        others = f" It has {', '.join(sorted(names))}." if names else ""
        raise StageError(f"{scene_dir} holds no run named {run}.{others} Make one: dac run --data …")
    # Of both kinds of scenes only if somebody changed the data under the same name: then the kind worked on last.
    latest = max((place for place in places if place.run == run), key=lambda place: place.written)
    runs: Dict[str, List[Run]] = {method: [] for method in METHODS}
    broken: Dict[str, List[str]] = {method: [] for method in runs}
    for place in places:
        if (place.run, place.suffix) == (run, latest.suffix):
            try:
                runs[place.method].append(_read(place.folder, partition))
            except StageError as error:  # the others are reported all the same
                broken[place.method].append(str(error))
    missing = {
        method: " ".join([*broken[method], why])
        for method in METHODS
        if (why := _why_missing(method, runs[method], run, partition))
    }
    if len(missing) == len(METHODS):
        if any(broken.values()):
            raise StageError("\n".join(text for texts in broken.values() for text in texts))
        raise StageError(
            f"{scene_dir} holds no finished run named {run} that was scored by its current partition. Make one: "
            "dac run --data …"
        )
    replaced = ["dac-distill"] if any(map(from_scratch, runs[STUDENT])) else []
    if replaced and not runs[EXPERT]:
        replaced.append(EXPERT)
    for method in ("dac-ensemble", LONG, *replaced):
        if all(one.evaluation is None for one in runs[method]):
            # Made, or scored, only where somebody asks for it.
            missing.pop(method, None)
            runs[method] = []
    return SceneRuns(scene_dir, run, partition, runs, missing)


def _read(folder: Path, partition: Partition) -> Run:
    stage, path = Stage.load(folder), folder / EVALUATION
    evaluation, problem = None, ""
    if not stage.complete:
        problem = f"stopped at step {stage.steps} of {stage.total_steps}"
    elif stage.group is not None and stage.partition != partition.fingerprint:
        # Its views are not those of the group that has its number now.
        problem = "was trained for another partition than the current one"
    elif not path.exists():
        problem = "is trained, but not scored"
    else:
        try:
            evaluation = json.loads(path.read_text("utf8"))
            for view in evaluation["views"]:
                _check_view(view, partition.num_groups)
            if evaluation["stage"] != stage.fingerprint:
                evaluation, problem = None, "has been trained again since it was scored"
            elif evaluation["partition"] != partition.fingerprint:
                evaluation, problem = None, "was scored by the groups of another partition than the current one"
            elif any(isnan(view[score]) for view in evaluation["views"] for score in SCORES if score in view):
                evaluation, problem = None, "renders what are no colours: its training has diverged"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            evaluation, problem = None, "has scores that cannot be read"
    return Run(folder, stage, evaluation, problem)


def _check_view(view: Dict[str, Any], groups: int) -> None:
    """Make sure that scores of a view can be reported. It may be of no group.

    Raises:
        KeyError, TypeError: they cannot.
    """
    group, numbers = view["group"], [view["psnr"], *(view[score] for score in SCORES if score in view)]
    grouped = group is None or (isinstance(group, int) and 1 <= group <= groups)
    if not (grouped and isinstance(view["name"], str) and all(isinstance(number, (int, float)) for number in numbers)):
        raise TypeError


def _why_missing(method: str, runs: List[Run], run: str, partition: Partition) -> str:
    """Why a method cannot be compared, or nothing."""
    name = NAMES[method]
    if not runs:
        return f"There is no {name} named {run}."
    if method != "dac-expert":
        return f"The {name} {runs[0].problem}." if runs[0].problem else ""
    groups = set(range(1, partition.num_groups + 1))
    absent = sorted(groups - {one.stage.group or 0 for one in runs})
    lines = [f"The {name} of group {one.stage.group} {one.problem}." for one in runs if one.problem]
    lines += [f"There is no {name} of group {group} named {run}." for group in absent]
    # Some of the experts would be scored on some of the views, beside methods scored on all of them.
    return " ".join([*lines, "Experts are compared only where all of them are there."]) if lines else ""
