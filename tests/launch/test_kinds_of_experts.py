"""Experts of several kinds of model: what dac run plans for them, and how their runs are named and reported."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dac_nerfstudio import cli
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.plan import Plan, Request, make_plan
from dac_nerfstudio.partition import divide, publish
from dac_nerfstudio.presets import PRESETS, Recipe, recipe_of
from dac_nerfstudio.scene.data import read_views

FLAGS = {
    "all": {"pipeline.model.num-samples": 7, "steps-per-save": 9},
    "dac-expert-nerfacto": {"max-num-iterations": 5},
}


def request(data: Path, **changes: object) -> Request:
    settings = {"divide": {"groups": 4}, "flags": FLAGS, "video": False, "baseline": "total", "seed": 3, **changes}
    return Request(data, Path("out"), "scene", **settings)  # type: ignore[arg-type]


def test_experts_take_turns_and_what_they_render_teaches_the_student(demo: Path) -> None:
    recipe = PRESETS["quick"].taught_by(("kplanes", "nerfacto"), "kplanes")
    jobs = {job.name: job for job in make_plan(request(demo), recipe).jobs}
    experts = [jobs[f"expert {group}"] for group in range(1, 5)]
    assert [job.method for job in experts] == ["dac-expert", "dac-expert-nerfacto"] * 2
    assert list(jobs) == ["split", *(job.name for job in experts), "finetune", "baseline", "baseline total"]
    assert len({job.flags["machine.seed"] for job in experts}) == 4, "experts of all photos differ in their seeds"
    assert jobs["finetune"].flags["teachers"] == tuple(job.run_dir for job in experts)
    assert jobs["finetune"].needs == tuple(job.name for job in experts) and "experts" not in jobs["finetune"].flags
    assert jobs["finetune"].method == "dac-finetune" and jobs["baseline"].method == "dac-baseline"
    assert jobs["finetune"].flags["max-num-iterations"] == 8000 == jobs["baseline"].flags["max-num-iterations"]
    assert jobs["baseline total"].flags["max-num-iterations"] == 2 * 4000 + 2 * 5 + 8000
    assert recipe.softness == 0.99, "the mean of experts is one of experts of all photos"


def test_flags_of_the_one_model_are_not_given_to_the_other(demo: Path) -> None:
    recipe = PRESETS["quick"].taught_by(("kplanes", "nerfacto"), "nerfacto")
    jobs = {job.name: job for job in make_plan(request(demo), recipe).jobs}
    planes, grids = jobs["expert 1"].flags, jobs["expert 2"].flags
    assert planes["pipeline.model.num-samples"] == 7 and planes["pipeline.model.grid-base-resolution"] == 64
    assert not any("grid" in name or name.endswith(".num-samples") for name in grids)
    assert grids["pipeline.model.num-nerf-samples-per-ray"] == 16 and grids["max-num-iterations"] == 5
    assert grids["steps-per-save"] == planes["steps-per-save"] == 9
    assert jobs["finetune"].method == "dac-finetune-nerfacto" and jobs["baseline"].method == "dac-baseline-nerfacto"


@pytest.mark.parametrize("kinds", [(), ("nerfacto",), ("kplanes", "nerfacto")])
@pytest.mark.parametrize("student", ["kplanes", "nerfacto"])
def test_runs_are_named_by_their_kinds(kinds: tuple[str, ...], student: str) -> None:
    recipe = PRESETS["few"].taught_by(kinds, student)  # type: ignore[arg-type]
    assert recipe_of(recipe.run_name(7)) == (recipe, 7)
    assert recipe_of("few-other-seed7") is None and recipe_of("fewer-seed7") is None


def test_there_is_no_distillation_of_several_kinds(demo: Path) -> None:
    recipe = PRESETS["quick"].taught_by(("nerfacto",), "kplanes")
    with pytest.raises(StageError, match="They teach by pictures alone: there is no distill. With it"):
        make_plan(request(demo, only="distill"), recipe)
    with pytest.raises(StageError, match="Add --experts kplanes,nerfacto"):
        cli.run((demo,), preset="quick", student="nerfacto", dry_run=True)


def test_a_preset_has_experts_of_two_kinds_of_real_scenes(demo: Path, real: Callable[..., Path]) -> None:
    experts, photos = {}, real()
    for data in (demo, photos):
        plan = make_plan(request(data, divide={}), PRESETS["quick"])
        experts[data] = [job.method for job in plan.jobs if job.stage == "expert"]
        assert recipe_of(plan.recipe.run_name(3)) == (plan.recipe, 3)
    assert experts == {demo: ["dac-expert"] * 4, photos: ["dac-expert-360", "dac-expert-nerfacto-360"] * 2}
    others = make_plan(request(photos, divide={}), PRESETS["quick"].taught_by(("kplanes",), "kplanes"))
    assert [job.method for job in others.jobs if job.stage == "expert"] == ["dac-expert-360"] * 4
    nerfacto = make_plan(request(photos, divide={}), PRESETS["quick"].taught_by((), "nerfacto"))
    assert nerfacto.jobs[-2].method == "dac-baseline-nerfacto-360", "the preset's experts teach it"
    taught = make_plan(request(photos, teachers=(Path("a"),)), PRESETS["quick"])
    assert taught.recipe == PRESETS["quick"], "who teaches was named"


def test_a_scene_that_was_divided_for_other_experts_is_divided_anew(
    demo: Path, real: Callable[..., Path], tmp_path: Path
) -> None:
    """Only experts of all photos are averaged; the paper's see their own group's."""

    data = real()

    def softness(preset: str, scene_dir: Path, **asked: object) -> object:
        one = replace(request(data, divide=asked), output_dir=scene_dir.parent)
        plan = make_plan(one, PRESETS[preset])
        return plan.request.divide.get("softness")

    for before, wanted in (
        (0.0, {"quick": 0.99, "few": 0.99, "reference": None}),
        (0.99, {"quick": None, "reference": 0}),
    ):
        scene_dir = tmp_path / str(before) / "scene"
        publish(divide(read_views(data), 3, softness=before), scene_dir)
        assert {preset: softness(preset, scene_dir) for preset in wanted} == wanted
    assert softness("reference", scene_dir, softness=0.5) == 0.5, "what is asked for now has the last word"
    assert softness("few", tmp_path / "0.0" / "scene", softness=0.0) == 0.0, "none as well"
    for name, value in (("softness", 0.3), ("softness", 0.0), ("overlap", 0.2)):
        with pytest.raises(StageError, match=f"all of them see all photos. Leave out --{name}"):
            softness("quick", scene_dir, **{name: value})


def test_kinds_are_told_from_run_folders() -> None:
    assert cli._kinds_of((Path("kplanes,nerfacto"),)) == (("kplanes", "nerfacto"), ())
    assert cli._kinds_of((Path("nerfacto"), Path("nerfacto"))) == (("nerfacto", "nerfacto"), ())
    folders = (Path("outputs/kplanes"), Path("nerfacto"))
    assert cli._kinds_of(folders) == ((), folders)


def test_a_file_of_flags_travels_with_its_request(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked = tmp_path / "dac.toml", []
    file.write_text("[all]\nsteps-per-save = 9  # often\n")

    def make(asked_for: Request, recipe: Recipe) -> Plan:
        asked.append(asked_for)
        raise StageError("enough")

    monkeypatch.setattr(cli, "make_plan", make)
    with pytest.raises(StageError, match="enough"):
        cli.run((demo,), preset="quick", config=file, devices="cpu")
    assert (asked[0].flags, asked[0].config) == ({"all": {"steps-per-save": 9}}, file.read_bytes())
