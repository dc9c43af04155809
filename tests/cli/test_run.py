"""``dac run``: its plan, what it keeps, and the whole of it in small."""

import dataclasses
import json
import os
import pickle
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from commands import GROUPS, TEST_VIEWS, Shell, planned
from PIL import Image
from rich.console import Console
from tiny_flags import TINY_MODEL

from dac_nerfstudio import cli, methods
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import write_json
from dac_nerfstudio.launch import evaluate
from dac_nerfstudio.launch.commands import parse
from dac_nerfstudio.launch.dry_run import examine
from dac_nerfstudio.launch.flags import read_flags, words
from dac_nerfstudio.launch.local import run_plans
from dac_nerfstudio.launch.lock import scene_lock
from dac_nerfstudio.launch.plan import Job, Plan, Report, make_plan
from dac_nerfstudio.launch.resume import decide, move_aside, take_up
from dac_nerfstudio.launch.worker import split, train
from dac_nerfstudio.partition import Partition, divide, publish
from dac_nerfstudio.presets import PRESETS, Recipe, choose_preset
from dac_nerfstudio.report import results as reporting
from dac_nerfstudio.report.results import Results, save
from dac_nerfstudio.report.runs import read_scene
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.reopen import recorded_config
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.training.trainer import DaCTrainer

RUN = "quick-seed7"
TRAINED = ["expert 1", "expert 2", "ensemble", "distill", "finetune", "baseline"]


def test_plan_is_in_an_order_in_which_it_can_be_done(shell: Shell) -> None:
    plan = planned(shell)
    assert [job.name for job in plan.jobs] == ["split", *TRAINED, "video"]
    done: set[str] = set()
    for job in plan.jobs:
        assert set(job.needs) <= done
        done.add(job.name)
    needs = {job.name: set(job.needs) for job in plan.jobs}
    assert needs["baseline"] == needs["expert 1"] == {"split"}
    assert needs["distill"] == needs["ensemble"] == {"split", "expert 1", "expert 2"}
    assert (needs["finetune"], needs["video"]) == ({"distill"}, {"finetune"})


def test_another_baseline_gets_as_many_steps_as_all_stages_together(shell: Shell) -> None:
    for preset, steps in (("quick", 2 * 4000 + 800 + 7200), ("reference", 2 * 30000 + 10000 + 50000)):
        jobs = {job.name: job for job in planned(shell, preset=preset, baseline="total").jobs}
        assert jobs["baseline total"].flags["max-num-iterations"] == steps
        assert jobs["baseline total"].run_dir == jobs["baseline"].run_dir.with_name(f"{preset}-seed7-total")
        assert jobs["baseline total"].flags["timestamp"] == f"{preset}-seed7-total"
        assert jobs["baseline"].flags.get("max-num-iterations") == (8000 if preset == "quick" else None)
    file = {"dac-expert": {"max-num-iterations": 30}, "dac-baseline": {"max-num-iterations": 4}}
    jobs = {job.name: job for job in planned(shell, preset="quick", baseline="total", flags=file).jobs}
    assert jobs["baseline total"].flags["max-num-iterations"] == 2 * 30 + 800 + 7200
    assert jobs["baseline"].flags["max-num-iterations"] == 4
    only = planned(shell, baseline="total", only="baseline", video=False).jobs
    assert [job.name for job in only] == ["split", "baseline", "baseline total"]


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("split", ["split"]),
        ("experts", ["split", "expert 1", "expert 2"]),
        ("ensemble", ["split", "ensemble"]),
        ("distill", ["split", "distill"]),
        ("finetune", ["split", "finetune"]),
        ("baseline", ["split", "baseline"]),
        ("video", ["split", "video"]),
        (None, ["split", "expert 1", "expert 2", "ensemble", "distill", "finetune"]),
    ],
)
def test_plan_of_one_stage_alone_or_without_extras(only: str | None, names: list[str], shell: Shell) -> None:
    plan = planned(shell, only=only, baseline="no", video=False)
    assert [job.name for job in plan.jobs] == names
    assert all(set(job.needs) < set(names) for job in plan.jobs)


def test_no_command_gives_a_flag_twice(shell: Shell) -> None:
    """Where a preset, its settings for real scenes and a file disagree, the last of them has the only word."""
    file = {"all": {"pipeline.model.num-samples": 9}, "dac-expert": {"max-num-iterations": 11}}
    for preset in PRESETS:
        for data in ("demo", "real"):
            for job in planned(shell, preset=preset, data=shell.folder / data, flags=file).jobs:
                names = [word for word in shlex.split(job.command) if word.startswith("--")]
                assert len(names) == len(set(names)), job.command
    jobs = {job.name: job for job in planned(shell, preset="quick", data=shell.folder / "real", flags=file).jobs}
    command = jobs["expert 1"].command
    assert "--pipeline.model.num-samples 9 " in command and "--max-num-iterations 11 " in command
    assert "--optimizers.fields.optimizer.lr 0.04 " in command
    assert "--max-num-iterations 8000 " in jobs["baseline"].command


def test_an_ensemble_trains_nothing_and_takes_no_steps_from_the_table_of_all_methods(shell: Shell) -> None:
    jobs = {job.name: job for job in planned(shell, flags={"all": {"max-num-iterations": 9}}).jobs}
    assert jobs["expert 1"].flags["max-num-iterations"] == jobs["finetune"].flags["max-num-iterations"] == 9
    assert "max-num-iterations" not in jobs["ensemble"].flags


def test_the_papers_stages_have_cosines_of_their_own(shell: Shell) -> None:
    jobs = {job.name: job for job in planned(shell, preset="reference").jobs}
    assert not any("scheduler.begin" in name or "scheduler.end" in name for job in jobs.values() for name in job.flags)


def test_experts_go_on_teaching_at_new_cameras_where_the_recipe_says_so(shell: Shell) -> None:
    steps = {"expert": 4, "distill": 1, "finetune": 3}
    recipe = Recipe("own", "of this test", steps=steps, novel_share=0.25)
    jobs = {job.name: job for job in make_plan(planned(shell).request, recipe).jobs}
    flags = jobs["finetune"].flags
    assert flags["pipeline.novel-share"] == 0.25
    assert flags["experts"] == jobs["distill"].flags["experts"] == (jobs["expert 1"].run_dir, jobs["expert 2"].run_dir)
    plain = {job.name: job for job in planned(shell, preset="reference").jobs}["finetune"].flags
    assert "experts" not in plain and "pipeline.novel-share" not in plain


def test_finished_runs_teach_a_student_from_scratch_in_place_of_experts(shell: Shell) -> None:
    teachers = (Path("one"), Path("other"))
    for preset, steps in (("quick", 8000), ("few", None), ("reference", 60000)):
        plan = planned(shell, preset=preset, teachers=teachers, baseline="total")
        assert [job.name for job in plan.jobs] == ["split", "finetune", "baseline", "video"]
        jobs = {job.name: job for job in plan.jobs}
        flags = jobs["finetune"].flags
        assert jobs["finetune"].needs == ("split",) and flags["teachers"] == teachers and "student" not in flags
        expected = jobs["baseline"].flags.get("max-num-iterations", 60000)
        assert flags["max-num-iterations"] == expected and steps in (None, expected)
        assert not any(name.endswith("scheduler.begin") for name in flags)
        assert flags["optimizers.fields.optimizer.lr"] == jobs["baseline"].flags.get(
            "optimizers.fields.optimizer.lr", methods.baseline_360.config.optimizers["fields"]["optimizer"].lr
        )
    file = {"dac-finetune": {"max-num-iterations": 7}}
    jobs = {job.name: job for job in planned(shell, teachers=teachers, flags=file).jobs}
    assert jobs["finetune"].flags["max-num-iterations"] == 7
    student = jobs["finetune"].run_dir
    for teacher in (student, student / "config.yml"):
        with pytest.raises(StageError, match="lies where its student would go"):
            planned(shell, teachers=(teacher,))
    assert planned(shell, teachers=(jobs["baseline"].run_dir,)).jobs, "which is kept as it is"
    with pytest.raises(StageError, match="--teachers take the place of --only distill"):
        planned(shell, teachers=teachers, only="distill")


def test_every_preset_can_be_asked_for() -> None:
    asked = get_args(get_type_hints(cli.run)["preset"])[0]
    assert set(get_args(asked)) == set(PRESETS)


@pytest.mark.parametrize(
    ("device", "photos", "preset", "why"),
    [
        ("cuda", 30, "few", "there are 30 training photos, at most 30, and a GPU."),
        ("cpu", 30, "quick", "there is no GPU."),
        ("cuda", 31, "reference", "more than 30, and a GPU."),
        ("cpu", 31, "quick", "Plain training at equal cost may be better with that many photos"),
        ("mps", 100, "quick", "no GPU"),
    ],
)
def test_device_and_number_of_photos_choose_a_preset_and_say_why(
    device: str, photos: int, preset: str, why: str
) -> None:
    chosen, said = choose_preset(device, photos)
    assert chosen == preset and why in said
    assert ("may be better" in said) == (photos > 30)


def test_the_earlier_name_of_few_finds_its_runs() -> None:
    assert dataclasses.replace(PRESETS["best"], name="few") == PRESETS["few"]
    assert PRESETS["best"].run_name(7) == "best-seed7"


def test_stages_share_cosines(shell: Shell) -> None:
    """Distillation and fine-tuning: the rate goes on where it was."""
    from dac_nerfstudio.training.schedules import rate_factor
    from dac_nerfstudio.training.sources import carry_over

    jobs = {job.name: job for job in planned(shell).jobs}

    def rates(name: str) -> tuple[float, float]:
        """At the beginning and at the end of a stage, the same for both groups of parameters."""
        config = parse(jobs[name].arguments)
        carry_over(config)
        schedules = [group["scheduler"] for group in config.optimizers.values()]
        found = {tuple(rate_factor(step, one) for step in (0, config.max_num_iterations)) for one in schedules}
        ((first, last),) = found
        return first, last

    (start, between), (after, end) = rates("distill"), rates("finetune")
    assert start == 0 and end == pytest.approx(0, abs=1e-9)
    assert between == pytest.approx(after, abs=1e-4) and between > 0.4


def test_plan_of_an_evaluation_alone(shell: Shell, tmp_path: Path) -> None:
    partition = divide(read_views(shell.folder / "demo"), 2)
    one, two = (expert_of(partition, tmp_path / name) for name in "ab")
    # Named by its folder or by a file in it.
    jobs = planned(shell, only="evaluate", experts=(one, two / "config.yml")).jobs
    assert [(job.name, job.kind, job.run_dir) for job in jobs] == [
        ("evaluate expert 1", "evaluate", one),
        ("evaluate expert 2", "evaluate", two),
    ]
    with pytest.raises(ValueError, match="nothing to score"):
        planned(shell, output_dir=tmp_path, only="evaluate")


def test_plan_with_ready_experts_trains_none(shell: Shell, tmp_path: Path) -> None:
    publish(divide(read_views(shell.folder / "demo"), 2), tmp_path / "demo")
    plan = planned(shell, output_dir=tmp_path, experts=(Path("a"), Path("b")))
    assert plan.partition is None, "the scene has its own"
    jobs = {job.name: job for job in plan.jobs}
    assert not any(name.startswith("expert") for name in jobs)
    for name in ("distill", "ensemble"):
        assert jobs[name].needs == ("split",)
        assert jobs[name].flags["experts"] == (Path("a"), Path("b"))


def expert_of(partition: Partition, run_dir: Path) -> Path:
    """A run folder of an expert, as far as a plan looks at it."""
    Stage("dac-expert", "demo", {}, 7, 20, partition.fingerprint, group=1, steps=20).save(run_dir)
    partition.save(run_dir / "partition.json")
    return run_dir


def test_ready_experts_bring_the_division_of_a_new_folder(shell: Shell, tmp_path: Path) -> None:
    views = read_views(shell.folder / "demo")
    made, other = divide(views, 3, "kmeans"), divide(views, 4, "kmeans")
    one, two, stranger = (
        expert_of(partition, tmp_path / name) for partition, name in ((made, "1"), (made, "2"), (other, "3"))
    )
    plan = planned(shell, output_dir=tmp_path / "new", only="distill", experts=(one, two), groups=None)
    split(plan.jobs[0], plan, lambda report: None)
    assert Partition.load(tmp_path / "new" / "demo" / "partition.json").fingerprint == made.fingerprint
    assert (tmp_path / "new" / "demo" / "partition.png").exists()
    with pytest.raises(StageError, match="The experts were trained for different partitions: .*/1/.* and .*/3/"):
        planned(shell, output_dir=tmp_path, experts=(one, stranger), groups=None)
    with pytest.raises(StageError, match="was not made with what was asked for: groups 4. Leave it out"):
        planned(shell, output_dir=tmp_path, experts=(one, two), groups=4)


def test_a_file_of_flags_is_kept_for_whoever_repeats_the_run(shell: Shell, tmp_path: Path) -> None:
    mine, kept, text = tmp_path / "mine.toml", tmp_path / "demo" / f"{RUN}.toml", "[all]\nsteps-per-save = 9  # often\n"
    mine.write_text(text)
    given = dict(zip(("flags", "config"), read_flags(mine)))
    mine.write_text("[all]\nsteps-per-save = 4\n")  # which the runs that were begun know nothing of
    for changes, there in ((given, True), ({"only": "split"}, True), ({}, False)):
        plan = pickle.loads(pickle.dumps(planned(shell, output_dir=tmp_path, **changes)))
        split(plan.jobs[0], plan, lambda report: None)
        assert kept.exists() == there
        assert not there or kept.read_text() == text


def test_experts_of_several_scenes_are_refused(shell: Shell) -> None:
    with pytest.raises(StageError, match="--experts are of one scene, and --data names 2"):
        cli.run((shell.folder / "demo", shell.folder / "real"), preset="quick", experts=(Path("a"),), devices="cpu")


def test_dividing_waits_for_nobody_who_works_on_the_scene(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scene_lock(tmp_path / "demo"), pytest.raises(StageError, match="is being worked on by another dac run"):
        cli.split(shell.folder / "demo", output_dir=tmp_path)

    def queued(scene_dir: Path) -> None:
        raise StageError(f"jobs of {scene_dir.name} are queued")

    monkeypatch.setattr("dac_nerfstudio.launch.slurm.queue.refuse_queued", queued)
    with pytest.raises(StageError, match="jobs of demo are queued"):
        cli.split(shell.folder / "demo", output_dir=tmp_path)
    assert not (tmp_path / "demo" / "partition.json").exists()


def test_plan_takes_the_number_of_groups_from_the_scene(shell: Shell, tmp_path: Path) -> None:
    def experts(groups: int | None) -> int:
        jobs = planned(shell, output_dir=tmp_path, groups=groups).jobs
        return sum(job.stage == "expert" for job in jobs)

    assert experts(None) == 4
    publish(divide(read_views(shell.folder / "demo"), 3), tmp_path / "demo")
    assert experts(None) == 3
    assert experts(5) == 5


def test_real_scenes_get_the_methods_for_them(shell: Shell, tmp_path: Path) -> None:
    plan = planned(shell, data=shell.folder / "real")
    assert all(job.method.endswith("-360") for job in plan.jobs if job.kind == "train")
    assert all(job.arguments[-3:] == ("colmap", "--colmap-path", "colmap/sparse/0") for job in plan.jobs if job.flags)
    with pytest.raises(ValueError, match="expected a folder with transforms_train.json"):
        planned(shell, data=tmp_path)


@pytest.fixture
def dry_run(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, Plan]]:
    """Makes a dry run; what is printed, and the plan that it is of."""
    monkeypatch.chdir(shell.folder)

    def make(*more: str) -> tuple[str, Plan]:
        arguments = ("--data", "demo", "--preset", "quick", "--groups", "2", "--output-dir", "planned", "--dry-run")
        folders = {"data": Path("demo"), "output_dir": Path("planned")}
        plan = planned(shell, **folders, seed=42, device="cpu", baseline="total")
        return shell.dac("run", *arguments, *more).output, plan

    return make


def test_dry_run_prints_commands_to_copy(shell: Shell, dry_run: Callable[..., tuple[str, Plan]]) -> None:
    printed, plan = dry_run("--verbose")
    decisions, commands = {}, {}
    for line in printed.splitlines():
        if line.startswith("    ns-train "):
            commands[list(decisions)[-1]] = line.strip()
        elif ": " in line:
            name, decisions[name] = line.split(": ", 1)
    assert list(decisions) == ["split", *TRAINED, "baseline total", "video"]
    assert decisions["split"] == "runs, the views are not divided yet"
    expected = r"runs, 4000 steps, (about \d min|less than a minute): split comes first"
    assert re.fullmatch(expected, decisions["expert 1"])
    assert decisions["baseline"].endswith(": not made yet"), "it does not wait for the division"
    total = r"All training together takes (about \d+ \w+|less than a minute) on one device, one stage after another."
    assert re.fullmatch(total, printed.splitlines()[-1])
    for job in plan.jobs:
        if job.kind == "train":
            assert shlex.split(commands[job.name]) == ["ns-train", *job.arguments]
    assert not list((shell.folder / "planned").rglob("*-seed42"))


def test_dry_run_prints_what_departs_from_the_methods_own_settings(
    dry_run: Callable[..., tuple[str, Plan]], tmp_path: Path
) -> None:
    printed, plan = dry_run()
    blocks = {"all": ""}
    for line in printed.splitlines():
        if line.startswith("    "):
            blocks[list(blocks)[-1]] += f"{line}\n"
        elif ": runs, " in line:
            blocks[line.split(":")[0]] = ""
    for job in plan.jobs:
        # In the form of a file for --config; folders and names, which are the run's own affair, are not among them.
        (tmp_path / "dac.toml").write_text(f"[all]\n{blocks['all']}{blocks[job.name]}")
        if job.kind == "train":
            read = read_flags(tmp_path / "dac.toml")[0]["all"]
            assert list(map(str, words(read))) == list(words({name: job.flags[name] for name in read}))
            expected = set(job.flags) - {"data", "output-dir", "experiment-name", "timestamp", "vis", "student"}
            assert set(read) == expected - {"machine.device-type", "machine.seed", "group", "experts"}
        else:
            assert blocks[job.name] == ""
    assert "max-num-iterations = 4000" in blocks["expert 1"] and "max-num-iterations = 8000" in blocks["baseline"]
    assert "grid-feature-dim" in blocks["all"] and "grid-feature-dim" not in blocks["expert 1"]


def test_printed_commands_are_ones_that_ns_train_takes(shell: Shell) -> None:
    for preset in PRESETS:
        for job in planned(shell, preset=preset).jobs:
            if job.kind == "train":
                config = parse(job.arguments)
                assert config.method_name == job.method
                config.data = config.pipeline.datamanager.data = shell.folder / "demo"
                assert shell.folder / config.get_base_dir() == job.run_dir


@pytest.fixture
def earlier(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder as far as a decision about it goes."""

    def make(stage: Stage, steps: int, checkpoints: tuple[int, ...]) -> Path:
        run_dir, stage = tmp_path / "run", dataclasses.replace(stage, steps=steps)
        (run_dir / "nerfstudio_models").mkdir(parents=True)
        for step in checkpoints:
            torch.save({"step": step}, checkpoint_of(run_dir, step))
            stage.mark(checkpoint_of(run_dir, step), step + 1)
        stage.save(run_dir)
        return run_dir

    return make


def checkpoint_of(run_dir: Path, step: int) -> Path:
    return run_dir / "nerfstudio_models" / f"step-{step:09d}.ckpt"


STAGE = Stage(
    "dac-baseline", "demo", {"rays": 128}, seed=7, total_steps=20, partition="p", photos="abcd", versions={"torch": "2"}
)


def config_of(stage: Stage) -> Any:
    return SimpleNamespace(stage=stage, load_dir=None)


@pytest.mark.parametrize(
    ("steps", "checkpoints", "state", "told"),
    [
        (None, (), "new", ""),
        (11, (), "new", ""),
        (11, (10,), "resumed", "resumed at step 11"),
        (20, (19,), "kept", ""),
    ],
    ids=["nothing there", "nothing saved", "interrupted", "finished"],
)
def test_an_earlier_run_is_kept_or_gone_on_with(
    steps: int | None, checkpoints: tuple[int, ...], state: str, told: str, earlier: Callable[..., Path], tmp_path: Path
) -> None:
    run_dir, config = tmp_path / "run", config_of(STAGE)
    if steps is not None:
        earlier(STAGE, steps, checkpoints)
    assert take_up(run_dir, config, config.stage) == (state, told)
    assert config.load_dir == (run_dir / "nerfstudio_models" if state == "resumed" else None)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def alter(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (Path.unlink, "its checkpoint step-000000019.ckpt is gone"),
        (cut, "has 1,"),
        (lambda path: path.write_bytes(b""), "has 0 bytes of 1,"),
        (alter, "holds other bytes than were written"),
    ],
    ids=["gone", "truncated", "empty", "altered"],
)
def test_a_result_whose_checkpoint_is_lost_is_made_again(
    earlier: Callable[..., Path], damage: Callable[[Path], Any], told: str
) -> None:
    run_dir, config = earlier(STAGE, 20, (19,)), config_of(STAGE)
    damage(checkpoint_of(run_dir, 19))
    state, text = take_up(run_dir, config, config.stage)
    assert state == "changed" and told in text and not run_dir.exists() and config.load_dir is None


def test_training_goes_on_from_the_last_checkpoint_that_is_whole(earlier: Callable[..., Path]) -> None:
    run_dir, config = earlier(STAGE, 20, (9, 14, 19)), config_of(STAGE)
    cut(checkpoint_of(run_dir, 19))
    checkpoint_of(run_dir, 14).write_bytes(b"")
    assert decide(run_dir, STAGE)[0] == "resumed" and checkpoint_of(run_dir, 14).exists(), "to look changes nothing"
    state, text = take_up(run_dir, config, config.stage)
    assert state == "resumed" and text.startswith("resumed at step 10 (its checkpoint step-000000019.ckpt has ")
    assert config.load_dir == run_dir / "nerfstudio_models" and list(config.load_dir.iterdir()) == [
        checkpoint_of(run_dir, 9)
    ]
    assert (run_dir / "damaged-step-000000019.ckpt").exists() and (run_dir / "damaged-step-000000014.ckpt").exists()


def test_a_checkpoint_that_came_after_its_record_is_gone_on_from(earlier: Callable[..., Path]) -> None:
    run_dir, config = earlier(STAGE, 11, (10,)), config_of(STAGE)
    torch.save({"step": 14}, checkpoint_of(run_dir, 14))
    assert take_up(run_dir, config, config.stage) == ("resumed", "resumed at step 15")


def test_an_interrupted_run_without_a_whole_checkpoint_starts_anew_and_says_so(earlier: Callable[..., Path]) -> None:
    run_dir, config = earlier(STAGE, 11, (10,)), config_of(STAGE)
    checkpoint_of(run_dir, 10).write_bytes(b"")
    state, text = take_up(run_dir, config, config.stage)
    assert state == "new" and text.startswith("made anew (its checkpoint step-000000010.ckpt has 0 bytes of 1,")
    assert config.load_dir is None and not checkpoint_of(run_dir, 10).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000])
def test_a_run_with_a_broken_record_is_moved_aside(earlier: Callable[..., Path], content: str) -> None:
    run_dir = earlier(STAGE, 20, (19,))
    (run_dir / "stage.json").write_text(content)
    state, text = take_up(run_dir, config_of(STAGE), STAGE)
    assert state == "changed" and "its record is broken" in text and not run_dir.exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"settings": {"rays": 64}}, "rays was 128, is 64"),
        ({"seed": 8}, "seed was 7, is 8"),
        ({"total_steps": 30}, "steps was 20, is 30"),
        ({"inputs": {"student": "x"}}, "student was None, is x"),
        ({"photos": "fedc"}, "photos was abcd, is fedc"),
    ],
)
def test_run_with_other_settings_is_moved_aside(
    change: dict[str, Any], told: str, earlier: Callable[..., Path]
) -> None:
    run_dir, config = earlier(STAGE, 20, (19,)), config_of(dataclasses.replace(STAGE, **change))
    state, text = take_up(run_dir, config, config.stage)
    assert state == "changed" and config.load_dir is None
    assert not run_dir.exists()
    (aside,) = run_dir.parent.glob("run-before-*")
    assert aside.name in text and told in text
    assert Stage.load(aside).fingerprint == STAGE.fingerprint
    assert (aside / "nerfstudio_models" / "step-000000019.ckpt").exists()


# Runs whose photos are in memory know nothing of what these held.
@pytest.mark.parametrize("change", [{"versions": {"torch": "3"}}, {"scene": "other"}, {"seconds": 5.0}, {"photos": ""}])
def test_run_is_kept_where_only_its_circumstances_differ(change: dict[str, Any], earlier: Callable[..., Path]) -> None:
    assert take_up(earlier(STAGE, 20, (19,)), config_of(STAGE), dataclasses.replace(STAGE, **change)) == ("kept", "")


def test_a_run_moved_aside_is_found_by_its_own_config(shell: Shell, tmp_path: Path) -> None:
    for job in planned(shell, output_dir=tmp_path, preset="reference").jobs:
        if job.name in ("expert 1", "baseline"):
            parse(job.arguments).save_config()
            aside = move_aside(job.run_dir)
            config = yaml.load((aside / "config.yml").read_text(), Loader=yaml.Loader)
            assert aside == tmp_path / config.get_base_dir()
            assert config.pipeline.datamanager.partition == aside / "partition.json"
            assert job.run_dir.name not in str(config.get_checkpoint_dir()).replace(aside.name, "")


@pytest.fixture
def scored(shell: Shell, tmp_path: Path) -> tuple[Plan, Job]:
    """A finished baseline with scores, of a run folder that holds nothing else; its plan and job."""
    publish(divide(read_views(shell.folder / "demo"), GROUPS), tmp_path / "demo")
    plan = planned(shell, output_dir=tmp_path, only="baseline")
    job = plan.jobs[-1]
    config = parse(job.arguments)
    config.save_config()
    record = config.sources().record
    stage = dataclasses.replace(record, steps=record.total_steps)
    stage.save(job.run_dir)
    made_from = {
        "format": evaluate.FORMAT,
        "stage": stage.fingerprint,
        "partition": stage.partition,
        "split": "test",
        "views_of": config.inputs.test_digests()[0],
        "photos": config.inputs.test_digests()[1],
        "most": job.score_most,
    }
    write_json(job.run_dir / "evaluation.json", {**made_from, "left_out": {"lpips": "no weights"}, "views": []})
    return plan, job


class Scored(Exception):
    """A run is opened to be scored."""


def load(*arguments: Any, **settings: Any) -> None:
    """Stands in for what opens runs."""
    raise Scored


def test_scores_are_kept_until_one_that_was_left_out_can_be_had(
    scored: tuple[Plan, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, job = scored
    weights = tmp_path / "weights.pth"
    monkeypatch.setattr(evaluate, "lpips_weights", lambda: weights)
    monkeypatch.setattr(evaluate, "reopen", load)
    told: list[Report] = []
    evaluate.score(job, plan, told.append)
    assert told[0].state == "kept"
    weights.touch()
    with pytest.raises(Scored):
        evaluate.score(job, plan, told.append)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_broken_scores_are_made_again(scored: tuple[Plan, Job], monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(evaluate, "reopen", load)
    plan, job = scored
    (job.run_dir / "evaluation.json").write_text(content)
    with pytest.raises(Scored):
        evaluate.evaluate(job, plan, lambda report: None)


def test_a_config_that_is_gone_or_empty_is_written_again(scored: tuple[Plan, Job]) -> None:
    plan, job = scored
    path = job.run_dir / "config.yml"
    stage = Stage.load(job.run_dir)
    (job.run_dir / "nerfstudio_models").mkdir()
    checkpoint = checkpoint_of(job.run_dir, stage.total_steps - 1)
    torch.save({"step": stage.total_steps - 1}, checkpoint)
    stage.mark(checkpoint, stage.total_steps)
    stage.save(job.run_dir)
    before, told = path.read_text(), []
    for spoil in (Path.unlink, lambda path: path.write_text("")):
        spoil(path)
        train(job, plan, told.append)
        assert told[-1].state == "kept" and path.read_text() == before


def test_an_expert_of_another_division_is_not_scored_as_one_of_this(scored: tuple[Plan, Job]) -> None:
    plan, job = scored
    stage = Stage.load(job.run_dir)
    dataclasses.replace(stage, group=1, partition="0123456789abcdef").save(job.run_dir)
    with pytest.raises(StageError, match="holds an expert of group 1 of partition 0123456789abcdef; .* is "):
        evaluate.score(job, plan, lambda report: None)


def test_views_that_teachers_render_before_training_are_told_of(
    scored: tuple[Plan, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def setup(trainer: DaCTrainer) -> None:
        assert trainer.tell_rendered is not None
        trainer.tell_rendered(3, 4)
        raise Scored

    plan, job = scored
    (job.run_dir / "stage.json").unlink()
    monkeypatch.setattr(DaCTrainer, "setup", setup)
    told: list[Report] = []
    with pytest.raises(Scored):
        train(job, plan, told.append)
    assert told == [Report("rendering", 3, 4)]


def test_a_video_is_there_as_a_whole_or_not_at_all(
    shell: Shell, scored: tuple[Plan, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mediapy

    from dac_nerfstudio.launch import video as room
    from dac_nerfstudio.launch.worker import video

    def interrupted(path: Path, frames: Any, **named: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    def written(path: Path, frames: Any, **named: Any) -> None:
        assert len(list(frames)) == 3 * TEST_VIEWS
        path.write_bytes(b"whole")

    def reopened(config: Any, run_dir: Path) -> Any:
        return config.pipeline.setup(device="cpu", test_mode="test").eval()

    plan, job = scored
    plan = dataclasses.replace(plan, jobs=(Job("video", "video", job.run_dir),))
    path, told = plan.scene_dir / "report" / "video.mp4", list[Report]()
    monkeypatch.setattr(room, "reopen", reopened)
    with monkeypatch.context() as patch:
        patch.setattr(mediapy, "write_video", interrupted)
        with pytest.raises(StageError, match=r"mp4 cannot be written \(disk full\). It takes ffmpeg \(pip"):
            video(plan.jobs[0], plan, told.append)
    assert not list(path.parent.iterdir())
    monkeypatch.setattr(mediapy, "write_video", written)
    video(plan.jobs[0], plan, told.append)
    assert [(one.done, one.total) for one in told if one.state == "rendering"][-1] == (11, 12), "with its progress"
    assert path.read_bytes() == b"whole"
    for lost in (path, path.with_name("video.json")):
        whole = lost.read_bytes()
        for content, kept in ((whole, True), (b"", False), (None, False), (whole, True)):
            lost.unlink(missing_ok=True)
            if content is not None:  # empty is what a power cut leaves
                lost.write_bytes(content)
            assert examine(plan)[0].kept == kept
    # A run made anew with the same settings, from other photos or to other weights.
    stage = Stage.load(job.run_dir)
    for change in ({"photos": "others"}, {"checkpoint": {**stage.checkpoint, "crc32": "0"}}, {}):
        dataclasses.replace(stage, **change).save(job.run_dir)
        assert room.has_video(plan.jobs[0], plan) == (not change)


@pytest.mark.parametrize("views", [None, ["one"]])
def test_a_flight_wants_two_test_views(
    views: Any, shell: Shell, scored: tuple[Plan, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dac_nerfstudio.launch import video as room

    plan, job = scored
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, output_dir=shell.folder / "elsewhere"))
    pipeline = SimpleNamespace(datamanager=SimpleNamespace(eval_dataset=views))
    monkeypatch.setattr(room, "reopen", lambda config, run_dir: pipeline)
    monkeypatch.setattr(room, "has_video", lambda job, plan: False)
    told = list[Report]()
    room.video(job, plan, told.append)
    assert told[-1].state == "done" and told[-1].text.startswith("none: a flight needs two test views")
    assert not (plan.scene_dir / "report").exists()


STEPS = {"expert": 12, "distill": 8, "finetune": 10, "baseline": 18}


def in_small(plan: Plan) -> Plan:
    """The plan with a tiny model and few steps."""
    jobs = []
    for job in plan.jobs:
        own = {} if "nerfacto" in job.method else TINY_MODEL
        more = {"pipeline.datamanager.train-num-rays-per-batch": 64, **own} if job.kind == "train" else {}
        if job.stage in STEPS:
            more["max-num-iterations"] = STEPS[job.stage]
        jobs.append(dataclasses.replace(job, flags={**job.flags, **more}))
    return dataclasses.replace(plan, jobs=tuple(jobs))


@dataclasses.dataclass
class Ran:
    plan: Plan
    succeeded: bool
    printed: str

    def job(self, name: str) -> Job:
        return next(job for job in self.plan.jobs if job.name == name)


def carry_out(plan: Plan, devices: tuple[str, ...] = ("cpu",)) -> Ran:
    with open("/dev/null", "w") as nowhere:
        console = Console(file=nowhere, record=True, width=200)
        return Ran(plan, run_plans([plan], devices, console), console.export_text())


@pytest.fixture(scope="session")
def whole(shell: Shell) -> Ran:
    """Everything, carried out once."""
    return carry_out(in_small(planned(shell)), ("cpu", "cpu"))


@pytest.fixture(scope="session")
def results(whole: Ran) -> Results:
    return reporting.figures(read_scene(whole.plan.scene_dir, RUN))


def test_whole_run_succeeds(whole: Ran) -> None:
    assert whole.succeeded, whole.printed
    for job in whole.plan.jobs:
        if job.kind == "train":
            assert Stage.load(job.run_dir).complete, job.name
            assert (job.run_dir / "evaluation.json").exists() == (job.name != "ensemble")


def test_fine_tuning_goes_on_from_the_distilled_student(whole: Ran) -> None:
    distilled, tuned = (Stage.load(whole.job(name).run_dir) for name in ("distill", "finetune"))
    assert (tuned.inputs["student"], tuned.first_step) == (distilled.fingerprint, distilled.steps)
    state = torch.load(next(whole.job("finetune").run_dir.rglob("*.ckpt")), weights_only=True)
    assert int(state["optimizers"]["fields"]["state"][0]["step"]) == STEPS["distill"] + STEPS["finetune"]
    # Proposal schedules go on where they were left.
    for name, behind in (("expert 1", 0), ("distill", 0), ("finetune", STEPS["distill"])):
        run_dir = whole.job(name).run_dir
        config = yaml.load((run_dir / "config.yml").read_text(), Loader=yaml.Loader)
        assert config.pipeline.first_step == Stage.load(run_dir).first_step == behind


def test_real_photos_are_taught_by_two_kinds_of_all_photos_whatever_the_division_was(
    shell: Shell, tmp_path: Path
) -> None:
    data = shell.folder / "real"
    before = divide(read_views(data), 2)
    publish(before, tmp_path / "demo")
    ran = carry_out(in_small(planned(shell, data=data, output_dir=tmp_path, downscale=1, video=False)))
    assert ran.succeeded, ran.printed
    partition = Partition.load(tmp_path / "demo" / "partition.json")
    assert partition.settings == {**before.settings, "softness": 0.99}
    experts = [Stage.load(ran.job(f"expert {group}").run_dir) for group in (1, 2)]
    assert [expert.method for expert in experts] == ["dac-expert-360", "dac-expert-nerfacto-360"]
    student = Stage.load(ran.job("finetune").run_dir)
    assert student.inputs == {f"teacher-{group}": expert.fingerprint for group, expert in enumerate(experts, start=1)}
    run = ran.plan.recipe.run_name(7)
    assert set(reporting.figures(read_scene(tmp_path / "demo", run)).methods) == {
        *("dac-baseline", "dac-expert", "dac-finetune")
    }


def test_photos_that_are_not_there_are_left_out_of_everything_where_that_is_asked_for(
    shell: Shell, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(shell.folder / "real", tmp_path / "real"))
    train, test = ((data / f"{split}_list.txt").read_text().split() for split in ("train", "test"))
    for name in (train[0], train[5], test[1]):
        (data / "images" / name).unlink()
    arguments = ("--data", str(data), "--output-dir", str(tmp_path), "--preset", "quick", "--devices", "cpu")
    refused = shell.dac("run", *arguments)
    assert refused.code == 1 and "can be left out: --skip-missing" in refused.output
    assert f"{train[0]} is missing" in refused.output and "partition.png" not in refused.output

    plan = in_small(planned(shell, data=data, output_dir=tmp_path, only="baseline", skip_missing=True))
    ran = carry_out(plan)
    assert ran.succeeded, ran.printed
    partition, run_dir = Partition.load(plan.scene_dir / "partition.json"), plan.jobs[-1].run_dir
    assert set(partition.views.names) == set(train) - {train[0], train[5]}
    assert partition.notes[0] == f"Left out, as their photos are not there: {train[0]}, {train[5]}."
    assert Stage.load(run_dir).settings["skip_missing"] is True

    scores = scored_views(run_dir / "evaluation.json")
    assert {name for name, *_ in scores} == set(test) - {test[1]}
    (run_dir / "evaluation.json").unlink()
    again = carry_out(plan)
    assert again.succeeded and "baseline: kept" not in again.printed
    assert scored_views(run_dir / "evaluation.json") == scores
    split = shell.dac("split", "--data", str(data), "--output-dir", str(tmp_path / "alone"))
    assert split.code == 1 and "can be left out: --skip-missing" in split.output
    split = shell.dac("split", "--data", str(data), "--output-dir", str(tmp_path / "alone"), "--skip-missing")
    assert split.code == 0 and f"photos are not there: {train[0]}, {train[5]}." in split.output
    looked = shell.dac("check", "--data", str(data), "--skip-missing")
    assert looked.code == 0 and "nothing is wrong" in looked.output


def test_results_have_these_keys(whole: Ran, results: Results) -> None:
    assert set(json.loads(save(results, whole.plan.scene_dir).read_text())) == {
        *("format", "scene", "run", "partition", "groups", "seed", "versions", "scores", "left_out", "missing"),
        *("notes", "taught", "methods", "gain", "commands", "processor", "costs"),
    }
    assert results.processor
    assert (results.scene, results.groups, results.seed) == ("demo", GROUPS, 7)
    assert set(results.methods) == {"dac-baseline", "dac-expert", "dac-distill", "dac-finetune"}
    for figures in results.methods.values():
        assert set(asdict(figures)) == {"steps", "parameters", "scores", "per_group", "per_view"}
        # The images are too small for MS-SSIM; LPIPS is there where its weights are, FLIP where it is installed.
        assert {"psnr", "ssim"} <= set(figures.scores) <= {"psnr", "ssim", "lpips", "flip"}
    assert "32 x 32" in results.left_out["ms_ssim"]
    assert (results.missing, results.notes) == ({}, [])
    assert results.commands[0].startswith("dac run --data ")


def test_results_count_steps_and_parameters(results: Results, whole: Ran) -> None:
    methods, costs = results.methods, results.costs
    steps = {name: figures.steps for name, figures in methods.items()}
    assert steps == {"dac-baseline": 18, "dac-expert": 12, "dac-distill": 8, "dac-finetune": 18}
    one = methods["dac-baseline"].parameters
    assert methods["dac-finetune"].parameters == methods["dac-distill"].parameters == one
    assert methods["dac-expert"].parameters == GROUPS * one
    experts = [Stage.load(whole.job(name).run_dir).processor_seconds for name in ("expert 1", "expert 2")]
    assert costs["dac-expert"].seconds == pytest.approx(sum(experts))
    assert costs["dac-finetune"].seconds > costs["dac-distill"].seconds > 0
    assert all(cost.peak_memory["process"] > 1e8 for cost in costs.values())


def test_photo_and_rendering_of_every_test_view_are_kept(whole: Ran, results: Results) -> None:
    for name in ("baseline", "finetune"):
        run_dir = whole.job(name).run_dir
        views = json.loads((run_dir / "evaluation.json").read_text())["views"]
        assert {view["pair"] for view in views} == {path.name for path in (run_dir / "test").iterdir()}
        for view in views:
            pair = np.asarray(Image.open(run_dir / "test" / view["pair"])) / 255
            photo, rendering = pair[:, :32], pair[:, 32:]
            assert pair.shape == (32, 64, 3)
            # Kept as bytes, so nearly what was scored.
            assert -10 * np.log10(((photo - rendering) ** 2).mean()) == pytest.approx(view["psnr"], abs=0.05)
    assert not (whole.job("distill").run_dir / "test").exists()


def test_second_run_keeps_everything(whole: Ran, results: Results) -> None:
    files = [
        path
        for job in whole.plan.jobs
        if job.kind == "train"
        for path in (job.run_dir / "stage.json", job.run_dir / "evaluation.json", *job.run_dir.rglob("*.ckpt"))
        if path.exists()
    ]
    files += [whole.plan.scene_dir / name for name in ("partition.json", "report/video.mp4")]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(before) == 2 * len(TRAINED) - 1 + len(TRAINED) + 2

    again = carry_out(whole.plan)
    assert again.succeeded
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert not list(whole.plan.scene_dir.rglob("*-before-*"))
    assert again.printed.count("kept") >= len(again.plan.jobs)
    assert reporting.figures(read_scene(whole.plan.scene_dir, RUN)) == results


def test_report_shows_the_figures(whole: Ran, results: Results, shell: Shell) -> None:
    printed = shell.dac("report", str(whole.plan.scene_dir)).output
    saved = json.loads((whole.plan.scene_dir / "report" / "results.json").read_text())
    assert saved == asdict(results)
    for figures in results.methods.values():
        assert f"{figures.scores['psnr']:.2f}" in printed
    page = (whole.plan.scene_dir / "report" / "report.html").read_text()
    # Partition, chart and pictures of the extremes.
    assert page.count("<img") > 10 and page.count("svg+xml") == 1
    assert f"{GROUPS}x{STEPS['expert']}" in printed


def test_the_report_is_there_before_the_video(shell: Shell, whole: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    report = whole.plan.scene_dir / "report" / "report.html"
    report.unlink(missing_ok=True)
    ran: list[tuple[tuple[str, ...], bool]] = []

    def note(plans: Any, places: Any, console: Console, kinds: tuple[str, ...]) -> bool:
        ran.append((kinds, report.exists()))
        return True

    monkeypatch.setattr("dac_nerfstudio.launch.local.run_plans", note)
    cli.run(
        (shell.folder / "demo",), preset="quick", groups=2, output_dir=shell.folder / "whole", seed=7, devices="cpu"
    )
    assert ran == [(("split", "train", "evaluate"), False), (("video",), True)]


def test_a_dry_run_says_of_a_baseline_that_another_softness_makes_no_difference_to_it(whole: Ran) -> None:
    request = dataclasses.replace(whole.plan.request, divide={"groups": GROUPS, "softness": 0.7})
    decisions = {decision.job.name: decision for decision in examine(dataclasses.replace(whole.plan, request=request))}
    assert decisions["split"].why == "needs softness 0.7"
    assert decisions["baseline"].kept
    assert decisions["expert 1"].why == "12 steps, less than a minute: split comes first"


def test_failed_job_is_named_and_the_others_finish(shell: Shell) -> None:
    plan = in_small(planned(shell, output_dir=shell.folder / "broken", video=True))
    jobs = [
        dataclasses.replace(job, flags={**job.flags, "group": 9}) if job.name == "expert 1" else job
        for job in plan.jobs
    ]
    plan = dataclasses.replace(plan, jobs=tuple(jobs))
    ran = carry_out(plan)
    assert not ran.succeeded
    problems = dict(line.split(": ", 1) for line in ran.printed.splitlines() if ": " in line)
    assert "there is no group 9" in problems["expert 1"]
    assert problems["ensemble"] == problems["distill"] == "left out, because expert 1 failed"
    assert problems["finetune"] == "left out, because distill failed"
    assert problems["video"] == "left out, because finetune failed"
    assert "Traceback" not in ran.printed
    assert not {"split", "expert 2", "baseline"} & {name for name in problems if "failed" in problems[name]}
    for name in ("expert 2", "baseline"):
        assert Stage.load(ran.job(name).run_dir).complete
    for name in ("expert 1", "ensemble", "distill", "finetune"):
        assert not ran.job(name).run_dir.exists()
    # Experts of some groups only are not compared with methods that are scored on all views.
    assert set(reporting.figures(read_scene(plan.scene_dir, RUN)).methods) == {"dac-baseline"}


def scored_views(path: Path) -> list[list[Any]]:
    """Names, groups and scores of the views in a run's evaluation.json."""
    views = json.loads(path.read_text())["views"]
    return [[view[name] for name in ("name", "group", "psnr", "ssim")] for view in views]


PAYLOAD = "!!python/object/apply:os.mkdir [{marker}]\n"


def test_nothing_in_a_folder_of_results_is_executed(whole: Ran, shell: Shell, tmp_path: Path) -> None:
    """What somebody else's config.yml would do when it is loaded as nerfstudio loads it is not done."""
    marker = tmp_path / "executed"
    outputs = Path(shutil.copytree(shell.folder / "whole", tmp_path / "whole"))
    configs = list(outputs.rglob("config.yml"))
    assert len(configs) == len(TRAINED)
    for path in configs:
        path.write_text(PAYLOAD.format(marker=marker))
    yaml.load(configs[0].read_text(), Loader=yaml.Loader)
    assert marker.exists(), "the payload works"
    marker.rmdir()
    scores = {path: scored_views(path) for path in outputs.rglob("evaluation.json")}
    for path in (*scores, outputs / "demo" / "report" / "video.mp4"):
        path.unlink()

    # Of everything that is there; of a run that was interrupted; of one that is moved aside; of all in the end.
    ran = carry_out(in_small(planned(shell, output_dir=outputs)))
    assert ran.succeeded, ran.printed
    assert len(scores) == len(TRAINED) - 1 and {path: scored_views(path) for path in scores} == scores
    stage = Stage.load(ran.job("baseline").run_dir)
    dataclasses.replace(stage, steps=3).save(ran.job("baseline").run_dir)
    dataclasses.replace(Stage.load(ran.job("ensemble").run_dir), seed=8).save(ran.job("ensemble").run_dir)
    assert carry_out(in_small(planned(shell, output_dir=outputs))).succeeded
    assert len(list(outputs.rglob("*-before-*"))) == 1
    reporting.figures(read_scene(outputs / "demo", RUN))
    assert not marker.exists()


def test_what_lies_in_a_folder_is_what_is_scored(whole: Ran, shell: Shell, tmp_path: Path) -> None:
    """A copy is scored by its own weights, wherever its config.yml says that it was made."""
    outputs = Path(shutil.copytree(shell.folder / "whole", tmp_path / "whole"))
    plan = planned(shell, output_dir=outputs, only="evaluate")
    plan = dataclasses.replace(plan, jobs=tuple(job for job in plan.jobs if job.stage == "baseline"))
    run_dir = plan.jobs[0].run_dir
    before = scored_views(run_dir / "evaluation.json")
    (path,) = (run_dir / "nerfstudio_models").iterdir()
    state = torch.load(path, weights_only=True)
    state["pipeline"] = {name: torch.zeros_like(value) for name, value in state["pipeline"].items()}
    torch.save(state, path)
    (run_dir / "evaluation.json").unlink()
    assert carry_out(plan).succeeded
    after = scored_views(run_dir / "evaluation.json")
    assert all(one[:2] == other[:2] and one[2] != other[2] for one, other in zip(before, after, strict=True))


def test_photos_that_were_replaced_by_others_of_the_same_name_and_size_are_noticed(
    scored: tuple[Plan, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "reopen", load)
    plan, job = scored
    data = Path(shutil.copytree(plan.request.data, tmp_path / "data"))
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, data=data))
    assert not evaluate.evaluate(job, plan, lambda report: None), "a copy is as good"
    replace_last_byte(data / "test" / "r_1.png")
    with pytest.raises(Scored):
        evaluate.evaluate(job, plan, lambda report: None)
    replace_last_byte(data / "train" / "r_3.png")
    with pytest.raises(StageError, match="was trained on other photos than those in"):
        evaluate.evaluate(job, plan, lambda report: None)


def replace_last_byte(path: Path) -> None:
    """Another file of the same name and size, which is as old; a PNG's last bytes are a sum that Pillow passes over."""
    content, status = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_record_brings_back_its_method_s_settings(shell: Shell, tmp_path: Path) -> None:
    """Of the data parser and the model too: paths, tuples, and what is not the default."""
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    data = shell.folder / "real"
    plan = planned(shell, data=data, output_dir=tmp_path, preset="quick", only="baseline", downscale=1)
    job = plan.jobs[-1]
    config = parse(job.arguments)
    config.save_config()
    sources = config.sources()
    sources.record.save(job.run_dir)
    again = recorded_config(job.run_dir, data, "cpu")
    parser = again.pipeline.datamanager.dataparser
    assert isinstance(parser, ColmapDataParserConfig)
    assert dataclasses.replace(parser, data=data) == dataclasses.replace(
        config.pipeline.datamanager.dataparser, data=data
    )
    assert again.pipeline.model == sources.config.pipeline.model
    assert again.pipeline.model.multiscale_res == (1, 2)
