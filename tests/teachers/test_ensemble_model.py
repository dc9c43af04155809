"""All experts in one model: each camera and each ray is answered by its group's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from tiny_runs import Rays, TinyModel
from torch import Tensor

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.teachers.ensemble import poses_of
from dac_nerfstudio.training.ensemble import EnsembleModel, EnsembleModelConfig, ause, foretold
from dac_nerfstudio.training.trainer import EnsembleTrainer


def bundle_along(directions: Tensor) -> RayBundle:
    count = len(directions)
    return RayBundle(
        origins=torch.arange(3.0 * count).view(count, 3),
        directions=directions,
        pixel_area=torch.ones(count, 1),
        camera_indices=torch.zeros(count, 1, dtype=torch.long),
    )


def directions() -> Tensor:
    """All axes, both ways, nearly parallel ones, and others of any length."""
    axes = torch.eye(3)
    generator = torch.Generator().manual_seed(0)
    return torch.cat((axes, -axes, axes + 1e-4, torch.ones(1, 3), 3 * torch.randn(50, 3, generator=generator)))


def test_poses_are_right_handed_frames_that_look_along_the_ray() -> None:
    bundle = bundle_along(directions())
    poses = poses_of(bundle)
    rotations, count = poses[:, :, :3], len(bundle)
    torch.testing.assert_close(rotations.mT @ rotations, torch.eye(3).expand(count, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(count), rtol=0, atol=1e-5)
    assert torch.equal(poses[:, :, 3], bundle.origins)
    ahead = torch.nn.functional.normalize(bundle.directions, dim=-1)
    torch.testing.assert_close(rotations @ torch.tensor([0.0, 0.0, -1.0]), ahead, rtol=0, atol=1e-6)


@pytest.fixture
def ensemble(tiny_model: TinyModel) -> EnsembleModel:
    """Three different experts; the sign of a camera's x and y tell its group."""
    config = tiny_model().config
    model = tiny_model(EnsembleModelConfig, experts=(config,) * 3, groups=(1, 2, 3))
    assert isinstance(model, EnsembleModel)
    for seed, slot in enumerate(model.experts):
        slot.load_state_dict(tiny_model(seed=seed + 1).state_dict())

    def blend(poses: Tensor, inverse_temperature: float) -> Tensor:
        x, y = poses[:, 0, 3], poses[:, 1, 3]
        groups = torch.where(x > 0, 1, torch.where(y > 0, 2, 3))
        routed = torch.nn.functional.one_hot(groups - 1, 3).float()
        return routed if inverse_temperature == float("inf") else torch.softmax(inverse_temperature * routed, dim=-1)

    model.blend = blend
    return model.eval()


def test_an_ensemble_holds_its_experts_and_nothing_to_train(ensemble: EnsembleModel, tiny_model: TinyModel) -> None:
    one = set(tiny_model().state_dict())
    held = set(ensemble.state_dict())
    assert held - {"device_indicator_param", "inverse_temperature"} == {
        f"experts.{slot}.{name}" for slot in range(3) for name in one
    }
    assert ensemble.get_param_groups() == {}


def test_an_ensemble_that_cannot_be_saved_ends_in_words(
    ensemble: EnsembleModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: EnsembleTrainer, step: int) -> None:
        raise StageError("The disk is full.")

    monkeypatch.setattr(EnsembleTrainer, "save_checkpoint", save)
    trainer: Any = object.__new__(EnsembleTrainer)
    trainer.pipeline = SimpleNamespace(model=ensemble)
    with pytest.raises(SystemExit, match="The disk is full"):
        trainer.train()


def test_each_ray_is_answered_by_its_groups_expert(ensemble: EnsembleModel, rays: Rays) -> None:
    bundle = rays(20)
    groups = ensemble.ensemble.weights(poses_of(bundle)).argmax(dim=-1) + 1
    assert set(groups.tolist()) == {1, 2, 3} and not (groups.diff() >= 0).all()
    with torch.no_grad():
        outputs = ensemble.get_outputs(bundle)
        alone = [expert.get_outputs(bundle) for expert in ensemble.experts]
    assert set(outputs) == {"rgb", "accumulation", "depth", "prop_depth_0", "prop_depth_1"}
    for name, value in outputs.items():
        assert len(value) == 20
        for ray, group in enumerate(groups.tolist()):
            torch.testing.assert_close(value[ray], alone[group - 1][name][ray])
    assert (alone[0]["rgb"] - alone[1]["rgb"]).abs().max() > 0.05


def camera_at(centre: list[float]) -> Cameras:
    """A camera of 4 x 4 pixels that looks at the origin."""
    bundle = bundle_along(torch.nn.functional.normalize(-torch.tensor(centre), dim=0)[None])
    bundle.origins = torch.tensor([centre])
    return Cameras(poses_of(bundle), 6.0, 6.0, 2.0, 2.0, width=4, height=4)


def test_each_camera_is_answered_as_a_whole_by_its_groups_expert(ensemble: EnsembleModel) -> None:
    for group, centre in ((1, [4.0, 0.0, 0.0]), (2, [-1.0, 4.0, 0.0]), (3, [-1.0, -4.0, 0.0])):
        camera = camera_at(centre)
        outputs: dict[str, Any] = ensemble.get_outputs_for_camera(camera)
        with torch.no_grad():
            expected = ensemble.experts[group - 1].get_outputs_for_camera(camera)
        assert outputs["rgb"].shape == (4, 4, 3)
        for name, value in expected.items():
            assert torch.equal(outputs[name], value)
        assert torch.equal(outputs["group"], torch.full((4, 4, 1), float(group)))
        assert torch.equal(outputs["disagreement"], torch.zeros(4, 4, 1))


def test_blended_experts_are_a_weighted_mean_and_say_where_they_disagree(ensemble: EnsembleModel) -> None:
    camera = camera_at([4.0, 0.0, 0.0])
    ensemble.inverse_temperature.fill_(1.0)
    outputs = ensemble.get_outputs_for_camera(camera)
    with torch.no_grad():
        alone = torch.stack([expert.get_outputs_for_camera(camera)["rgb"] for expert in ensemble.experts])
    weights = torch.softmax(torch.tensor([1.0, 0.0, 0.0]), dim=0)
    mean = (weights[:, None, None, None] * alone).sum(dim=0)
    torch.testing.assert_close(outputs["rgb"], mean)
    deviation = (weights[:, None, None, None] * (alone - mean).square()).sum(dim=0).sqrt()
    torch.testing.assert_close(outputs["disagreement"], deviation.mean(dim=-1, keepdim=True))
    assert outputs["disagreement"].max() > 0.02
    assert (outputs["group"] == 1).all()


def test_rays_are_blended_as_their_camera_is(ensemble: EnsembleModel) -> None:
    ensemble.inverse_temperature.fill_(1.0)
    camera = camera_at([-1.0, 4.0, 0.0])
    bundle = ensemble.collider(camera.generate_rays(camera_indices=0).flatten())
    with torch.no_grad():
        rays = ensemble.get_outputs(bundle)["rgb"]
    torch.testing.assert_close(rays.view(4, 4, 3), ensemble.get_outputs_for_camera(camera)["rgb"], rtol=1e-4, atol=1e-5)


def test_experts_of_no_weight_are_not_asked(ensemble: EnsembleModel) -> None:
    ensemble.inverse_temperature.fill_(6.0)  # weights of 0.995, 0.002, 0.002
    assert ensemble.ensemble.weights(camera_at([4.0, 0.0, 0.0]).camera_to_worlds).tolist() == [[1.0, 0.0, 0.0]]


def test_disagreement_that_is_the_error_foretells_it() -> None:
    generator = torch.Generator().manual_seed(0)
    disagreement = torch.rand(20, 20, generator=generator)
    disagreement[:2, :10] += 9  # 5 % of the pixels
    found = foretold(disagreement, disagreement[..., None].expand(-1, -1, 3))
    assert found["disagreement_correlation"] == pytest.approx(1)
    assert found["disagreement_error_share"] > 0.9
    found = foretold(disagreement, torch.randn(20, 20, 3, generator=generator))
    assert abs(found["disagreement_correlation"]) < 0.2
    assert found["disagreement_error_share"] == pytest.approx(0.05, abs=0.05)
    assert foretold(disagreement, torch.zeros(20, 20, 3)) == {
        "disagreement_correlation": 0,
        "disagreement_error_share": 0,
        "disagreement_ause": 0,
    }


@pytest.mark.parametrize(
    ("uncertainty", "expected"),
    [([4, 3, 2, 1], 0.0), ([1, 2, 3, 4], 0.28125), ([4, 2, 3, 1], 0.25 * 0.5 / 2.5)],
    ids=["as the error", "the other way round", "the middle two swapped"],
)
def test_the_area_under_the_sparsification_error_is_that_worked_out_by_hand(
    uncertainty: list[int], expected: float
) -> None:
    # Left are means of 2.5, 2, 1.5, 1 at best; with the middle two swapped 2.5, 2, 2, 1.
    error = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert ause(torch.tensor(uncertainty).float(), error) == pytest.approx(expected)


def test_the_area_of_many_pixels_is_the_one_of_curves_drawn_point_by_point() -> None:
    generator = torch.Generator().manual_seed(0)
    error = torch.rand(1000, generator=generator)
    uncertainty = error + torch.rand(1000, generator=generator)
    given, best = ([error[by.argsort()[: 1000 - 10 * k]].mean() for k in range(100)] for by in (uncertainty, error))
    gaps = torch.stack(given) - torch.stack(best)
    area = 0.01 * (gaps.sum() - (gaps[0] + gaps[-1]) / 2) / max(given)
    assert ause(uncertainty, error) == pytest.approx(float(area), rel=1e-4) and area > 0.05


def test_scores_of_an_ensemble_say_how_well_disagreement_foretells_error(ensemble: EnsembleModel) -> None:
    ensemble.inverse_temperature.fill_(0.5)
    outputs = ensemble.get_outputs_for_camera(camera_at([4.0, 0.0, 0.0]))
    outputs = {name: value.repeat(4, 4, 1) for name, value in outputs.items()}  # SSIM wants 11 pixels
    metrics, images = ensemble.get_image_metrics_and_images(outputs, {"image": torch.rand(16, 16, 3)})
    assert -1 <= metrics["disagreement_correlation"] <= 1 and 0 < metrics["disagreement_error_share"] < 1
    assert images["disagreement"].shape == (16, 16, 3)


def test_experts_of_one_group_share_its_weight_whatever_their_size(
    ensemble: EnsembleModel, tiny_model: TinyModel
) -> None:
    configs = (tiny_model().config, tiny_model(grid_base_resolution=6).config, tiny_model(linear_decoder=False).config)
    model = tiny_model(EnsembleModelConfig, experts=configs, groups=(1, 1, 2)).eval()
    assert isinstance(model, EnsembleModel)
    model.blend = lambda poses, inverse_temperature: torch.tensor([[0.6, 0.4]]).expand(len(poses), 2)
    camera = camera_at([4.0, 0.0, 0.0])
    torch.testing.assert_close(model.ensemble.weights(camera.camera_to_worlds), torch.tensor([[0.3, 0.3, 0.4]]))
    outputs = model.get_outputs_for_camera(camera)
    alone = [model.experts[number].get_outputs_for_camera(camera)["rgb"] for number in range(3)]
    torch.testing.assert_close(outputs["rgb"], 0.3 * alone[0] + 0.3 * alone[1] + 0.4 * alone[2])


def test_the_inverse_temperature_is_saved_with_the_experts(ensemble: EnsembleModel, tiny_model: TinyModel) -> None:
    ensemble.inverse_temperature.fill_(2.0)
    other = tiny_model(EnsembleModelConfig, experts=ensemble.config.experts, groups=(1, 2, 3))
    other.load_state_dict(ensemble.state_dict())
    assert float(other.inverse_temperature) == 2


def test_rays_of_a_camera_are_rendered_where_exporters_ask_for_them(ensemble: EnsembleModel) -> None:
    rays = camera_at([4.0, 0.0, 0.0]).generate_rays(camera_indices=0, keep_shape=True)
    assert ensemble.get_outputs_for_camera_ray_bundle(rays)["rgb"].shape == (4, 4, 3)
