"""Partition: how much of each view every group draws, and which group answers for a camera; a file, made once.

A partition is a membership matrix [groups, views] of sampling weights in [0, 1] and a home group for each view. A hard
division is one-hot; overlap and softness give a group a part of its neighbours' views. The file is named by a
fingerprint of its content, so that experts and students can tell whether they belong together.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dac_nerfstudio.partition.files import atomic_write, temporary_beside
from dac_nerfstudio.partition.frames import align, spread
from dac_nerfstudio.partition.strategies import STRATEGIES, azimuth
from dac_nerfstudio.partition.views import PartitionError, Views, listing, viewing_directions

FORMAT = "dac-partition"
VERSION = 1
FILE_KEYS = ("format", "version", "fingerprint", "settings", "views")
SETTING_KEYS = ("strategy", "groups", "overlap", "softness")
VIEW_KEYS = ("name", "group", "membership", "camera_to_world", "intrinsics")


@dataclass(frozen=True, eq=False)
class Partition:
    """Views, their home groups, and the weights with which each group draws them. Groups are counted from 1.

    Raises:
        PartitionError: shapes, settings or weights are out of range, a group has no views, or a view has no weight at
            home.
    """

    views: Views
    homes: np.ndarray
    """[views] integers from 1 to N: the group that each view belongs to."""
    membership: np.ndarray
    """[groups, views] sampling weights in [0, 1]: row k - 1 is what the expert of group k draws from."""
    settings: dict[str, Any]
    """What it was made with: `strategy`, `groups`, `overlap`, `softness`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "homes", np.asarray(self.homes))
        object.__setattr__(self, "membership", np.asarray(self.membership, dtype=np.float64) + 0.0)  # no -0.0
        object.__setattr__(self, "settings", _checked_settings(self.settings))
        views, groups = len(self.views), self.settings["groups"]
        if self.homes.shape != (views,) or not np.issubdtype(self.homes.dtype, np.integer):
            raise PartitionError(f"homes must be {views} integers, one per view, not {_described(self.homes)}.")
        if self.membership.shape != (groups, views):
            raise PartitionError(
                f"membership has shape {self.membership.shape}; {groups} groups and {views} views need "
                f"{(groups, views)}."
            )
        self._require((self.homes >= 1) & (self.homes <= groups), f"a group outside 1 to {groups}")
        in_range = (self.membership >= 0) & (self.membership <= 1)  # False for NaN as well
        self._require(in_range.all(axis=0), "a membership weight outside [0, 1]")
        at_home = self.membership[self.homes - 1, np.arange(views)]
        self._require(at_home > 0, "no weight in their own group")
        empty = _empty_groups(self.homes, groups)
        if empty:
            raise PartitionError(f"No view belongs to {_numbered(empty)}; every group from 1 to {groups} needs one.")

    def _require(self, usable: np.ndarray, defect: str) -> None:
        if not usable.all():
            names = [self.views.names[i] for i in np.flatnonzero(~usable)]
            raise PartitionError(f"These views have {defect}: {listing(names)}.")

    @property
    def num_groups(self) -> int:
        """N."""
        return len(self.membership)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the content: the same on every machine, another after any change."""
        content = json.dumps(self._content(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def members(self, group: int) -> tuple[str, ...]:
        """Names of the views whose home is `group`, without those it borrows from its neighbours."""
        if not 1 <= group <= self.num_groups:
            raise PartitionError(f"There is no group {group}; groups are counted from 1 to {self.num_groups}.")
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
        if camera_to_worlds.shape[1:] != (3, 4):
            raise PartitionError(f"Cannot route poses of shape {camera_to_worlds.shape}; expected [cameras, 3, 4].")
        if self.settings["strategy"] == "azimuth":
            return azimuth(camera_to_worlds[:, :, 3], self.num_groups)
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
        return {"format": FORMAT, "version": VERSION, "settings": dict(self.settings), "views": views}

    def to_json(self) -> dict[str, Any]:
        """The content of the file, with its fingerprint."""
        content = self._content() | {"fingerprint": self.fingerprint}
        return {key: content[key] for key in FILE_KEYS}

    @classmethod
    def from_json(cls, content: Any, source: str) -> Partition:
        """The partition that `to_json` described.

        Args:
            content: what was read from the file.
            source: its name, for error messages.

        Raises:
            PartitionError: anything is missing, misspelt, of the wrong type or out of range, or the content does not
                fit its fingerprint.
        """
        try:
            partition = cls._parse(content)
        except PartitionError as error:
            raise PartitionError(f"{source}: {error}") from None
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
            raise PartitionError(f'not a partition; expected a JSON object with "format": "{FORMAT}".')
        if content.get("version") != VERSION:
            raise PartitionError(
                f"version {content.get('version')!r} of the format, but this program reads version {VERSION}; "
                "update dac-nerfstudio or divide the views again."
            )
        _check_keys({"fingerprint": None, **content}, FILE_KEYS, "the file")  # the fingerprint may be missing
        settings = _checked_settings(content["settings"])
        entries = content["views"]
        if not isinstance(entries, list):
            raise PartitionError(f'"views" must be a list, not {entries!r}.')
        for number, entry in enumerate(entries):
            _check_keys(entry, VIEW_KEYS, f'entry {number} (from 0) of "views"')
            if not isinstance(entry["name"], str):
                raise PartitionError(f'"name" must be a string, not {entry["name"]!r}.')
            if not isinstance(entry["group"], int) or isinstance(entry["group"], bool):
                raise PartitionError(f'"group" of {entry["name"]} must be an integer, not {entry["group"]!r}.')
        if not entries:
            raise PartitionError('"views" is empty; at least one view is needed.')
        views = Views(
            names=tuple(entry["name"] for entry in entries),
            camera_to_worlds=_stacked(entries, "camera_to_world", (3, 4)),
            intrinsics=_stacked(entries, "intrinsics", (6,)),
        )
        homes = np.array([entry["group"] for entry in entries])
        partition = cls(views, homes, _stacked(entries, "membership", (settings["groups"],)).T, settings)
        if settings["strategy"] == "azimuth":
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
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(self._text().encode())

    @classmethod
    def load(cls, path: Path) -> Partition:
        """Reads a file that `save` wrote.

        Raises:
            PartitionError: there is no such file, or `from_json` rejects it.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PartitionError(f"There is no partition {path}. Make one: dac split --data <folder>.") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PartitionError(f"{path} is not valid JSON ({error}). Delete it and divide the views again.") from None
        return cls.from_json(content, str(path))

    def _text(self) -> str:
        """The file's text, with one line per field of a view: people read these files, too."""
        content = self.to_json()
        views = [
            ",\n     ".join(f"{json.dumps(key)}: {json.dumps(view[key])}" for key in view) for view in content["views"]
        ]
        head = "".join(f"  {json.dumps(key)}: {json.dumps(content[key])},\n" for key in FILE_KEYS[:-1])
        return "{\n" + head + '  "views": [\n    {' + "},\n    {".join(views) + "}\n  ]\n}\n"


def divide(
    views: Views, groups: int = 4, strategy: str = "azimuth", overlap: float = 0.0, softness: float = 0.0
) -> Partition:
    """Divides views into groups.

    Args:
        views: the training views.
        groups: number of groups N, from 1 to the number of views.
        strategy: one of `STRATEGIES`.
        overlap: F in [0, 1]. Every group of n views also takes, with weight 1, the round(F * n) views outside that are
            nearest to it (by `view_distances`, to the nearest of its own).
        softness: S in [0, 1): the share of an expert's draws that come from other groups' views. These share one
            weight, which cannot exceed 1, so that a small group may stay below S.

    Raises:
        PartitionError: a setting is out of range, both overlap and softness are given, or a group comes out empty.
    """
    settings = _checked_settings({"strategy": strategy, "groups": groups, "overlap": overlap, "softness": softness})
    if settings["strategy"] not in STRATEGIES:
        raise PartitionError(f"Unknown strategy '{strategy}'; choose one of: {', '.join(STRATEGIES)}.")
    if settings["overlap"] > 0 and settings["softness"] > 0:
        raise PartitionError(f"overlap {overlap} and softness {softness} exclude each other; leave one of them at 0.")
    if groups > len(views):
        raise PartitionError(
            f"{groups} groups for {len(views)} views; choose a number of groups from 1 to {len(views)}."
        )
    homes = azimuth(views.centres, groups)
    empty = _empty_groups(homes, groups)
    if empty:
        fewer = next(n for n in range(groups - 1, 0, -1) if not _empty_groups(azimuth(views.centres, n), n))
        raise PartitionError(
            f"With {groups} groups by {strategy}, {_numbered(empty)} would have no views. Choose fewer groups; "
            f"{fewer} is the largest smaller number that leaves none empty."
        )
    membership = (homes == np.arange(1, groups + 1)[:, None]).astype(np.float64)
    if settings["overlap"] > 0:
        membership = _with_overlap(membership, views, settings["overlap"])
    if settings["softness"] > 0:
        membership = _with_softness(membership, settings["softness"])
    return Partition(views, homes, membership, settings)


def view_distances(from_poses: np.ndarray, to_poses: np.ndarray, unit: float) -> np.ndarray:
    """How far views are apart: |c - c'| / unit + |d - d'|.

    c are camera centres and d unit viewing directions, so the second term runs from 0 (parallel) to 2 (opposite). With
    the `spread` of the training cameras as unit, both terms are of one size and the result is free of the data's units.

    Args:
        from_poses: [a, 3, 4].
        to_poses: [b, 3, 4].
        unit: length to measure centres in; 0, for cameras that all stand on one spot, counts as 1.

    Returns:
        Distances [a, b].
    """
    centres = np.linalg.norm(from_poses[:, None, :, 3] - to_poses[None, :, :, 3], axis=2)
    directions = viewing_directions(from_poses)[:, None] - viewing_directions(to_poses)[None]
    return centres / (unit or 1.0) + np.linalg.norm(directions, axis=2)


def publish(partition: Partition, scene_dir: Path) -> Path:
    """Makes a partition the current one of a scene.

    Writes `partitions/<fingerprint>.json`, which stays, and `partition.json`, a copy that replaces an earlier one (of
    which a copy stays in turn).

    Returns:
        The path of the former.
    """
    path, current = _published_path(partition, scene_dir), Path(scene_dir) / "partition.json"
    if current.exists():
        # One that was edited by hand may have no copy yet.
        earlier = Partition.load(current)
        earlier.save(_published_path(earlier, scene_dir))
    partition.save(path)
    partition.save(current)
    return path


def find_or_divide(scene_dir: Path, views: Views, **divide_settings: Any) -> tuple[Partition, Path]:
    """The current partition of a scene; made with `divide_settings` if there is none.

    Of several processes that start at the same moment one makes it, and all return that one. Settings play no part
    where a partition exists.

    Args:
        scene_dir: the scene's output folder, which holds `partition.json`.
        views: the training views, in the data's frame or one that a data parser turned, shifted and scaled.
        divide_settings: keyword arguments of `divide`.

    Returns:
        The partition and its path `partitions/<fingerprint>.json`.

    Raises:
        PartitionError: the views cannot be divided, or the current partition was made from others.
    """
    current = Path(scene_dir) / "partition.json"
    if not current.exists():
        _create(divide(views, **divide_settings), current)
    partition = Partition.load(current)
    check_views(partition, views, current)
    path = _published_path(partition, scene_dir)
    if not path.exists():
        partition.save(path)
    return partition, path


def check_views(partition: Partition, views: Views, source: Path) -> None:
    """Make sure that a partition is one of the given views, in whatever frame a data parser has put them.

    Raises:
        PartitionError: it is not; the message names `source`.
    """
    difference = _difference(partition.views, views)
    if difference:
        raise PartitionError(
            f"{source} was made from other views than those of the data: {difference}. Divide again (dac split), or "
            "use another output folder (--output-dir) or scene name (--experiment-name)."
        )


def _create(partition: Partition, path: Path) -> None:
    """Writes the file unless it exists by then."""
    with temporary_beside(path) as temporary:
        partition.save(temporary)
        try:
            os.link(temporary, path)  # in one step, and fails where another process was first
        except FileExistsError:
            pass
        except OSError:
            # No hard links here (FAT, some network drives). Processes with the same settings write the same bytes, so
            # it does not matter which of them is last.
            os.replace(temporary, path)


def _published_path(partition: Partition, scene_dir: Path) -> Path:
    return Path(scene_dir) / "partitions" / f"{partition.fingerprint}.json"


def _difference(recorded: Views, found: Views) -> str:
    """How the views of a partition differ from those of the data, in words; empty if they do not."""
    missing = sorted(set(recorded.names) - set(found.names))
    added = sorted(set(found.names) - set(recorded.names))
    parts = []
    if missing:
        parts.append(f"the data lacks {listing(missing)}")
    if added:
        parts.append(f"the partition lacks {listing(added)}")
    if not parts:
        # Scenes of one data set share their file names (train/r_0.png, ...), so names alone do not tell them apart.
        index = {name: i for i, name in enumerate(found.names)}
        poses = found.camera_to_worlds[[index[name] for name in recorded.names]]
        poses = align(poses, recorded.camera_to_worlds).apply(poses)
        change = np.abs(poses - recorded.camera_to_worlds).max(axis=1)  # [views, 4]: three axes and the centre
        change[:, 3] /= spread(recorded.centres) or 1.0
        moved = np.flatnonzero(change.max(axis=1) > 1e-4)
        if len(moved):
            parts.append(f"the names agree, but not the cameras of {listing([recorded.names[i] for i in moved])}")
    return "; ".join(parts)


def _with_overlap(membership: np.ndarray, views: Views, overlap: float) -> np.ndarray:
    distances = view_distances(views.camera_to_worlds, views.camera_to_worlds, spread(views.centres))
    widened = membership.copy()
    for row, own in zip(widened, membership > 0, strict=True):
        outside = np.flatnonzero(~own)
        nearest_first = outside[distances[outside][:, own].min(axis=1).argsort(kind="stable")]
        row[nearest_first[: round(overlap * int(own.sum()))]] = 1.0
    return widened


def _with_softness(membership: np.ndarray, softness: float) -> np.ndarray:
    own = membership.sum(axis=1, keepdims=True)
    outside = membership.shape[1] - own
    # Solves outside * w / (own + outside * w) = softness. A single group has nothing outside to weigh.
    weight = softness / (1 - softness) * own / np.maximum(outside, 1)
    return np.where(membership > 0, membership, np.minimum(weight, 1.0))


def _empty_groups(homes: np.ndarray, groups: int) -> list[int]:
    return sorted(set(range(1, groups + 1)) - set(homes.tolist()))


def _numbered(groups: list[int]) -> str:
    return f"group{'s' if len(groups) > 1 else ''} {', '.join(map(str, groups))}"


def _described(array: np.ndarray) -> str:
    return f"an array of shape {array.shape} and type {array.dtype}"


def _checked_settings(settings: Any) -> dict[str, Any]:
    """The settings in canonical order and type, so that equal settings give equal fingerprints."""
    _check_keys(settings, SETTING_KEYS, '"settings"')
    strategy, groups, overlap, softness = (settings[key] for key in SETTING_KEYS)
    if not isinstance(strategy, str) or not strategy:
        raise PartitionError(f"strategy is {strategy!r}; expected a name such as '{STRATEGIES[0]}'.")
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or groups < 1:
        raise PartitionError(f"groups is {groups!r}; expected an integer from 1 up.")
    if not _is_number(overlap) or not 0 <= overlap <= 1:
        raise PartitionError(f"overlap is {overlap!r}; expected a number from 0 to 1.")
    if not _is_number(softness) or not 0 <= softness < 1:
        raise PartitionError(f"softness is {softness!r}; expected a number from 0 to below 1.")
    return {
        "strategy": strategy,
        "groups": int(groups),
        "overlap": float(overlap),
        "softness": float(softness),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _check_keys(entry: Any, expected: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, dict):
        raise PartitionError(f"{where} must be a JSON object with {', '.join(expected)}, not {entry!r}.")
    missing = [key for key in expected if key not in entry]
    unknown = [str(key) for key in entry if key not in expected]
    if missing or unknown:
        found = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise PartitionError(f"{where} {' and '.join(found)}; expected {', '.join(expected)}.")


def _stacked(entries: list[dict[str, Any]], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers that all views have under `key`: [views, *shape]."""
    arrays = []
    for entry in entries:
        try:
            array = np.array(entry[key])
        except ValueError:  # rows of different lengths
            array = np.empty(0)
        if array.shape != shape or array.dtype.kind not in "if":
            size = " x ".join(map(str, shape))
            raise PartitionError(f'"{key}" of {entry["name"]} must be {size} numbers, not {entry[key]!r}.')
        arrays.append(array.astype(np.float64))
    return np.stack(arrays)
