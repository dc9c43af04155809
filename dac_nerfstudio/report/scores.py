"""How scores are called, written and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Score:
    """One measure of how near a rendered view comes to its photo."""

    label: str
    digits: int
    """After the point."""
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
"""By their names in ``evaluation.json``, in the order in which they are shown."""

TITLES = {
    "dac-baseline": "baseline",
    "dac-expert": "experts, own views",
    "dac-ensemble": "ensemble of experts",
    "dac-distill": "student, distilled",
    "dac-finetune": "student, fine-tuned",
}
"""Of methods, in the order in which they are shown."""
METHODS = tuple(TITLES)


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float) -> str:
    """Bytes for people."""
    return (
        f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"
    )


def signed(value: float) -> str:
    """A gain, to the second decimal, with its sign."""
    return f"{value:+.2f}".replace("-", "−")
