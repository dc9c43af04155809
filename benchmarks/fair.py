"""The fair study: what experts and a student give beyond a baseline that was tuned as they were.

Pictures are small, so that one model converges within minutes of one core. Every run is the product's own: nerfstudio's
trainer on the registered methods, in process. For each scene

1. `tune` improves the baseline one setting at a time, by halves and doubles, until none of them gives GAIN dB on
   validation views; then it doubles the steps until they give no more;
2. `study` trains four experts that see all photos and differ in seed, averages them, and trains a student of them; seed
   1 chooses the student's settings on validation views, from fewer trainings than the baseline had. Beside them stand
   the baseline, and one of as many steps as experts and student together;
3. `page` writes the tables of docs/results.md from the file of figures.

    python benchmarks/fair.py tune --scene lego-25
    python benchmarks/fair.py study --scene lego-25 --seeds 1 2 3
    python benchmarks/fair.py page

Each run leaves its own file of figures and is never trained twice; a killed study goes on with the next command.
"""

from __future__ import annotations

import copy
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from small import small_blender, small_generated, small_real

from dac_nerfstudio import methods
from dac_nerfstudio.files import write_json
from dac_nerfstudio.style import COLOURS, MARKERS

GAIN = 0.05
"""dB on validation views that a costlier setting has to bring."""
MOST_STEPS = 32000
EXPERTS = 4


@dataclass(frozen=True)
class SmallScene:
    """Which photos are trained on, and how small they are."""

    make: Callable[[Path, Path, int, int], None]
    source: str
    photos: int
    width: int
    real: bool = False


SCENES = {
    **{f"lego-{count}": SmallScene(small_blender, "lego_200", count, 50) for count in (12, 25, 50, 100)},
    "lego-25-100px": SmallScene(small_blender, "lego_200", 25, 100),
    "lego-25-200px": SmallScene(small_blender, "lego_200", 25, 200),
    "lego-100-200px": SmallScene(small_blender, "lego_200", 100, 200),
    "bonsai-25": SmallScene(small_real, "bonsai", 25, 100, real=True),
    "bonsai-25-200px": SmallScene(small_real, "bonsai", 25, 200, real=True),
    "bonsai-25-400px": SmallScene(small_real, "bonsai", 25, 400, real=True),
    "demo-12": SmallScene(small_generated, "", 12, 50),
}


Axes = tuple[tuple[str, tuple[Callable[[Any], Any], ...]], ...]
"""Settings in the order in which they are tuned, and what is tried of each beside its value."""


def times(factor: float) -> Callable[[float], float]:
    """Multiplies to three digits."""
    return lambda value: float(f"{value * factor:.3g}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is tuned of a model of any kind and its training."""

    samples: int = 2
    """16 samples per ray and 32 of each proposal level, times this."""
    rate: float = 1e-2
    """Adam's rate, at its highest."""
    rays: int = 512
    """Rays of a step."""
    steps: int = 4000
    """Training steps."""

    method: ClassVar[str] = ""
    """What the methods' names end in."""
    smoothing: ClassVar[str]
    """The setting that smooths."""
    axes: ClassVar[Axes]

    @property
    def name(self) -> str:
        """Differs where settings differ."""
        values = (f"{name}{value:g}" for name, value in asdict(self).items())
        return "-".join((self.method.strip("_") or "kplanes", *values))

    def smoothed(self, less: float) -> Settings:
        """With the smoothing divided by ``less``: rendered views smooth a student, too."""
        return replace(self, **{self.smoothing: times(1 / less)(getattr(self, self.smoothing))})

    def put_into(self, model: Any) -> None:
        """Set a model's configuration."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class KPlanesSettings(Settings):
    """Those of K-Planes."""

    planes: int = 1
    """Planes of 32 and 64 points a side, times this."""
    tv: float = 1e-2
    """Weight of the total variation of all planes."""
    rate: float = 2e-2
    linear: bool = True
    """The explicit decoder, or else the hybrid one."""
    features: int = 16
    """Features of each plane."""
    levels: int = 1
    """Proposal levels."""

    smoothing: ClassVar[str] = "tv"
    axes: ClassVar[Axes] = (
        ("samples", (lambda v: 2 * v, lambda v: max(v // 2, 1))),
        ("tv", (times(3.16), times(1 / 3.16))),
        ("planes", (lambda v: 2 * v,)),
        ("linear", (lambda v: not v,)),
        ("rate", (lambda v: 2 * v, lambda v: v / 2)),
        ("features", (lambda v: 2 * v,)),
        ("levels", (lambda v: v + 1,)),
        ("rays", (lambda v: 2 * v,)),
    )

    @classmethod
    def first(cls, scene: SmallScene) -> KPlanesSettings:
        """Where tuning begins."""
        return cls(tv=1e-1, planes=2) if scene.real else cls()

    def put_into(self, model: Any) -> None:
        model.grid_base_resolution, model.multiscale_res = 32 * self.planes, (1, 2)
        model.grid_feature_dim, model.linear_decoder = self.features, self.linear
        model.linear_decoder_layers, model.background_color = 1, "random"
        model.proposal_resolutions = tuple(32 * self.planes * 2**level for level in range(self.levels))
        model.num_proposal_samples, model.num_samples = (32 * self.samples,) * self.levels, 16 * self.samples
        model.regularizers.plane_tv = model.regularizers.proposal_tv = self.tv


@dataclass(frozen=True, kw_only=True)
class NerfactoSettings(Settings):
    """Those of nerfacto."""

    finest: int = 64
    """Cells of the finest of eight grids along each side."""
    decay: float = 0.1
    """Weight of the hash decay."""
    table: int = 16
    """Binary logarithm of a grid's entries."""
    width: int = 32
    """Neurons of each hidden layer."""

    method: ClassVar[str] = "_nerfacto"
    smoothing: ClassVar[str] = "decay"
    axes: ClassVar[Axes] = (
        ("samples", (lambda v: 2 * v, lambda v: max(v // 2, 1))),
        ("decay", (times(3.16), times(1 / 3.16))),
        ("finest", (lambda v: 2 * v, lambda v: v // 2)),
        ("rate", (lambda v: 2 * v, lambda v: v / 2)),
        ("table", (lambda v: v + 1, lambda v: v - 1)),
        ("width", (lambda v: 2 * v,)),
        ("rays", (lambda v: 2 * v,)),
    )

    @classmethod
    def first(cls, scene: SmallScene) -> NerfactoSettings:
        """Where tuning begins."""
        return cls(finest=128 if scene.real else 64)

    def put_into(self, model: Any) -> None:
        model.num_levels, model.max_res, model.log2_hashmap_size = 8, self.finest, self.table
        model.hidden_dim = model.hidden_dim_color = self.width
        model.num_proposal_iterations, model.num_nerf_samples_per_ray = 1, 16 * self.samples
        model.num_proposal_samples_per_ray, model.hash_decay = (32 * self.samples,), self.decay
        proposal = {"hidden_dim": 16, "log2_hashmap_size": 14, "num_levels": 4, "max_res": 64, "use_linear": False}
        model.proposal_net_args_list = [proposal]


KINDS: dict[str, type[KPlanesSettings] | type[NerfactoSettings]] = {
    "kplanes": KPlanesSettings,
    "nerfacto": NerfactoSettings,
}


@dataclass(frozen=True)
class Teaching:
    """What is tuned of a student besides: how it learns from the experts."""

    share: float = 0.25
    """Share of fine-tuning's rays at rendered views."""


@dataclass
class Options:
    """What to do."""

    action: tyro.conf.Positional[Literal["tune", "study", "kinds", "page"]]
    scene: tuple[str, ...] = ("lego-25",)
    """Scenes, one after another."""
    kind: Literal["kplanes", "nerfacto"] = "kplanes"
    """Which model is tuned."""
    like: str = ""
    """Scene whose tuned settings are where tuning begins, or which the study takes as they are."""
    axes: tuple[str, ...] = ()
    """Settings that are tuned besides the steps; all by default."""
    teacher_steps: int = 4000
    """Steps of each teacher."""
    student_steps: int = 8000
    """Steps of their student."""
    seeds: tuple[int, ...] = (1,)
    """Seeds that the study runs; seed 1, which comes first, chooses."""
    data: Path = Path("data")
    """Folder with lego_200 and bonsai."""
    output_dir: Path = Path("outputs/fair")
    """Where copies, runs and their figures go."""
    json: Path = Path("docs/fair.json")
    """File of figures that `page` reads; `tune` and `study` add to it."""


@dataclass
class Run:
    """A finished training: its figures, and its pictures of the validation and the test views."""

    folder: Path
    figures: dict[str, Any]
    pictures: dict[str, np.ndarray] = field(repr=False)

    @property
    def val(self) -> float:
        return self.figures["val"]

    @property
    def settings(self) -> Settings:
        return settings_of(self.figures)


def settings_of(figures: dict[str, Any]) -> Settings:
    """The settings among a run's figures."""
    kind = KINDS["nerfacto" if "decay" in figures else "kplanes"]
    return kind(**{field.name: figures[field.name] for field in fields(kind)})


class Study:
    """The runs of one scene."""

    def __init__(self, options: Options, name: str) -> None:
        self.options, self.name, self.scene = options, name, SCENES[name]
        self.found = read(options).get(name, {})
        """The scene's entry in the file of figures."""
        self.tuned = read(options)[options.like] if options.like else self.found
        """That of the scene whose settings are taken."""
        self.data = options.output_dir / "data" / name
        if not self.data.exists():
            scene = self.scene
            scene.make(options.data / scene.source, self.data, scene.photos, scene.width)
        self.kind = "_360" if self.scene.real else ""

    def add(self, part: str, label: str, figures: dict[str, Any]) -> None:
        """Put a run among those of a label, such as teacher, unless it is there."""
        entries, entry = self.found.setdefault(part, {}).setdefault(label, []), public(figures)
        entries.extend([entry] if entry not in entries else [])
        record(self.options, self.name, **{part: self.found[part]})

    def tried(self, part: str, method: str = "") -> list[dict[str, Any]]:
        """Students among which validation views choose, of one kind and of the steps asked for."""
        runs = self.tuned.get(part, {}).get("student tried", [])
        return [run for run in runs if (settings_of(run).method, run["steps"]) == (method, self.options.student_steps)]

    def configure(self, stage: str, settings: Settings, seed: int) -> Any:
        """A registered method's configuration with the study's settings."""
        config = copy.deepcopy(getattr(methods, f"{stage}{settings.method}{self.kind}").config)
        config.output_dir, config.experiment_name = self.options.output_dir / "runs", self.name
        config.vis, config.machine.device_type, config.machine.seed = "tensorboard", "cpu", seed
        config.mixed_precision, config.groups = False, 1
        config.max_num_iterations = config.steps_per_save = settings.steps
        config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 10**7
        config.data = config.pipeline.datamanager.data = self.data
        config.pipeline.datamanager.train_num_rays_per_batch = settings.rays
        model = config.pipeline.model
        settings.put_into(model)
        model.proposal_warmup, model.proposal_weights_anneal_max_num_iters = 500, 100
        for group in config.optimizers.values():
            group["optimizer"].lr, group["scheduler"].warmup_steps = settings.rate, 50
        return config

    def train(self, kind: str, settings: Settings, seed: int, stages: Callable[[str], list[Any]]) -> Run:
        """A run's figures and pictures; trained unless that was done.

        Args:
            kind: such as baseline; with settings and seed it names the run.
            stages: configurations to train one after another, of which the last is the run.
        """
        name = f"{kind}-{settings.name}-seed{seed}"
        place = self.options.output_dir / "figures" / self.name
        path, pictures = place / f"{name}.json", place / f"{name}.npz"
        if path.exists() and pictures.exists():
            figures = json.loads(path.read_text("utf8"))
            return Run(Path(figures["folder"]), figures, dict(np.load(pictures)))
        begun = time.process_time()
        for config in stages(name):
            config.timestamp = name
            # As ns-train does before it builds a model.
            torch.manual_seed(seed)
            trainer = config.setup(local_rank=0, world_size=1)
            trainer.setup()
            for step in range(config.max_num_iterations):
                trainer.train_iteration(step)
            trainer.save_checkpoint(step)
        seconds = time.process_time() - begun
        parameters = sum(parameter.numel() for parameter in trainer.pipeline.model.parameters())
        found, photos = {}, {}
        for split in ("val", "test"):
            found[split], photos[split] = self.render(trainer, split)
        figures = {
            "kind": kind, **asdict(settings), "seed": seed, "seconds": round(seconds), "parameters": parameters,
            "folder": str(trainer.base_dir),
            **{split: round(psnr(found[split], photos[split]), 3) for split in found},
        }  # fmt: skip
        place.mkdir(parents=True, exist_ok=True)
        with open(pictures.with_suffix(".part"), "wb") as file:
            np.savez(file, **found, **{f"{split}_photos": photos[split] for split in photos})
        os.replace(pictures.with_suffix(".part"), pictures)
        write_json(path, figures)
        print(f"{self.name} {name}: val {figures['val']:.2f}, {figures['seconds']} s", flush=True)
        return Run(trainer.base_dir, figures, dict(np.load(pictures)))

    def render(self, trainer: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
        """A split's views as the model renders them, and its photos on the same background."""
        pipeline = trainer.pipeline
        config = pipeline.datamanager.config
        outputs = replace(config.dataparser, data=self.data).setup().get_dataparser_outputs(split=split)
        dataset = type(pipeline.datamanager.train_dataset)(outputs)
        pipeline.eval()
        pictures, photos = [], []
        for index in range(len(dataset)):
            camera = dataset.cameras[index : index + 1]
            pictures.append(pipeline.model.get_outputs_for_camera(camera)["rgb"].clamp(0, 1).numpy())
            photos.append(pipeline.model.true_colour({}, {"image": dataset.get_image_float32(index)}).numpy())
        return np.stack(pictures), np.stack(photos)

    def baseline(self, settings: Settings, seed: int = 1) -> Run:
        return self.train("baseline", settings, seed, lambda name: [self.configure("baseline", settings, seed)])

    def expert(self, settings: Settings, seed: int) -> Run:
        """A teacher: sees all photos, which are one group."""

        def stages(name: str) -> list[Any]:
            config = self.configure("expert", settings, seed)
            config.group = 1
            return [config]

        return self.train("expert", settings, seed, stages)

    def taught(self, teachers: list[Run], settings: Settings, teaching: Teaching, seed: int) -> Run:
        """A student that starts from scratch, on photos and on views that finished runs of any kind render."""

        def stages(name: str) -> list[Any]:
            config = self.configure("finetune", settings, seed)
            config.teachers = tuple(teacher.folder for teacher in teachers)
            config.pipeline.novel_share = teaching.share
            return [config]

        kinds = [run.settings.method or "_kplanes" for run in teachers]
        by = "".join(f"{kind}{kinds.count(kind)}" for kind in sorted(set(kinds)))
        return self.train(f"taught-by{by}-share{teaching.share:g}", settings, seed, stages)

    def student(self, experts: list[Run], settings: Settings, teaching: Teaching, seed: int) -> Run:
        """Distilled for a tenth of its steps, then fine-tuned on photos and rendered views along the same cosine."""

        def stages(name: str) -> list[Any]:
            distill = self.configure("distill", replace(settings, steps=settings.steps // 10), seed)
            finetune = self.configure("finetune", replace(settings, steps=settings.steps * 9 // 10), seed)
            for config in (distill, finetune):
                config.experts = tuple(expert.folder for expert in experts)
            for group in distill.optimizers.values():
                group["scheduler"].end = 0.1
            for group in finetune.optimizers.values():
                group["scheduler"].begin = 0.1
            finetune.pipeline.novel_share, finetune.pipeline.inverse_temperature = teaching.share, 0.0
            finetune.student = distill.get_base_dir().parent / name
            return [distill, finetune]

        return self.train(f"student-of-{len(experts)}-share{teaching.share:g}", settings, seed, stages)


def psnr(pictures: np.ndarray, photos: np.ndarray) -> float:
    """Mean over views, in dB."""
    return float((-10 * np.log10(np.square(pictures - photos).mean(axis=(1, 2, 3)))).mean())


def preferred(tried: list[dict[str, Any]]) -> tuple[Any, Teaching]:
    """Settings of the student that validation views prefer."""
    best = max(tried, key=lambda run: run["val"])
    return settings_of(best), Teaching(share_of(best))


def share_of(run: dict[str, Any]) -> float:
    """Share of a student's rays at rendered views, of which its kind is named."""
    return float(run["kind"].partition("share")[2])


def averaged(runs: list[Run]) -> dict[str, float]:
    """PSNR of the mean of several runs' pictures."""
    first = runs[0].pictures
    means = {split: np.mean([run.pictures[split] for run in runs], axis=0) for split in ("val", "test")}
    return {split: round(psnr(mean, first[f"{split}_photos"]), 3) for split, mean in means.items()}


def record(options: Options, scene: str, **entries: Any) -> None:
    """Add to the file of figures."""
    figures = read(options)
    figures.setdefault(scene, {}).update(entries)
    write_json(options.json, figures)


def tune(options: Options, name: str) -> Settings:
    """The baseline's settings that validation views prefer: each in turn at few steps, then the number of steps."""
    study, kind = Study(options, name), KINDS[options.kind]
    tuned, chosen = f"tuned{kind.method}", f"baseline{kind.method}"
    # What the file of figures has need not be trained again on another machine.
    known = read(options).get(name, {}).get(tuned, [])

    def baseline(settings: Settings) -> Run:
        wanted = {"kind": "baseline", "seed": 1, **asdict(settings)}
        for figures in known:
            if {name: figures[name] for name in wanted} == wanted:
                return Run(Path(), figures, {})
        return study.baseline(settings)

    like = read(options)[options.like][chosen] if options.like else {}
    best = baseline(replace(kind.first(study.scene), **like))
    tried = [best.figures]

    def attempt(**change: Any) -> bool:
        nonlocal best
        run = baseline(replace(best.settings, **change))
        tried.extend([run.figures] if run.figures not in tried else [])
        better = run.val > best.val + GAIN
        best = run if better else best
        record(options, name, **{tuned: [public(entry) for entry in tried], chosen: asdict(best.settings)})
        return better

    for axis, moves in kind.axes:
        for move in moves if axis in options.axes or not options.axes else ():
            while attempt(**{axis: move(getattr(best.settings, axis))}):
                pass
    while best.settings.steps < MOST_STEPS and attempt(steps=2 * best.settings.steps):
        pass
    return best.settings


def study(options: Options, name: str) -> None:
    """Baselines, experts and students with the tuned settings, for each seed."""
    runs = Study(options, name)
    add = partial(runs.add, "trained")
    settings = KPlanesSettings(**runs.tuned["baseline"])
    expert, taught = (replace(settings, steps=steps) for steps in (options.teacher_steps, options.student_steps))

    def chosen(experts: list[Run], seed: int) -> tuple[Settings, Teaching]:
        """Settings of the student that validation views prefer; rendered views smooth its planes, too."""
        for share, less in () if runs.tried("trained") else ((0.25, 3.16), (0.5, 3.16)):
            add("student tried", runs.student(experts, taught.smoothed(less), Teaching(share), seed).figures)
        return preferred(runs.tried("trained"))

    for seed in options.seeds:
        add("baseline", runs.baseline(settings, seed).figures)
        experts = [runs.expert(expert, seed + 10 * number) for number in range(EXPERTS)]
        for number, member in enumerate(experts, 1):
            add("expert", member.figures)
            if number in (2, EXPERTS):
                cost = total(experts[:number])
                label = f"{number} experts of {expert.steps:,} steps averaged"
                add(label, {"seed": seed, **averaged(experts[:number]), "seconds": cost})
        student = runs.student(experts, *chosen(experts, seed), seed)
        add("student", {**student.figures, "seconds of all": student.figures["seconds"] + total(experts)})
    steps = taught.steps + EXPERTS * expert.steps
    for seed in options.seeds:
        add("baseline of all steps", runs.baseline(replace(settings, steps=steps), seed).figures)


def kinds(options: Options, name: str) -> None:
    """Two K-Planes and two nerfacto of the tuned settings, averaged; students of either kind; and baselines, also of as
    many steps as the teachers and a student. Seed 1 chooses the students' settings, as taught by one of each; others
    have one of each alone."""
    runs = Study(options, name)
    add = partial(runs.add, "kinds")
    settings = [KPlanesSettings(**runs.tuned["baseline"]), NerfactoSettings(**runs.tuned["baseline_nerfacto"])]

    def student(own: Settings, teachers: list[Run], seed: int) -> Run:
        for share, less in () if runs.tried("kinds", own.method) else ((0.5, 3.16), (0.25, 3.16)):
            candidate = replace(own.smoothed(less), steps=options.student_steps)
            add("student tried", runs.taught(teachers, candidate, Teaching(share), seed).figures)
        return runs.taught(teachers, *preferred(runs.tried("kinds", own.method)), seed)

    for seed in options.seeds:
        first = seed == 1 and not options.like
        teachers = [
            [
                runs.baseline(replace(own, steps=options.teacher_steps), seed + 10 * number)
                for number in range(1 + first)
            ]
            for own in settings
        ]
        both = {
            "two K-Planes": teachers[0],
            "two nerfacto": teachers[1],
            "one of each": [teachers[0][0], teachers[1][0]],
            "two of each": [*teachers[0], *teachers[1]],
        }
        for teacher in both["two of each"]:
            add("teacher", teacher.figures)
        for label, chosen in both.items():
            if first or label == "one of each":
                add(f"{label}, averaged", {"seed": seed, **averaged(chosen), "seconds": total(chosen)})
        for own in settings:
            others = ("two of each", "two nerfacto" if own.method else "two K-Planes") if first else ()
            for label in ("one of each", *others):
                run, cost = student(own, both[label], seed), total(both[label])
                add(f"student of {label}", {**run.figures, "seconds of all": run.figures["seconds"] + cost})
        for own in settings:
            add("baseline", runs.baseline(own, seed).figures)
            steps = (4 if first else 2) * options.teacher_steps + options.student_steps
            if steps != own.steps:
                add("baseline of all steps", runs.baseline(replace(own, steps=steps), seed).figures)


def total(runs: Sequence[Run]) -> int:
    """Seconds of a core that trainings took together."""
    return sum(run.figures["seconds"] for run in runs)


def read(options: Options) -> dict[str, Any]:
    """The file of figures."""
    return json.loads(options.json.read_text("utf8")) if options.json.exists() else {}


def public(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name != "folder"}


PAGE = Path(__file__).parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- begin fair.json -->", "<!-- end fair.json -->"
NAMES = {
    "samples": "samples", "planes": "planes", "tv": "total variation", "rate": "rate", "linear": "decoder",
    "features": "features", "levels": "proposal levels", "finest": "finest grid", "decay": "hash decay",
    "table": "entries of a grid", "width": "neurons", "rays": "rays", "steps": "steps",
}  # fmt: skip
"""Settings as the page calls them."""


def value_of(setting: str, value: Any) -> str:
    """A setting's value as the page has it."""
    shown = {
        "samples": lambda v: f"{32 * v} + {16 * v}", "planes": lambda v: f"{32 * v} and {64 * v} points",
        "linear": lambda v: "explicit" if v else "hybrid", "steps": lambda v: f"{v:,}", "table": lambda v: f"{2**v:,}",
    }  # fmt: skip
    return shown.get(setting, lambda v: f"{v:g}")(value)


def different(settings: Settings, others: Settings) -> str:
    """The settings that differ from others, in words."""
    one, other = asdict(settings), asdict(others)
    return ", ".join(f"{NAMES[name]} {value_of(name, one[name])}" for name in one if one[name] != other[name])


def table(headings: Sequence[str], rows: list[list[Any]]) -> str:
    """A table in Markdown: text on the left, numbers on the right."""
    shown = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    lines = [list(headings), ["---", *["---:"] * (len(headings) - 1)], *shown]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- |", "|---|").replace(" ---: ", "---:")


def label_of(kind: str, run: dict[str, Any]) -> str:
    """A run in words."""
    if "steps" not in run:
        return kind
    settings = settings_of(run)
    model = "nerfacto" if settings.method else value_of("linear", run["linear"])
    return f"{kind}, {model}, {settings.steps:,} steps"


LEFT_OUT = re.compile("student tried|expert|2 experts of .*")
"""Kinds of runs that the page leaves to the file: they are many."""


def of_seeds(runs: list[dict[str, Any]]) -> list[Any]:
    """Cells of runs that differ in their seed: one figure of each, and mean seconds."""
    each = [[run["seed"] for run in runs], *([f"{run[split]:.2f}" for run in runs] for split in ("val", "test"))]
    seconds = sum(run.get("seconds of all", run["seconds"]) for run in runs) / len(runs)
    return [*(", ".join(map(str, values)) for values in each), round(seconds)]


def tables(figures: dict[str, Any]) -> str:
    """What was tuned and what came of it, scene by scene, in Markdown."""
    parts = []
    for name, scene in figures.items():
        shape = SCENES[name]
        parts.append(f"### {name}: {shape.photos} photos, {shape.width} pixels wide")
        for title, kind in (("K-Planes", KPlanesSettings), ("nerfacto", NerfactoSettings)):
            tuned = scene.get(f"tuned{kind.method}", [])
            if not tuned:
                continue
            rows, best = [], tuned[0]
            for entry in tuned:
                label = (
                    different(settings_of(entry), settings_of(best))
                    or f"first: {different(settings_of(entry), kind()) or 'as above'}"
                )
                better = entry is best or entry["val"] > best["val"] + GAIN
                best = entry if better else best
                rows.append([f"**{label}**" if better else label, entry["val"], entry["test"], entry["seconds"]])
            parts.append(table([f"baseline, {title}", "validation", "test", "seconds of a core"], rows))
        for key, heading in (("trained", "with these settings"), ("kinds", "teachers of two kinds")):
            alike: dict[str, list[dict[str, Any]]] = {}
            for kind, runs in scene.get(key, {}).items():
                for run in runs if not LEFT_OUT.fullmatch(kind) else ():
                    alike.setdefault(label_of(kind, run), []).append(run)
            if alike:
                rows = [[label, *of_seeds(runs)] for label, runs in alike.items()]
                parts.append(table([heading, "seeds", "validation", "test", "seconds of a core"], rows))
    return "\n\n".join(parts)


def gains(figures: dict[str, Any]) -> dict[str, list[tuple[int, float, float]]]:
    """By scene and kind of student: width of the pictures, and gain over the best baseline of its kind, in dB on
    validation and on test views. 25 photos, seed 1."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for name, scene in figures.items():
        if SCENES[name].photos != 25:
            continue
        for part, label in (("trained", "student"), ("kinds", "student of one of each")):
            first = {key: [run for run in runs if run["seed"] == 1] for key, runs in scene.get(part, {}).items()}
            students, rivals = first.get(label, []), first.get("baseline", []) + first.get("baseline of all steps", [])
            for method in dict.fromkeys(settings_of(run).method for run in students):
                student, best = (
                    max((run for run in runs if settings_of(run).method == method), key=lambda run: run["val"])
                    for runs in (students, rivals)
                )
                line = f"{name.partition('-')[0]}, {'nerfacto' if method else 'K-Planes'} student"
                gain = (student[split] - best[split] for split in ("val", "test"))
                found.setdefault(line, []).append((SCENES[name].width, *gain))
    return {line: sorted(points) for line, points in found.items()}


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw the gain against the pictures' width."""
    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for number, (line, points) in enumerate(gains(figures).items()):
        widths, val, test = zip(*points)
        colour, marker = COLOURS[number], MARKERS[number]
        axes.plot(widths, test, color=colour, marker=marker, label=f"{line}, test views")
        axes.plot(widths, val, color=colour, marker=marker, linestyle=":", label=f"{line}, validation views")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([50, 100, 200, 400], ["50", "100", "200", "400"], minor=False)
    axes.minorticks_off()
    axes.set(xlabel="width of the pictures, pixels", ylabel="gain over the best baseline, dB")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)


def with_tables(page: str, figures: dict[str, Any]) -> str:
    """The page of results with the tables of these figures."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{tables(figures)}\n{END}{rest.partition(END)[2]}"


def main(options: Options) -> None:
    torch.set_num_threads(1)
    if options.action == "page":
        figures = read(options)
        PAGE.write_text(with_tables(PAGE.read_text("utf8"), figures), "utf8")
        plot(figures, PAGE.with_name("width.png"))
        return
    for name in options.scene:
        {"tune": tune, "study": study, "kinds": kinds}[options.action](options, name)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
