"""The demo scene: its format, its cameras, what its pictures show, and that finished work is kept."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dac_nerfstudio.demo import CAMERA_ANGLE_X, CAMERA_DISTANCE, INTRICATE_AZIMUTH_DEG, make_demo_scene
from dac_nerfstudio.demo.scene import band_poses, orbit_poses

SIZE, COUNTS = 64, {"train": 12, "val": 3, "test": 4}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_scene(tmp_path_factory.mktemp("demo") / "scene", size=SIZE, **COUNTS)


def poses_of(scene: Path, split: str) -> np.ndarray:
    frames = json.loads((scene / f"transforms_{split}.json").read_text())["frames"]
    return np.array([frame["transform_matrix"] for frame in frames])


def pictures_of(scene: Path, split: str) -> np.ndarray:
    """RGBA in [0, 1], [views, SIZE, SIZE, 4]."""
    count = len(poses_of(scene, split))
    pictures = []
    for i in range(count):
        with Image.open(scene / split / f"r_{i}.png") as picture:
            pictures.append(np.asarray(picture))
    return np.stack(pictures) / 255.0


@pytest.mark.parametrize("split", COUNTS)
def test_format_is_blender(scene: Path, split: str) -> None:
    transforms = json.loads((scene / f"transforms_{split}.json").read_text())
    assert transforms["camera_angle_x"] == CAMERA_ANGLE_X == 0.6911112070083618
    assert [frame["file_path"] for frame in transforms["frames"]] == [f"./{split}/r_{i}" for i in range(COUNTS[split])]
    assert sorted(path.name for path in (scene / split).iterdir()) == sorted(f"r_{i}.png" for i in range(COUNTS[split]))
    for i in range(COUNTS[split]):
        with Image.open(scene / split / f"r_{i}.png") as picture:
            assert (picture.mode, picture.size) == ("RGBA", (SIZE, SIZE))


@pytest.mark.parametrize("split", COUNTS)
def test_cameras_look_at_the_origin_from_their_distance(scene: Path, split: str) -> None:
    poses = poses_of(scene, split)
    rotations, positions = poses[:, :3, :3], poses[:, :3, 3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotations.shape),
                               atol=1e-12)  # fmt: skip
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), CAMERA_DISTANCE, atol=1e-9)
    np.testing.assert_allclose(positions, CAMERA_DISTANCE * rotations[:, :, 2], atol=1e-9)
    np.testing.assert_allclose(rotations[:, 2, 0], 0, atol=1e-12)  # No roll: the right axis is level,
    assert (rotations[:, 2, 1] > 0).all()  # and up is up.
    elevations = np.degrees(np.arcsin(positions[:, 2] / CAMERA_DISTANCE))
    assert elevations.min() > 4.9 and elevations.max() < 75.1


@pytest.mark.parametrize("sectors", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_azimuth_sector_gets_its_share(sectors: int, seed: int) -> None:
    for poses in (band_poses(80, np.random.default_rng(seed)), orbit_poses(20)):
        azimuth = np.arctan2(poses[:, 1, 3], poses[:, 0, 3]) % (2 * np.pi)
        views = np.bincount((azimuth / (2 * np.pi) * sectors).astype(int), minlength=sectors)
        assert views.min() >= 0.75 * len(poses) / sectors


def test_pictures_are_the_object_on_a_transparent_background(scene: Path) -> None:
    alpha = pictures_of(scene, "train")[..., 3]
    assert ((alpha == 0).any((1, 2)) & (alpha == 1).any((1, 2)) & ((alpha > 0) & (alpha < 1)).any((1, 2))).all()
    # The whole object is in view: nothing touches the border.
    for edge in (alpha[:, 0], alpha[:, -1], alpha[:, :, 0], alpha[:, :, -1]):
        assert edge.max() == 0
    assert 0.15 < (alpha > 0).mean() < 0.6


def test_the_intricate_side_has_more_detail(scene: Path) -> None:
    rgba = np.concatenate([pictures_of(scene, split) for split in COUNTS])
    position = np.concatenate([poses_of(scene, split) for split in COUNTS])[:, :3, 3]
    # Steps between neighbouring pixels on the object; its outline against the background is no detail.
    steps = np.abs(np.diff(rgba[..., :3], axis=1)).mean(-1)
    opaque = (rgba[:, 1:, :, 3] == 1) & (rgba[:, :-1, :, 3] == 1)
    detail = (steps * opaque).sum((1, 2)) / opaque.sum((1, 2))
    azimuth = np.degrees(np.arctan2(position[:, 1], position[:, 0]))
    off_front = np.abs((azimuth - INTRICATE_AZIMUTH_DEG + 180) % 360 - 180)
    assert detail[off_front < 60].mean() > 1.5 * detail[off_front > 120].mean()


def test_a_second_call_rewrites_nothing(scene: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in scene.rglob("*")}
    assert make_demo_scene(scene, size=SIZE, **COUNTS) == scene
    assert {path: path.stat().st_mtime_ns for path in scene.rglob("*")} == before


def test_same_seed_same_scene_other_seed_other_scene(tmp_path: Path) -> None:
    folders = [
        make_demo_scene(tmp_path / str(i), size=16, train=2, val=1, test=1, seed=seed)
        for i, seed in enumerate((3, 3, 4))
    ]
    first, again, other = ((folder / "train/r_0.png").read_bytes() for folder in folders)
    assert first == again != other


def test_an_interrupted_call_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 5
        raise KeyboardInterrupt

    numbers = {"size": 16, "train": 3, "val": 1, "test": 1}
    (tmp_path / "scene").mkdir()
    with pytest.raises(KeyboardInterrupt):
        make_demo_scene(tmp_path / "scene", **numbers, progress=stop)
    assert not any((tmp_path / "scene").iterdir())
    done = []
    make_demo_scene(tmp_path / "scene", **numbers, progress=lambda i, total: done.append((i, total)))
    assert done == [(i, 5) for i in range(1, 6)] and [path.name for path in tmp_path.iterdir()] == ["scene"]


@pytest.mark.parametrize("name, content", [("thesis.txt", "mine"), ("scene.json", "{}"), ("scene.json", "not json")])
def test_a_foreign_folder_is_left_alone(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    for folder in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match="found something else at .*; expected an absent or empty folder.* Choose"):
            make_demo_scene(folder, size=16, train=1, val=1, test=1)
    part = tmp_path.with_name(f"{tmp_path.name}.part")
    tmp_path.rename(part)
    with pytest.raises(ValueError, match=r"found something else at .*\.part; expected"):
        make_demo_scene(tmp_path, size=16, train=1, val=1, test=1)
    part.rename(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == content


def test_numbers_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="val is 0, expected at least 1"):
        make_demo_scene(tmp_path / "scene", val=0)
    assert not (tmp_path / "scene").exists()
