"""The study at convergence: finished models are kept, choices are made on validation views, blends have limits."""

from __future__ import annotations

import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.errors import StageError

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
converged = importlib.import_module("converged")
converged_page = importlib.import_module("converged_page")
lean = importlib.import_module("lean")

SETTINGS = """
seeds = [1, 2]
rays = 8
rate = 1e-2
sharpness = [0.0, 2.0, inf]
queue = ["castle-4 student 1"]

[model]
grid_base_resolution = 4
grid_feature_dim = 2
multiscale_res = [1]
linear_decoder_layers = 1
proposal_resolutions = [4]
num_proposal_samples = [4]
num_samples = 4

[cases.castle-4]
about = "A castle, 4 photos."
data = "scene"
downscale = 2
photos = 4

[arms.baseline]
about = "one model."
recipe = { steps = 1, tv = 1e-2 }
choose.steps = [1, 2]

[arms.experts]
about = "three models."
like = "baseline"
recipe = { members = 3, groups = 2, softness = 0.5, steps = 1 }

[arms.student]
about = "one model that learns from three."
like = "baseline"
recipe = { teacher = "experts", novel = [0.5, 0.25], poses = 3, doubt = 1.0 }
"""


@pytest.fixture
def study(tmp_path: Path) -> Any:
    path = tmp_path / "converged.toml"
    path.write_text(SETTINGS)
    return converged.Study.load(path)


@pytest.fixture
def cameras() -> Any:
    centres = torch.tensor([[3.0, 1.0, 1.0], [-2.0, 2.0, 0.5], [0.5, -3.0, 2.0]])
    poses = torch.cat([torch.eye(3).expand(3, 3, 3), centres[:, :, None]], dim=2)
    return lean.Cameras(poses, focal=4.0, height=4, width=6)


def test_rays_go_through_pixel_centres_along_minus_z(cameras: Any) -> None:
    origins, directions = cameras.rays()
    assert origins.shape == (3, 24, 3)
    torch.testing.assert_close(origins[1, 0], torch.tensor([-2.0, 2.0, 0.5]))
    expected = torch.tensor([-2.5, 1.5, -4.0])  # the first pixel: left and above
    torch.testing.assert_close(directions[0, 0], expected / expected.norm())


def test_orbit_looks_at_the_origin_from_the_cameras_own_heights(cameras: Any) -> None:
    novel = lean.orbit(cameras, 50, seed=0)
    rotations, centres = novel.poses[:, :, :3], novel.poses[:, :, 3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(50))
    radius = cameras.poses[:, :, 3].norm(dim=1)
    torch.testing.assert_close(centres, rotations[:, :, 2] * radius.mean())
    heights = cameras.poses[:, 2, 3] / radius
    assert (centres[:, 2] / radius.mean()).min() >= heights.min() - 1e-5
    assert (centres[:, 2] / radius.mean()).max() <= heights.max() + 1e-5


def test_a_ring_goes_once_around_at_one_height(cameras: Any) -> None:
    centres = lean.ring(cameras, 8).poses[:, :, 3]
    torch.testing.assert_close(centres.norm(dim=1), cameras.poses[:, :, 3].norm(dim=1).mean().expand(8))
    torch.testing.assert_close(centres[:, 2], centres[:1, 2].expand(8))
    torch.testing.assert_close((centres - centres.roll(1, 0)).norm(dim=1), (centres[0] - centres[1]).norm().expand(8))


def test_turned_planes_see_what_straight_ones_see_from_turned_cameras(study: Any, cameras: Any) -> None:
    model = lean.small_model(study.model, 0.0, seed=3)
    turn = torch.tensor(Rotation.random(random_state=1).as_matrix(), dtype=torch.float32)
    turned = lean.Member(model, turn).pictures(cameras)
    straight = lean.Member(model, torch.eye(3)).pictures(replace(cameras, poses=turn @ cameras.poses))
    torch.testing.assert_close(turned, straight, atol=1e-5, rtol=1e-4)
    assert turned[..., :3].std() > 1e-4


def test_halving_fills_evenly() -> None:
    assert [converged.halving(number) for number in range(5)] == [0, 0.5, 0.25, 0.75, 0.125]


def test_blends_go_from_average_to_routing(cameras: Any) -> None:
    recipe = converged.Recipe(steps=1, tv=0.0)
    models = [converged.Model("castle-4", recipe, number, number) for number in range(6)]
    ring = lean.orbit(cameras, 32, seed=0)
    partition = converged.sectors(ring, 4)
    alike = converged.blend_weights(cameras, models, None, 0.0)
    torch.testing.assert_close(alike, torch.full((6, 3), 1 / 6))
    even = converged.blend_weights(cameras, models, partition, 0.0)
    torch.testing.assert_close(even, torch.tensor([[1 / 8], [1 / 8], [1 / 4], [1 / 4], [1 / 8], [1 / 8]]).expand(6, 3))
    routed = converged.blend_weights(cameras, models, partition, math.inf)
    # The cameras stand in the first, second and last sector; groups 0 and 1 have two members each.
    expected = torch.zeros(6, 3)
    expected[[0, 4], 0] = expected[[1, 5], 1] = 0.5
    expected[3, 2] = 1
    torch.testing.assert_close(routed, expected)
    torch.testing.assert_close(converged.blend_weights(cameras, models, partition, 1e4), expected)
    milder = converged.blend_weights(cameras, models, partition, 2.0)
    torch.testing.assert_close(milder.sum(dim=0), torch.ones(3))
    assert (milder > even)[[0, 1, 3], [0, 1, 2]].all()


def test_doubted_rays_count_less_and_a_single_teacher_doubts_none() -> None:
    disagreement = torch.tensor([[0.0, 0.1], [0.1, 0.2]])
    expected = torch.exp(-torch.tensor([[0.0, 1.0], [1.0, 2.0]]))
    torch.testing.assert_close(converged.ray_weights(disagreement, 1.0), expected / expected.mean())
    for doubt in (0.0, 1.0):
        torch.testing.assert_close(converged.ray_weights(torch.zeros(2, 2), doubt), torch.ones(2, 2))


def test_finished_models_are_kept_and_shared(study: Any, tmp_path: Path) -> None:
    make_demo_scene(tmp_path / "scene", size=8, train=6, val=2, test=2)
    with pytest.raises(converged.Pending):
        converged.Bench(study, tmp_path / "out", tmp_path, until=0.0).outcome("castle-4", "baseline", 1)
    with pytest.raises(converged.Pending):
        converged.Bench(study, tmp_path / "out").outcome("castle-4", "baseline", 1)
    bench = converged.Bench(study, tmp_path / "out", tmp_path)
    first = bench.outcome("castle-4", "student", 1)
    # Two baselines (experts are drawn from other photos), three experts, one student.
    records = sorted(tmp_path.glob("out/castle-4-????????????.json"))
    assert len(records) == 6
    assert first["lesson_seconds"] >= 0 and len(first["seconds"]) == 1
    times = [path.stat().st_mtime_ns for path in records]
    assert converged.Bench(study, tmp_path / "out").outcome("castle-4", "student", 1) == first
    assert [path.stat().st_mtime_ns for path in records] == times
    asked = {("castle-4", arm) for arm in study.arms}
    results = converged.gather(bench, asked)
    assert not converged.gather(bench, {("castle-4", "student")})["cases"]  # without the baseline
    assert results["headline"][0]["student"] == round(first["test"], 3)
    json.dumps(results, allow_nan=False)


def test_routed_experts_jump_where_averaged_ones_do_not(study: Any, tmp_path: Path) -> None:
    make_demo_scene(tmp_path / "scene", size=8, train=6, val=2, test=2)
    bench = converged.Bench(study, tmp_path / "out", tmp_path)
    steps = bench.outcome("castle-4", "experts", 1)["largest_step"]
    assert set(steps) == {"0.0", "2.0", "inf"}
    assert steps["inf"] > steps["2.0"] > 0


def test_choices_are_made_on_validation_views(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {1: {"val": 30.0, "test": 10.0}, 2: {"val": 20.0, "test": 40.0}}
    monkeypatch.setattr(converged.Bench, "measure", lambda self, case, recipe, seed: scores[recipe.steps])
    recipe, tried = converged.Bench(study, tmp_path).chosen("castle-4", "baseline")
    assert recipe.steps == 1
    assert tried == [{"steps": 1, "val": 30.0}, {"steps": 2, "val": 20.0}]


def test_a_case_may_choose_otherwise_and_among_fields_of_the_model(
    study: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    asked = []

    def measure(bench: Any, case: str, recipe: Any, seed: int) -> dict[str, float]:
        asked.append((recipe.size, seed))
        return {"val": float(recipe.size.get("near_plane", 1.0))}

    monkeypatch.setattr(converged.Bench, "measure", measure)
    more = {"choose": {"steps": [1], "size": [{}, {"near_plane": 2.0}]}, "choose_by": 2}
    study.arms["baseline"] = replace(study.arms["baseline"], more={"castle-4": more})
    recipe, _ = converged.Bench(study, tmp_path).chosen("castle-4", "baseline")
    assert recipe.size == {"near_plane": 2.0}
    assert asked == [({}, 1), ({}, 2), ({"near_plane": 2.0}, 1), ({"near_plane": 2.0}, 2)]


def test_figures_stand_though_their_models_are_gone(study: Any, tmp_path: Path) -> None:
    make_demo_scene(tmp_path / "scene", size=8, train=6, val=2, test=2)
    bench = converged.Bench(study, tmp_path / "out", tmp_path)
    bench.outcome("castle-4", "experts", 1)
    results = converged.gather(bench, {("castle-4", "baseline"), ("castle-4", "experts")})
    cases = json.loads(json.dumps(results))["cases"]
    elsewhere = converged.Bench(study, tmp_path / "elsewhere", earlier=cases)
    assert converged.gather(elsewhere, set()) == results
    assert (
        elsewhere.outcome("castle-4", "experts", 1)["val"]
        == results["cases"]["castle-4"]["arms"]["experts"]["seeds"]["1"]["val"]
    )
    with pytest.raises(converged.Pending):  # another seed's models are to be trained
        elsewhere.outcome("castle-4", "experts", 2)
    study.arms["baseline"] = replace(study.arms["baseline"], choose={"steps": [1, 3]})
    with pytest.raises(converged.Pending):  # another choice is to be made
        elsewhere.outcome("castle-4", "experts", 1)


def test_teachers_that_are_gone_are_trained_again(study: Any, tmp_path: Path) -> None:
    make_demo_scene(tmp_path / "scene", size=8, train=6, val=2, test=2)
    bench = converged.Bench(study, tmp_path / "out", tmp_path)
    bench.outcome("castle-4", "experts", 1)
    cases = converged.gather(bench, {("castle-4", "baseline"), ("castle-4", "experts")})["cases"]
    elsewhere = converged.Bench(study, tmp_path / "elsewhere", tmp_path, earlier=json.loads(json.dumps(cases)))
    found = elsewhere.outcome("castle-4", "student", 1)
    assert {path.stem for path in elsewhere.folder.glob("castle-4-????????????.pt")} == {
        *found["models"], *cases["castle-4"]["arms"]["experts"]["seeds"]["1"]["models"],
    }  # fmt: skip


@pytest.mark.parametrize("change", ["teacher", "rays"])
def test_figures_of_other_settings_are_not_taken(study: Any, tmp_path: Path, change: str) -> None:
    make_demo_scene(tmp_path / "scene", size=8, train=6, val=2, test=2)
    bench = converged.Bench(study, tmp_path / "out", tmp_path)
    bench.outcome("castle-4", "student", 1)
    cases = converged.gather(bench, {("castle-4", arm) for arm in study.arms})["cases"]
    elsewhere = converged.Bench(study, tmp_path / "elsewhere", earlier=json.loads(json.dumps(cases)))
    elsewhere.outcome("castle-4", "student", 1)
    if change == "teacher":
        experts = study.arms["experts"]
        study.arms["experts"] = replace(experts, recipe={**experts.recipe, "steps": 2})
    else:
        elsewhere.study = replace(study, rays=9)
    with pytest.raises(converged.Pending):
        elsewhere.outcome("castle-4", "student", 1)


def test_a_run_does_not_write_over_figures_of_other_settings(study: Any, tmp_path: Path) -> None:
    make_demo_scene(tmp_path / "scene", size=8, train=6, val=2, test=2)
    where = {"data_root": tmp_path, "output_dir": tmp_path / "out", "json": tmp_path / "results.json"}
    converged.run(("castle-4 baseline 1",), settings=tmp_path / "converged.toml", **where)
    before = (tmp_path / "results.json").read_text()
    (tmp_path / "converged.toml").write_text(SETTINGS.replace("rays = 8", "rays = 9"))
    with pytest.raises(StageError, match="other settings than .*: castle-4 baseline"):
        converged.run(("castle-4 baseline 1",), settings=tmp_path / "converged.toml", **where)
    assert (tmp_path / "results.json").read_text() == before
    (tmp_path / "converged.toml").write_text(SETTINGS)
    converged.run(("castle-4 baseline 2",), settings=tmp_path / "converged.toml", **where)
    seeds = json.loads((tmp_path / "results.json").read_text())["cases"]["castle-4"]["arms"]["baseline"]["seeds"]
    assert list(seeds) == ["1", "2"]


def invented() -> dict[str, Any]:
    """A student ahead of its baseline by 1 and by 2 dB on test views, and another that only test views favour."""

    def arm(members: int, teacher: str, *scores: tuple[float, float]) -> dict[str, Any]:
        recipe = {"members": members, "teacher": teacher, "steps": 10, "tv": 0.01}
        seeds = {
            str(seed): {
                "val": val, "test": test, "seconds": [8.0] * members, "each": [test], "sharpness": "inf",
                "best_val": val - 2, "best_test": test - 2,
                "by_sharpness": {"val": {"0.0": val - 1, "inf": val}}, "pearson": 0.5, "error_share": 0.25,
                "largest_step": {"0.0": 1.5, "inf": 4.25},
                "lesson_seconds": 4.0,
            }
            for seed, (val, test) in enumerate(scores, 1)
        }  # fmt: skip
        tried = {"tried": [{"tv": 0.01, "val": 20.0}], "tried_by": [1]}
        return {"about": "a way.", "recipe": recipe, **tried, "seeds": seeds}

    arms = {
        "baseline": arm(1, "", (20, 21), (20, 22)),
        "experts": arm(4, "", (23, 24)),
        "student": arm(1, "experts", (22, 22), (22, 24)),
        "other": arm(1, "experts", (19, 30), (19, 30)),
        "students": arm(2, "experts", (25, 25)),  # together the best, and no experts
    }
    case = {"about": "A castle, 4 photos.", "scene": "castle", "photos": 4, "arms": arms}
    return {"cases": {"castle-4": case}, "headline": [converged.headline(case)]}


def test_headline_is_chosen_on_validation_views_and_paired_by_seed() -> None:
    line = invented()["headline"][0]
    assert line["student_arm"] == "student"
    assert (line["baseline_best"], line["ensemble"], line["student"]) == (21.5, 24, 23)
    assert line["gain"] == 1.5
    assert line["gain_sd"] == round(float(np.std([1, 2], ddof=1)), 3)


def test_experts_run_side_by_side_and_a_student_after_them() -> None:
    arms = invented()["cases"]["castle-4"]["arms"]
    assert [converged_page.wall_time(arms, "experts", devices) for devices in (1, 2, 4)] == [32, 16, 8]
    # Members, rendering for the student by all devices, the student on one of them.
    assert [converged_page.wall_time(arms, "student", devices) for devices in (1, 4)] == [32 + 4 + 8, 8 + 1 + 8]


def test_page_says_what_the_results_say(study: Any, tmp_path: Path) -> None:
    lines = converged_page.page(invented(), study.notes).splitlines()
    assert "| castle | 4 | 2 | 21.50 | 10 | 22.00 | 24.00 | 23.00 | +1.50 ± 0.71 | 5.5 times |" in lines
    assert "| student | 10 | 0.01 | 2 | 22.00 ± 0.00 | +2.00 ± 0.00 | 0:08 |" in lines
    assert "| experts | 24.00 to 24.00 | 21.00 | 22.00 | 23.00 | 23.00 | inf | 0.50 | 25% | 4.2, 4.2 |" in lines
    results, page = tmp_path / "results.json", tmp_path / "results.md"
    converged.save(results, invented())
    converged.write_page(results, page, tmp_path / "converged.toml")
    converged.check(results, page, tmp_path / "converged.toml")
    assert (tmp_path / "results.png").stat().st_size > 1000
    page.write_text(page.read_text().replace("23.00", "33.00"))
    with pytest.raises(StageError, match="is stale. Make it again: python benchmarks/converged.py page"):
        converged.check(results, page, tmp_path / "converged.toml")


def test_the_baselines_course_goes_through_the_mean_of_all_seeds() -> None:
    arms = invented()["cases"]["castle-4"]["arms"]  # two seeds, with a mean of 20 dB at 10 steps
    assert converged_page.course(arms) == [(10, 20.0)]
    arms["baseline"]["tried"] += [{"steps": 5, "val": 20.5}, {"steps": 10, "val": 21.0}]  # one seed alone
    longer = {"recipe": {"steps": 20}, "seeds": {"1": {"val": 19.75}}}  # which had 20 dB with the best
    assert converged_page.course({**arms, "longer": longer}) == [(5, 19.5), (10, 20.0), (20, 19.75)]


def test_an_overlap_adds_the_nearest_of_other_sectors(cameras: Any) -> None:
    ring = lean.ring(cameras, 16)
    own, widened = (converged.sectors(ring, 4, 0.0, overlap).membership for overlap in (0.0, 0.5))
    assert (widened >= own).all()
    assert [row.sum() for row in widened] == [row.sum() + round(0.5 * row.sum()) for row in own]
    # Cameras stand in a ring: what is added is next to the sector, on both sides of it.
    assert all(np.abs(np.diff(row, append=row[0])).sum() == 2 for row in widened)


def test_claims_are_published_with_the_study(tmp_path: Path) -> None:
    study_module = importlib.import_module("study")
    results, to = tmp_path / "convergence.json", tmp_path / "results.json"
    converged.save(results, invented())
    converged.save(to, {"scenes": {}})
    converged.publish(results, to)
    assert json.loads(to.read_text())["headline"] == invented()["headline"]
    lines = study_module.page(json.loads(to.read_text()), study_module.Study(seeds=[], scenes={}, arms={})).splitlines()
    assert "| castle | 4 | 2 | 21.50 | 10 | 22.00 | 24.00 | 23.00 | +1.50 ± 0.71 | 5.5 times |" in lines


def test_the_page_in_docs_is_what_its_results_give() -> None:
    converged.check(ROOT / "docs" / "convergence.json", ROOT / "docs" / "convergence.md")


def test_committed_settings_can_be_read() -> None:
    assert converged.BASELINE in converged.Study.load(converged.SETTINGS).arms


def test_misspelt_settings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "converged.toml"
    path.write_text(SETTINGS.replace("softness = ", "loudness = "))
    with pytest.raises(StageError, match="unexpected keyword argument 'loudness'"):
        converged.Study.load(path)
