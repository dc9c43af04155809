"""What dividing large scenes takes: seconds and peak memory of all that `dac split` does but reading files, on orbits.

    python benchmarks/split.py                                     # every strategy; 300, 2,000, 5,000, 10,000 views
    python benchmarks/split.py --views 300 --strategies louvain

Each division has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from dac_nerfstudio.partition import STRATEGIES, Views
from dac_nerfstudio.partition.split import split

VIEWS = (300, 2000, 5000, 10000)
RINGS = 5


def orbit(count: int) -> Views:
    """Cameras on five rings round the origin at random azimuths, looking past it by a few degrees.

    Each also knows the scene's points within its field of view that lie on its side, as structure from motion finds
    them: a hundred of 20,000 on the unit sphere.
    """
    rng = np.random.default_rng(0)
    azimuths, heights = rng.uniform(0, 2 * np.pi, count), np.arange(count) % RINGS / RINGS
    centres = 4 * np.stack([np.cos(azimuths), np.sin(azimuths), heights], axis=1)
    back = centres - rng.normal(0, 0.2, (count, 3))
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    poses = np.stack([right, np.cross(back, right), back, centres], axis=2)
    points = rng.normal(size=(20_000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    outward = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    # View by view: all at once would take more memory than dividing them.
    tracks = tuple(rng.choice(np.flatnonzero(points @ one > 0.7), 100, replace=False) for one in outward)
    names = tuple(f"{index:05d}.jpg" for index in range(count))
    return Views(
        names=names,
        camera_to_worlds=poses,
        intrinsics=np.tile([500.0, 500.0, 400.0, 300.0, 800, 600], (count, 1)),
        upright=False,
        tracks=tracks,
    )


def measure(count: int, strategy: str, similarity: str) -> dict[str, Any]:
    """Divide, judge, write and draw; then what that took."""
    views, test = orbit(count), orbit(50)
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        partition, _ = split(views, Path(folder), test, similarity, strategy=strategy)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "views": count,
        "strategy": strategy,
        "similarity": similarity,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "group_sizes": np.bincount(partition.homes)[1:].tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=VIEWS)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--similarity", default="frustum")
    arguments = parser.parse_args()
    for count, strategy in product(arguments.views, arguments.strategies):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            print(json.dumps(pool.submit(measure, count, strategy, arguments.similarity).result()), flush=True)


if __name__ == "__main__":
    main()
