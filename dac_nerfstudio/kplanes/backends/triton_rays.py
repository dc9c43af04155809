"""Triton's kernels along rays. Import late. See ``dac_nerfstudio.kplanes.backends.along_rays``.

A program has one ray. Its ``BINS`` are the second axis of a kernel's first tensor, padded to ``BLOCK``, a power of two;
``SIZE`` is the length of the last axis of its third tensor, padded to ``WIDTH``. All is float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.language import constexpr

from dac_nerfstudio.kplanes.backends.triton import LAUNCH, on_device

PART: tl.constexpr = tl.constexpr(16)
"""Bins or quantiles of a ray that are held against all of its others at a time."""


@triton.jit
def _bins(BINS: constexpr, BLOCK: constexpr):
    """A program's ray, its bins, padded to a power of two, and which of these there are."""
    bin = tl.arange(0, BLOCK)
    return tl.program_id(0).to(tl.int64), bin, bin < BINS


@triton.jit
def _positions(distances, origins, directions, out, BINS: constexpr, BLOCK: constexpr):
    ray, edge, _ = _bins(BINS, BLOCK)
    there = edge < BINS - 1  # a bin behind each edge but the last
    near = tl.load(distances + ray * BINS + edge, mask=there, other=0.0)
    middle = (near + tl.load(distances + ray * BINS + edge + 1, mask=there, other=0.0)) * 0.5
    for axis in tl.static_range(3):
        place = tl.load(origins + 3 * ray + axis) + tl.load(directions + 3 * ray + axis) * middle
        tl.store(out + 3 * (ray * (BINS - 1) + edge) + axis, place, mask=there)


@triton.jit
def _depths(density, distances, ray, bin, there, BINS: constexpr):
    """Widths of bins, and their density times these."""
    edge = distances + ray * (BINS + 1) + bin
    width = tl.load(edge + 1, mask=there, other=0.0) - tl.load(edge, mask=there, other=0.0)
    return width, tl.load(density + ray * BINS + bin, mask=there, other=0.0) * width


@triton.jit
def _opacities(density, distances, alphas, weights, BINS: constexpr, BLOCK: constexpr):
    ray, bin, there = _bins(BINS, BLOCK)
    _, depth = _depths(density, distances, ray, bin, there, BINS)
    # Those before, by themselves: a bin's own, taken away from the sum, would leave its rounding, or infinity.
    _, last = _depths(density, distances, ray, bin - 1, there & (bin > 0), BINS)
    alpha = 1 - tl.exp(-depth)
    weight = alpha * tl.exp(-tl.cumsum(last, axis=0))
    tl.store(alphas + ray * BINS + bin, alpha, mask=there)
    tl.store(weights + ray * BINS + bin, tl.where(weight == weight, weight, 0.0), mask=there)


@triton.jit
def _differentiate_opacities(
    density, distances, weights, in_alphas, in_weights, gradient, BINS: constexpr, BLOCK: constexpr
):
    """See ``ray_kernels.differentiate_opacities``."""
    ray, bin, there = _bins(BINS, BLOCK)
    at, before = ray * BINS + bin, bin + 1 < BINS
    width, depth = _depths(density, distances, ray, bin, there, BINS)
    own = tl.load(in_weights + at, mask=there, other=0.0) * tl.exp(-tl.cumsum(depth, axis=0))
    own += tl.load(in_alphas + at, mask=there, other=0.0) * tl.exp(-depth)
    lost = tl.load(in_weights + at + 1, mask=before, other=0.0) * tl.load(weights + at + 1, mask=before, other=0.0)
    tl.store(gradient + at, (own - tl.cumsum(lost, axis=0, reverse=True)) * width, mask=there)


@triton.jit
def _composite(weights, colours, background, out, BINS: constexpr, BLOCK: constexpr):
    ray, bin, there = _bins(BINS, BLOCK)
    weight = tl.load(weights + ray * BINS + bin, mask=there, other=0.0)
    rest = 1 - tl.sum(weight)
    for channel in tl.static_range(3):
        colour = tl.load(colours + 3 * (ray * BINS + bin) + channel, mask=there, other=0.0)
        tl.store(out + 3 * ray + channel, tl.sum(weight * colour) + tl.load(background + channel) * rest)


@triton.jit
def _differentiate_composite(
    weights, colours, background, upstream, in_weights, in_colours, BINS: constexpr, BLOCK: constexpr
):
    ray, bin, there = _bins(BINS, BLOCK)
    weight = tl.load(weights + ray * BINS + bin, mask=there, other=0.0)
    in_weight = tl.zeros([BLOCK], tl.float32)
    for channel in tl.static_range(3):
        at = 3 * (ray * BINS + bin) + channel
        g = tl.load(upstream + 3 * ray + channel)
        in_weight += g * (tl.load(colours + at, mask=there, other=0.0) - tl.load(background + channel))
        tl.store(in_colours + at, g * weight, mask=there)
    tl.store(in_weights + ray * BINS + bin, in_weight, mask=there)


@triton.jit
def _rows(tensor, row, there, channel, SIZE: constexpr):
    """Some rows of ``SIZE`` numbers each, padded as ``channel`` is."""
    return tl.load(tensor + row[:, None] * SIZE + channel, mask=there[:, None] & (channel < SIZE), other=0.0)


@triton.jit
def _products(features, head, basis, by_head, by_basis, BINS: constexpr, SIZE: constexpr, WIDTH: constexpr):
    ray, channel = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)[None, :]
    known = channel < SIZE
    vector = tl.load(head + channel, mask=known, other=0.0)
    for first in range(0, BINS, PART):
        sample = first + tl.arange(0, PART)
        there, row = sample < BINS, ray * BINS + sample
        feature = _rows(features, row, there, channel, SIZE)
        tl.store(by_head + row, tl.sum(feature * vector, axis=1), mask=there)
        for axis in tl.static_range(3):
            of_ray = tl.load(basis + (3 * ray + axis) * SIZE + channel, mask=known, other=0.0)
            tl.store(by_basis + 3 * row + axis, tl.sum(feature * of_ray, axis=1), mask=there)


@triton.jit
def _differentiate_products(
    features, head, basis, of_head, of_basis, in_features, in_head, in_basis,
    BINS: constexpr, SIZE: constexpr, WIDTH: constexpr,
):  # fmt: skip
    ray, channel = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)[None, :]
    known, vectors = channel < SIZE, basis + 3 * ray * SIZE + channel
    vector = tl.load(head + channel, mask=known, other=0.0)
    x, y = tl.load(vectors, mask=known, other=0.0), tl.load(vectors + SIZE, mask=known, other=0.0)
    z = tl.load(vectors + 2 * SIZE, mask=known, other=0.0)
    in_vector = tl.zeros_like(vector)
    in_x, in_y, in_z = in_vector, in_vector, in_vector
    for first in range(0, BINS, PART):
        sample = first + tl.arange(0, PART)
        there, row = sample < BINS, ray * BINS + sample
        feature = _rows(features, row, there, channel, SIZE)
        g = tl.load(of_head + row, mask=there, other=0.0)[:, None]
        g_x = tl.load(of_basis + 3 * row, mask=there, other=0.0)[:, None]
        g_y = tl.load(of_basis + 3 * row + 1, mask=there, other=0.0)[:, None]
        g_z = tl.load(of_basis + 3 * row + 2, mask=there, other=0.0)[:, None]
        in_feature = g * vector + g_x * x + g_y * y + g_z * z
        tl.store(in_features + row[:, None] * SIZE + channel, in_feature, mask=there[:, None] & known)
        in_vector += tl.sum(feature * g, axis=0, keep_dims=True)
        in_x += tl.sum(feature * g_x, axis=0, keep_dims=True)
        in_y += tl.sum(feature * g_y, axis=0, keep_dims=True)
        in_z += tl.sum(feature * g_z, axis=0, keep_dims=True)
    tl.store(in_head + ray * SIZE + channel, in_vector, mask=known)
    in_vectors = in_basis + 3 * ray * SIZE + channel
    tl.store(in_vectors, in_x, mask=known)
    tl.store(in_vectors + SIZE, in_y, mask=known)
    tl.store(in_vectors + 2 * SIZE, in_z, mask=known)


@triton.jit
def _resample(weights, edges, quantiles, out, padding, BINS: constexpr, BLOCK: constexpr, SIZE: constexpr):
    """Edges ascend, and so do the sums of the bins' weights: what a search would find are a maximum and a minimum."""
    ray, bin, there = _bins(BINS, BLOCK)
    weight = tl.where(there, tl.load(weights + ray * BINS + bin, mask=there, other=0.0) + padding, 0.0)
    reached = tl.minimum(tl.cumsum(weight / tl.sum(weight), axis=0), 1.0)[None, :]  # at the bins' ends
    end = tl.load(edges + ray * (BINS + 1) + bin + 1, mask=there, other=0.0)[None, :]
    first, last = tl.load(edges + ray * (BINS + 1)), tl.load(edges + ray * (BINS + 1) + BINS)
    for start in range(0, SIZE, PART):
        number = start + tl.arange(0, PART)
        at, wanted = ray * SIZE + number, number < SIZE
        quantile = tl.load(quantiles + at, mask=wanted, other=0.0)
        below = there[None, :] & (reached <= quantile[:, None])
        above = there[None, :] & (reached > quantile[:, None])
        low = tl.max(tl.where(below, reached, 0.0), axis=1)
        high = tl.min(tl.where(above, reached, 2.0), axis=1)
        near = tl.max(tl.where(below, end, first), axis=1)
        far = tl.min(tl.where(above, end, last), axis=1)
        # Where no bin ends above, both are the last edge.
        within = tl.minimum((quantile - low) / (high - low), 1.0)
        tl.store(out + at, near + within * (far - near), mask=wanted)


@triton.jit
def _excess(
    coarse, coarse_edges, mass, edges, sums, slopes, least, share, BINS: constexpr, BLOCK: constexpr, SIZE: constexpr
):
    """See ``ray_kernels.excess``. The outermost coarse bins reach as far as there are fine ones."""
    ray, bin, there = _bins(BINS, BLOCK)
    bound = tl.load(coarse + ray * BINS + bin, mask=there, other=0.0)[None, :]
    begin = tl.load(coarse_edges + ray * (BINS + 1) + bin, mask=there, other=0.0)[None, :]
    end = tl.load(coarse_edges + ray * (BINS + 1) + bin + 1, mask=there, other=0.0)[None, :]
    first, last = bin[None, :] == 0, bin[None, :] == BINS - 1
    total, slope = 0.0, tl.zeros([BLOCK], tl.float32)
    for start in range(0, SIZE, PART):
        fine = start + tl.arange(0, PART)
        known, edge = fine < SIZE, edges + ray * (SIZE + 1) + fine
        heavy = tl.load(mass + ray * SIZE + fine, mask=known, other=0.0)
        near = tl.load(edge, mask=known, other=0.0)[:, None]
        far = tl.load(edge + 1, mask=known, other=0.0)[:, None]
        overlap = (last | (end > near)) & (first | (begin <= far)) & there[None, :]
        more = tl.maximum(heavy - tl.sum(tl.where(overlap, bound, 0.0), axis=1), 0.0)
        relative = more / (heavy + least)
        total += tl.sum(more * relative)
        slope -= tl.sum(tl.where(overlap, relative[:, None], 0.0), axis=0)
    tl.store(sums + ray, total * share)
    tl.store(slopes + ray * BINS + bin, slope * (2 * share), mask=there)


def run(kernel: Any, *arguments: Any) -> None:
    """A kernel for all rays, the first axis of the first tensor."""
    first, third = arguments[0], arguments[2]
    sizes = {"BINS": first.shape[1], "SIZE": third.shape[-1]}
    sizes |= {padded: triton.next_power_of_2(sizes[name]) for name, padded in (("BINS", "BLOCK"), ("SIZE", "WIDTH"))}
    known = {name: size for name, size in sizes.items() if name in kernel.arg_names}
    given = [one.contiguous() if isinstance(one, Tensor) else one for one in arguments]
    if len(first):
        with on_device(first.device):
            kernel[(len(first),)](*given, **known, **LAUNCH)


positions = partial(run, _positions)
differentiate_opacities = partial(run, _differentiate_opacities)
composite = partial(run, _composite)
differentiate_composite = partial(run, _differentiate_composite)
products = partial(run, _products)
differentiate_products = partial(run, _differentiate_products)
resample = partial(run, _resample)
excess = partial(run, _excess)


def opacities(density: Tensor, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the way back needs, opacities and weights."""
    alphas, weights = density.new_empty(density.shape), density.new_empty(density.shape)
    run(_opacities, density, distances, alphas, weights)
    return density, alphas, weights
