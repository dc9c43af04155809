"""Decoders against per-sample evaluation and the reference's numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes import decoders
from dac_nerfstudio.kplanes.decoders import ExplicitDecoder, HybridDecoder, mlp, resolve_implementation
from dac_nerfstudio.kplanes.field import KPlanesField, SceneCoordinates, activate_density


class Given(nn.Module):
    """A basis that is put in instead of computed."""

    def __init__(self, basis: Tensor) -> None:
        super().__init__()
        self.basis = basis

    def forward(self, directions: Tensor) -> Tensor:
        assert directions.shape == (len(self.basis), 3)
        return self.basis


def test_a_basis_per_ray_gives_what_a_basis_per_sample_gives() -> None:
    torch.manual_seed(0)
    rays, samples, features = 4, 5, 6
    decoder = ExplicitDecoder(features, 2, "torch")
    directions = nn.functional.normalize(torch.randn(rays, 3), dim=-1)
    inputs = torch.randn(rays, samples, features, requires_grad=True)
    weights = torch.randn(rays, samples, 3)

    per_ray = decoder(inputs, directions)[1]
    repeated = directions.repeat_interleave(samples, dim=0)
    basis = decoder.basis(repeated).view(rays, samples, 3, features)
    per_sample = torch.sigmoid((inputs[:, :, None] * basis).sum(-1))
    torch.testing.assert_close(per_ray, per_sample)

    wanted = [inputs, *decoder.basis.parameters()]
    ours = torch.autograd.grad((per_ray * weights).sum(), wanted)
    theirs = torch.autograd.grad((per_sample * weights).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("per", ["ray", "sample"])
def test_explicit_colour_is_the_references(reference: dict[str, Any], per: str) -> None:
    entry = reference[f"explicit_colour_per_{per}"]
    features, basis = (torch.tensor(entry["inputs"][name]) for name in ("features", "basis"))
    expected = torch.tensor(entry["reference"])
    if per == "sample":  # as a ray of its own
        features, basis, expected = (one.flatten(0, 1) for one in (features, basis, expected))
        features, expected = features[:, None], expected[:, None]
    decoder = ExplicitDecoder(features.shape[-1], 1, "torch")
    decoder.basis = Given(basis)
    colour = decoder(features, torch.randn(len(features), 3))[1]
    torch.testing.assert_close(colour, expected, rtol=1e-6, atol=1e-7)


def test_explicit_field_is_the_references(reference: dict[str, Any]) -> None:
    entry = reference["explicit_field"]
    inputs = entry["inputs"]
    # The fixture's grid has 4 x 5 x 6 points, its second scale twice as many; ours has one number of points for all
    # axes. Refined to a common multiple of the intervals, a bilinear plane stays the same function.
    scales = []
    for planes, resolution in zip(inputs["scales"], (3 * 4 * 5 + 1, 7 * 9 * 11 + 1), strict=True):
        refined = [
            nn.functional.interpolate(
                torch.tensor(plane, dtype=torch.float64), size=(resolution,) * 2, mode="bilinear", align_corners=True
            )[0].permute(1, 2, 0)
            for plane in planes
        ]
        scales.append(torch.stack(refined))
    field = KPlanesField(SceneCoordinates(inputs["aabb"][1][0], False), (2, 2), 4, 1, "torch").double()
    field.planes.scales = nn.ParameterList(scales)
    field.decoder.basis = nn.Sequential(nn.Linear(3, 6, bias=False), nn.ReLU(), nn.Linear(6, 24, bias=False)).double()
    with torch.no_grad():
        field.decoder.density_head.weight.copy_(torch.tensor(inputs["density_weight"]))
        field.decoder.basis[0].weight.copy_(torch.tensor(inputs["basis_weight_hidden"]))
        field.decoder.basis[2].weight.copy_(torch.tensor(inputs["basis_weight_out"]))
    positions = torch.tensor(inputs["positions"], dtype=torch.float64)
    directions = torch.tensor(inputs["directions"], dtype=torch.float64)
    density, colour = field(positions, directions)
    expected = {name: torch.tensor(values) for name, values in entry["correct"].items()}
    torch.testing.assert_close(density[..., None].float(), expected["density"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(colour.float(), expected["rgb"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("in_dim", "biased"), [(3, True), (8, True), (15, True), (16, False), (31, True), (32, False), (96, False)]
)
def test_only_a_first_layer_whose_input_is_no_multiple_of_16_has_a_bias(in_dim: int, biased: bool) -> None:
    linear = [layer for layer in mlp(in_dim, 2, 64, 3, "torch") if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(in_dim, 64), (64, 64), (64, 64), (64, 2)]
    assert [layer.bias is not None for layer in linear] == [biased, False, False, False]


def test_a_decoder_without_activation_is_linear() -> None:
    torch.manual_seed(0)
    net = mlp(16, 1, 64, 1, "torch", activation="None")
    a, b = torch.randn(5, 16), torch.randn(5, 16)
    torch.testing.assert_close(net(2 * a - 3 * b), 2 * net(a) - 3 * net(b), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mlp(16, 1, 64, 1, "torch")(-a), -mlp(16, 1, 64, 1, "torch")(a))


def test_hybrid_decoder_gives_densities_and_colours_between_0_and_1() -> None:
    torch.manual_seed(0)
    decoder = HybridDecoder(12, "torch")
    directions = nn.functional.normalize(torch.randn(4, 3), dim=-1)
    # Large inputs: without the sigmoid these would leave the range by far.
    features = 1000 * torch.randn(4, 5, 12)
    raw, colour = decoder(features, directions)
    assert raw.shape == (4, 5) and colour.shape == (4, 5, 3)
    assert colour.min() >= 0 and colour.max() <= 1 and colour.max() - colour.min() > 0.5
    same, turned = decoder(features, -directions)
    assert torch.equal(same, raw) and not torch.equal(turned, colour)


def test_hybrid_colour_of_a_ray_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    decoder = HybridDecoder(12, "torch")
    features, directions = torch.randn(3, 4, 15), nn.functional.normalize(torch.randn(3, 3), dim=-1)
    together = decoder.colour(features, directions)
    alone = torch.cat([decoder.colour(features[i : i + 1], directions[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_density_is_the_exponential_of_x_minus_1() -> None:
    torch.testing.assert_close(
        activate_density(torch.tensor([1.0, 0.0, 3.0])), torch.tensor([1.0, 0.367879441, 7.389056099])
    )
    assert activate_density(torch.tensor([1.0], dtype=torch.float16)).dtype == torch.float32


def test_coordinates_of_a_box_are_divided_by_its_radius_and_unbounded_space_fits_into_the_planes() -> None:
    points = torch.tensor([[1.3, -0.65, 0.0], [100.0, 3.0, -50.0], [0.5, 0.25, -1.0]])
    torch.testing.assert_close(SceneCoordinates(1.3, False)(points[:1]), torch.tensor([[1.0, -0.5, 0.0]]))
    # (2 - 1 / 100) * (1, 0.03, -0.5) / 2 for the second; the third is inside of the unit cube, which is not contracted.
    expected = torch.tensor([[0.995, 0.02985, -0.4975], [0.25, 0.125, -0.5]])
    torch.testing.assert_close(SceneCoordinates(1.3, True)(points[1:]), expected)


def test_asking_for_tiny_cuda_nn_where_there_is_none_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "TCNN_EXISTS", False)
    with pytest.raises(StageError, match="or train with --pipeline.model.implementation torch"):
        resolve_implementation("tcnn", cuda=True)
    assert resolve_implementation("auto", cuda=True) == resolve_implementation("torch", cuda=True) == "torch"


def test_tiny_cuda_nn_is_taken_for_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "TCNN_EXISTS", True)
    assert resolve_implementation("auto", cuda=True) == "tcnn"
    assert resolve_implementation("auto", cuda=False) == "torch"
