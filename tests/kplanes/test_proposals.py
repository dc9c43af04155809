"""Proposal sampling: histograms, schedules and levels."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.losses import ray_samples_to_sdist
from nerfstudio.model_components.ray_samplers import PDFSampler, UniformLinDispPiecewiseSampler, UniformSampler
from nerfstudio.model_components.renderers import DepthRenderer
from tiny import bins_between
from torch import Tensor

from dac_nerfstudio.kplanes.proposals import Level, ProposalSampler, UpdateSchedule, anneal_exponent, histogram_loss


def test_histogram_loss_and_gradient_of_a_case_worked_out_by_hand() -> None:
    edges, mass = torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0.6, 0.4]])
    coarse_edges, coarse = torch.tensor([[0.0, 0.25, 0.75, 1.0]]), torch.tensor([[0.1, 0.2, 0.3]], requires_grad=True)
    # Fine bin [0, 0.5] overlaps coarse bins 1 and 2: bound 0.1 + 0.2 = 0.3, excess 0.3, term 0.3^2 / 0.6 = 0.15.
    # Fine bin [0.5, 1] overlaps coarse bins 2 and 3: bound 0.2 + 0.3 = 0.5, no excess.
    # Mean over the two bins: 0.075; for two equal levels twice that.
    one = histogram_loss(edges, mass, [(coarse_edges, coarse)])
    assert one.item() == pytest.approx(0.075, rel=1e-5)
    two = histogram_loss(edges, mass, [(coarse_edges, coarse)] * 2)
    assert two.item() == pytest.approx(0.15, rel=1e-5)
    # The bound's gradient -2 * 0.3 / 0.6 / 2 bins = -0.5 goes to each coarse bin in it.
    (gradient,) = torch.autograd.grad(one, coarse)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5, -0.5, 0.0]]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "fine_edges", "fine", "coarse_edges", "coarse"),
    [
        ("interlevel", "final_edges", "final_weights", "proposal_edges", "proposal_weights"),
        ("interlevel_shared_edges", "final_edges", "final_weights", "proposal_edges", "proposal_weights"),
        ("histogram_alphas", "teacher_edges", "teacher_alphas", "student_edges", "student_alphas"),
    ],
)
def test_histogram_loss_and_gradient_are_the_references(
    reference: dict[str, Any], name: str, fine_edges: str, fine: str, coarse_edges: str, coarse: str
) -> None:
    entry = reference[name]
    inputs = entry["inputs"]
    edges, mass = torch.tensor(inputs[fine_edges]), torch.tensor(inputs[fine], requires_grad=True)
    # The levels differ in their number of bins.
    values = [torch.tensor(level, requires_grad=True) for level in inputs[coarse]]
    loss = histogram_loss(edges, mass, list(zip(map(torch.tensor, inputs[coarse_edges]), values, strict=True)))
    assert loss.item() == pytest.approx(entry["reference"], rel=1e-6)
    assert loss.item() == pytest.approx(entry["correct"], rel=1e-6)
    fine_gradient, *gradients = torch.autograd.grad(loss, (mass, *values), allow_unused=True)
    assert fine_gradient is None
    for gradient, expected in zip(gradients, entry["reference_grad"], strict=True):
        torch.testing.assert_close(gradient, torch.tensor(expected), rtol=1e-5, atol=1e-7)


def test_a_histogram_that_bounds_the_fine_one_costs_nothing() -> None:
    edges, mass = torch.linspace(0, 1, 9)[None], torch.rand(1, 8)
    assert histogram_loss(edges, mass, [(edges, mass)]).item() < 1e-10


def test_proposals_are_updated_on_the_references_steps(reference: dict[str, Any]) -> None:
    entry = reference["proposal_update_schedule"]
    schedule = UpdateSchedule(entry["inputs"]["warmup"], entry["inputs"]["update_every"])
    for (start, end), expected in zip(entry["inputs"]["windows"], entry["reference"], strict=True):
        assert [step for step in range(start, end) if schedule.due(step)] == expected
    assert sum(map(schedule.due, range(6200))) == entry["reference_count_of_first_6200"]


def test_the_update_schedule_is_a_function_of_the_step() -> None:
    fresh, steady = UpdateSchedule(50, 5), UpdateSchedule(50, 5)
    ascending = [steady.due(step) for step in range(200)]
    assert [fresh.due(step) for step in reversed(range(200))] == ascending[::-1]
    assert ascending[:10] == [True] * 10
    late = [step for step in range(60, 200) if ascending[step]]
    assert {b - a for a, b in zip(late, late[1:])} == {6}


def test_anneal_exponent_is_the_references(reference: dict[str, Any]) -> None:
    entry = reference["proposal_anneal"]
    slope, steps = entry["inputs"]["slope"], entry["inputs"]["max_iterations"]
    values = [anneal_exponent(step, slope, steps) for step in entry["inputs"]["iterations"]]
    assert values == pytest.approx(entry["reference"], rel=1e-9)
    assert anneal_exponent(0, slope, 0) == 1.0


def test_alphas_and_weights_of_a_level_are_the_references(reference: dict[str, Any]) -> None:
    entry = reference["alphas_and_weights"]
    edges, density = torch.tensor(entry["inputs"]["edges"]), torch.tensor(entry["inputs"]["density"])
    level = Level(bins_between(edges, (edges - 2) / 4), density)
    torch.testing.assert_close(level.alphas, torch.tensor(entry["reference"]["alphas"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(level.weights, torch.tensor(entry["reference"]["weights"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(level.edges, (edges - 2) / 4)
    # Twice as wide is as opaque as twice as dense.
    wide, dense = Level(bins_between(2 * edges), density), Level(level.bins, 2 * density)
    torch.testing.assert_close(wide.alphas, dense.alphas)


def sampler(*counts: int, disparity: bool = False, single_jitter: bool = False) -> ProposalSampler:
    return ProposalSampler(counts, disparity, single_jitter)


@pytest.mark.parametrize("disparity", [False, True], ids=["uniform", "disparity"])
@pytest.mark.parametrize("single_jitter", [False, True], ids=["jitter per bin", "jitter per ray"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_bins_weights_and_depth_are_nerfstudios(
    rays: Callable[..., RayBundle], disparity: bool, single_jitter: bool, training: bool
) -> None:
    """From the same random numbers; and so is the density's gradient by the weights."""
    bundle, spacing = rays(6, 0.2, 6.0), UniformLinDispPiecewiseSampler if disparity else UniformSampler

    def density(positions: Tensor) -> Tensor:
        return 3 * positions.sin().square().sum(dim=-1, keepdim=True) * strength

    strength = torch.tensor(1.0, requires_grad=True)
    torch.manual_seed(3)
    (level,), final = sampler(9, 7, disparity=disparity, single_jitter=single_jitter).train(training)(
        bundle, [density], anneal=0.7, learn=True
    )
    torch.manual_seed(3)
    samples = spacing(single_jitter=single_jitter).train(training)(bundle, num_samples=9)
    weights = samples.get_weights(density(samples.frustums.get_positions()))
    torch.testing.assert_close(level.weights, weights[..., 0])
    torch.testing.assert_close(level.edges, ray_samples_to_sdist(samples))
    torch.testing.assert_close(level.median_depth(), DepthRenderer(method="median")(weights, samples))
    upstream = torch.linspace(-1, 1, 9)
    gradients = [torch.autograd.grad((w * upstream).sum(), strength)[0] for w in (level.weights, weights[..., 0])]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    refine = PDFSampler(include_original=False, single_jitter=single_jitter).train(training)
    expected = refine(bundle, samples, weights.detach() ** 0.7, num_samples=7)
    torch.testing.assert_close(final.edges, ray_samples_to_sdist(expected))
    torch.testing.assert_close(final.distances.diff(), expected.deltas[..., 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(final.positions(bundle), expected.frustums.get_positions())


def test_levels_have_their_number_of_bins_from_near_to_far(rays: Callable[..., RayBundle]) -> None:
    levels, final = sampler(7, 5, 3)(
        rays(4, 2.0, 6.0), [lambda p: torch.ones_like(p[..., :1])] * 2, anneal=1.0, learn=True
    )
    assert [level.edges.shape for level in levels] == [(4, 8), (4, 6)] and final.edges.shape == (4, 4)
    for bins in (*[level.bins for level in levels], final):
        assert (bins.distances.diff() > 0).all()
        assert (bins.distances >= 2).all() and (bins.distances <= 6).all()


def test_proposals_carry_a_gradient_only_on_the_steps_they_learn(rays: Callable[..., RayBundle]) -> None:
    density = torch.tensor(0.5, requires_grad=True)

    def field(positions: Tensor) -> Tensor:
        return density.expand(*positions.shape[:-1], 1)

    for learn in (True, False):
        levels, final = sampler(6, 4)(rays(3, 2.0, 6.0), [field], anneal=1.0, learn=learn)
        assert levels[0].weights.requires_grad is learn
        # Where to look next is no way for a gradient.
        assert not final.edges.requires_grad


def test_final_samples_gather_where_the_proposals_see_density(rays: Callable[..., RayBundle]) -> None:
    bundle = rays(5, 2.0, 6.0)

    def shell(positions: Tensor) -> Tensor:
        distance = (positions - bundle.origins[:, None]).norm(dim=-1, keepdim=True)
        return 50.0 * ((distance > 3) & (distance < 4))

    still = sampler(40, 16).eval()
    _, final = still(bundle, [shell], anneal=1.0, learn=False)
    assert ((final.midpoints > 2.9) & (final.midpoints < 4.1)).float().mean() > 0.8
    # An exponent of 0 makes all weights alike: look everywhere.
    _, everywhere = still(bundle, [shell], anneal=0.0, learn=False)
    widths = everywhere.distances.diff()
    torch.testing.assert_close(widths, torch.full_like(widths, 0.25), rtol=0.1, atol=0.02)


def test_evaluation_samples_are_the_same_every_time(rays: Callable[..., RayBundle]) -> None:
    bundle, density = rays(4, 2.0, 6.0), [lambda p: p.norm(dim=-1, keepdim=True)]
    still = sampler(8, 5).eval()
    first, again = (still(bundle, density, 1.0, False)[1].edges for _ in range(2))
    assert torch.equal(first, again)
    jittered = sampler(8, 5)
    assert not torch.equal(jittered(bundle, density, 1.0, False)[1].edges, first)
