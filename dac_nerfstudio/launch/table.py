"""How a run is shown while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Sequence, Tuple

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dac_nerfstudio.launch.plan import Report
from dac_nerfstudio.messages import literally, say
from dac_nerfstudio.units import clock

STYLES = {
    **dict.fromkeys(("waiting", "left out"), "dim"),
    **dict.fromkeys(("done", "kept"), "green"),
    **dict.fromkeys(("stopping", "stopped"), "yellow"),
    "failed": "bold red",
}
OFTEN = 60.0
"""Seconds between two lines on how far stages are, where there is no terminal."""


@dataclass(eq=False)
class Row:
    """A stage as it is shown."""

    name: str
    state: str = "waiting"
    device: str = ""
    done: int = 0
    total: int = 0
    psnr: Optional[float] = None
    text: str = ""
    """What it said last, or why it was left out."""
    started: Optional[float] = None
    """Start on the clock of `time.monotonic`, as all times here."""
    ended: Optional[float] = None
    _since: float = 0.0
    _from: int = 0

    def update(self, report: Report) -> None:
        """Take over what a worker says."""
        if report.state != self.state:
            self._since, self._from = time.monotonic(), report.done
        self.state, self.text = report.state, report.text
        self.done, self.total = report.done, report.total
        self.psnr = self.psnr if report.psnr is None else report.psnr

    def cells(self) -> Tuple[str, str, str, str]:
        """Step, PSNR, time and time left, as they are shown; empty where there is nothing to show."""
        ended, left = time.monotonic() if self.ended is None else self.ended, self.seconds_left()
        return (
            f"{self.done}/{self.total}" if self.total else "",
            "" if self.psnr is None else f"{self.psnr:.2f}",
            "" if self.started is None else clock(ended - self.started),
            "" if left is None else clock(left),
        )

    def seconds_left(self) -> Optional[float]:
        """Time left at the pace of this phase so far; None where there is no pace yet."""
        done = self.done - self._from
        if self.ended is not None or done <= 0 or self.total <= self.done:
            return None
        return (time.monotonic() - self._since) / done * (self.total - self.done)


def draw(rows: Sequence[Row]) -> Table:
    """The table of all stages, which fits 80 columns: long names are folded, and nothing is cut."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    elsewhere = {row.device for row in rows} - {"", "cpu"}
    table.add_column("stage", overflow="fold")
    if elsewhere:
        table.add_column("device", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("step", "training\nPSNR", "time", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        state = f"[{STYLES.get(row.state, 'default')}]{row.state}"
        table.add_row(literally(row.name), *((row.device,) if elsewhere else ()), state, *row.cells())
    return table


@contextmanager
def showing(rows: Sequence[Row], console: Console) -> Iterator[Callable[[], None]]:
    """Show the stages while in here. Yields what has to be called now and then."""
    if console.is_terminal:
        with Live(get_renderable=lambda: draw(rows), console=console, refresh_per_second=4):
            yield lambda: None
        return
    told: Dict[Tuple[int, str], Optional[float]] = {}
    last = time.monotonic()

    def is_news(number: int, what: str, when: Optional[float]) -> bool:
        before, told[number, what] = told.get((number, what)), when
        return when is not None and when != before

    def tell() -> None:
        nonlocal last
        due = time.monotonic() - last >= OFTEN
        last = time.monotonic() if due else last
        for number, row in enumerate(rows):
            step, psnr, took, left = row.cells()
            if is_news(number, "begun", row.started):
                say(console, f"{row.name}: begun" + (f" on {row.device}" if row.device else ""))
            if is_news(number, "ended", row.ended):
                say(console, f"{row.name}: {row.state}" + (f" after {took}" if took else ""))
            if due and row.started is not None and row.ended is None:
                parts = {
                    "step" if row.state == "training" else "picture": step,
                    "training PSNR": psnr,
                    "time left": left,
                }
                figures = [f"{name} {value}" for name, value in parts.items() if value]
                say(console, f"{row.name}: {', '.join([row.state, *figures])}")

    try:
        yield tell
    finally:
        tell()
