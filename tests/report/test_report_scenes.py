"""Several scenes in one report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_folders import RUN, Maker, better, gather
from scene_folders import edited

from dac_nerfstudio import cli
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.plan import Job, Plan, Request
from dac_nerfstudio.presets import PRESETS, Recipe
from dac_nerfstudio.report.scenes import combine


@pytest.fixture
def two(maker: Callable) -> list[Maker]:
    """A scene, and one of which the baseline is 2 dB better and there are no experts."""
    first, second = maker("lego").everything(), maker("ship").only("dac-baseline", "dac-distill", "dac-finetune")
    path = second.run_dir("dac-baseline") / "evaluation.json"
    edited(path, lambda content: better(content["views"], 2) or [view.pop("flip") for view in content["views"]])
    return [first, second]


def test_means_over_scenes_are_of_what_all_have(two: list[Maker]) -> None:
    combined = combine([gather(made.folder) for made in two])
    psnr = combined["scores"]["psnr"]
    assert psnr["dac-baseline"] == {"per_scene": [25.5, 27.5], "mean": 26.5}
    assert psnr["dac-expert"] == {"per_scene": [25.5, None], "mean": None}
    assert combined["scores"]["flip"]["dac-baseline"] == {"per_scene": [pytest.approx(0.0255), None], "mean": None}
    # 0.25, and 0.25 - 2.
    assert combined["gain"] == {"per_scene": [0.25, -1.75], "mean": -0.75}
    assert combined["notes"][0] == "ship has no experts, own views, which therefore has no mean."
    assert combined["notes"][1] == "ship has no FLIP of every method: not all views have it."
    assert combined["notes"][2].startswith("lego was not compared at equal cost: --baseline total")
    assert combined["seconds"]["dac-expert"] == [40.0, None]


def test_the_command_reports_each_scene_and_all(two: list[Maker], capsys: pytest.CaptureFixture[str]) -> None:
    folders = [made.folder for made in two]
    cli.report(folders[0], (folders[1],))
    printed = capsys.readouterr().out
    assert "lego: test views, seed 7" in printed and "gain over plain training" in printed
    assert f"There is no expert named {RUN}." in printed
    outputs = folders[0].parent
    for folder in folders:
        assert {path.name for path in (folder / "report").iterdir()} == {"report.html", "results.json", "results.md"}
    assert {path.name for path in outputs.iterdir()} == {"lego", "ship", "results.json", "results.md"}
    table = (outputs / "results.md").read_text()
    assert "| gain over plain training | +0.25 | −1.75 | −0.75 |" in table
    assert "| experts, own views | 0:40 | – |" in table
    assert "| FLIP" not in table and "## FLIP ↓" in table and f"Runs: lego: {RUN}, ship: {RUN}." in table
    assert json.loads((outputs / "results.json").read_text())["scenes"] == ["lego", "ship"]


def test_scenes_of_different_folders_are_combined_on_the_terminal_alone(
    maker: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = maker("a/lego").everything(), maker("b/ship").everything()
    cli.report(one.folder, (other.folder,))
    assert "not written, as these scenes lie in different folders" in capsys.readouterr().out
    assert not list(one.folder.parent.glob("*.*"))


def test_a_broken_scene_is_named_and_the_others_reported(
    two: list[Maker], maker: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = maker("broken")
    (broken.train("dac-baseline") / "stage.json").write_text("{")
    first, second = (made.folder for made in two)
    with pytest.raises(StageError, match="broken/dac-baseline/quick-seed7/stage.json cannot be read"):
        cli.report(first, (broken.folder, second))
    assert "gain over plain training" in capsys.readouterr().out
    assert "broken" not in (first.parent / "results.md").read_text()
    assert all((folder / "report" / "report.html").exists() for folder in (first, second))


def test_what_cannot_be_written_is_named_and_the_rest_is_said(
    two: list[Maker], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lego, ship = (made.folder for made in two)
    (lego.parent / "results.md").mkdir()
    monkeypatch.setattr("sys.argv", ["dac", "report", str(lego), str(ship)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert ended.value.code == 1 and f"Report:  {ship / 'report' / 'report.html'}" in printed.out
    assert printed.err == f"Error: {lego.parent / 'results.md'}: Is a directory\n"
    shutil.rmtree(ship / "report")
    (ship / "report").touch()
    with pytest.raises(StageError, match="ship/report: File exists"):
        cli.report(lego, (ship,))


def plan_of(scene_dir: Path, recipe: Recipe, *jobs: Job) -> Plan:
    return Plan(Request(Path("data"), scene_dir.parent, scene_dir.name, seed=7), recipe, jobs)


def test_every_scene_is_reported_by_the_name_of_its_own_run(two: list[Maker], monkeypatch: pytest.MonkeyPatch) -> None:
    """Real scenes and others have experts of other kinds, so runs of other names."""
    reported: list[tuple[Any, ...]] = []
    monkeypatch.setattr("dac_nerfstudio.report.writing.report_scenes", lambda *one: reported.append(one[:2]))
    scored = [Job("baseline", "train", maker.run_dir("dac-baseline"), score_most=1) for maker in two]
    recipes = [PRESETS["quick"].on(real) for real in (False, True)]
    cli._show_results(
        [plan_of(maker.folder, recipe, job) for maker, recipe, job in zip(two, recipes, scored)], Console()
    )
    names = ("quick-seed7", "quick-kplanes+nerfacto-seed7")
    assert reported == [([maker.folder], name) for maker, name in zip(two, names)]


def test_a_report_that_fails_does_not_hide_what_was_made(two: list[Maker], capsys: pytest.CaptureFixture[str]) -> None:
    lego = two[0].folder
    (lego / "report").touch()
    (lego / "partition.png").touch()
    scored = Job("baseline", "train", two[0].run_dir("dac-baseline"), score_most=1)
    with pytest.raises(StageError, match="lego/report: File exists"):
        cli._show_results([plan_of(lego, PRESETS["quick"], scored)], Console())
    assert f"Groups:  {lego / 'partition.png'}" in capsys.readouterr().out
