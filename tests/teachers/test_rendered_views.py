"""Pictures that teachers render where no photo was taken."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from tiny_runs import SaveRun, TinyModel

from dac_nerfstudio.kplanes.teaching import ExpertModel
from dac_nerfstudio.runs.store import open_model
from dac_nerfstudio.teachers.ensemble import Ensemble
from dac_nerfstudio.teachers.rendered_views import MOST_VIEWS, RenderedViews, enough, render_views
from dac_nerfstudio.training.datamanager import DaCDataManager, DaCDataManagerConfig, shared


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
    return [open_model(save_run(model, group), "cpu") for group, model in enumerate(models, start=1)]


def rendered(experts: list[Any], cameras: Cameras, *weights: float, count: int = 3) -> RenderedViews:
    """Views of models of these weights at every camera."""
    groups = range(1, len(weights) + 1)
    ensemble = Ensemble(experts, groups, lambda poses, at: torch.tensor(weights).expand(len(poses), -1))
    told: list[tuple[int, int]] = []
    made = render_views(ensemble, cameras, count, np.random.default_rng(5), lambda *report: told.append(report))
    assert told == [(done, count) for done in range(1, count + 1)]
    return made


def test_a_rendered_view_blends_what_experts_render(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    cameras = manager.train_dataset.cameras
    made = rendered(experts, cameras, 0.25, 0.75)
    cameras = made.cameras_after(cameras)
    assert len(cameras) == 8 + 3 and len(made.pixels) == len(made.unoccluded) == 3
    for number, picture in enumerate(made.pixels):
        one, other = (expert.get_outputs_for_camera(cameras[8 + number : 9 + number])["rgb"] for expert in experts)
        assert (one - other).abs().max() > 0.05
        colour, opacity = picture[..., :3] / 255, picture[..., 3:] / 255
        assert (opacity * colour + 1 - opacity - (0.25 * one + 0.75 * other)).abs().max() < 2.5 / 255


def test_an_expert_without_weight_is_not_asked(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    cameras = manager.train_dataset.cameras
    alone = rendered(experts[1:], cameras, 1.0)
    experts[0].teach = None  # type: ignore[assignment, method-assign]
    both = rendered(experts, cameras, 0.0, 1.0)
    assert all(torch.equal(*pair) for pair in zip(alone.pixels, both.pixels))


class Nerfacto:
    """Stands for a model of another method: it renders cameras, on the background of the moment."""

    device = torch.device("cpu")
    config = SimpleNamespace(background_color="random")

    def get_outputs_for_camera(self, camera: Cameras) -> dict[str, torch.Tensor]:
        from nerfstudio.model_components import renderers

        opacity = torch.full((16, 16, 1), 0.5)
        background = renderers.BACKGROUND_COLOR_OVERRIDE
        assert background is not None
        return {"rgb": opacity * torch.tensor([1.0, 0.5, 0.0]) + (1 - opacity) * background, "accumulation": opacity}


def test_a_model_that_only_renders_cameras_teaches_too(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    cameras = manager.train_dataset.cameras
    alone = rendered([Nerfacto()], cameras, 1.0)
    assert all(picture.view(-1, 4).unique(dim=0).tolist() == [[255, 128, 0, 128]] for picture in alone.pixels)
    assert all(whole.all() for whole in alone.unoccluded)
    both, other = rendered([Nerfacto(), experts[0]], cameras, 0.5, 0.5), rendered(experts[:1], cameras, 1.0)
    for mixed, picture in zip(both.pixels, other.pixels):
        assert (mixed[..., 3] - (picture[..., 3] / 2 + 64)).abs().max() <= 1


def test_the_same_generator_gives_the_same_views(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    one, other = (rendered(experts, manager.train_dataset.cameras, 0.5, 0.5) for _ in range(2))
    assert torch.equal(one.camera_to_worlds, other.camera_to_worlds)
    assert all(torch.equal(*pair) for pair in zip(one.pixels, other.pixels))


def test_rendered_views_get_their_share_of_the_draw(manager: DaCDataManager, experts: list[ExpertModel]) -> None:
    made = rendered(experts, manager.train_dataset.cameras, 0.5, 0.5)
    # Half of the second picture cannot be trusted.
    made.unoccluded[0][:], made.unoccluded[1][:8], made.unoccluded[1][8:], made.unoccluded[2][:] = (
        True,
        False,
        True,
        True,
    )
    manager.rendered, manager.rendered_share = made, 0.25
    drawn, seen = 0, set()
    poses = manager.train_dataset.cameras.camera_to_worlds
    for step in range(40):
        rays, batch = manager.next_train(step)
        views, rows, columns = batch["indices"].T
        of_rendered = views >= 8
        drawn += int(of_rendered.sum())
        assert torch.equal(rays.camera_indices[of_rendered, 0], made.like[views[of_rendered] - 8])
        assert torch.equal(rays.camera_indices[~of_rendered, 0], views[~of_rendered])
        seen |= set(zip(views[of_rendered].tolist(), rows[of_rendered].tolist()))
        for ray in of_rendered.nonzero()[:, 0].tolist():
            view = int(views[ray]) - 8
            assert torch.equal(255 * batch["image"][ray], made.pixels[view][rows[ray], columns[ray]].float())
            assert torch.equal(rays.origins[ray], made.camera_to_worlds[view, :, 3])
        assert torch.equal(rays.origins[~of_rendered], poses[views[~of_rendered], :, 3])
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
    assert [enough(drawn, cameras) for drawn in (1, 256, 257, 10**9)] == [1, 1, 2, MOST_VIEWS]
