"""The box of a bounded scene is wide enough for what the photos' alpha shows."""

import copy
from pathlib import Path

import numpy as np
import pytest
from cameras import looking_at_origin
from PIL import Image

from dac_nerfstudio.kplanes.model import RADIUS
from dac_nerfstudio.methods import baseline
from dac_nerfstudio.partition import Views
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.training.scene_radius import scene_radius

SIZE, FOCAL = 64, 88.9  # as NeRF-synthetic's, whose cameras stand 4 away, at a smaller size


def photographed(folder: Path, extent: tuple[float, float, float], count: int = 40, mode: str = "RGBA") -> Views:
    """Photos of an ellipsoid with these half-axes, in the middle, from cameras on the upper half of a sphere."""
    random = np.random.default_rng(1)
    heights, turns = random.uniform(0.05, 0.95, count), random.uniform(0, 2 * np.pi, count)
    poses, photos = [], []
    across, down = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    for number, (height, turn) in enumerate(zip(heights, turns)):
        level = np.sqrt(1 - height**2)
        centre = 4 * np.array([level * np.cos(turn), level * np.sin(turn), height])
        poses.append(looking_at_origin(centre))
        turned = poses[-1][:, :3]
        rays = np.stack([(across - SIZE / 2) / FOCAL, (SIZE / 2 - down) / FOCAL, -np.ones_like(down)], -1) @ turned.T
        # |origin + t ray| = 1 in the units of the half-axes has a solution where the ray hits.
        ray, origin = rays / extent, centre / extent
        a, b, c = (ray * ray).sum(-1), (ray * origin).sum(-1), (origin * origin).sum() - 1
        hit = b * b - a * c > 0
        pixels = np.where(hit[..., None], [200, 100, 50, 255], 0).astype(np.uint8)
        photos.append(folder / f"{number}.png")
        Image.fromarray(pixels).convert(mode).save(photos[-1])
    intrinsics = np.tile([FOCAL, FOCAL, SIZE / 2, SIZE / 2, SIZE, SIZE], (count, 1))
    return Views(tuple(photo.name for photo in photos), np.stack(poses), intrinsics, photos=tuple(photos))


@pytest.mark.parametrize(
    ("extent", "radius"),
    [
        ((1.45, 1.45, 0.05), 1.5),  # flat, as a ship on its water
        ((0.3, 1.38, 0.3), 1.5),
        ((1.28, 1.28, 0.05), 1.3),
        ((1.2, 1.2, 1.0), 1.3),
    ],
)
def test_the_box_is_wide_for_what_leaves_the_narrow_one(
    tmp_path: Path, extent: tuple[float, float, float], radius: float
) -> None:
    assert scene_radius(photographed(tmp_path, extent))[0] == radius


def test_photos_without_alpha_decide_nothing(tmp_path: Path) -> None:
    radius, why = scene_radius(photographed(tmp_path, (1.45, 1.45, 0.05), mode="RGB"))
    assert radius == RADIUS and "no alpha" in why


def test_alpha_that_is_opaque_everywhere_decides_nothing(tmp_path: Path) -> None:
    views = photographed(tmp_path, (1.45, 1.45, 0.05), mode="RGB")
    for photo in views.photos or ():
        with Image.open(photo) as image:
            image.convert("RGBA").save(photo)
    assert scene_radius(views)[0] == RADIUS


def test_smaller_copies_of_the_photos_decide_alike(tmp_path: Path) -> None:
    views = photographed(tmp_path, (1.45, 1.45, 0.1))
    for photo in views.photos or ():
        with Image.open(photo) as image:
            image.resize((SIZE // 2, SIZE // 2)).save(photo)
    assert scene_radius(views)[0] == 1.5


def test_stages_record_what_the_data_decided_unless_the_user_did(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = copy.deepcopy(baseline.config)
    config.data, config.output_dir = demo, tmp_path
    assert config.pipeline.model.scene_radius is None
    assert config.sources().record.settings["model"]["scene_radius"] == scene_radius(read_views(demo))[0] == 1.3
    assert "scene radius 1.3: by the photos' alpha" in capsys.readouterr().out
    assert config.pipeline.model.scene_radius is None
    config.pipeline.model.scene_radius = 0.9
    assert config.sources().record.settings["model"]["scene_radius"] == 0.9
