"""Numba kernels along rays, on a range of rays each; arrays are C-contiguous float32. See ``cpu_kernels``."""

from __future__ import annotations

import numpy as np

from dac_nerfstudio.kplanes.backends.compiling import kernel
from dac_nerfstudio.kplanes.backends.cpu_kernels import FLOAT_BYTES, broadcast, load, store, total

ZERO, ONE = np.float32(0), np.float32(1)


@kernel
def positions(distances, origins, directions, out, start, stop):
    """Points in the middle of bins."""
    for ray in range(start, stop):
        for i in range(out.shape[1]):
            middle = (distances[ray, i] + distances[ray, i + 1]) * np.float32(0.5)
            for axis in range(3):
                out[ray, i, axis] = origins[ray, axis] + directions[ray, axis] * middle


@kernel
def opacities(passed, alphas, weights, start, stop):
    """Opacities and weights of bins that let through the shares ``passed`` of what comes."""
    for ray in range(start, stop):
        left = ONE
        for i in range(passed.shape[1]):
            alphas[ray, i] = ONE - passed[ray, i]
            weight = alphas[ray, i] * left
            weights[ray, i] = weight if weight == weight else ZERO
            left *= passed[ray, i]


@kernel
def differentiate_opacities(passed, distances, weights, in_alphas, in_weights, gradient, start, stop):
    """Gradient of the density, where ``in_...`` are those of opacities and weights: with depth d, opacity a, weight w
    and T what is left before a bin, da_i/dd_i = 1 - a_i, dw_i/dd_i = T_i (1 - a_i), and dw_k/dd_i = -w_k for k > i."""
    for ray in range(start, stop):
        left = ONE
        for i in range(passed.shape[1]):
            left *= passed[ray, i]
            gradient[ray, i] = in_weights[ray, i] * left + in_alphas[ray, i] * passed[ray, i]
        behind = ZERO
        for i in range(passed.shape[1] - 1, -1, -1):
            gradient[ray, i] = (gradient[ray, i] - behind) * (distances[ray, i + 1] - distances[ray, i])
            behind += in_weights[ray, i] * weights[ray, i]


@kernel
def composite(weights, colours, background, out, start, stop):
    """Colours of rays, before the background."""
    for ray in range(start, stop):
        red, green, blue, rest = ZERO, ZERO, ZERO, ONE
        for i in range(weights.shape[1]):
            weight = weights[ray, i]
            red += weight * colours[ray, i, 0]
            green += weight * colours[ray, i, 1]
            blue += weight * colours[ray, i, 2]
            rest -= weight
        out[ray, 0] = red + rest * background[0]
        out[ray, 1] = green + rest * background[1]
        out[ray, 2] = blue + rest * background[2]


@kernel
def differentiate_composite(weights, colours, background, upstream, in_weights, in_colours, start, stop):
    """Gradients of weights and colours."""
    for ray in range(start, stop):
        red, green, blue = upstream[ray, 0], upstream[ray, 1], upstream[ray, 2]
        behind = red * background[0] + green * background[1] + blue * background[2]
        for i in range(weights.shape[1]):
            weight = weights[ray, i]
            in_colours[ray, i, 0], in_colours[ray, i, 1], in_colours[ray, i, 2] = (
                weight * red, weight * green, weight * blue
            )  # fmt: skip
            in_weights[ray, i] = (
                red * colours[ray, i, 0] + green * colours[ray, i, 1] + blue * colours[ray, i, 2] - behind
            )


@kernel
def products(features, head, basis, by_head, by_basis, width, start, stop):
    """Scalar products of samples' features [rays, samples, C] with ``head`` [C] and with their ray's ``basis``
    [rays, 3, C]."""
    samples, size = features.shape[1], features.shape[2] * FLOAT_BYTES
    for ray in range(start, stop):
        first, vectors = features.ctypes.data + ray * samples * size, basis.ctypes.data + ray * 3 * size
        for i in range(samples):
            row = first + i * size
            a = b = c = d = broadcast(ZERO, width)
            for k in range(0, size, len(width) * FLOAT_BYTES):
                feature = load(row + k, width)
                a = feature * load(head.ctypes.data + k, width) + a
                b = feature * load(vectors + k, width) + b
                c = feature * load(vectors + size + k, width) + c
                d = feature * load(vectors + 2 * size + k, width) + d
            by_head[ray, i] = total(a)
            by_basis[ray, i, 0], by_basis[ray, i, 1], by_basis[ray, i, 2] = total(b), total(c), total(d)


@kernel
def differentiate_products(
    features, head, basis, of_head, of_basis, in_features, in_head, in_basis, width, start, stop
):
    """Gradients of the features, of the basis, and of the head by ray [rays, C], where ``of_...`` are those of the
    products."""
    samples, size = features.shape[1], features.shape[2] * FLOAT_BYTES
    for ray in range(start, stop):
        first, target = features.ctypes.data + ray * samples * size, in_features.ctypes.data + ray * samples * size
        vectors, in_vectors = basis.ctypes.data + ray * 3 * size, in_basis.ctypes.data + ray * 3 * size
        for k in range(0, size, len(width) * FLOAT_BYTES):
            a, b = load(head.ctypes.data + k, width), load(vectors + k, width)
            c, d = load(vectors + size + k, width), load(vectors + 2 * size + k, width)
            in_a = in_b = in_c = in_d = broadcast(ZERO, width)
            for i in range(samples):
                feature = load(first + i * size + k, width)
                of_a, of_b = broadcast(of_head[ray, i], width), broadcast(of_basis[ray, i, 0], width)
                of_c, of_d = broadcast(of_basis[ray, i, 1], width), broadcast(of_basis[ray, i, 2], width)
                store(target + i * size + k, of_a * a + (of_b * b + (of_c * c + of_d * d)))
                in_a, in_b = feature * of_a + in_a, feature * of_b + in_b
                in_c, in_d = feature * of_c + in_c, feature * of_d + in_d
            store(in_head.ctypes.data + ray * size + k, in_a)
            store(in_vectors + k, in_b)
            store(in_vectors + size + k, in_c)
            store(in_vectors + 2 * size + k, in_d)


@kernel
def resample(weights, edges, quantiles, out, padding, start, stop):
    """Edges at the quantiles, which ascend, of histograms whose bins weigh ``padding`` more."""
    bins = weights.shape[1]
    cumulative = np.empty(bins + 1, np.float32)
    for ray in range(start, stop):
        cumulative[0] = 0
        reached = 0.0
        for i in range(bins):
            reached += weights[ray, i] + padding
            cumulative[i + 1] = reached
        scale = np.float32(1 / reached)
        for i in range(bins + 1):
            cumulative[i] = min(cumulative[i] * scale, ONE)
        above = 1
        for i in range(quantiles.shape[1]):
            quantile = quantiles[ray, i]
            while above <= bins and cumulative[above] <= quantile:
                above += 1
            if above > bins:
                out[ray, i] = edges[ray, bins]
                continue
            low, begin = cumulative[above - 1], edges[ray, above - 1]
            within = max((quantile - low) / (cumulative[above] - low), ZERO)
            out[ray, i] = begin + within * (edges[ray, above] - begin)


@kernel
def excess(coarse, coarse_edges, mass, edges, sums, slopes, least, share, start, stop):
    """Sums over a ray's fine bins of their squared excess over the coarse bins that they overlap, by their mass, which
    counts for no less than ``least``, times ``share``; and the derivatives of the sums in the coarse bins."""
    bins, samples = coarse.shape[1], mass.shape[1]
    cumulative = np.zeros(bins + 1, np.float32)
    for ray in range(start, stop):
        reached = 0.0
        for k in range(bins):
            reached += coarse[ray, k]
            cumulative[k + 1] = reached
            slopes[ray, k] = 0
        total, low, high, twice = 0.0, 0, 0, np.float32(2 * share)
        for i in range(samples):
            while low < bins - 1 and coarse_edges[ray, low + 1] <= edges[ray, i]:
                low += 1
            while high < bins - 1 and coarse_edges[ray, high + 1] <= edges[ray, i + 1]:
                high += 1
            more = mass[ray, i] - (cumulative[high + 1] - cumulative[low])
            if more > ZERO:
                relative = more / (mass[ray, i] + np.float32(least))
                total += more * relative
                # Differences of neighbours, which are summed up below.
                slopes[ray, low] -= twice * relative
                if high + 1 < bins:
                    slopes[ray, high + 1] += twice * relative
        sums[ray] = total * share
        for k in range(1, bins):
            slopes[ray, k] += slopes[ray, k - 1]
