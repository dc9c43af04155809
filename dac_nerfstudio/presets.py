"""Named recipes: how long each stage trains, and with which flags of ``ns-train``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Tuple


@dataclass(frozen=True)
class Preset:
    """A recipe. What it leaves out stays as the methods have it."""

    description: str
    flags: Tuple[str, ...] = ()
    """For every method."""
    real_flags: Tuple[str, ...] = ()
    """After these, for the methods that end in -360."""
    steps: Dict[str, int] = field(default_factory=dict)
    """Of expert, distill and finetune, and of trunk where experts start from one; the baseline gets as many as distill
    and finetune together. Empty: the methods' own."""
    one_cosine: bool = False
    """Whether the learning rate falls along one cosine through distillation and fine-tuning, instead of falling to zero
    in the one and starting again, where that cosine would then be, in the other, as in the paper."""
    softness: float = 0.0
    """Share of an expert's rays that come from other groups' views."""
    score_most: int = 1000000
    """Score no more test views than this, evenly spread."""

    def schedule(self, stage: str) -> Tuple[str, ...]:
        """Flags that say how long a stage trains, and along which part of the cosine."""
        if not self.steps or stage == "ensemble":
            return ()
        distill, finetune = self.steps["distill"], self.steps["finetune"]
        words: Tuple[str, ...] = ("--max-num-iterations", str(self.steps.get(stage, distill + finetune)))
        share = f"{distill / (distill + finetune):.6g}"
        if stage == "finetune":
            words += _schedule("begin", share)
        if stage == "distill" and self.one_cosine:
            words += _schedule("end", share)
        return words


def _schedule(name: str, value: str) -> Tuple[str, ...]:
    """A flag of the schedule of both groups of parameters."""
    flags = [(f"--optimizers.{group}.scheduler.{name}", value) for group in ("fields", "proposal-networks")]
    return tuple(word for flag in flags for word in flag)


_SMALL_MODEL = (
    *("--pipeline.model.grid-base-resolution", "32"),
    *("--pipeline.model.grid-feature-dim", "16"),
    *("--pipeline.model.linear-decoder", "False"),
    *("--pipeline.model.proposal-resolutions", "64"),
    *("--pipeline.model.num-proposal-samples", "48"),
    *("--pipeline.model.num-samples", "20"),
    *("--pipeline.model.proposal-warmup", "500"),
    *("--pipeline.model.proposal-weights-anneal-max-num-iters", "100"),
    *("--pipeline.datamanager.train-num-rays-per-batch", "512"),
    *_schedule("warmup-steps", "50"),
    *("--steps-per-save", "250"),
    *("--steps-per-eval-batch", "100"),
    *("--steps-per-eval-image", "100000"),
    *("--logging.steps-per-log", "50"),
)

_FAST_ON_REAL = (
    # Far fewer steps than the reference's: less resolution, and a rate that gets somewhere in them.
    *("--pipeline.model.multiscale-res", "1", "2", "4"),
    *("--pipeline.datamanager.train-num-rays-per-batch", "1024"),
    *("--optimizers.fields.optimizer.lr", "3e-2", "--optimizers.proposal-networks.optimizer.lr", "1e-2"),
)

PRESETS: Dict[str, Preset] = {
    "reference": Preset("the paper's recipe and constants; wants a GPU"),
    "best": Preset(
        "the reference's size and number of steps with the stages of quick; wants a GPU, and has not been measured yet",
        # One cosine wants one rate: on real photos the paper's student has a tenth of the baseline's.
        real_flags=("--optimizers.fields.optimizer.lr", "1e-2", "--optimizers.proposal-networks.optimizer.lr", "1e-2"),
        steps={"trunk": 15000, "expert": 30000, "distill": 18000, "finetune": 42000},
        one_cosine=True,
        softness=0.3,
    ),
    "quick": Preset(
        "a small model and few steps, for a CPU; scores up to 40 test views",
        flags=_SMALL_MODEL,
        real_flags=_FAST_ON_REAL,
        steps={"trunk": 1000, "expert": 2000, "distill": 500, "finetune": 1000},
        one_cosine=True,
        softness=0.3,
        score_most=40,
    ),
    "demo": Preset(
        "the generated scene in minutes on a CPU",
        flags=_SMALL_MODEL,
        steps={"trunk": 300, "expert": 500, "distill": 300, "finetune": 700},
        one_cosine=True,
        softness=0.3,
    ),
}
