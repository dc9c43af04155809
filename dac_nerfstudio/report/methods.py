"""The methods that a report compares."""

from __future__ import annotations

BASELINE, EXPERT, STUDENT = "dac-baseline", "dac-expert", "dac-finetune"
LONG = "dac-baseline-total"
"""The baseline of as many steps as all stages together: a dac-baseline whose run has a name of its own."""
TITLES = {
    BASELINE: "baseline",
    LONG: "baseline, all steps",
    EXPERT: "experts, own views",
    "dac-ensemble": "ensemble of experts",
    "dac-distill": "student, distilled",
    STUDENT: "student, fine-tuned",
}
"""What methods are called in tables, in the order in which they are shown."""
METHODS = tuple(TITLES)
