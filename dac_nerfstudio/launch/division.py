"""How a scene will be divided: by what is asked for now, what was asked for before, and what experts bring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.runs.layout import PARTITION, run_folder
from dac_nerfstudio.scene.layout import Layout

if TYPE_CHECKING:
    from dac_nerfstudio.partition import Partition


def divide_settings(before: Optional[Partition], asked: Dict[str, Any], softness: float) -> Dict[str, Any]:
    """The settings to divide by: what is asked for now, else what was asked for before, else the preset's."""
    settings: Dict[str, Any] = {"softness": softness}
    if before is not None:
        made = {name: before.settings[name] for name in ("groups", "overlap", "softness")}
        settings = {**made, **before.asked}
    # The two exclude each other: the one asked for now wins.
    if asked.get("overlap"):
        settings.pop("softness", None)
    if asked.get("softness"):
        settings.pop("overlap", None)
    return {**settings, **asked}


def count_groups(layout: Layout, scene_dir: Path, asked: Dict[str, Any], skip_missing: bool = False) -> int:
    """How many experts there will be: a question of the views where the number is to be found out or cannot be met."""
    from dac_nerfstudio.partition import current_partition, divide

    before = current_partition(scene_dir)
    if before is not None and before.satisfies(asked):
        return before.num_groups
    from dac_nerfstudio.scene.data import open_scene

    views = open_scene(layout.config(), skip_missing).views()
    return divide(views, **divide_settings(before, asked, 0.0)).num_groups


def partition_of(experts: Sequence[Path], asked: Dict[str, Any]) -> Path:
    """The file of the partition that ready experts were trained for, each of which keeps a copy.

    Raises:
        StageError: they were trained for several, or for one with other settings.
        PartitionError: a copy is gone or damaged.
    """
    from dac_nerfstudio.partition import Partition

    paths = [run_folder(path) / PARTITION for path in experts]
    partitions = [Partition.load(path) for path in paths]
    for path, partition in zip(paths, partitions):
        if partition.fingerprint != partitions[0].fingerprint:
            raise StageError(f"The experts were trained for different partitions: {paths[0]} and {path}.")
    if not partitions[0].satisfies(asked):
        raise StageError(
            f"The experts' partition, {paths[0]}, was not made with what was asked for: "
            f"{', '.join(f'{name} {value}' for name, value in asked.items())}. Leave it out, or train other experts."
        )
    return paths[0]
