"""The methods that a report compares."""

from __future__ import annotations

TITLES = {
    "dac-baseline": "baseline",
    "dac-expert": "experts, own views",
    "dac-ensemble": "ensemble of experts",
    "dac-distill": "student, distilled",
    "dac-finetune": "student, fine-tuned",
}
"""What methods are called in tables, in the order in which they are shown."""
METHODS = tuple(TITLES)
