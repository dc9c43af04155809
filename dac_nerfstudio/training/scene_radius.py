"""Whether a bounded scene fits the box that a model gives it, judged before training by the photos' alpha."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np
from jaxtyping import Bool, Float

from dac_nerfstudio.kplanes.model import RADIUS
from dac_nerfstudio.partition import Views
from dac_nerfstudio.scene.photos import read_photo

WIDE_RADIUS = 1.5
"""Half the side of the wider box: what the reference has for NeRF-synthetic's 'ship'."""
MOST_PHOTOS = 40
"""Are looked at; reading them takes nearly all the time."""
CELLS = 200
"""Along the width of a mask; a photo's pixels are put together to cells."""
OPAQUE = 128
"""Least alpha, of 255, of what counts as the object."""
POINTS = 1 << 17
"""Points to try, evenly over the wider box."""
RAYS, SAMPLES = 16, 256
"""Rays of each photo, and samples along each ray inside the box."""
WITNESSES = 2
"""Photos that have to show it: a single one may be damaged."""


def scene_radius(views: Views) -> Tuple[float, str]:
    """Half the side of the box that holds a bounded scene, in the frame of its views, and in words why.

    The photos' masks are intersected to the visual hull, the largest object that could have cast them (Laurentini
    1994). Where a ray through an opaque pixel meets the hull, but nowhere inside the box, the object leaves the box.
    The hull may leave it without that: of few photos, or below an object seen from above, it is larger than the object.
    """
    if views.photos is None:
        return RADIUS, "the default, for the photos are not known"
    beyond = _leaves(views.photos, views.camera_to_worlds.tobytes(), views.intrinsics.tobytes())
    if beyond is None:
        return RADIUS, "the default, for the photos have no alpha to tell the object by"
    if beyond:
        return WIDE_RADIUS, f"by the photos' alpha the object reaches beyond {RADIUS}"
    return RADIUS, "by the photos' alpha it holds the object"


@dataclass(frozen=True)
class Mask:
    """Where one photo shows the object."""

    camera_to_world: Float[np.ndarray, "3 4"]
    intrinsics: Float[np.ndarray, "6"]
    """fx, fy, cx, cy, width and height in cells."""
    possible: Bool[np.ndarray, "rows columns"]
    """Cells with, or beside, something opaque: the hull is rather too large than too small."""
    certain: Bool[np.ndarray, "rows columns"]
    """Cells that are opaque all over."""

    def at(self, points: Float[np.ndarray, "n 3"]) -> Tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
        """Whether points may be, and are certain to be, in front of, in or behind the object. Out of the picture all
        may be."""
        fx, fy, cx, cy, width, height = self.intrinsics
        local = (points - self.camera_to_world[:, 3]) @ self.camera_to_world[:, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = np.floor(cx - fx * local[:, 0] / local[:, 2])
            rows = np.floor(cy + fy * local[:, 1] / local[:, 2])
        seen = (local[:, 2] < 0) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        cells = rows[seen].astype(int), columns[seen].astype(int)
        possible, certain = ~seen, np.zeros_like(seen)
        possible[seen], certain[seen] = self.possible[cells], self.certain[cells]
        return possible, certain


def _read_mask(path: Path, camera_to_world: np.ndarray, intrinsics: np.ndarray) -> Optional[Mask]:
    from scipy.ndimage import maximum_filter

    photo = read_photo(path)
    if photo.mode != "RGBA":
        return None
    opaque = np.asarray(photo.getchannel("A")) >= OPAQUE
    side = max(1, opaque.shape[1] // CELLS)
    rows, columns = opaque.shape[0] // side, opaque.shape[1] // side
    cells = opaque[: rows * side, : columns * side].reshape(rows, side, columns, side)
    # From the pixels of the size that the intrinsics are of to cells of this photo's.
    scale = np.tile(np.divide(opaque.shape[::-1], intrinsics[4:]) / side, 3)
    scaled = np.concatenate([(intrinsics * scale)[:4], [columns, rows]])
    return Mask(camera_to_world, scaled, maximum_filter(cells.any(axis=(1, 3)), size=3), cells.all(axis=(1, 3)))


@lru_cache(maxsize=16)  # a plan's stages are looked at one after the other, and are all of one scene
def _leaves(photos: Tuple[Path, ...], poses: bytes, intrinsics: bytes) -> Optional[bool]:
    """Whether the object leaves the narrower box within the wider one; None if there are no masks."""
    cameras, pinholes = np.frombuffer(poses).reshape(-1, 3, 4), np.frombuffer(intrinsics).reshape(-1, 6)
    points = np.random.default_rng(0).uniform(-WIDE_RADIUS, WIDE_RADIUS, (POINTS, 3))
    points = points[np.abs(points).max(axis=1) > RADIUS]
    masks: List[Mask] = []
    for view in _far_apart(cameras[:, :, 3]):
        mask = _read_mask(photos[view], cameras[view], pinholes[view])
        if mask is None:
            return None
        masks.append(mask)
        points = points[mask.at(points)[0]]
        if not len(points):
            return False
    if all(mask.certain.all() for mask in masks):
        return None
    return sum(_testifies(mask, masks, points) for mask in masks) >= WITNESSES


def _testifies(witness: Mask, masks: List[Mask], beyond: Float[np.ndarray, "n 3"]) -> bool:
    """Whether a photo has an opaque pixel that only points of the hull beyond the box account for."""
    targets = beyond[witness.at(beyond)[1]]
    targets = targets[:: max(1, len(targets) // RAYS)]
    origin = witness.camera_to_world[:, 3]
    # The stretch of each ray inside the box (Kay and Kajiya 1986).
    with np.errstate(divide="ignore"):
        ends = (np.array([[[-RADIUS]], [[RADIUS]]]) - origin) / (targets - origin)
    start, end = ends.min(axis=0).max(axis=1).clip(min=0), ends.max(axis=0).min(axis=1)
    steps = start[:, None] + (end - start)[:, None] * (np.arange(SAMPLES) + 0.5) / SAMPLES
    samples = (origin + steps[..., None] * (targets - origin)[:, None]).reshape(-1, 3)
    rays = np.arange(len(targets)).repeat(SAMPLES)
    inside = np.repeat(end > start, SAMPLES)
    samples, rays = samples[inside], rays[inside]
    for mask in masks:
        kept = mask.at(samples)[0]
        samples, rays = samples[kept], rays[kept]
    return len(np.unique(rays)) < len(targets)


def _far_apart(centres: Float[np.ndarray, "views 3"]) -> List[int]:
    """Up to `MOST_PHOTOS` cameras, each the farthest from all before it: those cut away most of the space."""
    distances = np.full(len(centres), np.inf)
    chosen: List[int] = []
    while len(chosen) < min(MOST_PHOTOS, len(centres)):
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(centres - centres[chosen[-1]], axis=1))
    return chosen
