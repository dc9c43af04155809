"""Split: divide a scene's views, measure the result, and write file and pictures to the scene's output folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dac_nerfstudio.partition.divide import divide
from dac_nerfstudio.partition.page import write_page
from dac_nerfstudio.partition.partition import Partition
from dac_nerfstudio.partition.picture import plot_partition
from dac_nerfstudio.partition.publishing import publish
from dac_nerfstudio.partition.quality import assess
from dac_nerfstudio.partition.similarity import measure
from dac_nerfstudio.runs.layout import PARTITION_PAGE, PARTITION_PICTURE
from dac_nerfstudio.scene.views import Views


def split(
    views: Views,
    scene_dir: Path,
    test: Views | None = None,
    similarity: str = "auto",
    remarks: Sequence[str] = (),
    **settings: Any,
) -> tuple[Partition, Path]:
    """Divides views, makes the partition the scene's current one, and draws it.

    Args:
        scene_dir: where `partition.json`, `partition.png` and `partition.html` go.
        test: views whose distance from their groups is measured, and which play no other part.
        similarity: a name that `measure` understands: what is divided by, and what the result is judged by.
        remarks: what the partition's notes are to say first.

    Returns:
        The partition and its path.

    Raises:
        PartitionError: the views cannot be divided.
    """
    measured = measure(views, similarity)
    partition = divide(views, similarity=measured, **settings)
    about = {**partition.about, "quality": assess(partition, measured, test)}
    about["asked"] = {**about["asked"], "similarity": similarity}
    about["notes"] = [*remarks, *about["notes"]]
    if measured.sample is not None:
        sizes = f"{len(measured.sample)} of {len(views)} views"
        about["notes"] = [*about["notes"], f"Judged by a sample of {sizes}, which alone are pictured one by one."]
    partition = replace(partition, about=about)
    path = publish(partition, scene_dir)
    plot_partition(partition, scene_dir / PARTITION_PICTURE, measured, test)
    write_page(partition, scene_dir / PARTITION_PAGE, measured, test)
    return partition, path
