"""Rays through pixels, beside nerfstudio's."""

from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor

from dac_nerfstudio.sampling.rays import PixelRays

OPENCV = [0.12, -0.05, 0.01, 0.0, 0.003, -0.002]
"""k1, k2, k3, k4, p1, p2 of a lens that bends the corners by some pixels."""


def cameras(count: int = 3, **settings: Any) -> Cameras:
    """Views of different lens, size and pose."""
    generator = torch.Generator().manual_seed(count)
    rotations = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator)).Q
    poses = torch.cat((rotations, torch.randn(count, 3, 1, generator=generator)), dim=2)
    numbers = torch.arange(count, dtype=torch.float32)
    sizes = torch.arange(count)
    lenses = {"fx": 60 + numbers, "fy": 55 - numbers, "cx": 32.5 + numbers, "cy": 23 - numbers}
    return Cameras(poses, **lenses, width=64 + sizes, height=48 + sizes, **settings)


def some_pixels(views: Cameras, count: int = 500) -> Tensor:
    """View, row and column of pixels, corners among them."""
    generator = torch.Generator().manual_seed(0)
    which = torch.randint(len(views), (count,), generator=generator)
    sizes = torch.cat((views.height, views.width), dim=1)[which]
    places = (torch.rand(count, 2, generator=generator) * sizes).long()
    places[: count // 10] = 0
    places[count // 10 : count // 5] = sizes[count // 10 : count // 5] - 1
    return torch.cat((which[:, None], places), dim=1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"distortion_params": torch.tensor(OPENCV).expand(3, 6)},
        {"distortion_params": torch.tensor([OPENCV, [0.0] * 6, [-0.02] + [0.0] * 5])},
        {"camera_type": CameraType.FISHEYE},
        {"camera_type": CameraType.FISHEYE, "distortion_params": 0.1 * torch.tensor(OPENCV).expand(3, 6)},
        {"camera_type": torch.tensor([[1], [2], [1]]), "distortion_params": torch.tensor(OPENCV).expand(3, 6)},
        {"times": torch.tensor([[0.0], [0.5], [1.0]]), "metadata": {"cam": torch.tensor([[4], [5], [6]])}},
        {"camera_type": CameraType.EQUIRECTANGULAR},
        {"camera_type": torch.tensor([[1], [3], [2]])},
    ],
    ids=["pinhole", "opencv", "lenses", "fisheye", "bent-fisheye", "mixed", "times", "equirectangular", "one-of-them"],
)
def test_rays_are_nerfstudios_to_float_precision(settings: dict[str, Any]) -> None:
    views = cameras(**settings)
    pixels = some_pixels(views)
    ours, expected = PixelRays(views)(pixels), RayGenerator(views)(pixels)
    assert torch.equal(ours.origins, expected.origins)
    assert torch.equal(ours.camera_indices, expected.camera_indices)
    torch.testing.assert_close(ours.directions, expected.directions, atol=1e-6, rtol=0)
    assert ours.metadata.keys() == expected.metadata.keys()
    for name, value in expected.metadata.items():
        torch.testing.assert_close(ours.metadata[name], value, atol=1e-6, rtol=1e-6)
    # nerfstudio takes differences of neighbours in single precision, of which four digits are left.
    torch.testing.assert_close(ours.pixel_area, expected.pixel_area, atol=0, rtol=2e-4)
    assert (ours.times is None) == (expected.times is None)
    if expected.times is not None:
        assert torch.equal(ours.times, expected.times)
    for part in ("origins", "directions", "pixel_area", "camera_indices"):
        assert getattr(ours, part).dtype == getattr(expected, part).dtype


def test_lenses_of_the_test_bend_rays_by_more_than_a_pixel() -> None:
    # Otherwise the comparison with nerfstudio would say nothing of distortion.
    pixels = some_pixels(cameras())
    bent = cameras(distortion_params=torch.tensor(OPENCV).expand(3, 6))
    apart = (PixelRays(bent)(pixels).directions - PixelRays(cameras())(pixels).directions).norm(dim=1)
    assert apart.max() > 1 / 60


def test_the_middle_of_a_fisheye_image_looks_ahead() -> None:
    # nerfstudio divides zero by zero there.
    view = Cameras(torch.eye(4)[None, :3], 50.0, 50.0, 8.5, 8.5, 16, 16, camera_type=CameraType.FISHEYE)
    rays = PixelRays(view)(torch.tensor([[0, 8, 8]]))
    torch.testing.assert_close(rays.directions, torch.tensor([[0.0, 0.0, -1.0]]))
    assert rays.pixel_area.item() == pytest.approx(1 / 50**2, rel=1e-3)


def test_nerfstudios_generator_is_taken_for_kinds_that_the_kernel_does_not_know_and_no_other() -> None:
    assert PixelRays(cameras()).exotic is None
    assert PixelRays(cameras(camera_type=CameraType.FISHEYE)).exotic is None
    assert isinstance(PixelRays(cameras(camera_type=CameraType.EQUIRECTANGULAR)).exotic, RayGenerator)
