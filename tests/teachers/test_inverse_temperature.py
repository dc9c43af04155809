"""The inverse temperature of a blend, chosen on photos."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dac_nerfstudio.teachers.ensemble import INVERSE_TEMPERATURES, Ensemble, choose_inverse_temperature

PHOTO = torch.rand(6, 5, 3, generator=torch.Generator().manual_seed(0))


def blend(poses: Tensor, inverse_temperature: float) -> Tensor:
    """Two experts; a camera's x says how much nearer it is to the second."""
    if math.isinf(inverse_temperature):
        return torch.nn.functional.one_hot((poses[:, 0, 3] > 0).long(), 2).float()
    return torch.softmax(inverse_temperature * torch.stack((-poses[:, 0, 3], poses[:, 0, 3]), dim=1), dim=1)


class Renderer:
    """A model that only renders cameras: the photo, with what noise the camera has for it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def get_outputs_for_camera(self, camera: Any) -> dict[str, Tensor]:
        return {"rgb": PHOTO + camera.noise[self.number]}


def chosen(errors: list[tuple[float, float]]) -> tuple[float, dict[float, float]]:
    ensemble = Ensemble([Renderer(0), Renderer(1)], (1, 2), blend)
    return choose_inverse_temperature(ensemble, views(errors))


def views(errors: list[tuple[float, float]]) -> Iterator[tuple[Any, Tensor]]:
    """Cameras left and right of the border; each view's errors are noise of these sizes, own expert first."""
    generator = torch.Generator().manual_seed(1)
    for number, (own, other) in enumerate(errors):
        pose = torch.zeros(3, 4)
        pose[0, 3] = 1.0 if number % 2 else -1.0
        noise = torch.randn(2, 6, 5, 3, generator=generator) * torch.tensor([own, other])[:, None, None, None]
        yield SimpleNamespace(camera_to_worlds=pose, noise=noise.flip(0) if number % 2 else noise), PHOTO


def test_experts_that_know_nothing_of_other_groups_are_not_asked() -> None:
    best, psnr = chosen([(0.01, 0.5)] * 4)
    assert best >= 4
    assert psnr[best] > psnr[0.0] + 15


def test_experts_that_err_independently_are_averaged() -> None:
    best, psnr = chosen([(0.1, 0.1)] * 6)
    assert best <= 0.5
    # The mean of two has half the variance: 3 dB.
    assert psnr[0.0] - psnr[math.inf] == pytest.approx(3.0, abs=1.0)


def test_in_between_the_best_lies_in_between() -> None:
    # Errors of 0.1 and 0.2: weights of 0.8 and 0.2, by inverse variance, which is log(4) / 2 = 0.69.
    best, psnr = chosen([(0.1, 0.2)] * 40)
    assert best in (0.5, 1.0)
    assert psnr[best] > max(psnr[0.0], psnr[math.inf]) and list(psnr) == list(INVERSE_TEMPERATURES)


def test_without_views_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="no view to choose"):
        chosen([])
