"""What becomes of an earlier run: its result is kept, it is gone on with, or it is put aside."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import List, Literal, Tuple

from dac_nerfstudio.conquer.trainer import DaCTrainerConfig
from dac_nerfstudio.files import atomic_write
from dac_nerfstudio.layout import CHECKPOINTS, CONFIG, PARTITION, RECORD, checkpoints
from dac_nerfstudio.stage import Stage, differences

State = Literal["kept", "resumed", "changed", "new"]


def decide(run_dir: Path, stage: Stage) -> Tuple[State, str]:
    """What to do about an earlier run in a folder: keep its result, go on with it, put it aside, or start; and why."""
    if not (run_dir / RECORD).exists():
        return "new", "not made yet"
    earlier = Stage.load(run_dir)
    if earlier.fingerprint != stage.fingerprint or not stage.has_photos_of(earlier):
        return "changed", "; ".join(changes(earlier, stage))
    if earlier.complete:
        return "kept", "finished, with the same settings and inputs"
    if checkpoints(run_dir):
        return "resumed", f"interrupted at step {earlier.steps} of {earlier.total_steps}"
    return "new", "interrupted before anything was saved"


def changes(earlier: Stage, stage: Stage, most: int = 3) -> List[str]:
    """How a run differs from an earlier one, in words; no more than ``most`` of it."""
    found = [f"{name} was {before}, is {now}" for name, before, now in differences(earlier, stage)]
    if len(found) > most:
        found[most:] = [f"and {len(found) - most} more"]
    return found


def take_up(run_dir: Path, config: DaCTrainerConfig) -> Tuple[State, str]:
    """Prepare the folder and the configuration for what `decide` says; an earlier run is moved aside, not deleted."""
    assert config.stage is not None
    state, why = decide(run_dir, config.stage)
    if state == "changed":
        aside = move_aside(run_dir)
        return state, f"made anew ({why}); the earlier run is now {aside.name}"
    if state == "resumed":
        config.load_dir = run_dir / CHECKPOINTS
        return state, f"resumed at step {Stage.load(run_dir).steps}"
    return state, ""


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
        with atomic_write(path) as temporary:
            temporary.write_text(text, "utf8")
    return aside
