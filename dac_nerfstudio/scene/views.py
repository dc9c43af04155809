"""Views: the names and cameras of a scene's images, and what is known of them besides.

Poses are camera-to-world matrices [3, 4] with OpenGL axes (x right, y up, looking along -z), in the frame and the units
of the data: nothing is centred, turned or scaled here, so that a partition does not depend on a data parser's settings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

import numpy as np

from dac_nerfstudio.errors import PartitionError

IMAGE_FOLDER = re.compile(r"images(_\d+)?")


@dataclass(frozen=True, eq=False)
class Views:
    """The named cameras of one split.

    Poses are kept in single precision and intrinsics to a hundredth of a pixel, which is what data parsers deliver:
    the same views give the same fingerprint, whoever read them.

    Raises:
        PartitionError: there are none, two views share a name, or a number is not usable.
    """

    names: tuple[str, ...]
    """One name per view, see `view_name`."""
    camera_to_worlds: np.ndarray
    """[views, 3, 4] float64, OpenGL axes, in the data's own frame and units."""
    intrinsics: np.ndarray
    """[views, 6] float64: fx, fy, cx, cy, width, height in pixels."""
    upright: bool = True
    """Whether +z is known to be up and the origin to lie in the scene, as in Blender's format; otherwise both are
    estimated where they matter."""
    tracks: tuple[np.ndarray, ...] | None = None
    """The unique numbers of the 3D points that were found in each view; known from structure from motion alone."""
    photos: tuple[Path, ...] | None = None
    """The file of each view's image, where that is known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        # Adding 0 turns -0.0 into 0.0, so that equal numbers give equal fingerprints.
        poses = np.asarray(self.camera_to_worlds).astype(np.float32).astype(np.float64)
        object.__setattr__(self, "camera_to_worlds", poses + 0.0)
        object.__setattr__(self, "intrinsics", np.round(np.asarray(self.intrinsics, dtype=np.float64), 2) + 0.0)
        count = len(self.names)
        if count == 0:
            raise PartitionError("There are no views; at least one is needed.")
        if not all(isinstance(name, str) for name in self.names):
            raise PartitionError("A view's name is not a string.")
        if self.camera_to_worlds.shape != (count, 3, 4) or self.intrinsics.shape != (count, 6):
            raise PartitionError("Each view needs a pose of 3 x 4 numbers, and six intrinsics.")
        if len(set(self.names)) < count:
            duplicates = sorted(name for name, count in Counter(self.names).items() if count > 1)
            raise PartitionError(f"View names must be unique, but these occur more than once: {listing(duplicates)}.")
        self._require(np.isfinite(self.camera_to_worlds).all(axis=(1, 2)), "a pose that is not finite")
        sizes = self.intrinsics[:, [0, 1, 4, 5]]
        usable = np.isfinite(self.intrinsics).all(axis=1) & (sizes > 0).all(axis=1)
        self._require(usable, "a focal length or image size that is not a positive number")

    def _require(self, usable: np.ndarray, defect: str) -> None:
        if not usable.all():
            names = [self.names[i] for i in np.flatnonzero(~usable)]
            raise PartitionError(f"These views have {defect}: {listing(names)}. Correct or remove them.")

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: Sequence[int] | np.ndarray) -> Views:
        """Some of the views, in the given order."""
        indices = [int(i) for i in indices]
        return replace(
            self,
            names=tuple(self.names[i] for i in indices),
            camera_to_worlds=self.camera_to_worlds[indices],
            intrinsics=self.intrinsics[indices],
            tracks=None if self.tracks is None else tuple(self.tracks[i] for i in indices),
            photos=None if self.photos is None else tuple(self.photos[i] for i in indices),
        )

    @property
    def centres(self) -> np.ndarray:
        """Camera centres [views, 3], in the units of the data."""
        return self.camera_to_worlds[:, :, 3]


def viewing_directions(camera_to_worlds: np.ndarray) -> np.ndarray:
    """Unit vectors [views, 3] along which cameras [views, 3, 4] look."""
    directions = -camera_to_worlds[:, :, 2]
    return directions / np.linalg.norm(directions, axis=1, keepdims=True).clip(min=1e-12)


def listing(names: list[str], most: int = 5) -> str:
    """The names, comma-separated, for an error message; no more than `most` of them."""
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def view_name(path: str | Path) -> str:
    """The name of a view, from the path of its image relative to the data folder.

    The path with forward slashes, without a leading `./` and without a leading folder `images` or `images_<number>`:
    the same photo keeps its name at every downscale factor. `images_2/a.jpg` is `a.jpg`; `train/r_0.png` stays.
    """
    parts = PurePosixPath(PurePath(path).as_posix()).parts
    if len(parts) > 1 and IMAGE_FOLDER.fullmatch(parts[0]):
        parts = parts[1:]
    return PurePosixPath(*parts).as_posix()
