"""Numba kernels of a batch: which pixels a step draws, and their rays. Import late: this imports numba and LLVM.

One pass over the rays each, without the GIL, so that a thread can run them beside training. Their plain references are
``dac_nerfstudio.sampling.pixels.draw`` and nerfstudio's ``RayGenerator``. Numba checks no bounds.
"""

from __future__ import annotations

import math
from typing import Any

from dac_nerfstudio.kplanes.backends.compiling import kernel
from dac_nerfstudio.sampling.hashing import MASK, ROUNDS

ITERATIONS = 10
"""The most that Newton's method against lens distortion takes; nerfstudio's number."""
SINGULAR = 1e-3
"""Determinant of the lens's derivative below which Newton's method stays where it is; nerfstudio's number."""
TINY = 1e-15
"""Change of a coordinate, in focal lengths, at which Newton's method has converged."""
SHORTEST = 8.9e-16
"""Least length by which directions are divided; nerfstudio's number."""


@kernel
def _mix(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK
    return x ^ (x >> 16)


@kernel
def _permute(number: int, size: int, key: int) -> int:
    width = int(math.ceil(math.sqrt(size)))
    height = (size + width - 1) // width
    while True:
        row, column = number // width, number % width
        for round_number in range(0, ROUNDS, 2):
            row = (row + _mix((column * 0x9E3779B1 + key + round_number) & MASK)) % height
            column = (column + _mix((row * 0x9E3779B1 + key + round_number + 1) & MASK)) % width
        number = row * width + column
        if number < size:
            return number


@kernel
def draw(first: int, epoch_keys: Any, sizes: Any, ends: Any, starts: Any, views: Any, pixels: Any) -> None:
    """Fill ``views`` and ``pixels`` with the draws from number ``first`` on.

    Args:
        epoch_keys: one for each epoch that the batch touches.
        sizes: pixels of each view.
        ends: of each view's draws within an epoch; that of the last is the epoch's length.
        starts: of each view's draws within an epoch.
    """
    length = ends[-1]
    first_epoch = first // length
    for i in range(len(views)):
        key = epoch_keys[(first + i) // length - first_epoch]
        order = _permute((first + i) % length, length, key)
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            if ends[middle] <= order:
                low = middle + 1
            else:
                high = middle
        views[i] = low
        pixels[i] = _permute(order - starts[low], sizes[low], _mix((key + low * 0x9E3779B1) & MASK))


@kernel
def _undistort(xd: float, yd: float, lens: Any) -> Any:
    """The point of the image plane that the lens takes to (xd, yd), by Newton's method from there."""
    k1, k2, k3, k4, p1, p2 = lens[4], lens[5], lens[6], lens[7], lens[8], lens[9]
    x, y = xd, yd
    for _ in range(ITERATIONS):
        r = x * x + y * y
        d = 1 + r * (k1 + r * (k2 + r * (k3 + r * k4)))
        fx = d * x + 2 * p1 * x * y + p2 * (r + 2 * x * x) - xd
        fy = d * y + 2 * p2 * x * y + p1 * (r + 2 * y * y) - yd
        d_r = k1 + r * (2 * k2 + r * (3 * k3 + r * 4 * k4))
        fx_x = d + 2 * x * x * d_r + 2 * p1 * y + 6 * p2 * x
        fx_y = 2 * x * y * d_r + 2 * p1 * x + 2 * p2 * y
        fy_y = d + 2 * y * y * d_r + 2 * p2 * x + 6 * p1 * y
        determinant = fx_x * fy_y - fx_y * fx_y
        if abs(determinant) <= SINGULAR:
            break
        step_x, step_y = (fy * fx_y - fx * fy_y) / determinant, (fx * fx_y - fy * fx_x) / determinant
        x, y = x + step_x, y + step_y
        if abs(step_x) + abs(step_y) < TINY:
            break
    return x, y


@kernel
def _direction(x: float, y: float, lens: Any, distorted: bool, fisheye: bool, pose: Any) -> Any:
    """Direction in the world, of length 1, and its length in the camera's frame, at a place of the image."""
    x, y = (x - lens[2]) / lens[0], (y - lens[3]) / lens[1]
    if distorted:
        x, y = _undistort(x, y, lens)
    y, z = -y, -1.0
    if fisheye:
        theta = min(math.sqrt(x * x + y * y), math.pi)
        scale = math.sin(theta) / theta if theta > 0 else 1.0
        x, y, z = scale * x, scale * y, -math.cos(theta)
    u = x * pose[0, 0] + y * pose[0, 1] + z * pose[0, 2]
    v = x * pose[1, 0] + y * pose[1, 1] + z * pose[1, 2]
    w = x * pose[2, 0] + y * pose[2, 1] + z * pose[2, 2]
    norm = max(math.sqrt(u * u + v * v + w * w), SHORTEST)
    return u / norm, v / norm, w / norm, norm


@kernel
def rays(
    indices: Any,
    lenses: Any,
    distorted: Any,
    fisheye: Any,
    poses: Any,
    origins: Any,
    directions: Any,
    pixel_area: Any,
    norms: Any,
) -> None:
    """Fill the last four arrays for pixels ``indices`` (view, row, column); see ``PixelRays``."""
    for i in range(len(indices)):
        view = indices[i, 0]
        x, y = indices[i, 2] + 0.5, indices[i, 1] + 0.5
        lens, bent, round_, pose = lenses[view], distorted[view], fisheye[view], poses[view]
        u, v, w, norms[i, 0] = _direction(x, y, lens, bent, round_, pose)
        right, below = (_direction(x + 1, y, lens, bent, round_, pose), _direction(x, y + 1, lens, bent, round_, pose))
        dx = (u - right[0]) ** 2 + (v - right[1]) ** 2 + (w - right[2]) ** 2
        dy = (u - below[0]) ** 2 + (v - below[1]) ** 2 + (w - below[2]) ** 2
        pixel_area[i, 0] = math.sqrt(dx * dy)
        directions[i, 0], directions[i, 1], directions[i, 2] = u, v, w
        for axis in range(3):
            origins[i, axis] = pose[axis, 3]
