"""What the study at convergence says: the page of its figures, and the plot on it. See converged.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from studies import over_seeds

from dac_nerfstudio.report.markdown import table
from dac_nerfstudio.report.tables import Grid
from dac_nerfstudio.style import COLOURS, counted
from dac_nerfstudio.units import clock, signed

BASELINE = "baseline"
"""The arm whose best the others have to beat."""
DEVICES = (1, 2, 4)
PANELS = 4
"""Of the plot, side by side."""
WORST = 0.05
"""Share of pixels, of those where members disagree most, whose part in the squared error is reported."""

INTRODUCTION = """Made by `python benchmarks/converged.py page` from convergence.json and benchmarks/converged.toml: do
not edit.

Pictures are small, so that one model comes to its best, or near it, within minutes of one core: what is gained beyond
it, longer training does not give. The baseline is chosen first: its total variation, then its number of steps. Choices
are made on validation views, with one exception: where bonsai's new cameras stand, as is told below. In this table are
test views, means over seeds; a gain is the student's over the baseline's, paired by seed, with its standard deviation
after ±. *Best of the experts*: the one that validation views prefer, which is what as many trainings give without
blending. *Time*: of one core for student, teachers and their pictures together, as a multiple of the baseline's.

*TV* is the weight of the total variation. Experts' pictures are *averaged*, *routed* (each view by its own group's
expert) or *blended*: weighted by nearness to the groups, as sharply as validation views prefer; *sharpness* 0 is the
average, infinity is routing. *Soft* experts draw 30 % of their rays from other groups' photos. *novel [a, b]* is the
share of a student's rays at novel poses, in the beginning and at the end."""
PLOT = """![The baseline's PSNR by its steps, the experts blended, the student](convergence.png)

Validation views, means over seeds; the baseline's other numbers of steps stand by what those seeds gain or lose that
have tried them."""


def page(results: dict[str, Any], notes: Sequence[dict[str, str]]) -> str:
    """All figures, and what converged.toml has to say of them, as Markdown.

    Args:
        results: what `converged.py run` writes.
        notes: sections of free text, each with `title` and `text`.
    """
    parts = ["# What experts know that longer training does not", INTRODUCTION]
    if results["headline"]:
        parts += [headline_table(results["headline"]), PLOT]
    for section in notes:
        parts += [f"## {section['title']}", section["text"].strip()]
    for case in results["cases"].values():
        parts += case_sections(case)
    return "\n\n".join(parts) + "\n"


def headline_table(lines: Sequence[dict[str, Any]]) -> str:
    """What is claimed, as Markdown."""
    columns = ["", "photos", "seeds", "baseline", "steps", "best of the experts", "blended", "student", "gain", "time"]
    rows = [
        [
            line["scene"], str(line["photos"]), str(line["seeds"]), decibels(line["baseline_best"]),
            str(line["baseline_best_steps"]), decibels(line["best_member"]), decibels(line["ensemble"]),
            decibels(line["student"]),
            signed(line["gain"]) + (f" ± {line['gain_sd']:.2f}" if line["gain_sd"] is not None else ""),
            f"{line['cost']:g} times",
        ]
        for line in lines
    ]  # fmt: skip
    return table(Grid(columns, rows))


def case_sections(case: dict[str, Any]) -> Iterator[str]:
    """The sections of one case."""
    arms = case["arms"]
    baseline = arms[BASELINE]
    yield f"## {case['about'].rstrip('.')}"
    if baseline["tried"]:
        seeds = baseline["tried_by"]
        by = f"mean over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
        yield f"The baseline's settings, one after another, PSNR on validation views, {by}:"
        yield "\n".join(f"- {line}" for line in attempts(baseline))
    best = {seed: figures["val"] for seed, figures in baseline["seeds"].items()}
    rows = []
    for name, arm in arms.items():
        gains = [figures["val"] - best[seed] for seed, figures in arm["seeds"].items() if seed in best]
        recipe = arm["recipe"]
        rows.append(
            [
                name,
                f"{recipe['members']} x {recipe['steps']}" if recipe["members"] > 1 else str(recipe["steps"]),
                f"{recipe['tv']:g}",
                str(len(arm["seeds"])),
                over_seeds([figures["val"] for figures in arm["seeds"].values()], decibels),
                over_seeds(gains, signed) if name != BASELINE else "–",
                clock(fmean(sum(figures["seconds"]) for figures in arm["seeds"].values())),
            ]
        )
    yield "All arms on validation views; the gain is paired by seed. Time is the processor's, without the teachers'."
    yield table(Grid(["", "steps", "TV", "seeds", "PSNR", "gain", "time"], rows))
    yield "\n".join(
        f"- **{name}**: {arm['about']}" + "".join(f" Tried: {line}" for line in attempts(arm) if name != BASELINE)
        for name, arm in arms.items()
    )
    several = {name: arm for name, arm in arms.items() if arm["recipe"]["members"] > 1}
    if several:
        yield (
            "Members together, first seed: each alone (test views); the best one, all averaged, routed, blended "
            "(validation views); Pearson's correlation of their disagreement with the absolute error, and the share of "
            f"the squared error in the {WORST:.0%} of the pixels where they disagree most (test views); on a path "
            "around the scene, the largest step from one frame to the next over the median one, routed and blended:"
        )
        yield table(Grid(
            ["", "each", "best", "averaged", "routed", "blended", "sharpness", "Pearson", "error", "largest step"],
            [blend_row(name, next(iter(arm["seeds"].values()))) for name, arm in several.items()]))  # fmt: skip
    yield from device_section(arms)


def attempts(arm: dict[str, Any]) -> list[str]:
    """What was tried, a line for each setting."""
    lines: dict[str, list[str]] = {}
    for attempt in arm["tried"]:
        for name, value in attempt.items():
            if name != "val":
                lines.setdefault(name, []).append(f"{shown(value)}: {decibels(attempt['val'])}")
    return [f"{name} {', '.join(found)}." for name, found in lines.items()]


def shown(value: Any) -> str:
    """A setting that was tried: a number, several, or fields of the model's config."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {shown(entry)}" for name, entry in value.items()) or "as it is"
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def blend_row(name: str, figures: dict[str, Any]) -> list[str]:
    by = figures["by_sharpness"]["val"]
    steps = figures.get("largest_step")
    each = figures["each"]
    return [
        name,
        f"{min(each):.2f} to {max(each):.2f}",
        decibels(figures["best_val"]),
        decibels(by["0.0"]),
        decibels(by["inf"]) if "inf" in by else "–",
        decibels(figures["val"]),
        figures["sharpness"],
        f"{figures['pearson']:.2f}",
        f"{figures['error_share']:.0%}",
        f"{steps['inf']:.1f}, {steps[figures['sharpness']]:.1f}" if steps else "–",
    ]


def device_section(arms: dict[str, Any]) -> Iterator[str]:
    """Who reaches the baseline's best first, on so many devices."""
    baseline = next(iter(arms[BASELINE]["seeds"].values()))
    reached = {
        name: {devices: wall_time(arms, name, devices) for devices in DEVICES}
        for name, arm in arms.items()
        if next(iter(arm["seeds"].values()))["val"] >= baseline["val"]
    }
    yield (
        "Seconds until validation PSNR is the baseline's best or more, first seed, on so many devices like this core. "
        "Simulated: the measured times of members, handed out longest first, of rendering at novel poses and of "
        "students; what is done by one model cannot be shared."
    )
    rows = [
        [name, *(f"{times[devices]:.0f}" for devices in DEVICES)]
        for name, times in sorted(reached.items(), key=lambda item: item[1][DEVICES[-1]])
    ]
    yield table(Grid(["", *(counted(devices, "device") for devices in DEVICES)], rows))


def wall_time(arms: dict[str, Any], name: str, devices: int) -> float:
    """Seconds of an arm's first seed on so many devices, its teachers included."""
    arm = arms[name]
    figures = next(iter(arm["seeds"].values()))
    busy = [0.0] * devices
    for seconds in sorted(figures["seconds"], reverse=True):
        busy[busy.index(min(busy))] += seconds
    before = 0.0
    if arm["recipe"]["teacher"] in arms:
        before = wall_time(arms, arm["recipe"]["teacher"], devices) + figures.get("lesson_seconds", 0.0) / devices
    return before + max(busy)


def decibels(value: float) -> str:
    return f"{value:.2f}"


def plot(results: dict[str, Any], path: Path) -> None:
    """For every claim a panel: the baseline's course as far as it was followed, the experts blended, the student."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    claims = [(line, results["cases"][f"{line['scene']}-{line['photos']}"]["arms"]) for line in results["headline"]]
    rows = math.ceil(len(claims) / PANELS)
    size = (2.8 * PANELS, 2.5 * rows)
    figure, axes = pyplot.subplots(rows, PANELS, figsize=size, squeeze=False, layout="constrained")
    for panel in axes.flat[len(claims) :]:
        panel.axis("off")
    for panel, (line, arms) in zip(axes.flat, claims):
        steps, psnr = zip(*course(arms))
        student = arms[line["student_arm"]]
        panel.plot(steps, psnr, color=COLOURS[0], marker="o", markersize=4, label="baseline, by its steps")
        blended = mean(arms[line["ensemble_arm"]], "val")
        panel.axhline(blended, color=COLOURS[1], linestyle="--", label="experts, blended")
        panel.plot(
            student["recipe"]["steps"], mean(student, "val"), color=COLOURS[2], marker="*", markersize=12,
            linestyle="none", label="student",
        )  # fmt: skip
        panel.set_xscale("log", base=2)
        ticks = sorted({*steps, student["recipe"]["steps"]})
        panel.set_xticks(ticks, [f"{count // 1000}k" for count in ticks])
        panel.minorticks_off()
        panel.set_title(f"{line['scene']}, {line['photos']} photos", fontsize="medium")
        panel.margins(y=0.15)
        panel.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize="small", ncols=3, loc="outside upper center")
    figure.supxlabel("training steps of one model", fontsize="medium")
    figure.supylabel("PSNR on validation views, dB", fontsize="medium")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def course(arms: dict[str, Any]) -> list[tuple[int, float]]:
    """Steps and PSNR on validation views of the baseline, as far as it was followed. Other numbers of steps than the
    best, which fewer seeds have tried, are placed by what these seeds gain or lose by them."""
    baseline = arms[BASELINE]
    best, level = baseline["recipe"]["steps"], mean(baseline, "val")
    tried = {attempt["steps"]: attempt["val"] for attempt in baseline["tried"] if "steps" in attempt}
    gains = {steps: psnr - tried[best] for steps, psnr in tried.items()} | {best: 0.0}
    if "longer" in arms:
        longer = arms["longer"]
        gain = fmean(entry["val"] - baseline["seeds"][seed]["val"] for seed, entry in longer["seeds"].items())
        gains.setdefault(longer["recipe"]["steps"], gain)
    return sorted((steps, level + gain) for steps, gain in gains.items())


def mean(arm: dict[str, Any], of: str) -> float:
    """The mean of a figure over seeds."""
    return fmean(figures[of] for figures in arm["seeds"].values())
