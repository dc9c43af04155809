"""What experts know that longer training does not: a study where one model has converged.

On small pictures a baseline reaches its best within minutes of one core. Only what is gained
beyond it counts here.

    python benchmarks/converged.py run --data-root data --output-dir outputs/converged --json docs/convergence.json
    python benchmarks/converged.py page docs/convergence.json docs/convergence.md
    python benchmarks/converged.py publish docs/convergence.json docs/results.json   # and then study.py page
    python benchmarks/converged.py check docs/convergence.json docs/convergence.md   # fails where the page is stale

Cases, arms, seeds and the queue of what is trained first are those of converged.toml. Every model has a file of its
own, named by all that it was made from, and written once it is whole: the same command goes on after any mishap, and
arms that share a model train it once. What the file of figures has is not done again, though its models are gone, where
the settings would make the same ones: a choice among the same values stands, and so does a seed.

An arm is one model, or several *members* whose pictures are blended: at each camera by a softmax over members of
sharpness x nearness of the camera to the member's group (see dac_nerfstudio.partition.blending). Sharpness 0 is the
average of all, infinity is routing to the camera's own group.
A *student* is one model that learns from photos and from what the members of another arm, blended, render at novel
poses. What is to be chosen (``choose`` in the settings: one setting after another, the others at what they are by then)
is chosen by PSNR on validation views, with the first seed or, by ``choose_by``, the mean of more.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, Optional

import numpy as np
import tyro
from converged_page import BASELINE, WORST, mean, page, plot, wall_time
from studies import carry_out, check_page, read_results, settings_of, write_results

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.partition import Partition, Views, blending_weights, divide
from dac_nerfstudio.report.markdown import write_text

PROGRAM = "benchmarks/converged.py"
SETTINGS = Path(__file__).with_name("converged.toml")
FIGURES = (
    "val", "test", "train", "seconds", "lesson_seconds",
    "models", "each", "best_val", "best_test", "sharpness", "by_sharpness", "pearson", "error_share", "largest_step",
)  # fmt: skip
"""What results keep of an arm and seed."""
TEST_VIEWS = 40
"""So many of the scene's, at even distances."""
PATH = 180
"""Frames of a camera path once around the scene, which crosses the borders of all groups."""


@dataclass(frozen=True)
class Recipe:
    """How an arm is trained, all choices made."""

    steps: int
    """Training steps of each model."""
    tv: float
    """Weight of the total variation of all planes."""
    size: dict[str, Any] = field(default_factory=dict)
    """Fields of the model's config that differ from the study's."""
    sizes: Sequence[dict[str, Any]] = ()
    """As `size`, of the members in turn."""
    members: int = 1
    groups: int = 1
    """Azimuth sectors; member m, from 0, belongs to group m mod groups."""
    softness: Optional[float] = None
    """Share of a member's rays that are drawn from other groups' photos; without it, all photos are drawn alike."""
    overlap: float = 0.0
    """With `softness` 0: a member also draws from so many of other groups' nearest photos, as a share of its own."""
    turned: Literal["no", "upright", "any"] = "no"
    """How members' planes stand: as the world's axes, turned about the up axis, or any way. Member 0's always stand as
    the world's."""
    teacher: str = ""
    """The arm whose members teach at novel poses."""
    novel: tuple[float, float] = (0.0, 0.0)
    """Share of the rays at novel poses, in the beginning and at the end."""
    poses: int = 200
    """How many."""
    reach: float = 1.0
    """How much larger triangles of neighbours are made for novel poses; 1 is between them (see NovelCameras)."""
    doubt: float = 0.0
    """Novel rays weigh exp(-doubt x the members' disagreement there, in units of its mean)."""


@dataclass(frozen=True)
class Case:
    """A scene and a number of its photos."""

    about: str
    data: str
    """Folder below --data-root, in Blender's format or a COLMAP model beside its photos."""
    downscale: int
    photos: int
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of the model's config that differ from the study's."""
    novel: Literal["orbit", "between"] = "orbit"
    """Where novel poses are: on the sphere of the cameras, looking at its centre, or between neighbouring cameras and
    as far beyond them as `reach` says."""


@dataclass(frozen=True)
class Arm:
    """A way to train."""

    about: str
    """What it is."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Fields of Recipe."""
    like: str = ""
    """The arm whose fields it has where it says nothing, as chosen there."""
    choose: dict[str, list[Any]] = field(default_factory=dict)
    """Values to try of each field."""
    choose_by: int = 1
    """So many of the seeds, from the first, by whose mean it is chosen."""
    more: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`recipe`, `choose` and `choose_by` of single cases, beside or instead of the above. What a case chooses comes
    first."""


@dataclass(frozen=True)
class Study:
    """What converged.toml says."""

    seeds: list[int]
    rays: int
    """Rays per step."""
    rate: float
    """Adam's, highest."""
    sharpness: list[float]
    """Values to choose from."""
    model: dict[str, Any]
    """Fields of the model's config."""
    cases: dict[str, Case]
    arms: dict[str, Arm]
    queue: list[str] = field(default_factory=list)
    """What `run` does, in order: case, arm and the seeds, such as `lego-25 baseline 1 2 3`."""
    notes: list[dict[str, str]] = field(default_factory=list)
    """Sections of the page, each with `title` and `text`, in Markdown."""

    @classmethod
    def load(cls, path: Path) -> Study:
        """Read the settings.

        Raises:
            StageError: they are not of this form.
        """
        with settings_of(path) as content:
            cases = {name: Case(**entry) for name, entry in content.pop("cases").items()}
            arms = {name: Arm(**entry) for name, entry in content.pop("arms").items()}
            study = cls(cases=cases, arms=arms, **content)
            for name, arm in arms.items():
                if arm.like and arm.like not in arms:
                    raise ValueError(f"arm {name} is like {arm.like}, which is none")
                Recipe(**{"steps": 1, "tv": 0.0, **arm.recipe, **dict.fromkeys(arm.choose)})
            for case, name, _ in study.tasks():
                if case not in cases or name not in arms:
                    raise ValueError(f"the queue has {case} {name}, which is none")
        return study

    def tasks(self) -> Iterator[tuple[str, str, int]]:
        """Case, arm and seed, in order."""
        for line in self.queue:
            case, arm, *seeds = line.split()
            yield from ((case, arm, int(seed)) for seed in seeds)

    def tried_by(self, case: str, arm: str) -> list[int]:
        """Seeds by whose mean an arm's settings are chosen."""
        entry = self.arms[arm]
        return self.seeds[: entry.more.get(case, {}).get("choose_by", entry.choose_by)]


OF_ARMS = ("members", "sizes", "teacher")
"""What concerns an arm as a whole, and no model of it."""


class Pending(Exception):
    """A model has not been trained yet, and is not to be trained now."""


# Models and what they score


@dataclass(frozen=True)
class Model:
    """All that a model is made from."""

    case: str
    recipe: Recipe
    """Its arm's, with the size and turn of this member."""
    seed: int
    member: int
    teachers: tuple[Model, ...] = ()
    """What teaches it."""
    teacher_groups: int = 1
    sharpness: float = 0.0
    """How sharply its teachers are blended."""


@dataclass
class Bench:
    """Where models are kept and trained."""

    study: Study
    folder: Path
    data_root: Optional[Path] = None
    """Where the scenes' data lie; nothing is trained where this is None."""
    until: float = math.inf
    """Time, by time.time, from which on nothing is begun."""
    earlier: Mapping[str, Any] = field(default_factory=dict)
    """Cases of earlier results, whose models need not be here."""

    def known(self, case: str, arm: str) -> dict[str, Any]:
        """What earlier results have of an arm; nothing, if they have none."""
        return self.earlier.get(case, {}).get("arms", {}).get(arm, {})

    def content(self, model: Model) -> dict[str, Any]:
        study = self.study
        return {
            "case": asdict(study.cases[model.case]) | {"about": model.case},
            "model": self.size(model),
            "start": "PyTorch",
            "rays": study.rays,
            "rate": study.rate,
            "recipe": {
                name: value
                for name, value in asdict(model.recipe).items()
                if name not in OF_ARMS and value != getattr(Recipe, name, None)
            },
            "seed": model.seed,
            "member": model.member,
            "teachers": [self.name(teacher) for teacher in model.teachers],
            "teacher_groups": model.teacher_groups,
            "sharpness": str(model.sharpness),
        }

    def size(self, model: Model) -> dict[str, Any]:
        """Fields of the model's config."""
        return self.study.model | self.study.cases[model.case].model | model.recipe.size

    def name(self, model: Model) -> str:
        text = json.dumps(self.content(model), sort_keys=True)
        return f"{model.case}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def names(self, models: Sequence[Model]) -> list[str]:
        return [self.name(model) for model in models]

    # Recipes

    def recipe(self, case: str, arm: str) -> Recipe:
        """All choices made.

        Raises:
            Pending: some cannot be made yet.
        """
        return self.chosen(case, arm)[0]

    def chosen(self, case: str, name: str) -> tuple[Recipe, list[dict[str, Any]]]:
        """The recipe, and what was tried on the way, each with its PSNR on validation views; from earlier
        results, where their figures lead to the recipe that they have."""
        if known := self.known(case, name):
            found = {
                (setting, spelled(value)): entry["val"]
                for entry in known["tried"]
                for setting, value in entry.items()
                if setting != "val"
            }
            with suppress(KeyError):
                recipe, tried = self.choose(
                    case, name, lambda setting, tried, _: found[setting, spelled(getattr(tried, setting))]
                )
                if all(self.stands(case, recipe, known, seed) for seed in known["seeds"]):
                    return recipe, tried
        return self.choose(
            case, name, lambda _, tried, seeds: fmean(self.measure(case, tried, seed)["val"] for seed in seeds)
        )

    def choose(
        self, case: str, name: str, score: Callable[[str, Recipe, Sequence[int]], float]
    ) -> tuple[Recipe, list[dict[str, Any]]]:
        """As `chosen`, by what a setting's candidate scores over seeds."""
        arm = self.study.arms[name]
        more = arm.more.get(case, {})
        given = {**arm.recipe, **more.get("recipe", {})}
        recipe = replace(self.recipe(case, arm.like), **given) if arm.like else Recipe(**given)
        recipe = replace(recipe, novel=tuple(recipe.novel))
        tried: list[dict[str, Any]] = []
        ours = more.get("choose", {})
        for setting, values in {**ours, **arm.choose, **ours}.items():
            values = [tuple(value) if isinstance(value, list) else value for value in values]
            if len(values) == 1:
                recipe = replace(recipe, **{setting: values[0]})
                continue
            seeds = self.study.tried_by(case, name)
            found = []
            for value in values:
                candidate = replace(recipe, **{setting: value})
                found.append(round(score(setting, candidate, seeds), 3))
                tried.append({setting: value, "val": found[-1]})
            recipe = replace(recipe, **{setting: values[found.index(max(found))]})
        return recipe, tried

    def outcome(self, case: str, arm: str, seed: int) -> dict[str, Any]:
        """What an arm scores."""
        recipe, known = self.recipe(case, arm), self.known(case, arm)
        if known and self.stands(case, recipe, known, str(seed)):
            return known["seeds"][str(seed)]
        return self.measure(case, recipe, seed)

    def stands(self, case: str, recipe: Recipe, known: Mapping[str, Any], seed: str) -> bool:
        """Whether earlier figures of a seed are those of the models that a recipe makes."""
        figures = known["seeds"].get(seed, {})
        with suppress(Pending):
            return figures.get("models") == self.names(self.models(case, recipe, int(seed)))
        return False

    def measure(self, case: str, recipe: Recipe, seed: int) -> dict[str, Any]:
        """PSNR on validation and test views of a recipe's model, or of its members' blend, and what that took.

        Raises:
            Pending: a model is missing and not to be trained now.
        """
        models = self.models(case, recipe, seed)
        names = self.names(models)
        records = [self.record(model) for model in models]
        seconds = [record["seconds"] for record in records]
        if len(models) == 1:
            return {**records[0], "models": names, "seconds": seconds}
        key = hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]
        path = self.folder / f"{case}-blend-{key}.json"
        if not path.exists():
            if self.data_root is None:
                raise Pending(path)
            save(path, self.blend(case, models, recipe.groups))
        best = max(records, key=lambda record: record["val"])
        one = {"best_val": best["val"], "best_test": best["test"]}
        return {**json.loads(path.read_text("utf8")), **one, "models": names, "seconds": seconds}

    def models(self, case: str, recipe: Recipe, seed: int) -> list[Model]:
        """Those that a recipe is made of."""
        teachers: tuple[Model, ...] = ()
        groups, sharpness = 1, 0.0
        if recipe.teacher:
            of = self.recipe(case, recipe.teacher)
            teachers, groups = tuple(self.models(case, of, seed)), of.groups
            sharpness = float(self.outcome(case, recipe.teacher, seed).get("sharpness", 0.0))
        found = []
        for number in range(recipe.members):
            single = replace(recipe, turned=recipe.turned if number else "no")
            if recipe.sizes:
                single = replace(single, size={**recipe.size, **recipe.sizes[number % len(recipe.sizes)]})
            if single.softness is None:
                single = replace(single, groups=1)
            if not teachers:
                single = replace(single, novel=(0.0, 0.0))
            role = number if single.softness is not None or single.turned != "no" else 0
            found.append(Model(case, single, 100 * seed + number, role, teachers, groups, sharpness))
        return found

    # Training and rendering; imports torch where it is needed, which the page can do without

    def record(self, model: Model) -> dict[str, Any]:
        """What is known of a model, which is trained if need be."""
        path = self.folder / f"{self.name(model)}.json"
        if not path.exists():
            if self.data_root is None or time.time() > self.until:
                raise Pending(path)
            self.train(model, path)
        return json.loads(path.read_text("utf8"))

    def photos(self, case: str, split: str) -> Any:
        from lean import read_photos

        assert self.data_root is not None
        scene = self.study.cases[case]
        most = TEST_VIEWS if split == "test" else None
        return read_photos(self.data_root / scene.data, split, scene.downscale, scene.photos, most)

    def train(self, model: Model, path: Path) -> None:
        import torch
        from lean import Lessons, psnr, train

        recipe, photos = model.recipe, self.photos(model.case, "train")
        weights = torch.full((len(photos.cameras),), 1 / len(photos.cameras))
        if recipe.softness is not None:
            membership = sectors(photos.cameras, recipe.groups, recipe.softness, recipe.overlap).membership
            weights = torch.tensor(membership[model.member % recipe.groups]).float()
        lessons, extra = None, {}
        if model.teachers:
            shown, disagreement, extra["lesson_seconds"] = self.lessons(model)
            lessons = Lessons(shown, ray_weights(disagreement, recipe.doubt), recipe.novel)
        member = self.member(model)
        seconds = train(member, photos, weights, recipe.steps, model.seed, self.study.rays, self.study.rate, lessons)
        splits = {split: self.photos(model.case, split) for split in ("train", "val", "test")}
        pictures = {split: member.pictures(seen.cameras) for split, seen in splits.items()}
        with atomic_write(path.with_suffix(".pt")) as temporary:
            state = {"model": member.model.state_dict(), "pictures": {s: p.half() for s, p in pictures.items()}}
            torch.save(state, temporary)
        scores = {split: round(psnr(pictures[split], seen), 3) for split, seen in splits.items()}
        save(path, {**scores, "seconds": round(seconds, 1), **extra, **self.content(model)})
        print(f"{path.stem} {scores} {seconds:.0f} s: {asdict(recipe)}, seed {model.seed}", flush=True)

    def member(self, model: Model) -> Any:
        """A new model, its planes turned as its recipe says."""
        import torch
        from lean import Member, small_model
        from scipy.spatial.transform import Rotation

        turn = Rotation.identity()
        if model.recipe.turned == "upright":
            turn = Rotation.from_rotvec([0, 0, np.pi / 2 * halving(model.member)])
        elif model.recipe.turned == "any":
            turn = Rotation.random(random_state=model.member)
        made = small_model(self.size(model), model.recipe.tv, model.seed)
        return Member(made, torch.tensor(turn.as_matrix(), dtype=torch.float32))

    def trained(self, model: Model) -> Any:
        """A finished model."""
        member = self.member(model)
        member.model.load_state_dict(self.state(model)["model"])
        return member

    def pictures(self, model: Model, split: str) -> Any:
        """What a trained model renders of a split."""
        return self.state(model)["pictures"][split].float()

    def state(self, model: Model) -> Any:
        import torch

        return torch.load(self.folder / f"{self.name(model)}.pt", weights_only=True)

    def blend(self, case: str, models: Sequence[Model], groups: int) -> dict[str, Any]:
        """What models score together, by the sharpness that is best on validation views."""
        import torch
        from lean import on_white, psnr

        photos = {split: self.photos(case, split) for split in ("val", "test")}
        pictures = {split: torch.stack([self.pictures(model, split) for model in models]) for split in photos}
        scores: dict[str, dict[str, float]] = {split: {} for split in photos}
        partition = sectors(self.photos(case, "train").cameras, groups) if groups > 1 else None
        candidates = self.study.sharpness if partition else [0.0]
        for split, seen in photos.items():
            for sharpness in candidates:
                weights = blend_weights(seen.cameras, models, partition, sharpness)
                blended = (weights[:, :, None, None] * pictures[split]).sum(dim=0)
                scores[split][str(sharpness)] = round(psnr(blended, seen), 3)
        best = max(candidates, key=lambda sharpness: scores["val"][str(sharpness)])
        weights = blend_weights(photos["test"].cameras, models, partition, best)[:, :, None, None]
        colours = on_white(pictures["test"])
        mean = (weights * colours).sum(dim=0)
        disagreement = (weights * (colours - mean).square()).sum(dim=0).mean(dim=-1).sqrt().flatten()
        squared = (mean - on_white(photos["test"].pixels)).square().mean(dim=-1).flatten()
        worst = disagreement.argsort(descending=True)[: round(WORST * len(disagreement))]
        return {
            "val": scores["val"][str(best)],
            "test": scores["test"][str(best)],
            "each": [round(psnr(one, photos["test"]), 3) for one in pictures["test"]],
            "sharpness": str(best),  # JSON knows no infinity
            "by_sharpness": scores,
            "pearson": round(torch.corrcoef(torch.stack([disagreement, squared.sqrt()]))[0, 1].item(), 3),
            "error_share": round((squared[worst].sum() / squared.sum()).item(), 3),
            **({"largest_step": self.largest_step(case, models, partition)} if partition else {}),
        }

    def largest_step(self, case: str, models: Sequence[Model], partition: Partition) -> dict[str, float]:
        """By sharpness, how far the largest step between neighbouring frames of a path around the scene exceeds the
        median one: 1 would be a path without borders, whose frames differ by the camera's motion alone. Steps are means
        of absolute differences."""
        import torch
        from lean import on_white, ring

        path = ring(self.photos(case, "train").cameras, PATH)
        frames = torch.stack([on_white(self.trained(model).pictures(path)) for model in models])
        found = {}
        for sharpness in self.study.sharpness:
            weights = blend_weights(path, models, partition, sharpness)[:, :, None, None]
            seen = (weights * frames).sum(dim=0)
            steps = (seen - seen.roll(1, dims=0)).abs().mean(dim=(1, 2))
            found[str(sharpness)] = round((steps.max() / steps.median()).item(), 2)
        return found

    def lessons(self, model: Model) -> tuple[Any, Any, float]:
        """What the teachers, blended, show at novel poses, their disagreement there, and the seconds that took."""
        import torch
        from lean import Photos, between_neighbours, on_white, orbit

        known = self.photos(model.case, "train").cameras
        recipe = model.recipe
        if self.study.cases[model.case].novel == "between":
            cameras = between_neighbours(known, recipe.poses, model.seed, recipe.reach)
        else:
            cameras = orbit(known, recipe.poses, model.seed)
        views, seconds = [], 0.0
        for teacher in model.teachers:
            path = self.folder / f"{self.name(teacher)}-novel-{recipe.poses}-{recipe.reach:g}-{model.seed}.pt"
            if not path.exists():
                self.record(teacher)  # Its figures may be known and the model gone.
                member, began = self.trained(teacher), time.process_time()
                pictures = member.pictures(cameras).half()
                with atomic_write(path) as temporary:
                    torch.save({"pictures": pictures, "seconds": time.process_time() - began}, temporary)
            rendered = torch.load(path, weights_only=True)
            views.append(rendered["pictures"])
            seconds += rendered["seconds"]
        partition = sectors(known, model.teacher_groups) if model.teacher_groups > 1 else None
        weights = blend_weights(cameras, model.teachers, partition, model.sharpness)
        mean, square = 0.0, 0.0
        for weight, seen in zip(weights[:, :, None, None], views):
            mean = mean + weight * seen.float()
            square = square + weight * on_white(seen.float()).square()
        disagreement = (square - on_white(mean).square()).clamp(min=0).mean(dim=-1).sqrt()
        return Photos(cameras, mean), disagreement, round(seconds, 1)


def sectors(cameras: Any, groups: int, softness: float = 0.0, overlap: float = 0.0) -> Partition:
    """Training cameras divided into azimuth sectors."""
    count, pixels = len(cameras), [cameras.focal, cameras.focal, cameras.width / 2, cameras.height / 2]
    intrinsics = np.tile([*pixels, cameras.width, cameras.height], (count, 1))
    names = tuple(f"{number}" for number in range(count))
    views = Views(names, cameras.poses.double().numpy(), intrinsics)
    return divide(views, groups, "azimuth", softness=softness, overlap=overlap)


def blend_weights(cameras: Any, models: Sequence[Model], partition: Optional[Partition], sharpness: float) -> Any:
    """Weights [models, cameras] of each model at each camera: that of its group, shared by the group's members; all
    alike without a partition."""
    import torch

    if partition is None:
        return torch.full((len(models), len(cameras)), 1 / len(models))
    of_groups = blending_weights(partition, cameras.poses.double().numpy(), sharpness).T
    groups = np.array([model.member % partition.num_groups for model in models])
    return torch.tensor(of_groups[groups] / np.bincount(groups)[groups, None]).float()


def ray_weights(disagreement: Any, doubt: float) -> Any:
    """Weights of novel rays, by the disagreement of those who rendered them: 1 on average, and where all agree."""
    import torch

    # A single teacher agrees with itself everywhere: 0 / 0 would be no weight at all.
    weights = torch.exp(-doubt * disagreement / disagreement.mean().clamp(min=1e-9))
    return weights / weights.mean()


def halving(number: int) -> float:
    """Van der Corput's sequence: 0, 1/2, 1/4, 3/4, 1/8 and so on, which fill [0, 1) evenly however far one goes."""
    return sum(int(bit) / 2 ** (place + 1) for place, bit in enumerate(reversed(f"{number:b}")))


def spelled(value: Any) -> str:
    """As JSON has it: equal for what is equal there, such as lists and tuples."""
    return json.dumps(value, sort_keys=True)


def save(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf8")


# Figures


def gather(bench: Bench, asked: Container[tuple[str, str]]) -> dict[str, Any]:
    """Figures of what is finished, and what is claimed by them.

    Args:
        asked: Cases and arms that are reported beside those of earlier results.
    """
    study, cases, bench = bench.study, {}, replace(bench, data_root=None)
    for case, about in study.cases.items():
        arms = {}
        for arm, entry in study.arms.items():
            if (case, arm) not in asked and not bench.known(case, arm):
                continue
            try:
                recipe, tried = bench.chosen(case, arm)
            except Pending:
                continue
            seeds = {}
            for seed in study.seeds:
                with suppress(Pending):
                    seeds[str(seed)] = {
                        name: value for name, value in bench.outcome(case, arm, seed).items() if name in FIGURES
                    }
            if seeds:
                arms[arm] = {
                    "about": entry.about,
                    "recipe": asdict(recipe),
                    "tried": tried,
                    "tried_by": study.tried_by(case, arm),
                    "seeds": seeds,
                }
        if BASELINE in arms:
            cases[case] = {"about": about.about, "scene": case.rpartition("-")[0], "photos": about.photos, "arms": arms}
    return {"cases": cases, "headline": [line for case in cases.values() if (line := headline(case))]}


def headline(case: dict[str, Any]) -> Optional[dict[str, Any]]:
    """What is claimed of a case, on test views: the best ensemble of experts (which had no teachers themselves) and the
    best student, as validation views have it, of those that have as many seeds as any. None if one is missing."""
    arms = case["arms"]
    baseline = arms[BASELINE]
    chosen = {}
    for kind, several in (("ensemble", True), ("student", False)):
        of_kind = {
            name: arm
            for name, arm in arms.items()
            if (arm["recipe"]["members"] > 1) == several and bool(arm["recipe"]["teacher"]) != several
        }
        if not of_kind:
            return None
        most = max(len(arm["seeds"]) for arm in of_kind.values())
        chosen[kind] = max(
            (name for name, arm in of_kind.items() if len(arm["seeds"]) == most),
            key=lambda name: mean(arms[name], "val"),
        )
    student = arms[chosen["student"]]
    seeds = [seed for seed in student["seeds"] if seed in baseline["seeds"]]
    gains = [student["seeds"][seed]["test"] - baseline["seeds"][seed]["test"] for seed in seeds]
    return {
        "scene": case["scene"],
        "photos": case["photos"],
        "seeds": len(seeds),
        "baseline_best": round(mean(baseline, "test"), 3),
        "baseline_best_steps": baseline["recipe"]["steps"],
        "ensemble": round(mean(arms[chosen["ensemble"]], "test"), 3),
        "ensemble_arm": chosen["ensemble"],
        "ensemble_seeds": len(arms[chosen["ensemble"]]["seeds"]),
        "best_member": round(mean(arms[chosen["ensemble"]], "best_test"), 3),
        "student": round(mean(student, "test"), 3),
        "student_arm": chosen["student"],
        # Times are kept in tenths of a second: a model of one step may have taken none.
        "cost": round(wall_time(arms, chosen["student"], 1) / max(wall_time(arms, BASELINE, 1), 0.1), 1),
        "gain": round(fmean(gains), 3),
        "gain_sd": round(stdev(gains), 3) if len(gains) > 1 else None,
    }


def write_page(results: tyro.conf.Positional[Path], to: tyro.conf.Positional[Path], settings: Path = SETTINGS) -> None:
    """Write the page of results, and the plot beside it.

    Args:
        results: What `run` has written.
        to: The page.
        settings: Its free text.
    """
    content = read_results(results, PROGRAM)
    write_text(to, page(content, Study.load(settings).notes))
    plot(content, to.with_suffix(".png"))


def publish(results: tyro.conf.Positional[Path], to: tyro.conf.Positional[Path]) -> None:
    """Write what is claimed into the results of study.py, whose page begins with it.

    Args:
        results: What `run` has written.
        to: What study.py has written.
    """
    headline = read_results(results, PROGRAM)["headline"]
    write_results(to, {**read_results(to, "benchmarks/study.py"), "headline": headline})


def check(results: tyro.conf.Positional[Path], of: tyro.conf.Positional[Path], settings: Path = SETTINGS) -> None:
    """Fail if the page is not what the results give.

    Args:
        results: What `run` has written.
        of: The page.
        settings: Its free text.
    """
    check_page(of, page(read_results(results, PROGRAM), Study.load(settings).notes), results, PROGRAM)


# Running


def run(
    tasks: tuple[str, ...] = (),
    minutes: float = math.inf,
    settings: Path = SETTINGS,
    data_root: Path = Path("data"),
    output_dir: Path = Path("outputs/converged"),
    json: Path = Path("outputs/converged/results.json"),
) -> None:
    """Train and score what is not done yet, and write all figures. The same command goes on after any mishap.

    Args:
        tasks: Case, arm and seeds, such as "lego-25 baseline 1 2 3"; by default the queue of the settings.
        minutes: So long; nothing is begun after that.
        settings: The study.
        data_root: Where the scenes' data lie.
        output_dir: Where models go.
        json: Where figures go. What it has by these settings is not done again.
    """
    study = Study.load(settings)
    earlier = read_results(json, PROGRAM)["cases"] if json.exists() else {}
    bench = Bench(study, output_dir, data_root, time.time() + 60 * minutes, earlier)
    queue = list((replace(study, queue=list(tasks)) if tasks else study).tasks())
    asked = {(case, arm) for case, arm, _ in queue}
    kept = gather(bench, set())["cases"]
    if stale := [
        f"{case} {arm}"
        for case in earlier
        for arm in earlier[case]["arms"]
        if arm not in kept.get(case, {"arms": {}})["arms"]
    ]:
        raise StageError(
            f"{json} has figures of other settings than those of {settings}: {', '.join(stale)}. Name another file "
            "with --json, or take them out."
        )
    for case, arm, seed in queue:
        try:
            found = bench.outcome(case, arm, seed)
        except Pending:
            print("The time is over. The same command goes on from here.")
            break
        print(f"== {case} {arm} {seed}: val {found['val']}, test {found['test']}", flush=True)
        save(json, gather(bench, asked))


def main() -> None:
    carry_out(__doc__, run=run, page=write_page, publish=publish, check=check)


if __name__ == "__main__":
    main()
