"""Recipes by name: how long each stage trains, and with which flags of ``ns-train``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Literal, Mapping, Optional, Tuple

from dac_nerfstudio.naming import NERFACTO, UNBOUNDED

Flags = Mapping[str, Any]
"""Flags of ``ns-train``: names without the dashes in front; values are text, numbers, true or false, or several."""

Baseline = Literal["yes", "no", "total"]
"""Whether to train the baseline, for as many steps as the student gets; ``total`` another one beside it, for as many as
all stages together."""

Kind = Literal["kplanes", "nerfacto"]
"""A model that can be trained."""
KINDS: Mapping[str, str] = {"kplanes": "", "nerfacto": NERFACTO}
"""What the names of a kind's methods have, by kind."""
MODEL = "pipeline.model."
"""How flags of the model begin, which differ by kind."""

METHOD_STEPS: Mapping[str, Mapping[str, int]] = {
    "": {"baseline": 60000, "expert": 30000, "distill": 10000, "finetune": 50000},
    UNBOUNDED: {"baseline": 60000, "expert": 30000, "distill": 30000, "finetune": 30000},
}
"""The reference's steps of each stage, for bounded scenes and for real ones, by the ends of the methods' names."""

PLANE_TV, PROPOSAL_TV = "pipeline.model.regularizers.plane-tv", "pipeline.model.regularizers.proposal-tv"
METHOD_TV: Mapping[str, Flags] = {
    "": {PLANE_TV: 3.6e-3, PROPOSAL_TV: 2.4e-3},
    UNBOUNDED: {PLANE_TV: 9.6e-3, PROPOSAL_TV: 4.8e-3},
}
"""The reference's weights of total variation, by the same."""

BASELINE_RATE = 1e-2
"""The learning rate at which models that start from scratch begin, as the methods have it."""
SEEDS = 2**32
"""Seeds run from 0 to one less: numpy takes no larger ones."""
TOTAL = "-total"
"""What is added to the name of a run that takes as many steps as all stages together."""


ALL_ALIKE = 0.99
"""The softness at which experts draw from all photos alike: none may weigh more than a group's own do."""


@dataclass(frozen=True)
class Recipe:
    """How a scene is trained. What a recipe leaves out stays as the methods have it."""

    name: str
    """What its runs are named by."""
    description: str
    steps: Mapping[str, int] = field(default_factory=dict)
    """Steps of expert, distill and finetune; the baseline gets as many as distill and finetune together. Empty: the
    methods' own."""
    flags: Flags = field(default_factory=dict)
    """Flags of every method."""
    real_flags: Flags = field(default_factory=dict)
    """Flags of the methods that end in -360, which win over those of every method."""
    one_cosine: bool = False
    """Whether the learning rate falls along one cosine through distillation and fine-tuning, instead of falling to zero
    in the one and starting again, where that cosine would then be, in the other, as in the paper."""
    softness: float = 0.0
    """Share of an expert's rays that come from other groups' views."""
    independent: bool = False
    """Whether each expert has a seed of its own, so that experts of the same views seldom err alike."""
    novel_share: float = 0.0
    """Share of fine-tuning's rays that start from new cameras, where the student learns from what the experts, blended,
    render, so that it does not forget what they know."""
    kinds: Tuple[Kind, ...] = ()
    """Kinds of the experts, in turn. Where any is named, the student learns from photos and from views that the experts
    render, without distillation, which K-Planes alone have."""
    real_kinds: Tuple[Kind, ...] = ()
    """The same for real scenes, unless others are asked for."""
    student: Kind = "kplanes"
    """Kind of student and baseline."""
    nerfacto_flags: Flags = field(default_factory=dict)
    """Flags of the model where it is nerfacto, in place of those of K-Planes."""
    student_tv: float = 1.0
    """Total variation of the student's planes, as a multiple of the baseline's: new views smooth it too."""
    baseline: Baseline = "yes"
    """Which baselines are trained by default. A recipe whose gain is claimed has one of equal cost."""
    score_most: int = 1000000
    """Score no more test views than this, evenly spread."""

    def run_name(self, seed: int) -> str:
        """What runs of this recipe are named."""
        kinds = f"-{'+'.join(self.kinds)}" if self.kinds else ""
        student = "" if self.student == "kplanes" else f"-to-{self.student}"
        return f"{self.name}{kinds}{student}-seed{seed}"

    def on(self, real: bool) -> Recipe:
        """The recipe with the kinds of experts of a real scene, or of another one; kinds that were asked for stay."""
        return self if self.kinds or not real else self.taught_by(self.real_kinds, self.student)

    def taught_by(self, kinds: Tuple[Kind, ...], student: Kind) -> Recipe:
        """The recipe with experts of these kinds. They all see all photos alike, as their pictures are averaged."""
        if not kinds:
            return replace(self, student=student)
        return replace(self, kinds=kinds, student=student, softness=ALL_ALIKE, independent=True)

    def kind_of(self, stage: str, group: Optional[int] = None) -> Kind:
        """Which model a stage trains."""
        if stage == "expert" and group is not None and self.kinds:
            return self.kinds[(group - 1) % len(self.kinds)]
        return self.student if stage in ("baseline", "finetune") else "kplanes"

    def flags_of(self, stage: str, real: bool, kind: Kind = "kplanes") -> Flags:
        """All flags of a stage."""
        flags: Dict[str, Any] = {**self.flags, **(self.real_flags if real else {})}
        if kind == "nerfacto":
            flags = {**without_model(flags), **self.nerfacto_flags}
        elif stage in ("distill", "finetune") and self.student_tv != 1:
            flags = {**METHOD_TV[UNBOUNDED if real else ""], **flags}
            flags.update({name: float(f"{self.student_tv * flags[name]:.6g}") for name in (PLANE_TV, PROPOSAL_TV)})
        return {**flags, **self._schedule(stage)}

    def expert_flags(self, group: int, seed: int) -> Flags:
        """What sets the expert of a group apart from the others besides its views."""
        return {"machine.seed": seed + 1000 * group} if self.independent else {}

    def _schedule(self, stage: str) -> Flags:
        """How long a stage trains, and along which part of the cosine."""
        if not self.steps or stage == "ensemble":
            return {}
        distill, finetune = self.steps["distill"], self.steps["finetune"]
        flags: Dict[str, Any] = {"max-num-iterations": self.steps.get(stage, distill + finetune)}
        share = float(f"{distill / (distill + finetune):.6g}")
        if stage == "finetune":
            flags.update(of_optimizers("scheduler.begin", share))
        if stage == "distill" and self.one_cosine:
            flags.update(of_optimizers("scheduler.end", share))
        return flags


def recipe_of(run: str) -> Optional[Tuple[Recipe, int]]:
    """The recipe and the seed that a run is named by; None if it has another name."""
    kind = "|".join(KINDS)
    named = re.fullmatch(rf"(\w+)(?:-((?:{kind})(?:\+(?:{kind}))*))?(?:-to-({kind}))?-seed(\d+)", run)
    if named is None or named[1] not in PRESETS:
        return None
    kinds: Any = tuple(named[2].split("+")) if named[2] else ()
    student: Any = named[3] or "kplanes"
    return PRESETS[named[1]].taught_by(kinds, student), int(named[4])


def without_model(flags: Flags) -> Dict[str, Any]:
    """Those that any kind of model knows."""
    return {name: value for name, value in flags.items() if not name.startswith(MODEL)}


def of_optimizers(name: str, value: Any) -> Flags:
    """A setting of the optimisers of both groups of parameters."""
    return {f"optimizers.{group}.{name}": value for group in ("fields", "proposal-networks")}


# Small models, with settings that validation views preferred on pictures of 100 to 240 pixels (docs/results.md).
SMALL_NERFACTO: Flags = {
    "pipeline.model.num-levels": 8,
    "pipeline.model.max-res": 128,
    "pipeline.model.log2-hashmap-size": 16,
    "pipeline.model.hidden-dim": 32,
    "pipeline.model.hidden-dim-color": 32,
    "pipeline.model.num-proposal-iterations": 1,
    "pipeline.model.num-proposal-samples-per-ray": 32,
    "pipeline.model.num-nerf-samples-per-ray": 16,
    "pipeline.model.proposal-net-args-list.0.num-levels": 4,
    "pipeline.model.proposal-net-args-list.0.max-res": 64,
    "pipeline.model.proposal-net-args-list.0.log2-hashmap-size": 14,
    "pipeline.model.proposal-warmup": 500,
    "pipeline.model.proposal-weights-anneal-max-num-iters": 100,
    **of_optimizers("optimizer.lr", 1e-2),
}
SMALL_MODEL: Flags = {
    "pipeline.model.grid-base-resolution": 64,
    "pipeline.model.multiscale-res": (1, 2),
    "pipeline.model.grid-feature-dim": 32,
    "pipeline.model.linear-decoder-layers": 1,
    "pipeline.model.proposal-resolutions": 64,
    "pipeline.model.num-proposal-samples": 64,
    "pipeline.model.num-samples": 32,
    "pipeline.model.proposal-warmup": 500,
    "pipeline.model.proposal-weights-anneal-max-num-iters": 100,
    PLANE_TV: 1e-2,
    PROPOSAL_TV: 1e-2,
    "pipeline.datamanager.train-num-rays-per-batch": 512,
    **of_optimizers("optimizer.lr", 2e-2),
    **of_optimizers("scheduler.warmup-steps", 50),
    "steps-per-save": 250,
    "steps-per-eval-batch": 100,
    "steps-per-eval-image": 100000,
    "logging.steps-per-log": 50,
}

FEW_PHOTOS = 30
"""Up to this many training photos the recipe for few photos is chosen."""
FEW = Recipe(
    "few",
    "for few photos, trained until longer training no longer helps: experts of all photos that differ in their seeds, "
    "and a student that also learns from new views that they render; needs a GPU",
    steps={"expert": 30000, "distill": 12000, "finetune": 108000},
    real_flags={
        # Both stages share one cosine, so one rate: on real photos the paper's student has a tenth of the baseline's.
        **of_optimizers("optimizer.lr", BASELINE_RATE),
        # On white, what is white in few photos may as well be nothing at all, which other views see through.
        "pipeline.model.background-color": "random",
    },
    one_cosine=True,
    softness=ALL_ALIKE,
    independent=True,
    novel_share=0.5,
    student_tv=0.316,
    baseline="total",
)
QUICK = replace(
    FEW,
    name="quick",
    description="for a CPU: small models, experts of all photos (on real ones alternately K-Planes and nerfacto), a "
    "student that also learns from new views that they render, and at most 40 test views",
    steps={"expert": 4000, "distill": 800, "finetune": 7200},
    flags=SMALL_MODEL,
    real_flags={**FEW.real_flags, PLANE_TV: 1e-1, PROPOSAL_TV: 1e-1, **of_optimizers("optimizer.lr", 4e-2)},
    nerfacto_flags=SMALL_NERFACTO,
    real_kinds=("kplanes", "nerfacto"),
    novel_share=0.25,
    score_most=40,
)
RECIPES = (
    Recipe("reference", "the paper's recipe and constants; needs a GPU"),
    FEW,
    QUICK,
    replace(
        QUICK,
        name="demo",
        description="quick for the small generated scene of dac demo: fewer steps, coarser planes with more features",
        steps={"expert": 1500, "distill": 300, "finetune": 2700},
        real_kinds=(),
        flags={
            **SMALL_MODEL,
            # Pictures of 50x50 have no use for finer planes.
            "pipeline.model.grid-base-resolution": 32,
            "pipeline.model.grid-feature-dim": 64,
            "pipeline.model.proposal-resolutions": 32,
        },
        novel_share=0.5,
    ),
)
PRESETS: Dict[str, Recipe] = {recipe.name: recipe for recipe in RECIPES}
# What `few` was called before. Its runs keep their name, and so are kept.
PRESETS["best"] = replace(PRESETS["few"], name="best")


def choose_preset(device: str, photos: int) -> Tuple[str, str]:
    """The preset for a device and a number of training photos, and why, in a sentence or two."""
    many = photos > FEW_PHOTOS
    why = f"there are {photos} training photos, {'more than' if many else 'at most'} {FEW_PHOTOS}, and a GPU."
    better = " Plain training at equal cost may be better with that many photos: see --baseline total." if many else ""
    if device != "cuda":
        return "quick", f"there is no GPU.{better}"
    return "reference" if many else "few", f"{why}{better}"
