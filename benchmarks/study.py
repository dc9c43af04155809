"""A study of the training recipe: Divide and Conquer beside baselines of as many steps as the student gets and of as
many as all stages have together, and beside one that is restarted as the paper's student is. Scenes, arms and seeds are
those of study.toml.

    python benchmarks/study.py run --split test --scenes demo --output-dir outputs/study --json docs/results.json
    python benchmarks/study.py page docs/results.json docs/results.md
    python benchmarks/study.py check docs/results.json docs/results.md      # fails where the page is stale

Each scene, arm and seed has a folder of its own, made by the stages of `dac run`: what is finished is kept, what was
interrupted goes on, what has changed is done again. `dac report` on its innermost folder, such as
outputs/study/test/demo/dac/seed-42/demo, makes the page of that run.

What an arm is made of, by its ``kind``:

``dac``
    `dac run`: experts, distillation, fine-tuning. The experts together, each answering the test views of its own group,
    are the teacher's quality; that is what `dac-ensemble` renders, so it is not assembled here. An arm that names
    another one by ``experts`` distils that one's experts instead of training its own.
``baseline``
    `dac run --only baseline`, for as many steps as ``of`` has by one of two counts, ``count``: of its *student*
    (distillation and fine-tuning), or in *total*, those of trunk and experts included. A step of each stage counts as
    one. They do not cost the same (a distillation step asks the teacher, too), so measured seconds are reported beside
    them.
``restart``
    What the student gets, without teachers: `dac-baseline` for the steps of distillation, then `dac-finetune --student
    <that baseline>`. Fine-tuning takes any finished run of the same shape and partition for a student, a baseline
    included: weights, Adam's moments and the place in the proposal schedules are handed on, the rate starts again where
    the cosine of all of these steps would be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Optional, get_args

import tyro
from converged_page import headline_table
from rich.console import Console
from rich.markup import escape
from studies import carry_out, check_page, over_seeds, read_results, settings_of, write_results

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.errors import StageError, UserError
from dac_nerfstudio.launch.devices import find_devices
from dac_nerfstudio.launch.division import count_groups
from dac_nerfstudio.launch.flags import TABLES, flags_of
from dac_nerfstudio.launch.local import run_plans
from dac_nerfstudio.launch.plan import Job, Plan, Request, make_plan
from dac_nerfstudio.partition import find_model
from dac_nerfstudio.presets import PRESETS, Flags, Recipe
from dac_nerfstudio.report.markdown import plain, table, write_text
from dac_nerfstudio.report.tables import Grid
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.scene.colmap import read_model
from dac_nerfstudio.scores import SCORES
from dac_nerfstudio.units import clock, signed

PROGRAM = "benchmarks/study.py"
SETTINGS = Path(__file__).with_name("study.toml")
Split = Literal["val", "test"]
Kind = Literal["dac", "baseline", "restart"]
Count = Literal["student", "total"]
STUDENT = ("distill", "finetune")
"""Stages of the student."""
STAGES = {
    "experts": "its experts, own views",
    "distill": "its student, distilled",
}
"""How models that are not an arm's last are called."""


@dataclass(frozen=True)
class Scene:
    """A scene of the study."""

    about: str
    """What it is, in a sentence."""
    data: str
    """Folder below --data-root, or `demo` for the generated scene."""
    preset: str
    """Preset of dac run."""
    arms: Optional[list[str]] = None
    """Its arms, if it has not all of the study's."""
    downscale: Optional[int] = None
    """The option of dac run."""


@dataclass(frozen=True)
class Arm:
    """A way to train."""

    about: str
    """What it is, in a sentence."""
    kind: Kind = "dac"
    """See the module."""
    of: str = ""
    """The arm of kind `dac` that this one is a control of, whose steps, flags and division it has; by default the
    first."""
    count: Count = "student"
    """Which steps a baseline has as many as."""
    trunk: bool = True
    """Whether experts start from a trunk, where they do by the preset."""
    one_cosine: bool = True
    """Whether the student's rate falls along one cosine, where it does by the preset."""
    experts: str = ""
    """The arm whose experts are distilled, instead of own ones."""
    divide: dict[str, Any] = field(default_factory=dict)
    """Options of dac run: groups, strategy, similarity, overlap, softness."""
    flags: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Tables as in the file of `dac run --config`."""


@dataclass(frozen=True)
class Study:
    """What study.toml says."""

    seeds: list[int]
    scenes: dict[str, Scene]
    arms: dict[str, Arm]
    text: list[dict[str, str]] = field(default_factory=list)
    """Sections of the page, each with `title` and `text`, in Markdown."""

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read the settings.

        Raises:
            StageError: they are not of this form.
        """
        with settings_of(path) as content:
            scenes = {name: Scene(**entry) for name, entry in content.pop("scenes").items()}
            arms = {name: Arm(**entry) for name, entry in content.pop("arms").items()}
            study = cls(scenes=scenes, arms=arms, **content)
            for name, scene in scenes.items():
                if set(scene.arms or ()) - set(arms):
                    raise ValueError(f"scene {name} has arms that are none: {', '.join(scene.arms or ())}")
                if scene.preset not in PRESETS:
                    raise ValueError(f"scene {name} has preset {scene.preset}; expected one of {', '.join(PRESETS)}")
            for name, arm in arms.items():
                for given, known in ((arm.kind, Kind), (arm.count, Count)):
                    if given not in get_args(known):
                        raise ValueError(f"arm {name} has {given}; expected one of {', '.join(get_args(known))}")
                if {study.model_of(arm).kind, study.teacher_of(arm).kind} != {"dac"}:
                    raise ValueError(f"arm {name} is made from an arm that is not of kind dac")
                flags_of(arm.flags, path)
        return study

    def model_of(self, arm: Arm) -> Arm:
        """The arm that this one is a control of; itself, if it is none."""
        if arm.kind == "dac":
            return arm
        return self.arms[arm.of] if arm.of else next(other for other in self.arms.values() if other.kind == "dac")

    def teacher_of(self, arm: Arm) -> Arm:
        """The arm that trains the experts of this one, or of what it is a control of."""
        model = self.model_of(arm)
        return self.arms[model.experts] if model.experts else model

    def recipe(self, scene: Scene, arm: Arm) -> Recipe:
        """The preset of the arm, or of what it is a control of, with its steps.

        Raises:
            StageError: the preset leaves steps to the methods.
        """
        model, preset = self.model_of(arm), PRESETS[scene.preset]
        steps = dict(preset.steps)
        if not steps:
            raise StageError(f"The preset {scene.preset} leaves the numbers of steps to the methods.")
        if not model.trunk:
            steps.pop("trunk", None)
        return replace(preset, steps=steps, one_cosine=preset.one_cosine and model.one_cosine)

    def count(self, scene: Scene, arm: Arm, groups: int) -> dict[str, int]:
        """Steps of the arm, or of what it is a control of, by each count."""
        steps = self.recipe(scene, arm).steps
        once = sum(number for stage, number in steps.items() if stage != "expert")
        return {"student": steps["distill"] + steps["finetune"], "total": once + groups * steps["expert"]}

    def flags(self, scene: Scene, arm: Arm, groups: int) -> dict[str, Flags]:
        """Flags of ns-train per table: those of the arm that this is a control of, its own, and a baseline's steps."""
        baseline = self.count(scene, arm, groups)[arm.count]
        if arm.kind == "restart":
            baseline = self.recipe(scene, arm).steps["distill"]
        found: dict[str, Flags] = {name: {} for name in TABLES}
        given = [arm.flags] if arm.kind == "dac" else [self.model_of(arm).flags, arm.flags]
        for content in (*given, {"dac-baseline": {"max-num-iterations": baseline}}):
            for name, flags in flags_of(content, SETTINGS).items():
                found[name] = {**found[name], **flags}
        return found


# Scenes


def scored_on(data: Path, split: Split, folder: Path) -> Path:
    """A scene whose test views are those of a split: itself, or links to it in a folder beside the results.

    A COLMAP model without lists of views gets some, so that tuning and reporting train on the same photos: of the names
    in order every 8th is for testing, and every 10th of the others for validation.

    Args:
        data: the scene.
        split: views to score.
        folder: where the links go.

    Raises:
        StageError: the scene has no such views, or is of a format whose views cannot be chosen by links.
    """
    if (data / "transforms_train.json").exists():
        if split == "test":
            return data
        if not (data / "transforms_val.json").exists():
            raise StageError(f"{data} has no transforms_val.json, so there are no validation views to tune on.")
        linked(data, folder, leave="transforms_test.json")
        link(folder / "transforms_test.json", data / "transforms_val.json")
        return folder
    model = find_model(data)
    if model is None or (data / "transforms.json").exists():
        if split == "test" and (data / "transforms.json").exists():
            return data
        raise StageError(f"{data} is neither in Blender's format nor a COLMAP model: --split {split} is not supported.")
    paths = {name: data / f"{name}_list.txt" for name in ("train", "val", "test")}
    if split == "test" and any(path.exists() for path in paths.values()):
        return data
    if not any(path.exists() for path in paths.values()):
        names = sorted(read_model(model).names)
        others = [name for number, name in enumerate(names) if number % 8]
        lists = {"test": names[::8], "val": others[::10]}
        lists["train"] = [name for name in others if name not in lists["val"]]
    else:
        lacking = [path.name for path in paths.values() if not path.exists()]
        if lacking:
            raise StageError(f"{data} has lists of views, but lacks {', '.join(lacking)}.")
        lists = {name: path.read_text("utf8").splitlines() for name, path in paths.items()}
    if split == "val":
        lists["test"] = lists["val"]
    linked(data, folder, leave="*_list.txt")
    for name, views in lists.items():
        write_text(folder / f"{name}_list.txt", "\n".join(views) + "\n")
    return folder


def linked(data: Path, folder: Path, leave: str) -> None:
    """Link all entries of a folder from another, except those of a pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in data.iterdir():
        if not entry.match(leave):
            link(folder / entry.name, entry)


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve())


# Running


@dataclass(frozen=True)
class Place:
    """A scene, and the folders that it is read from and run in."""

    study: Study
    name: str
    """Name of the scene."""
    data: Path
    """Data, with the views to score as test views."""
    folder: Path
    """Folder of all its arms."""
    device: str

    @property
    def scene(self) -> Scene:
        return self.study.scenes[self.name]

    def plan(self, arm_name: str, seed: int) -> Plan:
        """The jobs of an arm.

        Raises:
            UserError: it cannot be planned.
        """
        arm = self.study.arms[arm_name]
        # All of it: what an arm does not say any more must not stay as it was.
        divide = {"groups": 4, "strategy": "auto", "similarity": "auto", "overlap": None, "softness": None}
        divide.update({"softness": PRESETS[self.scene.preset].softness, **self.study.teacher_of(arm).divide})
        experts: tuple[Path, ...] = ()
        if arm.kind == "dac" and arm.experts:
            experts = tuple(job.run_dir for job in expert_jobs(self.plan(arm.experts, seed)))
        output_dir = self.folder / arm_name / f"seed-{seed}"
        asked = {name: value for name, value in divide.items() if value is not None}
        groups = len(experts) or count_groups(self.data, output_dir / self.name, asked)
        flags = self.study.flags(self.scene, arm, groups)
        request = Request(
            self.data, output_dir, self.name, asked, self.scene.downscale,
            baseline="no" if arm.kind == "dac" else "yes",
            video=False, device=self.device, seed=seed, experts=experts, flags=flags,
        )  # fmt: skip
        plan = make_plan(request, self.study.recipe(self.scene, arm))
        return replace(plan, jobs=tuple(self._jobs(arm, {job.name: job for job in plan.jobs})))

    def _jobs(self, arm: Arm, jobs: dict[str, Job]) -> Iterator[Job]:
        """Those that an arm wants, in order."""
        if arm.kind == "dac":
            yield from (job for name, job in jobs.items() if name != "ensemble")
        elif arm.kind == "restart":
            baseline, student = jobs["baseline"], jobs["finetune"]
            yield jobs["split"]
            yield replace(baseline, score_most=0)
            flags = {**student.flags, "student": baseline.run_dir}
            yield replace(student, flags=flags, needs=(baseline.name,))
        else:
            yield from (jobs["split"], jobs["baseline"])

    def figures(self, arm_name: str, seed: int) -> dict[str, Any]:
        """Figures of a finished arm: steps and seconds per stage; per model scored, its scores of each view, by name.

        Raises:
            UserError: it is not what it has to be.
        """
        plan = self.plan(arm_name, seed)
        arm = self.study.arms[arm_name]
        stages = {name: [j for j in plan.jobs if j.name == name] for name in ("baseline", "trunk", "experts", *STUDENT)}
        teacher = self.plan(arm.experts, seed) if arm.experts else plan
        stages["trunk"] = [job for job in teacher.jobs if job.name == "trunk"]
        stages["experts"] = expert_jobs(teacher)
        stages = {name: jobs for name, jobs in stages.items() if jobs}
        records = {name: [Stage.load(job.run_dir) for job in jobs] for name, jobs in stages.items()}
        views = {name: [v for job in jobs if job.score_most for v in scores(job)] for name, jobs in stages.items()}
        if arm.experts:
            del views["experts"]  # the other arm's
        return {
            "stages": {
                name: {
                    "runs": len(found),
                    "steps": found[0].total_steps,
                    "seconds": round(sum(stage.seconds for stage in found), 1),
                }
                for name, found in records.items()
            },
            "models": {name: {view["name"]: view for view in found} for name, found in views.items() if found},
            "versions": {package: v for found in records.values() for package, v in found[0].versions.items()},
        }


def expert_jobs(plan: Plan) -> list[Job]:
    return [job for job in plan.jobs if job.stage == "expert"]


def scores(job: Job) -> list[dict[str, Any]]:
    """Scores of each view, as the run's stage has written them."""
    return json.loads((job.run_dir / "evaluation.json").read_text("utf8"))["views"]


def gather(place: Place, split: Split, done: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """A scene's entry in the results. Views are told apart by the groups of the first arm of kind dac, else the first.

    Args:
        place: of the scene.
        split: which views were scored.
        done: figures of each arm and seed.

    Raises:
        StageError: some were scored on other views than others.
    """
    from timing import machine  # imports torch, which the page can do without
    from torch import device

    study, scene = place.study, place.scene
    leading = next((name for name in done if study.arms[name].kind == "dac"), next(iter(done)))
    first = next(iter(next(iter(done[leading].values()))["models"].values()))
    names = sorted(first)
    arms: dict[str, Any] = {}
    for name, seeds in done.items():
        arm = study.arms[name]
        entry = arms[name] = {"about": arm.about, "kind": arm.kind, "seeds": {}}
        if arm.experts:
            entry["experts"] = arm.experts
        for seed, figures in sorted(seeds.items()):
            models = {}
            for model, views in figures["models"].items():
                if sorted(views) != names:
                    raise StageError(f"{name}, seed {seed}: {model} was scored on other views than {leading}.")
                models[model] = score_entry([views[view] for view in names], [first[view]["group"] for view in names])
            entry["seeds"][str(seed)] = {"stages": figures["stages"], "models": models}
    figures = next(iter(done[leading].values()))
    return {
        "about": scene.about,
        "preset": scene.preset,
        "split": split,
        "machine": {**machine(device(place.device)), "versions": figures["versions"]},
        "views": {name: first[name]["group"] for name in names},
        "arms": arms,
    }


def score_entry(views: Sequence[dict[str, Any]], groups: Sequence[int]) -> dict[str, Any]:
    """PSNR and SSIM of a model: means, per group and per view, rounded."""
    entry: dict[str, Any] = {}
    for score, digits in {"psnr": 3, "ssim": 4}.items():
        values = [view[score] for view in views]
        entry[score] = {
            "mean": round(fmean(values), digits),
            "groups": {
                str(group): round(fmean(v for v, g in zip(values, groups) if g == group), digits)
                for group in sorted(set(groups))
            },
            "views": [round(value, digits) for value in values],
        }
    return entry


def run(
    scenes: tuple[str, ...] = (),
    arms: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    split: Split = "test",
    settings: Path = SETTINGS,
    data_root: Path = Path("data"),
    output_dir: Path = Path("outputs/study"),
    json: Path = Path("outputs/study/results.json"),
    devices: str = "auto",
) -> None:
    """Train and score what is not done yet, and write all figures. The same command goes on after any mishap.

    Args:
        scenes: Which; by default all of the settings. Others stay in the file of results as they are there.
        arms: Which; by default the scene's or the settings'.
        seeds: By default those of the settings.
        split: Score the validation views, to tune on, or the test views, to report.
        settings: The study.
        data_root: Where the scenes' data lie.
        output_dir: Where runs go.
        json: Where figures go, after every seed; those of other scenes, arms and seeds stay in it.
        devices: The option of dac run.

    Raises:
        StageError: an arm has failed, or the file holds figures of other views.
    """
    console, study, places = Console(), Study.load(settings), find_devices(devices)
    for known, asked in ((study.scenes, scenes), (study.arms, arms)):
        if set(asked) - set(known):
            raise StageError(f"{settings} has no {', '.join(sorted(set(asked) - set(known)))}, but {', '.join(known)}.")
    results: dict[str, Any] = read_results(json, PROGRAM) if json.exists() else {"scenes": {}}
    problems: list[str] = []
    for name in scenes or study.scenes:
        scene = study.scenes[name]
        known = results["scenes"].get(name, {"split": split, "views": None})
        if known["split"] != split:
            raise StageError(f"{json} holds figures of {known['split']} views. Name another file: --json FILE")
        data = data_root / scene.data
        if scene.data == "demo":
            data = make_demo_scene(output_dir / "scenes" / name)
        data = scored_on(data, split, output_dir / "scenes" / f"{name}-{split}")
        place = Place(study, name, data, output_dir / split / name, places[0].partition(":")[0])
        done: dict[str, dict[int, dict[str, Any]]] = {}
        for seed in seeds or study.seeds:
            for arm in arms or scene.arms or study.arms:
                console.rule(f"{name}, {split} views: {arm}, seed {seed}")
                try:
                    if run_plans([place.plan(arm, seed)], places, console):
                        done.setdefault(arm, {})[seed] = place.figures(arm, seed)
                        continue
                except UserError as error:
                    console.print(str(error), style="red", highlight=False, soft_wrap=True)
                problems.append(f"{name}: {arm}, seed {seed}")
            if done:
                results["scenes"][name] = combined(known, gather(place, split, done), list(study.arms))
                write_results(json, results)
    console.print(f"Figures: {escape(str(json))}", highlight=False, soft_wrap=True)
    if problems:
        raise StageError(f"These have failed, and are left out: {'; '.join(problems)}. The same command tries again.")


def combined(known: dict[str, Any], made: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """A scene's entry with the arms and seeds of an earlier one that were scored on the same views, in the given order.

    Args:
        known: the earlier entry.
        made: what was made now.
        order: of the arms; others are left out.
    """
    earlier = known["arms"] if known["views"] == made["views"] else {}
    arms = {}
    for name in order:
        seeds = {**earlier.get(name, {}).get("seeds", {}), **made["arms"].get(name, {}).get("seeds", {})}
        if seeds:
            arms[name] = {**(made["arms"].get(name) or earlier[name]), "seeds": dict(sorted(seeds.items()))}
    return {**made, "arms": arms}


# The page


@dataclass(frozen=True)
class Row:
    """A model of an arm, over its seeds."""

    model: str
    title: str
    runs: dict[str, dict[str, Any]]
    """Figures of the arm, by seed."""
    baselines: dict[int, dict[str, dict[str, Any]]]
    """Figures of those of the scene, by steps and seed."""

    def values(self, score: str, group: Optional[str] = None) -> list[float]:
        """Means over views, of each seed."""
        found = [run["models"][self.model][score] for run in self.runs.values()]
        return [entry["mean"] if group is None else entry["groups"][group] for entry in found]

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """What this model took, of the first seed."""
        return self._until(next(iter(self.runs.values())))

    def _until(self, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        names = list(run["stages"])
        return {name: run["stages"][name] for name in names[: names.index(self.model) + 1]}

    @property
    def seconds(self) -> float:
        """Seconds of training, all stages up to this model; mean over seeds."""
        return fmean(sum(stage["seconds"] for stage in self._until(run).values()) for run in self.runs.values())

    @property
    def steps(self) -> dict[str, int]:
        """Steps by each count; experts, which are several, have no steps of a student."""
        own = [stage["steps"] for name, stage in self.stages.items() if name in (*STUDENT, "baseline")]
        total = sum(stage["runs"] * stage["steps"] for stage in self.stages.values())
        return {"student": sum(own), "total": total}

    def paired(self, count: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """PSNR of this and of the baseline with as many steps, of each seed that both have."""
        other = self.baselines.get(self.steps[count], {})
        return [
            (run["models"][self.model]["psnr"], other[seed]["models"]["baseline"]["psnr"])
            for seed, run in self.runs.items()
            if seed in other and other is not self.runs
        ]

    def gains(self, count: str) -> list[float]:
        """Gain of each seed, in dB."""
        return [mine["mean"] - other["mean"] for mine, other in self.paired(count)]

    @property
    def view_gains(self) -> list[float]:
        """Gain of each view at equal steps of the student, mean over seeds, in dB."""
        apart = [[a - b for a, b in zip(mine["views"], other["views"])] for mine, other in self.paired("student")]
        return [fmean(values) for values in zip(*apart)]


def rows_of(scene: dict[str, Any]) -> list[Row]:
    """All models of all arms."""
    arms = scene["arms"]
    baselines = {
        run["stages"]["baseline"]["steps"]: arm["seeds"]
        for arm in arms.values()
        for run in arm["seeds"].values()
        if list(run["models"]) == ["baseline"]
    }
    return [
        Row(model, f"{name}: {STAGES[model]}" if model in STAGES else name, arm["seeds"], baselines)
        for name, arm in arms.items()
        for model in next(iter(arm["seeds"].values()))["models"]
    ]


INTRODUCTION = """\
Made by `python benchmarks/study.py page` from results.json and benchmarks/study.toml: do not edit.

Each figure is a mean over seeds, with their standard deviation after ±. A *gain* is PSNR less that of the baseline with
as many steps, in dB, paired by seed, by each of two counts of steps. *Student*: those of the one model, distillation
and fine-tuning. *Total*: those of all stages, trunk and experts included. A step of each stage counts as one, though
they do not cost the same: *time* is what training took in all stages together, evaluation not. *Experts, own views* are
the teacher: each test view is answered by the expert of its group. Best of the models of one size in bold.
Where there is no ±, there was one seed: compare gains, which are paired, and not rows."""


CONVERGENCE = """PSNR on test views at small sizes, where longer training has stopped helping (not yet with 50 and 100
photos, where the last doubling gave 0.2 dB): means over seeds, the gain paired by seed. Lego's pictures are 50x50,
those of *lego-fine* 100x100. How it was measured, and what was tried: [convergence.md](convergence.md)."""


def page(results: dict[str, Any], study: Study) -> str:
    """All figures, and what study.toml has to say of them, as Markdown."""
    parts = ["# Results of the study"]
    if "headline" in results:
        parts += ["## What is gained where one model has converged", CONVERGENCE, headline_table(results["headline"])]
        parts += ["## The training recipe, far from convergence"]
    parts.append(INTRODUCTION)
    for name, scene in results["scenes"].items():
        parts += scene_sections(name, scene)
    for section in study.text:
        parts += [f"## {section['title']}", section["text"].strip()]
    return "\n\n".join(parts) + "\n"


def scene_sections(name: str, scene: dict[str, Any]) -> Iterator[str]:
    """The sections of one scene."""
    rows, groups = rows_of(scene), list(scene["views"].values())
    numbers = sorted(set(groups))
    seeds = sorted({seed for row in rows for seed in row.runs}, key=int)
    yield f"## {plain(name)}"
    views = {"val": "validation", "test": "test"}[scene["split"]]
    yield (
        f"{scene['about']} Preset `{scene['preset']}`, {len(groups)} {views} views, "
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}."
    )
    yield "\n".join(f"- **{plain(arm)}**: {entry['about']}" for arm, entry in scene["arms"].items())
    yield table(score_grid(rows))
    yield "PSNR on the views of each group, with their number:"
    headings = [f"{number} ({groups.count(number)})" for number in numbers]
    grouped = [[SCORES["psnr"].text(fmean(row.values("psnr", str(n)))) for n in numbers] for row in rows]
    yield table(Grid(["", *headings], [[row.title, *cells] for row, cells in zip(rows, grouped)]))
    gained = [row for row in rows if row.paired("student") and row.model not in STAGES]
    if gained:
        yield "Gain per view at equal steps of the student, mean over seeds:"
        yield table(view_grid(gained, list(scene["views"])))
    about, total = scene["machine"], sum(run_seconds(arm) for arm in scene["arms"].values())
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    yield (
        f"Trained for {clock(total)} in all, on {plain(about['device'])} ({plain(about['system'])}), Python "
        f"{about['python']}, {plain(versions)}."
    )


def run_seconds(arm: dict[str, Any]) -> float:
    """Seconds of training, without experts that are another arm's."""
    return sum(
        stage["seconds"]
        for run in arm["seeds"].values()
        for name, stage in run["stages"].items()
        if name not in ("trunk", "experts") or "experts" not in arm
    )


def score_grid(rows: Sequence[Row]) -> Grid:
    """Scores, gains and costs."""
    shown, marks = [], []
    means = [[fmean(row.values(score)) for score in ("psnr", "ssim")] for row in rows]
    single = [mean for row, mean in zip(rows, means) if row.model != "experts"]
    best = [max(column) for column in zip(*single)]
    for row, mean in zip(rows, means):
        steps = [str(row.steps[count]) if row.steps[count] else "–" for count in get_args(Count)]
        shown.append(
            [
                row.title,
                *(
                    over_seeds(row.values(score), SCORES[score].text, SCORES[score].digits)
                    for score in ("psnr", "ssim")
                ),
                *(over_seeds(row.gains(count), signed) if row.steps[count] else "–" for count in get_args(Count)),
                " / ".join(steps),
                clock(row.seconds),
            ]
        )
        stands_out = [row.model != "experts" and value == top for value, top in zip(mean, best)]
        marks.append([*stands_out, *[False] * 4])
    gains = [f"gain, {count}" for count in get_args(Count)]
    return Grid(["", "PSNR", "SSIM", *gains, "steps", "time"], shown, marks)


def view_grid(rows: Sequence[Row], names: Sequence[str], most: int = 3) -> Grid:
    """Views that an arm helps most, and least."""
    shown = []
    for row in rows:
        gains = row.view_gains
        order = sorted(range(len(gains)), key=lambda number: -gains[number])
        texts = [f"{names[number]} {signed(gains[number])}" for number in order]
        ahead = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
        shown.append([row.title, ahead, ", ".join(texts[:most]), ", ".join(texts[: -most - 1 : -1])])
    return Grid(["", "views ahead", "most", "least"], shown)


def write_page(results: tyro.conf.Positional[Path], to: tyro.conf.Positional[Path], settings: Path = SETTINGS) -> None:
    """Write the page of results.

    Args:
        results: What `run` has written.
        to: The page.
        settings: Its free text.
    """
    write_text(to, page(read_results(results, PROGRAM), Study.load(settings)))


def check(results: tyro.conf.Positional[Path], of: tyro.conf.Positional[Path], settings: Path = SETTINGS) -> None:
    """Fail if the page is not what the results give.

    Args:
        results: What `run` has written.
        of: The page.
        settings: Its free text.
    """
    check_page(of, page(read_results(results, PROGRAM), Study.load(settings)), results, PROGRAM)


def main() -> None:
    carry_out(__doc__, run=run, page=write_page, check=check)


if __name__ == "__main__":
    main()
