"""A smooth, closed path that stays near poses from which photos were taken."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from dac_nerfstudio.scene.frames import spread, view_distances
from dac_nerfstudio.teachers.new_cameras import between

KEYS = 24
"""Most poses that a path is drawn through: more would make it shake with every photographer's step."""
STEPS = 16
"""Places per key at which the length of the path is measured."""


def tour(camera_to_worlds: Float[np.ndarray, "views 3 4"], frames: int) -> Float[np.ndarray, "frames 3 4"]:
    """Poses along a short round trip past given ones, at an even speed; the last is followed by the first.

    The path is a closed cubic B-spline. Its weights are positive and sum to 1, so that it stays in the hull of the
    poses, and it turns without jerks.

    Args:
        camera_to_worlds: poses near which the path is to stay.
        frames: how many poses to return.
    """
    poses = np.asarray(camera_to_worlds, dtype=np.float64)
    poses = poses[far_apart(_distances(poses), KEYS)]
    keys = poses[round_trip(_distances(poses))]
    dense = np.arange(STEPS * len(keys) + 1) / STEPS
    path = spline(keys, dense)
    steps = np.array([view_distances(one[None], other[None], _unit(poses))[0, 0] for one, other in zip(path, path[1:])])
    length = np.concatenate(([0.0], np.cumsum(steps)))
    return spline(keys, np.interp(np.arange(frames) * length[-1] / frames, length, dense))


def spline(keys: Float[np.ndarray, "keys 3 4"], places: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 3 4"]:
    """The closed uniform cubic B-spline of poses at places counted in keys."""
    start = np.floor(places).astype(int)
    u = places - start
    shares = np.stack(((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3), axis=1) / 6
    return between(keys[(start[:, None] + np.arange(-1, 3)) % len(keys)], shares)


def far_apart(distances: Float[np.ndarray, "n n"], most: int) -> Int[np.ndarray, "k"]:
    """Up to ``most`` points, each the farthest from those before it."""
    chosen = [0]
    while len(chosen) < min(most, len(distances)):
        chosen.append(int(distances[chosen].min(axis=0).argmax()))
    return np.array(chosen)


def round_trip(distances: Float[np.ndarray, "n n"]) -> Int[np.ndarray, "n"]:
    """A short closed way through all points: always on to the nearest, then untangled (2-opt) as long as that helps."""
    order, waiting = [0], set(range(1, len(distances)))
    while waiting:
        order.append(min(waiting, key=lambda point: (distances[order[-1], point], point)))
        waiting.remove(order[-1])
    count, improved = len(order), True
    while improved:
        improved = False
        for i in range(count - 2):
            # With i = 0 the last stretch ends where the first begins.
            for j in range(i + 2, count - (i == 0)):
                a, b, c, d = order[i], order[i + 1], order[j], order[(j + 1) % count]
                if distances[a, c] + distances[b, d] < distances[a, b] + distances[c, d] - 1e-9:
                    order[i + 1 : j + 1] = order[i + 1 : j + 1][::-1]
                    improved = True
    return np.array(order)


def _unit(poses: Float[np.ndarray, "n 3 4"]) -> float:
    return spread(poses[:, :, 3])


def _distances(poses: Float[np.ndarray, "n 3 4"]) -> Float[np.ndarray, "n n"]:
    return view_distances(poses, poses, _unit(poses))
