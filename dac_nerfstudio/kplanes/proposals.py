"""Where along a ray to look: proposal sampling (mip-NeRF 360, arXiv 2111.12077, section 4), stateless.

nerfstudio's own sampler counts the steps since the last update of the proposal fields. Here the schedule is a function
of the step, so that a resumed run does what the undisturbed one would have done, and every level keeps its opacities,
which distillation compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.model_components.losses import lossfun_outer, ray_samples_to_sdist
from nerfstudio.model_components.ray_samplers import PDFSampler, SpacedSampler
from torch import Tensor, nn


@dataclass
class Level:
    """One sampling level: bins along each ray and the density found in them."""

    samples: RaySamples
    density: Float[Tensor, "rays samples 1"]

    def __post_init__(self) -> None:
        self.weights: Float[Tensor, "rays samples 1"] = self.samples.get_weights(self.density)

    @property
    def alphas(self) -> Float[Tensor, "rays samples"]:
        """Opacity of each bin by itself, 1 - exp(-density * width)."""
        return opacity(self.density, self.samples)

    @property
    def edges(self) -> Float[Tensor, "rays samples_plus_1"]:
        """Bin edges in normalised ray space [0, 1]."""
        return ray_samples_to_sdist(self.samples)


def opacity(density: Float[Tensor, "rays samples 1"], samples: RaySamples) -> Float[Tensor, "rays samples"]:
    """Opacity of bins as wide as those of ``samples``: 1 - exp(-density * width)."""
    assert samples.deltas is not None
    return 1 - torch.exp(-density * samples.deltas)[..., 0]


def histogram_loss(
    edges: Float[Tensor, "rays samples_plus_1"],
    mass: Float[Tensor, "rays samples"],
    levels: Sequence[tuple[Float[Tensor, "rays bins_plus_1"], Float[Tensor, "rays bins"]]],
) -> Float[Tensor, ""]:
    """How far coarse histograms fall short of bounding a fine one from above, summed over the coarse ``levels``.

    mip-NeRF 360, arXiv 2111.12077, eq. 13; mean over rays and fine bins. No gradient reaches the fine histogram.
    """
    terms = [lossfun_outer(edges.detach(), mass.detach(), *level).mean() for level in levels]
    return torch.stack(terms).sum()


def anneal_exponent(step: int, slope: float, steps: int) -> float:
    """Exponent on proposal weights: 0 at first (look everywhere), 1 from ``steps`` on; a bias curve of ``slope``."""
    share = min(step / steps, 1.0) if steps > 0 else 1.0
    return slope * share / ((slope - 1) * share + 1)


class UpdateSchedule:
    """The steps on which proposal fields learn: the first ten, then every second, in the end every ``every + 1``-th.

    A step is due when more steps than a bound have passed since the last one due; the bound grows linearly to
    ``every`` at step ``warmup`` and is never below 1.
    """

    def __init__(self, warmup: int, every: int) -> None:
        self.warmup, self.every = warmup, every
        self._due: list[bool] = []
        self._since = 0

    def due(self, step: int) -> bool:
        while len(self._due) <= step:
            now = len(self._due)
            bound = min(max(self.every * now / max(self.warmup, 1), 1), self.every)
            self._due.append(self._since > bound or now < 10)
            self._since = 1 if self._due[-1] else self._since + 1
        return self._due[step]


class ProposalSampler(nn.Module):
    """Draws bins from an initial spacing, then refines them by each proposal field's density in turn.

    Args:
        initial: first spacing, for example uniform.
        counts: bins per level, one per proposal field and the last for the final samples.
        single_jitter: one random shift per ray instead of one per bin.
    """

    def __init__(self, initial: SpacedSampler, counts: Sequence[int], single_jitter: bool) -> None:
        super().__init__()
        self.initial = initial
        self.refine = PDFSampler(include_original=False, single_jitter=single_jitter)
        self.counts = tuple(counts)

    def forward(
        self,
        rays: RayBundle,
        densities: Sequence[Callable[[Tensor], Tensor]],
        anneal: float,
        learn: bool,
    ) -> tuple[list[Level], RaySamples]:
        """The proposal levels and the final samples.

        Args:
            rays: with nears and fars set.
            densities: one function of positions per proposal level.
            anneal: exponent on the weights that the next level is drawn from.
            learn: whether the levels carry a gradient to the proposal fields.
        """
        samples = self.initial(rays, num_samples=self.counts[0])
        levels = []
        for density, count in zip(densities, self.counts[1:]):
            with torch.set_grad_enabled(learn and torch.is_grad_enabled()):
                level = Level(samples, density(samples.frustums.get_positions()))
            levels.append(level)
            samples = self.refine(rays, samples, level.weights.detach() ** anneal, num_samples=count)
        return levels, samples
