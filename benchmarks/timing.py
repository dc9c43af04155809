"""Timing that stands a busy machine: contestants take turns, and ratios are formed within a turn."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

Stage = Callable[[str], AbstractContextManager[None]]
"""``with stage("forward"): ...`` adds what it encloses to the stage's time."""


class Times(list[float]):
    """Milliseconds, one number per turn."""

    @property
    def median(self) -> float:
        return statistics.median(self)

    def over(self, other: Times) -> Times:
        """Ratios of the two, turn by turn."""
        return Times(one / two for one, two in zip(self, other, strict=True))

    def plus(self, other: Times) -> Times:
        return Times(one + two for one, two in zip(self, other, strict=True))

    def summary(self) -> dict[str, float]:
        return {"median": self.median, "min": min(self), "max": max(self)}

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self):.3g}-{max(self):.3g})"


def alternate(
    contestants: Mapping[str, Callable[[Stage], Any]], turns: int, device: torch.device
) -> dict[str, dict[str, Times]]:
    """Times of each contestant's stages, after a warm-up of one turn.

    Args:
        contestants: by name; each is called with what it marks its stages by.
        device: on CUDA, times are the GPU's own, between events; on the CPU with one thread, the process's own.
    """
    times: dict[str, dict[str, Times]] = {name: {} for name in contestants}
    for turn in range(turns + 1):
        for name, contestant in contestants.items():
            spent = once(contestant, device)
            if turn > 0:
                for label, milliseconds in spent.items():
                    times[name].setdefault(label, Times()).append(milliseconds)
    return times


def once(contestant: Callable[[Stage], Any], device: torch.device) -> dict[str, float]:
    """Milliseconds of a contestant's stages; one who took them elsewhere returns them."""
    spent: dict[str, float] = {}

    @contextmanager
    def stage(label: str) -> Iterator[None]:
        clock = _cuda_clock() if device.type == "cuda" else _cpu_clock()
        next(clock)
        yield
        spent[label] = spent.get(label, 0.0) + next(clock)

    told = contestant(stage)
    return told if isinstance(told, dict) else spent


def total(parts: Iterable[Times]) -> Times:
    """Times of parts of the same turns, added up."""
    return Times(map(sum, zip(*parts, strict=True)))


def profiled(contestant: Callable[[Stage], Any], device: torch.device) -> torch.profiler.profile:
    """What torch's profiler has seen of a contestant, after a warm-up."""
    contestant(lambda label: nullcontext())
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        contestant(lambda label: nullcontext())
    return profiler


def profile(title: str, contestant: Callable[[Stage], Any], device: torch.device, rows: int = 15) -> None:
    """Print the operations that a contestant spends most of its own time on, after a warm-up."""
    profiler = profiled(contestant, device)
    print(title)
    print(profiler.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=rows))


def table(contestant: Callable[[Stage], Any], device: torch.device) -> dict[str, tuple[int, float]]:
    """What a device does for a contestant, after a warm-up: calls and milliseconds of its kernels by name, by torch's
    profiler. On the CPU those of operations."""
    found: dict[str, tuple[int, float]] = {}
    for event in profiled(contestant, device).events():
        if event.device_type.name.lower() == device.type:
            microseconds = getattr(event, f"self_{'cpu' if device.type == 'cpu' else 'device'}_time_total")
            calls, milliseconds = found.get(event.name, (0, 0.0))
            found[event.name] = calls + 1, milliseconds + microseconds / 1e3
    return found


def _cpu_clock() -> Iterator[float]:
    # What one thread works for is not lengthened by who else is on the machine.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    yield 0.0
    yield (clock() - start) * 1e3


def _cuda_clock() -> Iterator[float]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    yield 0.0
    end.record()
    end.synchronize()
    yield start.elapsed_time(end)


def machine(device: torch.device, packages: Sequence[str] = ()) -> dict[str, Any]:
    """What the figures were measured on."""
    versions: dict[str, str | None] = {}
    for package in ("torch", "numpy", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": name,
        "system": f"{platform.system()}, {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    """Name of the CPU, as far as Linux knows it, and its number of cores."""
    about = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", about.read_text("utf8"), re.MULTILINE) if about.exists() else None
    return f"{found[1] if found else platform.machine()}, {os.cpu_count()} cores"


def summarised(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as JSON knows it: of times the summary."""
    return {name: value.summary() if isinstance(value, Times) else value for name, value in entry.items()}


def report(title: str, options: Any, entries: Sequence[Mapping[str, Any]]) -> None:
    """Print the figures as a table; write them as JSON, with what they were measured on, if a file is asked for.

    Args:
        title: of the table.
        options: the script's, a dataclass with ``device`` and ``json``.
        entries: a row each; the first one's keys are the columns. Of times the summary is written.
    """
    table = Table(title=title)
    for column in entries[0]:
        table.add_column(column, overflow="fold")
    for entry in entries:
        table.add_row(*map(str, entry.values()))
    Console(width=max(Console().width, 140)).print(table)
    if options.json is not None:
        about = machine(torch.device(options.device), ("nerfstudio", "numba", "triton"))
        content = {"machine": about, "options": asdict(options), "results": [summarised(entry) for entry in entries]}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2, default=str) + "\n", "utf8")
