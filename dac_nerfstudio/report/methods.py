"""The methods that a report compares."""

from __future__ import annotations

TITLES = {
    "dac-baseline": "baseline",
    "dac-baseline-total": "baseline, all steps",
    "dac-expert": "experts, own views",
    "dac-ensemble": "ensemble of experts",
    "dac-distill": "student, distilled",
    "dac-finetune": "student, fine-tuned",
}
"""What methods are called in tables, in the order in which they are shown."""
METHODS = tuple(TITLES)
LONG = "dac-baseline-total"
"""The baseline of as many steps as all stages together: a dac-baseline whose run has a name of its own."""
