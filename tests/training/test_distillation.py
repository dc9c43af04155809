"""The distillation losses: their value, when they vanish, and what they teach."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from tiny import bins_between
from tiny_runs import Rays, SaveRun, TinyModel
from torch import Tensor

from dac_nerfstudio.kplanes.distillation import DistillationWeights, TeacherOutput, distillation_losses, unoccluded
from dac_nerfstudio.kplanes.model import RegularizerWeights
from dac_nerfstudio.kplanes.proposals import Level
from dac_nerfstudio.kplanes.teaching import ExpertModel, StudentModel, StudentModelConfig
from dac_nerfstudio.runs.store import open_model

TERMS = ("histogram_loss", "point_colour_loss", "point_opacity_loss", "pixel_loss")


@pytest.fixture
def case(reference: dict[str, Any]) -> dict[str, Any]:
    """The fixture's teacher and student as arguments of `distillation_losses`."""
    inputs = reference["distillation_total"]["inputs"]

    def level(edges: Any, normalised: Any, density: Any) -> Level:
        return Level(bins_between(torch.tensor(edges), torch.tensor(normalised)), torch.tensor(density))

    teacher = level(inputs["teacher_edges"], inputs["teacher_spacing_edges"], inputs["teacher_density"])
    taught = TeacherOutput(
        rgb=torch.tensor(inputs["teacher_ray_colour"]),
        bins=teacher.bins,
        alphas=teacher.alphas,
        colours=torch.tensor(inputs["teacher_point_colour"]),
    )
    student = zip(
        inputs["student_proposal_edges"],
        inputs["student_proposal_spacing_edges"],
        inputs["student_proposal_density"],
        strict=True,
    )
    return {
        "taught": taught,
        "rgb": torch.tensor(inputs["student_ray_colour"]),
        "proposals": [(one.edges, one.alphas) for one in (level(*arrays) for arrays in student)],
        "point_alphas": Level(taught.bins, torch.tensor(inputs["student_density_at_teacher_points"])).alphas,
        "point_colours": torch.tensor(inputs["student_colour_at_teacher_points"]),
    }


def test_the_total_is_the_one_with_the_teachers_bin_widths(reference: dict[str, Any], case: dict[str, Any]) -> None:
    entry = reference["distillation_total"]
    total = sum(distillation_losses(DistillationWeights(), **case).values()).item()
    assert total == pytest.approx(entry["correct"], rel=1e-6)
    assert total == pytest.approx(entry["reference_with_teacher_widths"], rel=1e-6)
    # The reference forms the student's opacities with the widths of the student's own bins.
    assert abs(total - entry["reference"]) > 1e-3


def test_each_term_is_the_fixtures_times_its_weight(reference: dict[str, Any], case: dict[str, Any]) -> None:
    expected = reference["distillation_total"]["correct_terms"]
    ones = distillation_losses(DistillationWeights(1.0, 1.0, 1.0, 1.0), **case)
    assert [ones[name].item() for name in TERMS] == pytest.approx(
        [expected[name] for name in ("H", "point_colour", "point_alpha", "ray_colour")], rel=1e-5
    )
    weighted = distillation_losses(DistillationWeights(histogram=2, point_colour=3, point_opacity=5, pixel=7), **case)
    for name, weight in zip(TERMS, (2, 3, 5, 7), strict=True):
        torch.testing.assert_close(weighted[name], weight * ones[name])


def test_terms_of_no_weight_are_not_computed(case: dict[str, Any]) -> None:
    pixels = DistillationWeights(histogram=0, point_colour=0, point_opacity=0, pixel=1)
    shares = ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1))
    assert [DistillationWeights(0, *share, 0).points for share in shares] == [False, True, True]
    assert set(distillation_losses(pixels, **{**case, "point_alphas": None, "point_colours": None})) == {"pixel_loss"}


def test_a_camera_inside_something_is_occluded(case: dict[str, Any]) -> None:
    edges = torch.tensor([[0.0, 0.02, 0.04, 0.5, 1.0]]).repeat(3, 1)
    alphas = torch.tensor([[0.4, 0.4, 0.0, 0.0], [0.3, 0.2, 0.0, 0.0], [0.0, 0.0, 0.99, 0.99]])
    taught = replace(case["taught"], bins=bins_between(edges), alphas=alphas)
    assert unoccluded(taught).tolist() == [0, 1, 1]


@pytest.fixture
def pair(tiny_model: TinyModel, save_run: SaveRun) -> Callable[..., tuple[StudentModel, ExpertModel]]:
    """Makes a student in training and its one teacher, of equal weights where `alike`."""

    def make(alike: bool, **settings: Any) -> tuple[StudentModel, ExpertModel]:
        teacher = tiny_model(seed=1, **settings)
        student = tiny_model(StudentModelConfig, seed=2, **settings)
        assert isinstance(student, StudentModel)
        if alike:
            student.load_state_dict(teacher.state_dict())
        expert = open_model(save_run(teacher), "cpu")
        student.teach = expert.teach
        return student.train(), expert

    return make


def losses_of(student: StudentModel, bundle: RayBundle) -> dict[str, Tensor]:
    return student.get_loss_dict(student(bundle), {"image": torch.rand(len(bundle), 4)})


@pytest.mark.parametrize(
    "settings", [{}, {"is_contracted": True, "near_plane": 0.0}, {"background_color": "white"}], ids=str
)
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(
    pair: Callable[..., tuple[StudentModel, ExpertModel]], rays: Rays, settings: dict[str, Any]
) -> None:
    student, _ = pair(alike=True, **settings)
    student.step = 5000
    bundle = rays(6, groups=[1] * 6)
    losses = losses_of(student, bundle)
    # At the teacher's samples they agree wherever the student itself looked,
    assert losses["point_colour_loss"] < 1e-10 and losses["point_opacity_loss"] < 1e-10
    # and in the rendered colour when it looks where the teacher does, without jitter.
    student.sampler.eval()
    for name in TERMS[1:]:
        assert losses_of(student, bundle)[name] < 1e-10
    with torch.no_grad():
        student.field.decoder.density_head.weight.zero_()
    assert min(losses_of(student, bundle)[name].item() for name in ("point_opacity_loss", "pixel_loss")) > 1e-5


def test_each_term_teaches_what_it_should(
    pair: Callable[..., tuple[StudentModel, ExpertModel]], tiny_model: TinyModel, rays: Rays
) -> None:
    student, expert = pair(alike=False)
    student.step = 0
    losses = losses_of(student, rays(8, groups=[1] * 8))
    decoder = student.field.decoder
    parts = {
        "planes": list(student.field.planes.parameters()),
        "density": list(decoder.density_head.parameters()),
        "colour": list(decoder.basis.parameters()),
        "proposals": list(student.proposal_networks.parameters()),
        "teacher": list(expert.parameters()),
    }
    reached = {}
    for name in TERMS:
        student.zero_grad(set_to_none=True)
        losses[name].backward(retain_graph=True)
        reached[name] = {
            part
            for part, parameters in parts.items()
            if any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in parameters)
        }
    assert reached == {
        "histogram_loss": {"proposals"},
        "point_colour_loss": {"planes", "colour"},
        "point_opacity_loss": {"planes", "density"},
        "pixel_loss": {"planes", "density", "colour"},
    }
    student.zero_grad(set_to_none=True)
    losses["histogram_loss"].backward()
    # Both levels of proposals learn from it.
    for network in student.proposal_networks:
        assert all(scale.grad.any() for scale in network.planes.scales)


def test_between_updates_of_the_proposals_the_histogram_term_has_no_gradient(
    pair: Callable[..., tuple[StudentModel, ExpertModel]], rays: Rays
) -> None:
    student, _ = pair(alike=False)
    student.step = next(step for step in range(10, 50) if not student.update_schedule.due(step))
    losses = losses_of(student, rays(8, groups=[1] * 8))
    assert losses["histogram_loss"] > 0
    assert not losses["histogram_loss"].requires_grad and losses["pixel_loss"].requires_grad


def test_the_student_is_compared_by_opacities_and_the_baselines_regularisers_are_added(
    pair: Callable[..., tuple[StudentModel, ExpertModel]], rays: Rays
) -> None:
    student, _ = pair(alike=False, regularizers=RegularizerWeights(distortion=0.1))
    outputs = student(rays(5, groups=[1] * 5))
    assert set(outputs["regularizers"]) == {"interlevel_loss", "distortion_loss", "plane_tv_loss", "proposal_tv_loss"}
    proposals = [(level.edges, level.alphas) for level in outputs["rendering"].proposals]
    points = outputs["point_alphas"], outputs["point_colours"]
    terms = distillation_losses(student.config.distillation, outputs["taught"], outputs["rgb"], proposals, *points)
    for value in (0.0, 1.0):  # the photo plays no part
        losses = student.get_loss_dict(outputs, {"image": torch.full((5, 4), value)})
        torch.testing.assert_close(losses, {**terms, **outputs["regularizers"]}, rtol=1e-5, atol=0)


def test_teacher_and_student_are_composited_on_one_colour(
    pair: Callable[..., tuple[StudentModel, ExpertModel]], rays: Rays
) -> None:
    student, expert = pair(alike=False)
    with torch.no_grad():
        for model in (student, expert):
            model.field.decoder.density_head.weight.fill_(-1e5)
    outputs = student(rays(4, groups=[1] * 4))
    for seen in (outputs["rgb"], outputs["taught"].rgb):
        assert torch.equal(seen, outputs["background"].expand(4, 3))


def test_a_student_without_teachers_or_in_evaluation_is_a_plain_model(
    pair: Callable[..., tuple[StudentModel, ExpertModel]], rays: Rays
) -> None:
    student, expert = pair(alike=False)
    student.eval()
    with torch.no_grad():
        assert "taught" not in student(rays(3))
    student.teach = None
    losses = losses_of(student.train(), rays(3))
    assert "rgb_loss" in losses and not set(losses) & set(TERMS)
    student.teach = expert.teach
    assert set(TERMS) <= set(losses_of(student, rays(3, groups=[1] * 3)))


def test_distillation_brings_the_student_to_its_teacher_and_leaves_the_teacher_alone(
    pair: Callable[..., tuple[StudentModel, ExpertModel]], rays: Rays
) -> None:
    student, expert = pair(alike=False)
    before = copy.deepcopy(expert.state_dict())
    start = copy.deepcopy(student.state_dict())
    # Neither the teacher nor its weights are part of the student, so that they are neither saved nor trained with it.
    own = {id(parameter) for parameter in student.parameters()}
    assert not own & {id(parameter) for parameter in expert.parameters()}
    assert expert not in set(student.modules())
    assert set(student.state_dict()) == set(before)
    optimizer = torch.optim.Adam([p for group in student.get_param_groups().values() for p in group], lr=2e-2)
    bundle = rays(32, groups=[1] * 32)
    history = []
    for step in range(40):
        student.train()
        student.step = step
        losses = losses_of(student, bundle)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(sum(losses[name].item() for name in TERMS[1:]))
    assert sum(history[-5:]) < 0.5 * sum(history[:5])
    assert not torch.equal(student.state_dict()["field.planes.scales.0"], start["field.planes.scales.0"])
    assert not expert.training
    for name, value in expert.state_dict().items():
        assert torch.equal(value, before[name])


def test_an_expert_stays_frozen_and_in_evaluation_whatever_surrounds_it(tiny_model: TinyModel) -> None:
    plain = tiny_model(seed=1)
    expert = ExpertModel(plain.config, plain.scene_box, num_train_data=0)
    torch.nn.ModuleList([expert]).train()
    assert not any(module.training for module in expert.modules())
    assert not any(parameter.requires_grad for parameter in expert.parameters())
