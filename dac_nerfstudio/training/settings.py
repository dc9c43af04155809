"""What is asked of a run's configuration to find its inputs, and what is noted in it.

The configurations themselves stand above, in `dac_nerfstudio.training.trainer`, where every field has its sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Protocol, Tuple

from nerfstudio.configs.base_config import MachineConfig

from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.training.pipeline import DaCPipelineConfig, EnsemblePipelineConfig, FinetunePipelineConfig


class RunSettings(Protocol):
    """Any run's."""

    method_name: Optional[str]
    experiment_name: Optional[str]
    machine: MachineConfig
    optimizers: Dict[str, Any]
    max_num_iterations: int
    mixed_precision: bool
    data: Optional[Path]
    groups: Optional[int]
    partition: Optional[Path]
    stage: Optional[Stage]
    data_digest: str
    photos_digest: str

    @property
    def pipeline(self) -> DaCPipelineConfig: ...

    @property
    def scene_dir(self) -> Path: ...

    def set_timestamp(self) -> None: ...

    def carry_over(self) -> None: ...

    def get_base_dir(self) -> Path: ...


class ExpertSettings(RunSettings, Protocol):
    """An expert's."""

    group: Optional[int]
    trunk: Optional[Path]


class DistillSettings(RunSettings, Protocol):
    """A distilled student's."""

    experts: Tuple[Path, ...]


class FinetuneSettings(DistillSettings, Protocol):
    """A fine-tuned student's."""

    student: Optional[Path]

    @property
    def pipeline(self) -> FinetunePipelineConfig: ...


class EnsembleSettings(DistillSettings, Protocol):
    """An ensemble's."""

    @property
    def pipeline(self) -> EnsemblePipelineConfig: ...
