"""Partition: how much of each view every group draws, and which group answers for a camera; a file, made once.

A partition is a membership matrix [groups, views] of sampling weights in [0, 1] and a home group for each view. A hard
division is one-hot; overlap and softness give a group a part of its neighbours' views. The file is named by a
fingerprint of its content, so that experts and students know whether they belong together.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from dac_nerfstudio.errors import UnreadablePartition
from dac_nerfstudio.files import write_text
from dac_nerfstudio.partition.strategies import azimuth
from dac_nerfstudio.scene.frames import Axis, spread, view_distances
from dac_nerfstudio.scene.views import PartitionError, Views, listing

FORMAT = "dac-partition"
VERSION = 2
FILE_KEYS = ("format", "version", "fingerprint", "settings", "axis", "about", "views")
SETTING_KEYS = ("strategy", "similarity", "groups", "overlap", "softness")
AXIS_KEYS = ("origin", "up")
VIEW_KEYS = ("name", "group", "membership", "camera_to_world", "intrinsics")


@dataclass(frozen=True, eq=False)
class Partition:
    """Views, their home groups, and the weights with which each group draws them. Groups are counted from 1.

    Raises:
        PartitionError: settings or weights are out of range, a group has no views, or a view has no weight at
            home.
    """

    views: Views
    homes: np.ndarray
    """[views] integers from 1 to N: the group that each view belongs to."""
    membership: np.ndarray
    """[groups, views] sampling weights in [0, 1]: row k - 1 is what the expert of group k draws from."""
    settings: dict[str, Any]
    """What it was made with: `strategy`, `similarity` (None where it has no part), `groups`, `overlap`, `softness`."""
    axis: Axis = Axis(np.zeros(3), np.array([0.0, 0.0, 1.0]))
    """The scene's up axis: where azimuth sectors meet, and what is above in pictures."""
    about: dict[str, Any] = field(default_factory=dict)
    """What decides nothing: what was `asked` for, `notes`, `quality`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "homes", np.asarray(self.homes))
        object.__setattr__(self, "membership", np.asarray(self.membership, dtype=np.float64) + 0.0)  # no -0.0
        object.__setattr__(self, "settings", checked_settings(self.settings))
        # Single precision, as in the poses: the last digits of an estimate differ between machines.
        origin, up = (np.asarray(part).astype(np.float32).astype(np.float64) + 0.0 for part in self.axis)
        object.__setattr__(self, "axis", Axis(origin, up))
        if origin.shape != (3,) or up.shape != (3,) or not np.isfinite(origin).all() or not abs(up @ up - 1) <= 1e-4:
            raise PartitionError(f"The axis must be a point and a direction of length 1, not {origin} and {up}.")
        views, groups = len(self.views), self.settings["groups"]
        if self.homes.shape != (views,) or self.membership.shape != (groups, views):
            raise PartitionError(f"Each of {views} views needs a group, and a membership weight in each of {groups}.")
        self._require((self.homes >= 1) & (self.homes <= groups), f"a group outside 1 to {groups}")
        in_range = (self.membership >= 0) & (self.membership <= 1)  # False for NaN as well
        self._require(in_range.all(axis=0), "a membership weight outside [0, 1]")
        at_home = self.membership[self.homes - 1, np.arange(views)]
        self._require(at_home > 0, "no weight in their own group")
        empty = empty_groups(self.homes, groups)
        if empty:
            raise PartitionError(f"No view belongs to {numbered(empty)}; every group from 1 to {groups} needs one.")

    def _require(self, usable: np.ndarray, defect: str) -> None:
        if not usable.all():
            names = [self.views.names[i] for i in np.flatnonzero(~usable)]
            raise PartitionError(f"These views have {defect}: {listing(names)}.")

    @property
    def num_groups(self) -> int:
        """N."""
        return len(self.membership)

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for where it is not what was made: `strategy`, `groups`, `similarity`, each perhaps `auto`."""
        return dict(self.about.get("asked", {}))

    @property
    def notes(self) -> list[str]:
        """What the user should know about how it was made."""
        return list(self.about.get("notes", []))

    def satisfies(self, asked: dict[str, Any]) -> bool:
        """Whether it was made with these settings, or in answer to them."""
        return all(value in (self.settings.get(name), self.asked.get(name)) for name, value in asked.items())

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the content: the same on every machine, another after any change."""
        content = json.dumps(self._content(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def members(self, group: int) -> tuple[str, ...]:
        """Names of the views whose home is `group`, without those it borrows from its neighbours."""
        return tuple(self.views.names[i] for i in np.flatnonzero(self.homes == group))

    def route(self, camera_to_worlds: np.ndarray) -> np.ndarray:
        """The group that answers for each camera.

        Under the strategy `azimuth` that is the sector in which the camera stands, otherwise the home of the nearest
        training view by `view_distances`. A training view is routed to its own home.

        Args:
            camera_to_worlds: poses [cameras, 3, 4] in the data's own frame (see `align` for those of a data parser).

        Returns:
            Groups [cameras] as integers from 1 to N.
        """
        camera_to_worlds = np.asarray(camera_to_worlds, dtype=np.float64)
        if self.settings["strategy"] == "azimuth":
            return azimuth(self.axis.upright(camera_to_worlds[:, :, 3]), self.num_groups)
        distances = view_distances(camera_to_worlds, self.views.camera_to_worlds, spread(self.views.centres))
        return self.homes[distances.argmin(axis=1)]

    def _content(self) -> dict[str, Any]:
        entries = zip(
            self.views.names,
            self.homes.tolist(),
            self.membership.T.tolist(),
            self.views.camera_to_worlds.tolist(),
            self.views.intrinsics.tolist(),
            strict=True,
        )
        views = [dict(zip(VIEW_KEYS, entry, strict=True)) for entry in entries]
        axis = dict(zip(AXIS_KEYS, (part.tolist() for part in self.axis), strict=True))
        return {"format": FORMAT, "version": VERSION, "settings": dict(self.settings), "axis": axis, "views": views}

    def to_json(self) -> dict[str, Any]:
        """The content of the file, with its fingerprint."""
        content = self._content() | {"fingerprint": self.fingerprint, "about": self.about}
        return {key: content[key] for key in FILE_KEYS}

    @classmethod
    def from_json(cls, content: Any, source: str) -> Partition:
        """The partition that `to_json` described.

        Raises:
            UnreadablePartition: it is no partition, or one of another version of the format.
            PartitionError: anything is missing, misspelt, of the wrong type or out of range, or the content does not
                fit its fingerprint.
        """
        try:
            partition = cls._parse(content)
        except PartitionError as error:
            raise type(error)(f"{source}: {error}") from None
        recorded = content.get("fingerprint")
        if recorded is not None and recorded != partition.fingerprint:
            raise PartitionError(
                f"{source} was edited: its content has the fingerprint {partition.fingerprint}, the file says "
                f'{recorded}. Undo the edit, or remove the "fingerprint" entry to accept the edit.'
            )
        return partition

    @classmethod
    def _parse(cls, content: Any) -> Partition:
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UnreadablePartition(f'not a partition; expected a JSON object with "format": "{FORMAT}".')
        if content.get("version") != VERSION:
            raise UnreadablePartition(
                f"version {content.get('version')!r} of the format, but this program reads version {VERSION}; "
                "update dac-nerfstudio or divide the views again: dac split"
            )
        try:
            entries, axis = content["views"], content["axis"]
            views = Views(
                names=tuple(entry["name"] for entry in entries),
                camera_to_worlds=np.array([entry["camera_to_world"] for entry in entries], dtype=np.float64),
                intrinsics=np.array([entry["intrinsics"] for entry in entries], dtype=np.float64),
            )
            homes = np.array([index(entry["group"]) for entry in entries])
            membership = np.array([entry["membership"] for entry in entries], dtype=np.float64).T
            settings = {key: content["settings"][key] for key in SETTING_KEYS}
            place = Axis(*(np.array(axis[key], dtype=np.float64) for key in AXIS_KEYS))
            partition = cls(views, homes, membership, settings, place, dict(content.get("about") or {}))
        except PartitionError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PartitionError(
                f"it is not as dac split writes it ({type(error).__name__}: {error}). Undo the edit, or divide the "
                "views again: dac split"
            ) from None
        if partition.settings["strategy"] == "azimuth":
            moved = np.flatnonzero(partition.route(views.camera_to_worlds) != homes)
            if len(moved):
                raise PartitionError(
                    f"these views are not in their azimuth sector: {listing([views.names[i] for i in moved])}. "
                    'For a division of your own, change "strategy" to "manual"; new cameras then follow the nearest '
                    "view."
                )
        return partition

    def save(self, path: Path) -> None:
        """Writes the file in one step: a reader finds all of it or none. Makes the folder where needed."""
        write_text(Path(path), self._text())

    @classmethod
    def load(cls, path: Path) -> Partition:
        """Reads a file that `save` wrote.

        Raises:
            UnreadablePartition: it is not JSON, or `from_json` cannot read it.
            PartitionError: there is no such file, or none that may be read, or `from_json` rejects it.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PartitionError(f"There is no partition {path}. Make one: dac split --data <folder>.") from None
        except OSError as error:
            raise PartitionError(f"The partition {path} cannot be read: {error.strerror}.") from None
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnreadablePartition(
                f"{path} is not valid JSON ({error}). Divide the views again: dac split"
            ) from None
        return cls.from_json(content, str(path))

    def _text(self) -> str:
        """The file's text, with one line per field of a view: people read these files, too."""
        content = self.to_json()
        views = [
            ",\n     ".join(f"{json.dumps(key)}: {json.dumps(view[key])}" for key in view) for view in content["views"]
        ]
        head = "".join(f"  {json.dumps(key)}: {json.dumps(content[key])},\n" for key in FILE_KEYS[:-1])
        return "{\n" + head + '  "views": [\n    {' + "},\n    {".join(views) + "}\n  ]\n}\n"


def empty_groups(homes: np.ndarray, groups: int) -> list[int]:
    return sorted(set(range(1, groups + 1)) - set(homes.tolist()))


def numbered(groups: list[int]) -> str:
    return f"group{'s' if len(groups) > 1 else ''} {', '.join(map(str, groups))}"


def checked_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings in canonical order and type, so that equal settings give equal fingerprints.

    Raises:
        PartitionError: one is out of range.
    """
    strategy, similarity, groups, overlap, softness = (settings[key] for key in SETTING_KEYS)
    if not isinstance(strategy, str) or not isinstance(similarity, (str, type(None))):
        raise PartitionError(f"The strategy is {strategy!r}, the similarity {similarity!r}; expected their names.")
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise PartitionError(f"groups is {groups!r}; expected an integer from 1 up.")
    if not 0 <= overlap <= 1:
        raise PartitionError(f"overlap is {overlap}; expected a number from 0 to 1.")
    if not 0 <= softness < 1:
        raise PartitionError(f"softness is {softness}; expected a number from 0 to below 1.")
    values = (strategy, similarity, int(groups), float(overlap), float(softness))
    return dict(zip(SETTING_KEYS, values, strict=True))
