"""Stage: the one record of what a run folder holds, shared by training, teachers, pipeline and report.

It lies as ``stage.json`` beside ``nerfstudio_models/`` (nerfstudio parses every file name inside), is written with
every checkpoint, and says what the result was made from and how far it got.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union, get_args, get_origin, get_type_hints

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import checksum, write_json
from dac_nerfstudio.runs.layout import RECORD


@dataclass
class Stage:
    """What a training run was made from, and how far it got."""

    method: str
    """Registered method."""
    scene: str
    settings: Dict[str, Any]
    """All that decides the result: model, rays, optimisers, data, number of steps."""
    seed: int
    total_steps: int
    partition: Optional[str] = None
    """Fingerprint of the partition that was current; whether the result depends on it is in ``inputs``."""
    group: Optional[int] = None
    """Group of an expert, counted from 1."""
    photos: str = ""
    """Digest of what the training photos hold; those of the same names and sizes are in ``settings``. Empty if it is
    not known."""
    inputs: Dict[str, str] = field(default_factory=dict)
    """Name and fingerprint of what this stage was made from besides settings: partition, experts, student."""
    steps: int = 0
    """Training steps done."""
    first_step: int = 0
    """Training steps that the model had behind it when the run began, in those that it goes on from."""
    seconds: float = 0.0
    """Training time."""
    processor_seconds: float = 0.0
    """Training time of the processor, of all threads together, which other processes do not add to; 0 on a GPU and
    where it is not known."""
    checkpoint: Dict[str, Any] = field(default_factory=dict)
    """The checkpoint that holds these steps: its file's ``name``, ``size`` in bytes and ``crc32``."""
    parameters: int = 0
    """Numbers learned."""
    versions: Dict[str, str] = field(default_factory=dict)
    peak_memory: Dict[str, int] = field(default_factory=dict)
    """Bytes: ``process``, resident in main memory; ``gpu``, of tensors, where CUDA is used. Empty if not known."""

    @property
    def complete(self) -> bool:
        return self.steps >= self.total_steps

    @property
    def fingerprint(self) -> str:
        """A digest of what results depend on; equal for a repeated run with the same settings and inputs."""
        made_from = {
            name: getattr(self, name) for name in ("method", "settings", "seed", "total_steps", "group", "inputs")
        }
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def compared(self) -> Dict[str, Any]:
        """The settings that two runs are compared by, by dotted names: without schedules, as long as their run."""
        return {name: value for name, value in flattened(self.settings).items() if not name.endswith(".max_steps")}

    def has_photos_of(self, other: Stage) -> bool:
        """Whether two runs were trained on the same photos, as far as is known."""
        return not (self.photos and other.photos) or self.photos == other.photos

    def has_data_of(self, other: Stage) -> bool:
        """Whether two runs were trained on the same views and photos, read alike, wherever those lie."""
        return self.settings.get("data") == other.settings.get("data") and self.has_photos_of(other)

    def mark(self, checkpoint: Path, steps: int) -> None:
        """Note that a checkpoint holds the steps done."""
        self.steps = steps
        self.checkpoint = {
            "name": checkpoint.name, "size": checkpoint.stat().st_size, "crc32": checksum(checkpoint),
        }  # fmt: skip

    def damage(self, checkpoint: Path) -> str:
        """What has happened to a checkpoint since it was written, in words; empty if it is whole."""
        if not checkpoint.is_file():
            return "is gone"
        size = checkpoint.stat().st_size
        if checkpoint.name == self.checkpoint.get("name"):
            if size != self.checkpoint.get("size"):
                return f"has {size:,} bytes of {self.checkpoint.get('size'):,}"
            return "" if checksum(checkpoint) == self.checkpoint.get("crc32") else "holds other bytes than were written"
        # One that came after the record: torch's file format ends with a list of itself.
        return "" if zipfile.is_zipfile(checkpoint) else "is damaged"

    def save(self, run_dir: Path) -> None:
        """Write the record, as a whole or not at all; the peak memory is then that of this process, if it is higher."""
        for name, peak in peak_memory().items():
            self.peak_memory[name] = max(peak, self.peak_memory.get(name, 0))
        content = {**dataclasses.asdict(self), "complete": self.complete, "fingerprint": self.fingerprint}
        write_json(run_dir / RECORD, content)

    @classmethod
    def load(cls, run_dir: Path) -> Stage:
        """Read and check a record.

        Raises:
            StageError: there is none, or it is not one.
        """
        path = run_dir / RECORD
        try:
            content = json.loads(path.read_text("utf8"))
        except FileNotFoundError:
            raise StageError(f"{run_dir} has no {RECORD}: it is not a run folder of this project.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise StageError(f"{path} cannot be read ({error}). Delete the run folder and train again.") from None
        if not isinstance(content, dict):
            raise StageError(f"{path} is no record of a run. Delete the run folder and train again.")
        kinds = get_type_hints(cls)
        wrong = [name for name, kind in kinds.items() if name not in content or not _is_of(content[name], kind)]
        if wrong:
            raise StageError(f"{path} lacks or mistypes {', '.join(wrong)}. Delete the run folder and train again.")
        return cls(**{name: content[name] for name in kinds})


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a field's type."""
    if get_origin(hint) is Union:
        return any(_is_of(value, one) for one in get_args(hint))
    return isinstance(value, (int, float) if hint is float else get_origin(hint) or hint)


def differences(earlier: Stage, stage: Stage) -> List[Tuple[str, Any, Any]]:
    """What differs between two runs: name of a setting or an input, its value in the one and in the other.

    Settings come before inputs, each by name.
    """
    one, other = (
        {**s.compared, "seed": s.seed, "steps": s.total_steps, "group": s.group, **s.inputs} for s in (earlier, stage)
    )
    if not stage.has_photos_of(earlier):
        one["photos"], other["photos"] = earlier.photos, stage.photos
    inputs = {*earlier.inputs, *stage.inputs}
    return [
        (name, one.get(name), other.get(name))
        for name in sorted({*one, *other}, key=lambda name: (name in inputs, name))
        if one.get(name) != other.get(name)
    ]


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Dict[str, Any]:
    """Nested settings by dotted names."""
    found: Dict[str, Any] = {}
    for name, value in settings.items():
        found.update(flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return found


def peak_memory() -> Dict[str, int]:
    """Most bytes that this process has held so far: resident, and of tensors on the GPU where it uses one."""
    try:
        import resource
    except ImportError:  # Windows
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"process": peak if sys.platform == "darwin" else 1024 * peak}
    torch = sys.modules.get("torch")  # who has not imported it has nothing on a GPU
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        found["gpu"] = int(torch.cuda.max_memory_allocated())
    return found


def versions() -> Dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("dac-nerfstudio", "nerfstudio", "torch", "numpy")}
