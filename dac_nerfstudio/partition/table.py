"""A division of the views, as tables to print."""

from __future__ import annotations

from typing import List, Optional

from rich.table import Table
from rich.text import Text

from dac_nerfstudio.partition import Partition, verdict
from dac_nerfstudio.style import counted


def division_table(partition: Partition) -> List[Table | Text]:
    """Sizes and quality per group, then what they are worth; from the partition's own record."""
    quality = partition.about["quality"]
    test, borders = quality["test"], set(quality["border"])
    strategy, similarity = partition.settings["strategy"], quality["similarity"]
    title = f"{counted(len(partition.views), 'view')} in {counted(partition.num_groups, 'group')} by {strategy}"
    table = Table(title=title, box=None)
    table.add_column("group")
    for heading in ("views", "on the border", "alike within", "to the others"):
        table.add_column(heading, justify="right")
    if test is not None:
        for heading in ("test views", "their distance", "at most"):
            table.add_column(heading, justify="right")
    for index in range(partition.num_groups):
        members = partition.members(index + 1)
        row = [str(index + 1), str(len(members)), str(len(borders.intersection(members)))]
        row += [_figure(quality["within"][index]), _figure(quality["between"][index])]
        if test is not None:
            row += [str(test["views"][index])]
            row += [_figure(test[name][index]) for name in ("mean_distance", "largest_distance")]
        table.add_row(*row)
    made, null = quality["modularity"], quality["featureless_modularity"]
    lines: List[Table | Text] = [table]
    if partition.num_groups > 1:
        figures = f"Modularity by {similarity}: {made:.3f}; the same cameras in a scene without features: {null:.3f}."
        lines.append(Text(f"{figures} {verdict(quality)}"))
    if test is not None:
        lines.append(
            Text("Distances of test views to the nearest view of their group: 1 is the cameras' spread.", "dim")
        )
    return lines + [Text(note, "yellow") for note in partition.notes]


def _figure(value: Optional[float]) -> str:
    return "–" if value is None else f"{value:.2f}"
