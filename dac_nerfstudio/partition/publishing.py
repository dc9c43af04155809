"""The partition files of a scene: one is the current one, all stay."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

from dac_nerfstudio.errors import UnreadablePartition
from dac_nerfstudio.files import temporary_beside
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.runs.layout import PARTITION, PARTITIONS
from dac_nerfstudio.scene.frames import difference
from dac_nerfstudio.scene.views import PartitionError, Views


def current_partition(scene_dir: Path) -> Partition | None:
    """The current partition of a scene; None where there is none, or only one that no division can go by.

    Raises:
        PartitionError: it was edited, and the edit has a mistake.
    """
    path = Path(scene_dir) / PARTITION
    try:
        return Partition.load(path) if path.exists() else None
    except UnreadablePartition:
        return None


def publish(partition: Partition, scene_dir: Path) -> Path:
    """Makes a partition the current one of a scene.

    Writes `partitions/<fingerprint>.json`, which stays, and `partition.json`, a copy that replaces an earlier one (of
    which a copy stays in turn). An earlier one that cannot be read is moved aside, with a warning.

    Returns:
        The path of the former.
    """
    path, current = _published_path(partition, scene_dir), Path(scene_dir) / PARTITION
    if current.exists():
        try:
            # One that was edited by hand may have no copy yet.
            earlier = Partition.load(current)
            earlier.save(_published_path(earlier, scene_dir))
        except UnreadablePartition as error:
            aside = current.with_name(f"partition-before-{time.strftime('%Y-%m-%d_%H%M%S')}.json")
            current.rename(aside)
            warnings.warn(f"An earlier division cannot be read and is now {aside.name}: {error}", stacklevel=2)
    partition.save(path)
    partition.save(current)
    return path


def publish_first(partition: Partition, scene_dir: Path) -> tuple[Partition, Path]:
    """Makes a partition the current one of a scene that has none. Of several processes that do so at the same moment
    one makes it.

    Returns:
        The current partition and its path `partitions/<fingerprint>.json`.
    """
    current = Path(scene_dir) / PARTITION
    if not current.exists():
        _create(partition, current)
    partition = Partition.load(current)
    path = _published_path(partition, scene_dir)
    if not path.exists():
        partition.save(path)
    return partition, path


def check_views(partition: Partition, views: Views, source: Path) -> None:
    """Make sure that a partition is one of the given views, in whatever frame a data parser has put them.

    Raises:
        PartitionError: it is not; the message names `source`.
    """
    found = difference(partition.views, views)
    if found:
        raise PartitionError(
            f"{source} was made from other views than those of the data: {found}. Divide again (dac split), or "
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
    return Path(scene_dir) / PARTITIONS / f"{partition.fingerprint}.json"
