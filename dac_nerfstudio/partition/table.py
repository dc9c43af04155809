"""A division of the views, as tables to print."""

from __future__ import annotations

from typing import List

from rich.table import Table
from rich.text import Text

from dac_nerfstudio.partition import Partition, verdict
from dac_nerfstudio.partition.quality import figures_of
from dac_nerfstudio.style import counted


def division_table(partition: Partition) -> List[Table | Text]:
    """Sizes and quality per group, then what they are worth; from the partition's own record."""
    quality, strategy = partition.about["quality"], partition.settings["strategy"]
    title = f"{counted(len(partition.views), 'view')} in {counted(partition.num_groups, 'group')} by {strategy}"
    (first, *headings), *rows = figures_of(partition)
    table = Table(first, title=title, box=None)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    lines: List[Table | Text] = [table]
    if partition.num_groups > 1:
        made, null = quality["modularity"], quality["featureless_modularity"]
        figures = (
            f"Modularity by {quality['similarity']}: {made:.3f}; the same cameras in a scene without features: "
            f"{null:.3f}."
        )
        lines.append(Text(f"{figures} {verdict(quality)}"))
    if quality["test"] is not None:
        lines.append(
            Text("Distances of test views to the nearest view of their group: 1 is the cameras' spread.", "dim")
        )
    return lines + [Text(note, "yellow") for note in partition.notes]
