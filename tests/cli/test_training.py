"""Every registered method trains through ns-train, and a resumed training is the undisturbed one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import METHODS, SAVED, STEPS

from dac_nerfstudio.partition import Partition
from dac_nerfstudio.runs.record import Stage

Checkpoint = Callable[..., dict[str, Any]]
Scalars = Callable[[Path, str], list[float]]
NAMES = [f"{method}{suffix}" for suffix in ("", "-360") for method in METHODS]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("name", [name for name in NAMES if "ensemble" not in name])
def test_loss_falls(name: str, trainings: Mapping[str, Path], scalars: Scalars) -> None:
    losses = scalars(trainings[name], "Train Loss")
    assert len(losses) == STEPS
    third = STEPS // 3
    assert mean(losses[-third:]) < mean(losses[:third])


@pytest.mark.parametrize("name", NAMES)
def test_record_says_what_the_run_was_made_from(name: str, trainings: Mapping[str, Path]) -> None:
    run_dir = trainings[name]
    scene_dir = next(folder for folder in run_dir.parents if folder.parent.name == "outputs")
    record = json.loads((run_dir / "stage.json").read_text())
    method, _, rest = name.partition(" ")
    suffix = "-360" if name.endswith("-360") else ""
    steps = 1 if "ensemble" in name else STEPS
    assert record["method"] == (f"{method}{suffix}" if rest else name)
    assert record["scene"] == scene_dir.name
    assert record["complete"] is True
    assert (record["steps"], record["total_steps"]) == (steps, steps)
    assert record["partition"] == Partition.load(scene_dir / "partition.json").fingerprint
    assert record["group"] == (int(rest.removesuffix("-360")) if rest else None)
    assert record["seconds"] > 0
    assert set(record["versions"]) == {"dac-nerfstudio", "nerfstudio", "torch", "numpy"}

    made_from = {
        "dac-distill": {f"expert-{group}": f"dac-expert {group}{suffix}" for group in (1, 2)},
        "dac-finetune": {"student": f"dac-distill{suffix}"},
    }
    made_from["dac-ensemble"] = made_from["dac-distill"]
    sources = made_from.get(method.removesuffix("-360"), {})
    inputs = {key: Stage.load(trainings[source]).fingerprint for key, source in sources.items()}
    # A baseline's result does not depend on how the views are divided, a fine-tuned student's only through its student.
    if method.removesuffix("-360") not in ("dac-baseline", "dac-finetune"):
        inputs["partition"] = record["partition"]
    assert record["inputs"] == inputs


@pytest.mark.parametrize("name", NAMES)
def test_checkpoint_holds_plain_tensors(name: str, trainings: Mapping[str, Path], checkpoint: Checkpoint) -> None:
    content = checkpoint(trainings[name])
    assert content["step"] == (0 if "ensemble" in name else STEPS - 1)
    # An ensemble's inverse temperature may be infinite: each camera answered by its own expert.
    weights = {key: tensor for key, tensor in content["pipeline"].items() if key != "_model.inverse_temperature"}
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.parametrize("suffix", ["", "-360"])
@pytest.mark.parametrize("student", ["dac-distill", "dac-finetune"])
def test_student_is_no_larger_than_the_baseline(
    student: str, suffix: str, trainings: Mapping[str, Path], checkpoint: Checkpoint
) -> None:
    # Same names and shapes: so there is no expert inside either.
    baseline, other = (checkpoint(trainings[f"{method}{suffix}"])["pipeline"] for method in ("dac-baseline", student))
    assert {key: value.shape for key, value in other.items()} == {key: value.shape for key, value in baseline.items()}
    parameters = [Stage.load(trainings[f"{method}{suffix}"]).parameters for method in ("dac-baseline", student)]
    assert parameters[0] == parameters[1] > 0


def test_fine_tuning_starts_from_the_student(trainings: Mapping[str, Path], checkpoint: Checkpoint) -> None:
    # One step at a learning rate of 0 leaves the weights that it started from.
    student, still = (checkpoint(trainings[name]) for name in ("dac-distill", "still dac-finetune"))
    torch.testing.assert_close(still["pipeline"], student["pipeline"], rtol=0, atol=0)


@pytest.mark.parametrize("group", ["fields", "proposal_networks"])
def test_fine_tuning_goes_on_with_adams_moments(
    group: str, trainings: Mapping[str, Path], checkpoint: Checkpoint
) -> None:
    student, still, tuned = (
        checkpoint(trainings[name])["optimizers"][group]["state"]
        for name in ("dac-distill", "still dac-finetune", "dac-finetune")
    )
    assert student.keys() == still.keys() == tuned.keys()
    for key, state in student.items():
        steps = [int(states[key]["step"]) for states in (student, still, tuned)]
        if group == "fields":
            assert steps == [STEPS, STEPS + 1, 2 * STEPS]
        # Proposals are not updated in every step; the one step of the still run may have been such a one.
        assert steps[0] < steps[2] and steps[1] - steps[0] in (0, 1)
        if steps[1] == steps[0]:
            torch.testing.assert_close(still[key], state, rtol=0, atol=0)
            continue
        # Adam's first moment after one more step: 0.9 m + 0.1 gradient. The second: 0.999 v + 0.001 gradient squared.
        gradient = (still[key]["exp_avg"] - 0.9 * state["exp_avg"]) / 0.1
        expected = 0.999 * state["exp_avg_sq"] + 0.001 * gradient**2
        torch.testing.assert_close(still[key]["exp_avg_sq"], expected, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(("suffix", "rate", "share"), [("", 1e-2, 0.933), ("-360", 1e-3, 0.5)])
def test_fine_tuning_starts_where_one_cosine_would_be(
    suffix: str, rate: float, share: float, trainings: Mapping[str, Path], scalars: Scalars
) -> None:
    rates = scalars(trainings[f"dac-finetune{suffix}"], "learning_rate/fields")
    assert rates[0] == pytest.approx(rate * share, rel=0.02)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-3 * rate)


@pytest.mark.parametrize("method", ["dac-baseline", "dac-distill"])
def test_resumed_training_is_the_undisturbed_one(
    method: str, trainings: Mapping[str, Path], checkpoint: Checkpoint, scalars: Scalars
) -> None:
    undisturbed, resumed = trainings[method], trainings[f"resumed {method}"]
    saved = sorted(path.name for path in (undisturbed / "nerfstudio_models").iterdir())
    assert saved == [f"step-{step:09d}.ckpt" for step in (SAVED, 2 * SAVED, STEPS - 1)]

    one, other = checkpoint(undisturbed), checkpoint(resumed)
    assert other["step"] == STEPS - 1
    torch.testing.assert_close(other["pipeline"], one["pipeline"], rtol=0, atol=1e-6)
    torch.testing.assert_close(other["optimizers"], one["optimizers"], rtol=0, atol=1e-6)
    assert other["schedulers"] == one["schedulers"]
    losses = scalars(undisturbed, "Train Loss"), scalars(resumed, "Train Loss")
    assert losses[1] == pytest.approx(losses[0][SAVED + 1 :], abs=1e-6)

    records = [Stage.load(run_dir) for run_dir in (undisturbed, resumed)]
    assert records[0].fingerprint == records[1].fingerprint
    assert records[1].steps == STEPS and records[1].complete
