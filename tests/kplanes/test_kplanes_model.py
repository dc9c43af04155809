"""The K-Planes model: its rays, its background and its losses."""

from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from tiny import Rays, TinyModel

from dac_nerfstudio.kplanes import model
from dac_nerfstudio.kplanes.model import KPlanesModel, RegularizerWeights
from dac_nerfstudio.kplanes.proposals import histogram_loss
from dac_nerfstudio.kplanes.regularizers import distortion, plane_tv


def emptied(model: KPlanesModel) -> KPlanesModel:
    """Without any density: exp(raw - 1) of a raw value far below 0 is exactly 0."""
    with torch.no_grad():
        model.field.decoder.density_head.weight.fill_(-1e5)
    return model


@pytest.mark.parametrize(("near", "far"), [(2.0, 6.0), (0.0, 6.0), (0.5, 3.0)])
def test_rays_begin_and_end_alike_in_training_and_evaluation(
    tiny_model: TinyModel, rays: Rays, near: float, far: float
) -> None:
    student, teacher = tiny_model(near_plane=near, far_plane=far).train(), tiny_model(near_plane=near, far_plane=far)
    seen = [model.collider(rays(5)) for model in (student, teacher.eval())]
    for bundle in seen:
        assert torch.equal(bundle.nears, torch.full((5, 1), near)) and torch.equal(bundle.fars, torch.full((5, 1), far))
    with torch.no_grad():
        rendering = student(rays(5))["rendering"]
    assert rendering.final.bins.distances.min() >= near
    assert rendering.final.bins.distances.max() <= far


def test_all_rays_of_a_training_batch_share_one_random_background(tiny_model: TinyModel, rays: Rays) -> None:
    model = emptied(tiny_model()).train()
    first, second = model(rays(6)), model(rays(6))
    for outputs in (first, second):
        assert outputs["background"].shape == (3,)
        assert torch.equal(outputs["rgb"], outputs["background"].expand(6, 3))
    assert not torch.equal(first["background"], second["background"])
    drawn = torch.stack([model.background() for _ in range(200)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    torch.testing.assert_close(drawn.mean(0), torch.full((3,), 0.5), rtol=0, atol=0.08)


def test_the_photo_is_composited_on_the_background_of_the_prediction(tiny_model: TinyModel, rays: Rays) -> None:
    model = emptied(tiny_model()).train()
    outputs = model(rays(4))
    rgba = torch.rand(4, 4)
    rgba[:, 3] = torch.tensor([0.0, 0.0, 0.25, 1.0])
    truth = model.true_colour(outputs, {"image": rgba})
    background = outputs["background"]
    assert torch.equal(truth[:2], background.expand(2, 3))
    torch.testing.assert_close(truth[2], 0.25 * rgba[2, :3] + 0.75 * background)
    torch.testing.assert_close(truth[3], rgba[3, :3])
    # What is transparent and predicted empty costs nothing, whatever colour was drawn.
    losses = model.get_loss_dict(outputs, {"image": torch.zeros(4, 4)})
    assert losses["rgb_loss"].item() == 0


def test_photos_without_alpha_are_taken_as_they_are(tiny_model: TinyModel, rays: Rays) -> None:
    model = tiny_model().train()
    outputs = model(rays(4))
    photo = outputs["rgb"].detach() + 0.1
    assert torch.equal(model.true_colour(outputs, {"image": photo}), photo)
    assert model.get_metrics_dict(outputs, {"image": photo})["psnr"].item() == pytest.approx(20, rel=1e-4)


@pytest.mark.parametrize(("setting", "colour"), [("random", 1.0), ("white", 1.0), ("black", 0.0)])
def test_evaluation_is_on_a_fixed_background(tiny_model: TinyModel, rays: Rays, setting: str, colour: float) -> None:
    model = emptied(tiny_model(background_color=setting)).eval()
    with torch.no_grad():
        outputs = model(rays(4))
    assert torch.equal(outputs["rgb"], torch.full((4, 3), colour))
    assert torch.equal(outputs["accumulation"], torch.zeros(4, 1))
    assert torch.equal(model.true_colour(outputs, {"image": torch.zeros(4, 4)}), torch.full((4, 3), colour))
    if setting != "random":
        assert torch.equal(model.train()(rays(4))["background"], torch.full((3,), colour))


@pytest.mark.parametrize(("setting", "behind"), [("random", 1.0), ("black", 0.0)])
def test_an_exported_picture_has_the_background_taken_off_again(
    tiny_model: TinyModel, setting: str, behind: float
) -> None:
    model = tiny_model(background_color=setting).eval()
    colour, alpha = torch.rand(3, 4, 3), torch.tensor([0.1, 0.5, 0.8, 1.0]).view(1, 4, 1).expand(3, 4, 1)
    outputs = {"rgb": colour * alpha + behind * (1 - alpha), "accumulation": alpha}
    torch.testing.assert_close(model.get_rgba_image(outputs), torch.cat((colour, alpha), dim=-1), rtol=1e-4, atol=1e-5)
    empty = model.get_rgba_image({"rgb": torch.full((1, 1, 3), behind), "accumulation": torch.zeros(1, 1, 1)})
    assert torch.equal(empty, torch.zeros(1, 1, 4))


def test_a_rendered_ray_is_its_weighted_colours_on_the_background(tiny_model: TinyModel, rays: Rays) -> None:
    model = tiny_model().train()
    outputs = model(rays(5))
    rendering = outputs["rendering"]
    weights = rendering.final.weights[..., None]
    expected = (weights * rendering.colours).sum(1) + (1 - weights.sum(1)) * outputs["background"]
    torch.testing.assert_close(outputs["rgb"], expected)


def test_depth_and_accumulation_are_rendered_for_pictures_alone(tiny_model: TinyModel, rays: Rays) -> None:
    model = tiny_model()
    assert set(model.train()(rays(5))) == {"rgb", "background", "rendering", "regularizers"}
    model.eval()
    bundle = model.collider(rays(5))
    outputs, weights = model(bundle), model.render(bundle, model.background()).final.weights[..., None]
    assert set(outputs) == {"rgb", "accumulation", "depth", "prop_depth_0", "prop_depth_1"}
    torch.testing.assert_close(outputs["accumulation"], weights.sum(1))


def test_every_loss_is_its_measure_times_its_weight_and_left_out_at_0(tiny_model: TinyModel, rays: Rays) -> None:
    def results(**weights: float) -> tuple[KPlanesModel, dict[str, Any], dict[str, Any]]:
        model = tiny_model(regularizers=RegularizerWeights(**weights)).train()
        with torch.no_grad():
            model.field.decoder.density_head.weight.fill_(20.0)
        outputs = model(rays(6))
        return model, outputs, model.get_loss_dict(outputs, {"image": torch.zeros(6, 4)})

    model, outputs, losses = results(interlevel=2.0, distortion=3.0, plane_tv=5.0, proposal_tv=7.0)
    final, levels = outputs["rendering"].final, outputs["rendering"].proposals
    proposal_planes = [scale for network in model.proposal_networks for scale in network.planes.scales]
    expected = {
        "rgb_loss": torch.nn.functional.mse_loss(outputs["rgb"], outputs["background"].expand(6, 3)),
        "interlevel_loss": 2 * histogram_loss(final.edges, final.weights, [(one.edges, one.weights) for one in levels]),
        "distortion_loss": 3 * distortion(final.weights, final.edges),
        "plane_tv_loss": 5 * plane_tv(model.field.planes.scales),
        "proposal_tv_loss": 7 * plane_tv(proposal_planes),
    }
    assert all(value > 0 for value in expected.values())
    torch.testing.assert_close(losses, expected)
    assert set(results(interlevel=0, distortion=0, plane_tv=0, proposal_tv=0)[2]) == {"rgb_loss"}
    assert "distortion_loss" not in results()[2]


def test_proposal_networks_learn_from_interlevel_and_smoothness_alone(tiny_model: TinyModel, rays: Rays) -> None:
    model = tiny_model(regularizers=RegularizerWeights(distortion=1.0)).train()
    with torch.no_grad():
        model.field.decoder.density_head.weight.fill_(20.0)
    model.step = 0
    losses = model.get_loss_dict(model(rays(6)), {"image": torch.rand(6, 4)})
    proposals, field = list(model.proposal_networks.parameters()), list(model.field.parameters())

    def reaches(name: str, parameters: list[torch.nn.Parameter]) -> bool:
        gradients = torch.autograd.grad(losses[name], parameters, allow_unused=True, retain_graph=True)
        return any(gradient is not None and bool(gradient.any()) for gradient in gradients)

    found = {name: (reaches(name, field), reaches(name, proposals)) for name in losses}
    assert found == {
        "rgb_loss": (True, False),
        "interlevel_loss": (False, True),
        "distortion_loss": (True, False),
        "plane_tv_loss": (True, False),
        "proposal_tv_loss": (False, True),
    }


@pytest.mark.parametrize("settings", [{}, {"linear_decoder": False}, {"is_contracted": True, "near_plane": 0.0}])
def test_training_makes_the_loss_fall(tiny_model: TinyModel, rays: Rays, settings: dict[str, Any]) -> None:
    model = tiny_model(**settings).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    bundle, photo = rays(64), torch.tensor([[0.9, 0.1, 0.2, 1.0]]).expand(64, 4)
    history = []
    for step in range(60):
        model.step = step
        losses = model.get_loss_dict(model(bundle), {"image": photo})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(float(losses["rgb_loss"]))
    assert sum(history[-5:]) < 0.2 * sum(history[:5])


def test_parameter_groups_hold_every_parameter_once(tiny_model: TinyModel) -> None:
    model = tiny_model()
    groups = model.get_param_groups()
    assert set(groups) == {"fields", "proposal_networks"}
    grouped = [id(parameter) for group in groups.values() for parameter in group]
    learned = {id(parameter) for name, parameter in model.named_parameters() if name != "device_indicator_param"}
    assert len(grouped) == len(set(grouped)) and set(grouped) == learned


def test_a_picture_is_rendered_in_chunks_for_which_there_is_room(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = tiny_model().eval(), tiny_model(num_samples=64).eval()
    assert large.rays_at_a_time() < small.rays_at_a_time()

    camera = Cameras(torch.eye(4)[None, :3], 20.0, 20.0, 5.0, 5.0, 10, 10)
    whole = small.get_outputs_for_camera(camera)["rgb"]
    chunks: list[int] = []
    render = small.render
    monkeypatch.setattr(small, "render", lambda rays, *rest: (chunks.append(len(rays)), render(rays, *rest))[1])
    monkeypatch.setattr(model, "ROOM_FOR_RENDERING", model.ROOM_FOR_RENDERING * 30 // small.rays_at_a_time())
    small.config.eval_num_rays_per_chunk = 1000
    torch.testing.assert_close(small.get_outputs_for_camera(camera)["rgb"], whole)
    assert max(chunks) in (29, 30) and sum(chunks) == 100

    chunks.clear()
    small.config.eval_num_rays_per_chunk = 20
    torch.testing.assert_close(small.get_outputs_for_camera(camera)["rgb"], whole)
    assert chunks == [20] * 5
    assert small.config.eval_num_rays_per_chunk == 20
