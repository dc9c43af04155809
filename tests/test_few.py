"""benchmarks/few.py makes small scenes and configurations that `dac run` takes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from colmap_files import Camera, Photo, write_binary
from PIL import Image
from scipy.spatial.transform import Rotation

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.launch.flags import read_flags
from dac_nerfstudio.scene.reading import read_views

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
few = importlib.import_module("few")
lean = importlib.import_module("lean")


def test_a_small_scene_has_the_photos_that_were_asked_for_smaller(tmp_path: Path) -> None:
    source = make_demo_scene(tmp_path / "source", size=16, train=8, val=2, test=3)
    few.small_blender(source, tmp_path / "small", photos=3, size=8)
    views = read_views(tmp_path / "small")
    assert len(views) == 3 and len(json.loads((tmp_path / "small" / "transforms_test.json").read_text())["frames"]) == 3
    for split in ("train", "val", "test"):
        frame = json.loads((tmp_path / "small" / f"transforms_{split}.json").read_text())["frames"][0]
        large, small = (
            np.asarray(Image.open(folder / f"{frame['file_path']}.png").convert("RGBA"), float) / 255
            for folder in (source, tmp_path / "small")
        )
        assert small.shape == (8, 8, 4)
        # What is seen on black is the mean of what was seen there.
        seen, expected = (picture[..., :3] * picture[..., 3:] for picture in (small, large))
        assert np.abs(seen - expected.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))).max() < 1.5 / 255


@pytest.fixture
def real_scene(tmp_path: Path) -> Path:
    """40 photos of a COLMAP model, each of a colour of its own."""
    model = tmp_path / "real" / "colmap" / "sparse" / "0"
    model.mkdir(parents=True)
    (tmp_path / "real" / "images").mkdir()
    photos = []
    for number in range(40):
        x, y, z, w = Rotation.from_euler("yx", [9 * number, 20], degrees=True).as_quat()
        photos.append(Photo(number + 1, f"{number:02}.png", (w, x, y, z), (0.1 * number, 0.2, 4.0)))
        Image.new("RGB", (16, 12), (5 * number, 0, 0)).save(tmp_path / "real" / "images" / f"{number:02}.png")
    write_binary(model, [Camera()], photos)
    return tmp_path / "real"


def test_a_small_real_scene_has_photos_for_everything_and_none_twice(real_scene: Path, tmp_path: Path) -> None:
    few.small_real(real_scene, tmp_path / "small", photos=9, size=8)
    scene = json.loads((tmp_path / "small" / "transforms.json").read_text())
    lists = [scene[f"{split}_filenames"] for split in ("train", "val", "test")]
    assert [len(names) for names in lists] == [9, 12, 5]
    assert sorted(sum(lists, [])) == sorted(frame["file_path"] for frame in scene["frames"])
    assert len(set(sum(lists, []))) == 26
    assert (scene["w"], scene["h"], scene["fl_x"], scene["fl_y"]) == (8, 6, 50.0, 50.5)


def test_the_study_sees_a_real_scene_as_its_small_copy_has_it(real_scene: Path, tmp_path: Path) -> None:
    few.small_real(real_scene, tmp_path / "small", photos=9, size=8)
    scene = json.loads((tmp_path / "small" / "transforms.json").read_text())
    seen = lean.read_photos(real_scene, "train", downscale=2, train=9)
    colours = (255 * seen.pixels.view(9, 6, 8, 4)[:, 0, 0, 0]).round().int()
    frames = {frame["file_path"]: np.array(frame["transform_matrix"]) for frame in scene["frames"]}
    poses = np.stack([frames[f"images/{colour // 5:02}.png"] for colour in colours.tolist()])
    # The same but for where the world's origin and axes are, and its scale.
    rotations = seen.cameras.poses[:, :, :3].numpy()
    np.testing.assert_allclose(rotations[0].T @ rotations, poses[0, :3, :3].T @ poses[:, :3, :3], atol=1e-5)
    steps, expected = (
        np.linalg.norm(centres - centres[0], axis=1)
        for centres in (seen.cameras.poses[:, :, 3].numpy(), poses[:, :3, 3])
    )
    np.testing.assert_allclose(steps[1:] / steps[1], expected[1:] / expected[1], rtol=1e-4)
    assert seen.cameras.focal == 50.0


def test_student_and_baseline_get_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    options = few.Options(data=tmp_path, steps=80, student_steps=160)
    for real in (False, True):
        (tmp_path / "flags.toml").write_text(few.flags(options, real))
        tables = read_flags(tmp_path / "flags.toml")
        steps = {name: table["max-num-iterations"] for name, table in tables.items() if name != "all"}
        assert steps == {"dac-expert": 40, "dac-baseline": 80, "dac-distill": 16, "dac-finetune": 144}
        assert ("pipeline.model.linear-decoder-layers" in tables["all"]) != real
