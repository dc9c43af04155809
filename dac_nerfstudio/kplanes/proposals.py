"""Where along a ray to look: proposal sampling (mip-NeRF 360, arXiv 2111.12077, section 4), stateless.

The samplers draw what nerfstudio's UniformSampler, UniformLinDispPiecewiseSampler and PDFSampler draw, from the same
random numbers, as plain tensors: nerfstudio makes two objects with a dozen fields per level, which costs a CPU more
than the arithmetic, and reads constants from the host, which breaks a CUDA graph. The schedule of updates is a function
of the step, so that a resumed run does what the undisturbed one would have done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, NamedTuple, Sequence

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from torch import Tensor, nn

from dac_nerfstudio.kplanes.rays import excess, opacities, positions, resample


@dataclass
class Bins:
    """Bins along each ray, near to far."""

    edges: Float[Tensor, "rays bins_plus_1"]
    """In normalised ray space, from 0 (near plane) to 1 (far plane)."""
    distances: Float[Tensor, "rays bins_plus_1"]
    """Of the edges from the ray's origin, in the units of the camera poses."""

    @property
    def midpoints(self) -> Float[Tensor, "rays bins"]:
        """Distances of the bins' middles from the ray's origin."""
        return (self.distances[:, 1:] + self.distances[:, :-1]) / 2

    def positions(self, rays: RayBundle) -> Float[Tensor, "rays bins 3"]:
        """Points in the middle of the bins."""
        return positions(rays.origins, rays.directions, self.distances)


class Level:
    """One sampling level: bins and the density found in them (per unit of distance)."""

    def __init__(self, bins: Bins, density: Float[Tensor, "rays bins"]) -> None:
        self.bins = bins
        self.alphas, self.weights = opacities(density, bins.distances)

    @property
    def edges(self) -> Float[Tensor, "rays bins_plus_1"]:
        """Bin edges in normalised ray space [0, 1]."""
        return self.bins.edges

    def median_depth(self) -> Float[Tensor, "rays 1"]:
        """Distance at which half of the light is stopped; the last bin's where less is."""
        reached = self.weights.cumsum(dim=-1)
        half = torch.full_like(reached[:, :1], 0.5)
        index = torch.searchsorted(reached, half, side="left").clamp(max=reached.shape[-1] - 1)
        return self.bins.midpoints.gather(-1, index)


def histogram_loss(
    edges: Float[Tensor, "rays samples_plus_1"],
    mass: Float[Tensor, "rays samples"],
    levels: Sequence[tuple[Float[Tensor, "rays bins_plus_1"], Float[Tensor, "rays bins"]]],
) -> Float[Tensor, ""]:
    """How far coarse histograms fall short of bounding a fine one from above, summed over the coarse ``levels``: see
    ``excess``."""
    return torch.stack([excess(edges, mass, *level) for level in levels]).sum()


def anneal_exponent(step: int, slope: float, steps: int) -> float:
    """Exponent on proposal weights: 0 at first (look everywhere), 1 from ``steps`` on; a bias curve of ``slope``."""
    share = min(step / steps, 1.0) if steps > 0 else 1.0
    return slope * share / ((slope - 1) * share + 1)


class Schedule(NamedTuple):
    """What a training step does with the proposals."""

    anneal: float | Tensor
    """Exponent on the weights that the next level is drawn from; a tensor where a captured step reads it anew."""
    learn: bool
    """Whether proposal fields learn."""


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


def to_disparity(distances: Tensor) -> Tensor:
    """Normalised distance, linear up to 1 and linear in disparity beyond it (as nerfstudio's piecewise sampler)."""
    return torch.where(distances < 1, distances / 2, 1 - 1 / (2 * distances))


def from_disparity(normalised: Tensor) -> Tensor:
    """The inverse of ``to_disparity``."""
    return torch.where(normalised < 0.5, 2 * normalised, 1 / (2 - 2 * normalised))


class ProposalSampler(nn.Module):
    """Draws bins from an initial spacing, then refines them by each proposal field's density in turn.

    Args:
        counts: bins per level, one per proposal field and the last for the final samples.
        disparity: the first bins are even in distance up to 1 and in disparity beyond, instead of in distance.
        single_jitter: one random shift per ray instead of one per bin.
    """

    def __init__(self, counts: Sequence[int], disparity: bool, single_jitter: bool) -> None:
        super().__init__()
        self.counts, self.disparity, self.single_jitter = tuple(counts), disparity, single_jitter
        even = torch.linspace(0, 1, counts[0] + 1)[None]
        middles = (even[:, 1:] + even[:, :-1]) / 2
        lower, upper = torch.cat((even[:, :1], middles), dim=-1), torch.cat((middles, even[:, -1:]), dim=-1)
        self.even: Tensor
        self.lower: Tensor
        self.span: Tensor
        for name, edges in (("even", even), ("lower", lower), ("span", upper - lower)):
            self.register_buffer(name, edges, persistent=False)
        for number, count in enumerate(counts[1:]):
            lower = torch.linspace(0, 1 - 1 / (count + 1), count + 1)[None]
            self.register_buffer(f"quantiles_{number}", lower, persistent=False)

    def forward(
        self,
        rays: RayBundle,
        densities: Sequence[Callable[[Tensor], Tensor]],
        anneal: float | Tensor,
        learn: bool,
    ) -> tuple[list[Level], Bins]:
        """The proposal levels and the final bins.

        Args:
            rays: with nears and fars set.
            densities: one function of positions per proposal level.
            anneal: exponent on the weights that the next level is drawn from.
            learn: whether the levels carry a gradient to the proposal fields.
        """
        nears, fars = rays.nears, rays.fars
        assert nears is not None and fars is not None
        if self.disparity:
            nears, fars = to_disparity(nears), to_disparity(fars)
        span = fars - nears
        bins, levels = self.bins(self.first(len(rays)), nears, span), []
        for number, density in enumerate(densities):
            with torch.set_grad_enabled(learn and torch.is_grad_enabled()):
                level = Level(bins, density(bins.positions(rays)).squeeze(-1))
            levels.append(level)
            quantiles = self.quantiles(getattr(self, f"quantiles_{number}"), len(rays))
            bins = self.bins(resample(level.edges, level.weights.detach() ** anneal, quantiles), nears, span)
        return levels, bins

    def bins(
        self, edges: Float[Tensor, "rays edges"], nears: Float[Tensor, "rays 1"], span: Float[Tensor, "rays 1"]
    ) -> Bins:
        """Bins of edges in [0, 1], which lie from ``nears`` on in ``span``, both as the bins are even in."""
        distances = torch.addcmul(nears, edges, span)
        return Bins(edges, from_disparity(distances) if self.disparity else distances)

    def first(self, count: int) -> Float[Tensor, "count edges"]:
        """Even edges, in training each shifted at random between the middles of its neighbouring bins."""
        if not self.training:
            return self.even.expand(count, -1)
        return torch.addcmul(self.lower, self.span, self.jitter(count, self.even))

    def quantiles(self, lower: Float[Tensor, "1 edges"], count: int) -> Float[Tensor, "count edges"]:
        """Where in the cumulative distribution edges are drawn: at random within even strata in training, else in
        their middles."""
        edges = lower.shape[1]
        if not self.training:
            return (lower + 1 / (2 * edges)).expand(count, -1).contiguous()
        return lower + self.jitter(count, lower) / edges

    def jitter(self, count: int, like: Tensor) -> Float[Tensor, "count _"]:
        return torch.rand((count, 1 if self.single_jitter else like.shape[1]), device=like.device)
