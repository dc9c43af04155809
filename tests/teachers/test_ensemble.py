"""Frozen models as one teacher, asked for rays and for cameras."""

from typing import Any

import pytest
import torch
from tiny_runs import Rays, SaveRun, TinyModel

from dac_nerfstudio.runs.store import Run, open_model
from dac_nerfstudio.teachers.ensemble import Ensemble, without_the_least


def ensemble_of(runs: list[Run]) -> Ensemble:
    """The models of runs; blending, where it matters, is up to the test."""
    nowhere: Any = None
    return Ensemble([open_model(run, "cpu") for run in runs], [run.record.group or 1 for run in runs], nowhere)


def test_of_any_number_of_experts_some_are_asked() -> None:
    assert without_the_least(torch.tensor([[0.9, 0.095, 0.005]])).tolist() == [
        pytest.approx([0.9045, 0.0955, 0], abs=1e-4)
    ]
    assert without_the_least(torch.full((1, 200), 1 / 200)).tolist() == [pytest.approx([1 / 200] * 200)]


@pytest.mark.parametrize("settings", [{}, {"is_contracted": True, "near_plane": 0.0}], ids=["bounded", "contracted"])
@pytest.mark.parametrize(
    "groups", [[1, 1, 3, 3, 3], [2, 2], [1, 2, 1, 3, 2, 2], [1]], ids=lambda groups: "".join(map(str, groups))
)
def test_each_ray_is_answered_as_by_its_expert_alone(
    tiny_model: TinyModel, save_run: SaveRun, rays: Rays, groups: list[int], settings: dict[str, Any]
) -> None:
    models = [tiny_model(seed=seed, **settings).eval() for seed in (1, 2, 3)]
    ensemble = ensemble_of([save_run(model, group) for group, model in enumerate(models, start=1)])
    near = settings.get("near_plane", 2.0)
    bundle = rays(len(groups), groups=groups, near=near)
    background = torch.tensor([0.2, 0.5, 0.9])
    answer = ensemble.teach(bundle, background)
    assert len(answer.rgb) == len(groups)
    for ray, group in enumerate(groups):
        with torch.no_grad():
            alone = models[group - 1].render(bundle[ray : ray + 1], background)
        torch.testing.assert_close(answer.rgb[ray], alone.rgb[0])
        torch.testing.assert_close(answer.bins.edges[ray], alone.final.edges[0])
        torch.testing.assert_close(answer.colours[ray], alone.colours[0])
        torch.testing.assert_close(answer.alphas[ray], alone.final.alphas[0], rtol=1e-4, atol=1e-5)
        expected = alone.final.bins.positions(bundle[ray : ray + 1])[0]
        torch.testing.assert_close(answer.bins.positions(bundle)[ray], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            answer.bins.distances[ray].diff(), alone.final.bins.distances[0].diff(), rtol=1e-3, atol=1e-5
        )
    # The experts do disagree: a wrong route would have been seen.
    with torch.no_grad():
        answers = torch.stack([model.render(bundle, background).rgb for model in models])
    assert (answers[0] - answers[1]).abs().max() > 1e-2 and (answers[0] - answers[2]).abs().max() > 1e-2


def test_an_answer_carries_no_gradient_and_is_the_same_every_time(
    tiny_model: TinyModel, save_run: SaveRun, rays: Rays
) -> None:
    ensemble = ensemble_of([save_run(tiny_model(seed=group), group) for group in (1, 2)])
    bundle, background = rays(4, groups=[1, 1, 2, 2]), torch.ones(3)
    first, again = ensemble.teach(bundle, background), ensemble.teach(bundle, background)
    for name in ("rgb", "alphas", "colours"):
        assert not getattr(first, name).requires_grad
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.bins.edges, again.bins.edges) and not first.bins.edges.requires_grad
    assert not any(expert.training for expert in ensemble.models)
    assert first.alphas.min() >= 0 and first.alphas.max() <= 1


def test_experts_of_different_size_answer_together(tiny_model: TinyModel, save_run: SaveRun, rays: Rays) -> None:
    models = [tiny_model(seed=1).eval(), tiny_model(seed=2, grid_base_resolution=7, grid_feature_dim=3).eval()]
    ensemble = ensemble_of([save_run(model, group) for group, model in enumerate(models, start=1)])
    bundle = rays(4, groups=[1, 2, 2, 2])
    with torch.no_grad():
        expected = models[1].render(bundle[1:], torch.ones(3)).rgb
    torch.testing.assert_close(ensemble.teach(bundle, torch.ones(3)).rgb[1:], expected)


def test_experts_of_one_group_share_its_rays(tiny_model: TinyModel, save_run: SaveRun, rays: Rays) -> None:
    models = [tiny_model(seed=seed).eval() for seed in (1, 2, 3)]
    runs = [save_run(model, group, run=str(number)) for number, (model, group) in enumerate(zip(models, (1, 1, 2)))]
    background, bundle = torch.ones(3), rays(8, groups=[1] * 5 + [2] * 3)
    answer = ensemble_of(runs).teach(bundle, background)
    with torch.no_grad():
        alone = [model.render(bundle, background).rgb for model in models]
    expected = torch.cat((alone[0][:2], alone[1][2:5], alone[2][5:]))
    torch.testing.assert_close(answer.rgb, expected)


# In half precision


@pytest.mark.parametrize("linear_decoder", [True, False], ids=["explicit", "hybrid"])
def test_an_expert_in_half_precision_renders_pictures_and_answers(
    linear_decoder: bool, tiny_model: TinyModel, save_run: SaveRun, rays: Rays
) -> None:
    """Pictures too: experts are blended by what they render of validation views."""
    run = save_run(tiny_model(linear_decoder=linear_decoder))
    single, half = open_model(run, "cpu"), open_model(run, "cpu").halve()
    assert half.in_half and not single.in_half
    bundle, black = rays(64), torch.zeros(3)
    answers = [expert.teach(bundle, black).rgb.float() for expert in (half, single)]
    pictures = [expert(bundle)["rgb"].float() for expert in (half, single)]
    for ours, theirs in (answers, pictures):
        assert (ours - theirs).abs().max() < 0.01
