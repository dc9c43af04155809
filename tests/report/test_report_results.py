"""The figures of a scene's runs, checked against means taken by hand."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict

import pytest
from rich.console import Console
from run_folders import PSNR, RUN, better, gather
from scene_folders import edited

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.report.results import save
from dac_nerfstudio.report.runs import LONG
from dac_nerfstudio.report.scenes import combine
from dac_nerfstudio.report.tables import headline, summary


def test_means_over_views_and_groups(maker: Callable) -> None:
    methods = gather(maker().everything().folder, RUN).methods
    # (20 + 24 + 30 + 28) / 4, and (20 + 24) / 2, (30 + 28) / 2.
    assert methods["dac-baseline"].scores == pytest.approx({"psnr": 25.5, "ssim": 0.255, "flip": 0.0255})
    assert methods["dac-baseline"].per_group["psnr"] == [22.0, 29.0]
    # Each expert on its own views: (21 + 25) / 2 and (29 + 27) / 2.
    assert methods["dac-expert"].scores["psnr"] == 25.5
    assert methods["dac-expert"].per_group["psnr"] == [23.0, 28.0]
    assert methods["dac-finetune"].per_view["test/c.png"] == pytest.approx(
        {"group": 2, "psnr": 29.0, "ssim": 0.29, "flip": 0.029}
    )


def test_gains_are_sorted_and_counted(maker: Callable) -> None:
    gain = gather(maker().everything().folder, RUN).gain
    # Fine-tuned less baseline: a 1.5, b 0.5, c -1, d 0.
    assert [(view.name, view.gain) for view in gain.views] == [
        ("test/a.png", 1.5), ("test/b.png", 0.5), ("test/d.png", 0.0), ("test/c.png", -1.0),
    ]  # fmt: skip
    assert (gain.mean, gain.better, gain.per_group) == (0.25, 2, [1.0, -0.5])


def test_costs_of_experts_and_student_are_those_of_all_that_they_took(maker: Callable) -> None:
    results = gather(maker().everything().folder, RUN)
    methods, costs = results.methods, results.costs
    assert [methods[name].steps for name in ("dac-baseline", "dac-expert", "dac-finetune")] == [150, 100, 150]
    assert (methods["dac-expert"].parameters, methods["dac-finetune"].parameters) == (2000, 1000)
    assert (costs["dac-expert"].seconds, costs["dac-expert"].seconds_of_runs) == (40.0, [20.0, 20.0])
    assert costs["dac-finetune"].seconds == 12.0 + 25.0
    assert costs["dac-baseline"].peak_memory == {"process": 500_000_000}
    assert costs["dac-baseline"].seconds_per_view == 0.25


@pytest.mark.parametrize("parameters, one_size", [(990, True), (1040, True), (1060, False), (900, False)])
def test_what_is_said_of_sizes_is_so(maker: Callable, parameters: int, one_size: bool) -> None:
    made = maker().everything()
    run_dir = made.train("dac-finetune", parameters=parameters)
    made.score(run_dir)
    results = gather(made.folder)
    note = f"The student has {parameters:,} parameters, the baseline 1,000."
    assert (note in results.notes) != one_size
    assert ("are of one size" in str(summary(results).caption)) == one_size
    del results.methods["dac-baseline"]
    assert "are of one size" not in str(summary(results).caption)


@pytest.mark.parametrize("method", ["dac-baseline", "dac-distill", "dac-finetune"])
def test_a_method_that_is_not_there_is_named(method: str, maker: Callable) -> None:
    made = maker()
    made.only(*({"dac-baseline", "dac-distill", "dac-finetune"} - {method}))
    results = gather(made.folder)
    assert method not in results.methods
    names = {"dac-baseline": "baseline", "dac-distill": "distilled student", "dac-finetune": "fine-tuned student"}
    assert results.missing[method] == f"There is no {names[method]} named {RUN}."
    assert (results.gain is None) == (method != "dac-distill")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_one_broken_record_is_named_and_the_others_reported(maker: Callable, content: str) -> None:
    made = maker().everything()
    for path in (made.run_dir("dac-distill") / "stage.json", made.run_dir("dac-expert", 2) / "stage.json"):
        path.write_text(content)
    results = gather(made.folder)
    assert {"dac-baseline", "dac-finetune"} <= set(results.methods)
    assert "dac-distill" not in results.methods and "dac-expert" not in results.methods
    assert "dac-distill/quick-seed7/stage.json cannot be read" in results.missing["dac-distill"]
    assert "group-2/quick-seed7/stage.json cannot be read" in results.missing["dac-expert"]


def test_experts_count_only_where_all_are_there(maker: Callable) -> None:
    made = maker().only("dac-baseline")
    made.score(made.train("dac-expert", 2))
    results = gather(made.folder)
    assert "dac-expert" not in results.methods
    assert results.missing["dac-expert"] == (
        f"There is no expert of group 1 named {RUN}. Experts are compared only where all of them are there."
    )


def test_a_student_of_finished_runs_misses_neither_experts_nor_distillation(maker: Callable) -> None:
    made = maker().only("dac-baseline")
    made.score(made.train("dac-finetune", inputs={"teacher-1": "one", "teacher-2": "other"}))
    results = gather(made.folder)
    assert (results.taught, results.missing) == (True, {})
    assert results.notes == [
        "The student was taught by finished runs (2), whose steps and time are not counted.",
        "The student was trained for 100 steps in all, the baseline for 150.",
    ]
    assert headline(results).endswith("They were not compared at equal cost."), "no --baseline total would be of it"
    (note,) = combine([results])["notes"]
    assert note == "lego was not compared at equal cost: finished runs taught its student."
    made.score(made.train("dac-finetune", inputs={"teacher-1": "one", "student": "started from"}))
    distilled_first = gather(made.folder)
    assert "There is no distilled student" in distilled_first.missing["dac-distill"]
    assert any("taught by finished runs (1)" in note for note in distilled_first.notes) and not distilled_first.taught


def test_a_baseline_of_all_steps_is_missed_by_nobody(maker: Callable) -> None:
    made = maker().everything()
    assert LONG not in gather(made.folder).missing
    made.train("dac-baseline", run=f"{RUN}-total", total_steps=400, steps=400)
    assert LONG not in gather(made.folder).methods, "it is not scored yet"
    assert gather(made.folder, None).run == RUN, "it is of the same run as the others"


@pytest.mark.parametrize(
    ("ahead", "over", "mean", "sentence"),
    [
        # The student is 0.25 dB ahead of the short baseline.
        (2.0, LONG, -1.75, "Plain training for as long is better here, by 1.75 dB. The method pays off only where"),
        (0.1, LONG, 0.15, "At equal cost the fine-tuned student is 0.15 dB better than plain training (PSNR 25.75"),
        (-1.0, "dac-baseline", 0.25, "At equal cost the fine-tuned student is 0.25 dB better than plain training"),
    ],
)
def test_the_student_is_compared_with_the_better_baseline_at_equal_cost(
    maker: Callable, ahead: float, over: str, mean: float, sentence: str
) -> None:
    made = maker().everything()
    made.add_long(ahead)
    results = gather(made.folder)
    assert results.methods[LONG].scores["psnr"] == 25.5 + ahead and results.methods["dac-baseline"].steps == 150
    assert results.gain is not None and results.gain.equal_cost
    assert (results.gain.over, results.gain.mean) == (over, pytest.approx(mean))
    assert headline(results).startswith(sentence)
    assert f"400 steps (as many as all stages together) {25.5 + ahead:.2f} dB; the better one" in headline(results)


def test_times_are_of_the_processor_where_all_runs_have_them(maker: Callable) -> None:
    made = maker().everything()
    assert not gather(made.folder).processor
    for method in PSNR:
        for group in (1, 2) if method == "dac-expert" else (None,):
            made.score(made.train(method, group, processor_seconds=9.0))
    results = gather(made.folder)
    assert results.processor
    seconds = {method: costs.seconds for method, costs in results.costs.items()}
    # Two experts; distillation and fine-tuning.
    assert seconds == {"dac-baseline": 9.0, "dac-expert": 18.0, "dac-distill": 9.0, "dac-finetune": 18.0}
    assert "CPU time" in [str(column.header) for column in summary(results).columns]


def test_the_ensemble_is_missed_by_nobody_and_shown_where_it_is_scored(maker: Callable) -> None:
    made = maker().everything()
    assert "dac-ensemble" not in gather(made.folder).missing
    stage = made.stage("dac-expert", 1)
    stage.method, stage.group = "dac-ensemble", None
    run_dir = made.run_dir("dac-ensemble")
    stage.save(run_dir)
    views = json.loads((made.run_dir("dac-baseline") / "evaluation.json").read_text())["views"]
    evaluation = {"stage": stage.fingerprint, "partition": made.partition.fingerprint, "views": views}
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation))
    assert gather(made.folder).methods["dac-ensemble"].scores["psnr"] == 25.5


@pytest.mark.parametrize(
    ("record", "evaluation", "problem"),
    [
        ({"steps": 60}, {}, "stopped at step 60 of 100"),
        ({}, {"stage": "another"}, "has been trained again since it was scored"),
        ({}, {"partition": "another"}, "was scored by the groups of another partition than the current one"),
        ({}, {"views": 3}, "has scores that cannot be read"),
        ({}, {"views": [{"name": "a", "group": "1", "psnr": 1.0}]}, "has scores that cannot be read"),
        ({}, {"views": [{"name": "a", "group": 3, "psnr": 1.0}]}, "has scores that cannot be read"),
        ({}, {"views": [{"name": "a", "group": 1, "psnr": 1.0, "ssim": None}]}, "has scores that cannot be read"),
        (
            {},
            {"views": [{"name": "a", "group": 1, "psnr": float("nan")}]},
            "renders what are no colours: its training has diverged",
        ),
    ],
)
def test_why_a_run_does_not_count(record: dict, evaluation: dict, problem: str, maker: Callable) -> None:
    made = maker().only("dac-baseline", "dac-distill")
    made.score(made.train("dac-finetune", **record), **evaluation)
    assert gather(made.folder).missing["dac-finetune"] == f"The fine-tuned student {problem}."


def test_an_expert_of_another_partition_does_not_count(maker: Callable) -> None:
    made = maker().everything()
    # Scored as if it were of the group that has its number now.
    made.score(made.train("dac-expert", 2, partition="another"))
    results = gather(made.folder)
    assert "dac-expert" not in results.methods
    assert results.missing["dac-expert"].startswith(
        "The expert of group 2 was trained for another partition than the current one."
    )


def test_a_distillation_that_the_student_did_not_start_from_is_not_among_its_costs(maker: Callable) -> None:
    made = maker().everything()
    made.score(made.train("dac-distill", seed=8))
    results = gather(made.folder)
    assert results.methods["dac-finetune"].steps == 100
    assert results.costs["dac-finetune"].seconds == 25.0
    assert results.notes[0].startswith("The distilled student that the fine-tuned one started from is not here")


def test_methods_scored_on_different_photos_are_noted(maker: Callable) -> None:
    made = maker().everything()
    for method, photos in (("dac-baseline", "large"), ("dac-finetune", "small")):
        made.score(made.run_dir(method), views_of=photos)
    (note,) = gather(made.folder).notes
    assert note.startswith("The methods were not scored on the same photos")
    made.score(made.run_dir("dac-baseline"), views_of="small")
    assert gather(made.folder).notes == []


def test_an_infinite_psnr_is_noted_and_left_out_of_means(maker: Callable) -> None:
    made = maker().everything()
    edited(made.run_dir("dac-finetune") / "evaluation.json", lambda content: better(content["views"][:1], float("inf")))
    results = gather(made.folder)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(save(results, made.folder).read_text(), parse_constant=refuse) == asdict(results)
    student = results.methods["dac-finetune"]
    assert student.per_view["test/a.png"]["psnr"] is None
    # (24.5 + 29 + 28) / 3; of the first group 24.5 alone.
    assert student.scores["psnr"] == pytest.approx(81.5 / 3)
    assert student.per_group["psnr"] == [24.5, 28.5]
    assert [view.name for view in results.gain.views] == ["test/b.png", "test/d.png", "test/c.png"]
    assert results.notes == [
        "student, fine-tuned: PSNR of test/a.png is infinite, as the rendering equals the photo; means are without it."
    ]


def test_views_of_different_choice_are_noted(maker: Callable) -> None:
    made = maker().everything()
    edited(made.run_dir("dac-baseline") / "evaluation.json", lambda content: content["views"].pop(0))
    results = gather(made.folder)
    assert "not scored on the same views" in results.notes[0]
    assert [view.name for view in results.gain.views] == ["test/b.png", "test/d.png", "test/c.png"]


def test_the_latest_run_is_the_one_worked_on_last(maker: Callable) -> None:
    made = maker().everything()
    newer = made.train("dac-baseline", run="quick-seed8")
    os.utime(newer / "stage.json", (2e9, 2e9))
    for latest in ("quick-seed8", None):
        with pytest.raises(StageError, match="no finished run named quick-seed8 that was scored"):
            gather(made.folder, latest)
    with pytest.raises(StageError, match=r"no run named nonsense\. It has quick-seed7, quick-seed8\."):
        gather(made.folder, "nonsense")


def test_real_scenes_are_found_under_their_methods(maker: Callable) -> None:
    made = maker()
    for method in ("dac-baseline", "dac-finetune"):
        made.only(method)
        (made.folder / method).rename(made.folder / f"{method}-360")
    assert set(gather(made.folder).methods) == {"dac-baseline", "dac-finetune"}


def test_a_folder_without_a_partition_is_no_folder_of_results(maker: Callable) -> None:
    made = maker()
    (made.folder / "partition.json").unlink()
    with pytest.raises(StageError, match="it holds no partition.json"):
        gather(made.folder)


def test_commands_name_data_preset_and_division(maker: Callable) -> None:
    made = maker().everything()
    text = (
        "!!python/object:dac_nerfstudio.training.trainer.DaCTrainerConfig\n"
        "_target: !!python/name:no.such.module.Thing ''\n"
        "data: &id001 !!python/object/apply:pathlib.PosixPath\n- /\n- data\n- my lego\n"
        "output_dir: !!python/object/apply:pathlib.PosixPath\n- outputs\n"
        "pipeline:\n  data: *id001\n  size: !!python/tuple\n  - 1\n  - 2\n"
    )
    (made.run_dir("dac-finetune") / "config.yml").write_text(text)
    first, *others = gather(made.folder).commands
    assert first == (
        "dac run --data '/data/my lego' --preset quick --seed 7 --groups 2 --strategy azimuth --similarity auto "
        "--softness 0 --baseline yes --output-dir outputs --scene lego"
    )
    made.score(made.train("dac-baseline", settings={"data": {"downscale_factor": 2}, "skip_missing": True}))
    (command, *_) = gather(made.folder).commands
    assert " --downscale 2 --skip-missing --baseline yes " in command and "--config" not in command
    (made.folder / f"{RUN}.toml").touch()  # dac run leaves a copy of the file that it was given
    (command, *_) = gather(made.folder).commands
    assert f" --baseline yes --config outputs/lego/{RUN}.toml --output-dir outputs " in command
    config = f"outputs/lego/dac-finetune/{RUN}/config.yml"
    assert others == [
        f"ns-eval --load-config {config}", f"ns-viewer --load-config {config}", "tensorboard --logdir outputs/lego"
    ]  # fmt: skip


def test_the_table_fits_a_terminal(maker: Callable) -> None:
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, record=True, width=80)
        console.print(summary(gather(maker().everything().folder, RUN)))
    printed = console.export_text()
    assert "student, fine-tuned  25.75  0.258  23.00  28.50    150  0:37" in printed
    assert "experts, own views   25.50  0.255  23.00  28.00  2x100  0:40" in printed
