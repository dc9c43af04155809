"""What dividing large scenes takes: seconds and peak memory of all that `dac split` does but reading files, on orbits.

    python benchmarks/split.py                                     # every strategy; 300, 2,000, 5,000, 10,000 views
    python benchmarks/split.py --views 300 --strategies louvain
    python benchmarks/split.py --photos outputs/photos             # with photos, so that the size of the page counts

Each division has a process of its own, which gets no more than `--limit` seconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from dac_nerfstudio.partition import STRATEGIES, Views
from dac_nerfstudio.partition.split import split
from dac_nerfstudio.runs.layout import PARTITION_PAGE, PARTITION_PICTURE

VIEWS = (300, 2000, 5000, 10000)
RINGS = 5
PHOTO = (800, 600)


def orbit(count: int, photos: Path | None = None) -> Views:
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
        intrinsics=np.tile([500.0, 500.0, 400.0, 300.0, *PHOTO], (count, 1)),
        upright=False,
        tracks=tracks,
        photos=None if photos is None else tuple(photos / name for name in names),
    )


def paint(folder: Path, count: int) -> None:
    """Photos that compress about as well as real ones: discs on a gradient, with noise."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: PHOTO[1], : PHOTO[0]] / PHOTO[1]
    for index in range(count):
        path = folder / f"{index:05d}.jpg"
        if path.exists():
            continue
        rng = np.random.default_rng(index)
        pixels = np.stack([0.3 + 0.3 * rows, 0.5 + 0.2 * rows, 0.9 - 0.4 * rows], axis=-1)
        for x, y, radius in rng.uniform([0, 0, 0.02], [1.3, 1, 0.15], (40, 3)):
            pixels[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = rng.random(3)
        pixels += 0.03 * rng.normal(size=pixels.shape)
        Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)).save(path, quality=90)


def measure_one(
    count: int, strategy: str, similarity: str, photos: Path | None, results: multiprocessing.Queue
) -> None:
    """Divide, judge, write and draw; then what that took."""
    views, test = orbit(count, photos), orbit(50)
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        partition, _ = split(views, Path(folder), test, similarity, strategy=strategy)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        sizes = {name: (Path(folder) / name).stat().st_size for name in (PARTITION_PICTURE, PARTITION_PAGE)}
    results.put(
        {
            "views": count,
            "strategy": strategy,
            "similarity": similarity,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu, 1),
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "page_megabytes": round(sizes[PARTITION_PAGE] / 1e6, 2),
            "group_sizes": np.bincount(partition.homes)[1:].tolist(),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=VIEWS)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--similarity", default="frustum")
    parser.add_argument("--photos", type=Path, help="folder of photos, painted where they are missing")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a division is given up")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for count in arguments.views:
        if arguments.photos is not None:
            paint(arguments.photos, count)
        for strategy in arguments.strategies:
            results = context.Queue()
            inputs = (count, strategy, arguments.similarity, arguments.photos, results)
            process = context.Process(target=measure_one, args=inputs)
            process.start()
            process.join(arguments.limit)
            if process.is_alive():
                process.kill()
                process.join()
                print(json.dumps({"views": count, "strategy": strategy, "seconds": f"over {arguments.limit:g}"}))
            elif process.exitcode:
                sys.exit(f"{count} views by {strategy} failed.")
            else:
                print(json.dumps(results.get()), flush=True)


if __name__ == "__main__":
    main()
