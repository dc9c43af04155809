"""Pictures that experts render for the student where no photo was taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig

from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.teachers.experts import load_expert
from dac_nerfstudio.teachers.models import ExpertModel
from dac_nerfstudio.teachers.rendered_views import MOST_LESSONS, Lessons, enough, render_lessons
from dac_nerfstudio.training.datamanager import DaCDataManager, DaCDataManagerConfig, shared

TinyModel = Callable[..., KPlanesModel]
SaveRun = Callable[..., Any]


@pytest.fixture
def manager(demo: Path) -> DaCDataManager:
    """Of 8 photos of 16 x 16 pixels, 64 of which are drawn in a step."""
    parser = BlenderDataParserConfig(data=demo, alpha_color=None, scale_factor=1.0)
    config = DaCDataManagerConfig(data=demo, dataparser=parser, train_num_rays_per_batch=64)
    return config.setup(device="cpu", test_mode="val")


@pytest.fixture
def experts(tiny_model: TinyModel, save_run: SaveRun) -> list[ExpertModel]:
    """An explicit one and a hybrid one, which see different things."""
    models = [tiny_model(seed=1), tiny_model(seed=2, linear_decoder=False)]
    return [load_expert(*save_run(model, group), "cpu") for group, model in enumerate(models, start=1)]


def constant(*weights: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same weights at every camera."""
    return lambda poses: torch.tensor(weights).expand(len(poses), -1)


def rendered(experts: list[ExpertModel], cameras: Cameras, *weights: float, count: int = 3) -> Lessons:
    return render_lessons(experts, constant(*weights), cameras, count, np.random.default_rng(5))


def test_a_lesson_is_the_blend_of_what_experts_render(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    cameras = manager.train_dataset.cameras
    lessons = rendered(experts, cameras, 0.25, 0.75)
    cameras = lessons.cameras_after(cameras)
    assert len(cameras) == 8 + 3 and len(lessons.pixels) == len(lessons.clear) == 3
    for number, picture in enumerate(lessons.pixels):
        one, other = (expert.get_outputs_for_camera(cameras[8 + number : 9 + number])["rgb"] for expert in experts)
        assert (one - other).abs().max() > 0.05
        colour, opacity = picture[..., :3] / 255, picture[..., 3:] / 255
        assert (opacity * colour + 1 - opacity - (0.25 * one + 0.75 * other)).abs().max() < 2.5 / 255


def test_an_expert_without_weight_is_not_asked(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    cameras = manager.train_dataset.cameras
    alone = rendered(experts[1:], cameras, 1.0)
    experts[0].answer = None  # type: ignore[assignment, method-assign]
    both = rendered(experts, cameras, 0.0, 1.0)
    assert all(torch.equal(*pair) for pair in zip(alone.pixels, both.pixels))


def test_the_same_generator_gives_the_same_lessons(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    one, other = (rendered(experts, manager.train_dataset.cameras, 0.5, 0.5) for _ in range(2))
    assert torch.equal(one.camera_to_worlds, other.camera_to_worlds)
    assert all(torch.equal(*pair) for pair in zip(one.pixels, other.pixels))


def test_lessons_get_their_share_of_the_draw_as_photos_do(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    lessons = rendered(experts, manager.train_dataset.cameras, 0.5, 0.5)
    # Half of the second picture cannot be trusted.
    lessons.clear[0][:], lessons.clear[1][:8], lessons.clear[1][8:], lessons.clear[2][:] = True, False, True, True
    manager.lessons, manager.lesson_share = lessons, 0.25
    drawn, seen = 0, set()
    poses = manager.train_dataset.cameras.camera_to_worlds
    for step in range(40):
        rays, batch = manager.next_train(step)
        views, rows, columns = batch["indices"].T
        of_lessons = views >= 8
        drawn += int(of_lessons.sum())
        seen |= set(zip(views[of_lessons].tolist(), rows[of_lessons].tolist()))
        for ray in of_lessons.nonzero()[:, 0].tolist():
            view = int(views[ray]) - 8
            assert torch.equal(255 * batch["image"][ray], lessons.pixels[view][rows[ray], columns[ray]].float())
            assert torch.equal(rays.origins[ray], lessons.camera_to_worlds[view, :, 3])
        assert torch.equal(rays.origins[~of_lessons], poses[views[~of_lessons], :, 3])
    assert drawn / (40 * 64) == pytest.approx(0.25, abs=0.03)
    assert {view for view, _ in seen} == {8, 9, 10} and not any((9, row) in seen for row in range(8))


def test_shares_are_of_pixels_drawn() -> None:
    sizes = [100, 100, 10, 10]
    for share in (0.0, 0.1, 0.5, 1.0):
        weights = shared(sizes, [1.0, 0.5], share)
        expected = [size * weight for size, weight in zip(sizes, weights)]
        assert sum(expected[2:]) / sum(expected) == pytest.approx(share)
        assert max(weights) == pytest.approx(1) and (share == 1 or weights[0] == pytest.approx(2 * weights[1]))


def test_no_more_is_rendered_than_will_be_drawn(manager: DaCDataManager) -> None:
    cameras = manager.train_dataset.cameras
    assert [enough(drawn, cameras) for drawn in (1, 256, 257, 10**9)] == [1, 1, 2, MOST_LESSONS]
