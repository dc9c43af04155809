"""Names of the registered methods: ``dac-<stage>`` for bounded synthetic scenes, ``dac-<stage>-360`` for real ones, and
``dac-<stage>-nerfacto`` or ``dac-<stage>-nerfacto-360`` where the model is nerfacto instead of K-Planes."""

from __future__ import annotations

import re
from typing import NamedTuple

from dac_nerfstudio.errors import StageError

UNBOUNDED = "-360"
"""Suffix of the methods for real, unbounded scenes."""
NERFACTO = "-nerfacto"
"""What names the model, where it is nerfacto."""


class MethodName(NamedTuple):
    """A method's name in its parts; as text, the name."""

    stage: str
    """What is trained: baseline, expert, distill, finetune or ensemble."""
    suffix: str = ""
    """The kind of scene: empty for bounded ones, or ``UNBOUNDED``."""
    model: str = ""
    """The kind of model: empty for K-Planes, or ``NERFACTO``."""

    def __str__(self) -> str:
        return f"dac-{self.stage}{self.model}{self.suffix}"

    @classmethod
    def parse(cls, name: str) -> MethodName:
        """Take a name apart.

        Raises:
            StageError: it is the name of somebody else's method.
        """
        found = re.fullmatch(rf"dac-([a-z]+)({NERFACTO})?({UNBOUNDED})?", name)
        if found is None:
            raise StageError(
                f"{name} is not a method of this project: those are called dac-<stage> or dac-<stage>-360."
            )
        return cls(found[1], found[3] or "", found[2] or "")

    def beside(self, stage: str) -> MethodName:
        """The method that trains another stage of the same kind of model for the same kind of scene."""
        return self._replace(stage=stage)
