"""Datasets read photos as they are meant, and scenes that cannot be trained on are refused before training."""

import copy
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from PIL import Image

from dac_nerfstudio.errors import PartitionError, PhotoError
from dac_nerfstudio.methods import baseline
from dac_nerfstudio.sampling.dataset import PhotoDataset
from dac_nerfstudio.sampling.rays import PixelRays
from dac_nerfstudio.training.datamanager import Photos
from dac_nerfstudio.training.sources import resolve
from dac_nerfstudio.training.trainer import DaCTrainerConfig


def dataset(photo: Path, width: int, height: int, scale: float = 1.0, mask: Path | None = None) -> PhotoDataset:
    """One photo, with a camera of this size."""
    pose = torch.eye(4)[None, :3]
    cameras = Cameras(pose, 9.0, 9.0, width / 2, height / 2, width, height, camera_type=CameraType.PERSPECTIVE)
    outputs = DataparserOutputs([photo], cameras, mask_filenames=None if mask is None else [mask])
    return PhotoDataset(outputs, scale)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_a_palettes_colours_are_trained_on(noise: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(noise).quantize(64).save(tmp_path / "photo.png")
    read = dataset(tmp_path / "photo.png", 9, 6).get_data(0, image_type="uint8")["image"]
    np.testing.assert_array_equal(read, noise)


def test_a_rounded_pixel_is_cut_off_photo_and_mask(noise: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(noise).save(tmp_path / "photo.png")
    Image.fromarray(noise[..., 0] > 99).save(tmp_path / "mask.png")
    data = dataset(tmp_path / "photo.png", 8, 6, mask=tmp_path / "mask.png").get_data(0, image_type="uint8")
    np.testing.assert_array_equal(data["image"], noise[:, :8])
    np.testing.assert_array_equal(data["mask"][..., 0], noise[:, :8, 0] > 99)
    halved = dataset(tmp_path / "photo.png", 8, 6, scale=0.5).get_data(0)
    assert halved["image"].shape == (3, 4, 3)


def test_a_photo_of_another_size_is_refused(noise: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with pytest.raises(PhotoError, match="photo.png has 9 x 6 pixels, its camera 12 x 6 pixels"):
        dataset(tmp_path / "photo.png", 12, 6).get_data(0)


# Before training


@pytest.fixture
def scene(demo: Path, tmp_path: Path) -> Path:
    """A copy of the demo scene, to be spoilt."""
    return Path(shutil.copytree(demo, tmp_path / "scene"))


def config_of(data: Path) -> DaCTrainerConfig:
    """A baseline's settings."""
    config: DaCTrainerConfig = copy.deepcopy(baseline.config)
    config.data = config.pipeline.datamanager.data = data
    config.output_dir = data.parent / "outputs"
    return config


def refused(config: DaCTrainerConfig) -> str:
    """The message with which a run's data are refused."""
    with pytest.raises(PartitionError) as caught:
        config.sources()
    return str(caught.value)


def test_a_pose_that_was_rounded_is_one(scene: Path) -> None:
    path = scene / "transforms_train.json"
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        frame["transform_matrix"] = np.round(frame["transform_matrix"], 3).tolist()
    path.write_text(json.dumps(content))
    config_of(scene).sources()


@pytest.mark.parametrize("name", ["train/r_0.png", "train/r_5.png", "test/r_1.png", "val/r_1.png"])
def test_a_photo_of_another_size_than_most_is_named(scene: Path, name: str) -> None:
    with Image.open(scene / name) as photo:
        photo.resize((8, 12)).save(scene / name)
    assert f"{scene / name} has 8 x 12 pixels" in refused(config_of(scene))


def test_a_square_photo_that_is_marked_as_turned_is_named(scene: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(scene / "train/r_2.png") as photo:
        photo.save(scene / "train/r_2.png", exif=exif)
    assert "train/r_2.png is marked by EXIF to be turned" in refused(config_of(scene))


def test_a_photos_header_is_read_once(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()
    read = Image.open

    def note(file: Any, *how: Any) -> Image.Image:
        opened.update([Path(str(getattr(file, "name", file))).name])
        return read(file, *how)

    monkeypatch.setattr(Image, "open", note)
    for _ in range(2):
        config_of(scene).inputs.examine()
    # nerfstudio's parser opens the first of each split itself.
    assert all(opened[f"r_{number}.png"] == 1 for number in range(2, 8))


def test_inside_the_circle_of_a_fisheye_lens_is_drawn(noise: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(noise).save(tmp_path / "photo.png")
    made = dataset(tmp_path / "photo.png", 9, 6)
    made.cameras.metadata = {"fisheye_crop_radius": 2.5}
    mask = made.get_data(0, image_type="uint8")["mask"][..., 0]
    rows, columns = np.mgrid[:6, :9]
    np.testing.assert_array_equal(mask, (rows - 2.5) ** 2 + (columns - 4) ** 2 <= 2.5**2)
    assert len(Photos(made, [True]).pixels) == mask.sum() == 22
    rays = PixelRays(made.cameras)(torch.tensor([[0, 2, 4]]))
    assert "fisheye_crop_radius" not in rays.metadata


def test_a_colour_hides_what_a_mask_does(noise: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(noise).save(tmp_path / "photo.png")
    Image.fromarray(noise).convert("RGBA").save(tmp_path / "mask.png")
    made = dataset(tmp_path / "photo.png", 9, 6, mask=tmp_path / "mask.png")
    made.mask_color = (1.0, 0.0, 0.0)
    data = made.get_data(0, image_type="uint8")
    hidden = ~data["mask"][..., 0].numpy()
    assert not hidden.any()
    Image.new("L", (9, 6)).save(tmp_path / "mask.png")
    assert (made.get_data(0, image_type="uint8")["image"] == torch.tensor([255, 0, 0])).all()
    assert (made.get_data(0)["image"] == torch.tensor([1.0, 0.0, 0.0])).all()


def test_photos_on_white_make_the_background_white(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The data parser with all its defaults, as in nerfstudio's own test of training."""
    config = config_of(demo)
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig()
    assert resolve(config).config.pipeline.model.background_color == "white"
    assert "puts the photos on white, which is now the model's background, too" in capsys.readouterr().out


def test_a_baseline_of_one_photo_needs_no_groups(demo: Path, tmp_path: Path) -> None:
    content = json.loads((demo / "transforms_train.json").read_text())
    for split in ("train", "val", "test"):
        (tmp_path / split).symlink_to(demo / split)
    (tmp_path / "transforms_train.json").write_text(json.dumps({**content, "frames": content["frames"][:1]}))
    config = config_of(tmp_path)
    config.inputs.examine()
    assert resolve(config).partition.num_groups == 1
