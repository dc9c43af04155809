"""The scores that there are: how they are called, written and compared. No torch: reports need none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Score:
    """One measure of how near a rendered view comes to its photo."""

    label: str
    digits: int
    """Digits after the point."""
    higher: bool
    """Whether higher is better."""

    def text(self, value: Optional[float]) -> str:
        return "–" if value is None else f"{value:.{self.digits}f}"

    @property
    def heading(self) -> str:
        """Its name, with an arrow towards the better side."""
        return f"{self.label} {'↑' if self.higher else '↓'}"


SCORES = {
    "psnr": Score("PSNR", 2, True),
    "ssim": Score("SSIM", 3, True),
    "ms_ssim": Score("MS-SSIM", 3, True),
    "lpips": Score("LPIPS", 3, False),
    "flip": Score("FLIP", 3, False),
}
"""The scores by their names in ``evaluation.json``, in the order in which they are shown."""
