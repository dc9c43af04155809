"""Settings that make a stage a matter of seconds, and how far a stage has got by its log."""

from pathlib import Path

TINY_MODEL = {
    "pipeline.model.grid-base-resolution": 16,
    "pipeline.model.grid-feature-dim": 8,
    "pipeline.model.linear-decoder-layers": 1,
    "pipeline.model.proposal-resolutions": 32,
    "pipeline.model.num-proposal-samples": 24,
    "pipeline.model.num-samples": 12,
}
TINY_FLAGS = "".join(
    f"{name} = {value}\n" for name, value in {"pipeline.datamanager.train-num-rays-per-batch": 64, **TINY_MODEL}.items()
)
"""Rows of a file for `dac run --config`."""


def steps_in(log: Path) -> int:
    """Steps of training that a stage's log tells of; 0 where there are none yet, or is no log."""
    lines = log.read_text().splitlines() if log.exists() else []
    words = [line.split()[0] for line in lines if "%)" in line]
    return max((int(word) for word in words if word.isdecimal()), default=0)
