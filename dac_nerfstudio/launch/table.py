"""The live table of a run: what each stage does, where, and for how long still."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Optional, Sequence

from rich import box
from rich.progress_bar import ProgressBar
from rich.table import Table

from dac_nerfstudio.launch.messages import Report
from dac_nerfstudio.units import clock, short

STYLES = {
    "waiting": "dim",
    "left out": "dim",
    "done": "green",
    "kept": "green",
    "failed": "bold red",
    "silent": "yellow",
    "stopping": "yellow",
    "stopped": "yellow",
}


@dataclass
class Row:
    """A stage as the table shows it."""

    name: str
    state: str = "waiting"
    device: str = ""
    done: int = 0
    total: int = 0
    loss: Optional[float] = None
    psnr: Optional[float] = None
    rays_per_second: Optional[float] = None
    started: Optional[float] = None
    """Start on the clock of `time.monotonic`, as all times here."""
    ended: Optional[float] = None
    _since: float = 0.0
    _from: int = 0

    def update(self, report: Report) -> None:
        """Take over what a worker says."""
        if report.state != self.state:
            self._since, self._from = time.monotonic(), report.done
        self.state = report.state
        self.done, self.total = report.done, report.total
        self.rays_per_second = report.rays_per_second
        if report.loss is not None:
            self.loss, self.psnr = report.loss, report.psnr

    def seconds_left(self) -> Optional[float]:
        """Time left at the pace of this phase so far; None where there is no pace yet."""
        done = self.done - self._from
        if self.ended is not None or done <= 0 or self.total <= self.done:
            return None
        return (time.monotonic() - self._since) / done * (self.total - self.done)


def draw(rows: Sequence[Row]) -> Table:
    """The table of all stages."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("stage", "device", "state", ""):
        table.add_column(heading, no_wrap=True)
    for heading in ("step", "loss", "PSNR", "rays/s", "time", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        ended = row.ended if row.ended is not None else time.monotonic()
        left = row.seconds_left()
        table.add_row(
            row.name,
            row.device,
            f"[{STYLES.get(row.state, 'default')}]{row.state}",
            ProgressBar(total=row.total, completed=row.done, width=20) if row.total else "",
            f"{row.done}/{row.total}" if row.total else "",
            "" if row.loss is None else f"{row.loss:.4f}",
            "" if row.psnr is None else f"{row.psnr:.2f}",
            "" if row.rays_per_second is None else short(row.rays_per_second),
            "" if row.started is None else clock(ended - row.started),
            "" if left is None else clock(left),
        )
    return table
