"""What becomes of an earlier run: its result is kept, it is gone on with, or it is put aside."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Literal, NamedTuple, Optional, Tuple

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import write_text
from dac_nerfstudio.runs.layout import CHECKPOINTS, CONFIG, PARTITION, RECORD, checkpoints, step_of
from dac_nerfstudio.runs.record import Stage, differences
from dac_nerfstudio.training.trainer import DaCTrainerConfig

State = Literal["kept", "resumed", "changed", "new"]
MOST = 3
"""Differences from an earlier run that are told of."""


class Outcome(NamedTuple):
    """What to do about an earlier run in a folder: keep its result, go on with it, put it aside, or start; and why."""

    state: State
    why: str
    whole: Optional[Path] = None
    """The checkpoint that got furthest of those that are whole, from which a run is resumed."""
    damaged: str = ""
    """What is wrong with those that got further."""


def decide(run_dir: Path, stage: Stage) -> Outcome:
    """Look at an earlier run in a folder, and change nothing."""
    if not (run_dir / RECORD).exists():
        return Outcome("new", "not made yet")
    try:
        earlier = Stage.load(run_dir)
    except StageError as error:
        return Outcome("changed", f"its record is broken: {error}")
    if earlier.fingerprint != stage.fingerprint or not stage.has_photos_of(earlier):
        found = [f"{name} was {before}, is {now}" for name, before, now in differences(earlier, stage)]
        more = [f"and {len(found) - MOST} more"] if len(found) > MOST else []
        return Outcome("changed", "; ".join(found[:MOST] + more))
    whole, damaged = sound_checkpoint(run_dir, earlier)
    lost = f"; {damaged}" if damaged else ""
    if whole is None:
        if earlier.complete:
            return Outcome("changed", damaged or f"it was finished, and {CHECKPOINTS}/ holds no checkpoint")
        return Outcome("new", f"interrupted before anything was saved{lost}", None, damaged)
    if earlier.complete and step_of(whole) + 1 >= earlier.steps:
        return Outcome("kept", "finished, with the same settings and inputs")
    why = f"interrupted at step {step_of(whole) + 1} of {earlier.total_steps}{lost}"
    return Outcome("resumed", why, whole, damaged)


def sound_checkpoint(run_dir: Path, stage: Stage) -> Tuple[Optional[Path], str]:
    """The checkpoint that got furthest of those that are whole, and in words what is wrong with later ones."""
    found, damaged = checkpoints(run_dir), []
    marked = stage.checkpoint.get("name")
    if marked and marked not in [path.name for path in found]:
        damaged.append(f"its checkpoint {marked} is gone")
    for path in reversed(found):
        damage = stage.damage(path)
        if not damage:
            return path, ", ".join(damaged)
        damaged.append(f"its checkpoint {path.name} {damage}")
    return None, ", ".join(damaged)


def take_up(run_dir: Path, config: DaCTrainerConfig, stage: Stage) -> Tuple[State, str]:
    """Prepare folder and configuration for what `decide` says of a run; an earlier one is moved aside, not deleted."""
    state, why, whole, damaged = decide(run_dir, stage)
    if state == "changed":
        return state, f"made anew ({why}); the earlier run is now {move_aside(run_dir).name}"
    if state == "kept" or not (run_dir / RECORD).exists():
        return state, ""
    for path in checkpoints(run_dir):
        if whole is None or step_of(path) > step_of(whole):
            # Out of the way: nerfstudio takes the one that got furthest.
            path.rename(run_dir / f"damaged-{path.name}")
    lost = f" ({damaged})" if damaged else ""
    if whole is None:
        return state, f"made anew{lost}" if lost else ""
    config.load_dir = run_dir / CHECKPOINTS
    return state, f"resumed at step {step_of(whole) + 1}{lost}"


def move_aside(run_dir: Path) -> Path:
    """Keep a run under another name; its new folder.

    nerfstudio's tools find weights and partition by the names in config.yml, which would be those of the run that takes
    the place of this one.
    """
    aside = run_dir.with_name(f"{run_dir.name}-before-{time.strftime('%Y-%m-%d_%H%M%S')}")
    run_dir.rename(aside)
    path = aside / CONFIG
    if path.exists():
        # As text: to read it is to run what it names.
        text = re.sub(r"^timestamp: .*$", f"timestamp: {aside.name}", path.read_text("utf8"), flags=re.MULTILINE)
        named = rf"^( *- ){re.escape(run_dir.name)}(\n *- {re.escape(PARTITION)})$"
        text = re.sub(named, rf"\g<1>{aside.name}\g<2>", text, flags=re.MULTILINE)
        write_text(path, text)
    return aside
