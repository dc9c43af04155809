from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dac_nerfstudio
from dac_nerfstudio.partition import PartitionError, Views, read_views, view_name

IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
INTRINSICS = [100.0, 100.0, 8.0, 6.0, 16.0, 12.0]


def rewrite(path: Path, **changes: Any) -> None:
    """Changes top-level entries of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("train/r_0.png", "train/r_0.png"),
        ("./train/r_0.png", "train/r_0.png"),
        ("images/a.jpg", "a.jpg"),
        ("images_2/a.jpg", "a.jpg"),
        ("./images_16/left/a.jpg", "left/a.jpg"),
        (Path("images/a.jpg"), "a.jpg"),
        ("images_old/a.jpg", "images_old/a.jpg"),
        ("left/images/a.jpg", "left/images/a.jpg"),
        ("images", "images"),
    ],
)
def test_view_name_is_the_same_at_every_downscale_factor(path: str | Path, name: str) -> None:
    assert view_name(path) == name


def test_importing_the_package_loads_numpy_but_nothing_heavy() -> None:
    heavy = ("torch", "nerfstudio", "sklearn", "scipy", "matplotlib", "PIL")
    program = f"import sys, dac_nerfstudio.partition; print([m for m in {heavy} if m in sys.modules])"
    root = Path(dac_nerfstudio.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_blender_folder_gives_names_poses_and_intrinsics(ring, blender_folder) -> None:
    views = ring([10, 100, 190])
    read = read_views(blender_folder(views))
    assert read.names == ("train/r_0.png", "train/r_1.png", "train/r_2.png")
    np.testing.assert_array_equal(read.camera_to_worlds, views.camera_to_worlds)
    np.testing.assert_array_equal(read.centres, views.camera_to_worlds[:, :, 3])
    # 90 degrees across 16 pixels: the focal length is half the width.
    np.testing.assert_allclose(read.intrinsics, [[8, 8, 8, 6, 16, 12]] * 3, rtol=1e-9)
    assert len(read) == 3


def test_blender_split_is_read_from_the_file_beside_a_named_one(ring, blender_folder) -> None:
    blender_folder(ring([10, 100]))
    data = blender_folder(ring([20, 30, 40], prefix="test/r_"), split="test")
    assert len(read_views(data, "test")) == 3
    assert read_views(data / "transforms_train.json", "test").names[0] == "test/r_0.png"


def test_blender_frames_that_name_their_suffix_keep_it(ring, blender_folder) -> None:
    data = blender_folder(ring([10]))
    rewrite(data / "transforms_train.json", frames=[{"file_path": "train/r_0.png", "transform_matrix": IDENTITY}])
    assert read_views(data).names == ("train/r_0.png",)


def test_transforms_json_gives_all_frames_for_training(ring, nerfstudio_folder) -> None:
    views = ring([10, 100], prefix="v")
    data = nerfstudio_folder(views)
    for source in (data, data / "transforms.json"):
        read = read_views(source)
        assert read.names == ("v0.png", "v1.png")
        np.testing.assert_array_equal(read.camera_to_worlds, views.camera_to_worlds)
        np.testing.assert_array_equal(read.intrinsics, [[100, 101, 8, 6, 16, 12]] * 2)


def test_transforms_json_takes_intrinsics_per_frame(ring, nerfstudio_folder) -> None:
    path = nerfstudio_folder(ring([10, 100], prefix="v")) / "transforms.json"
    frames = json.loads(path.read_text())["frames"]
    for focal, frame in zip((50, 60), frames, strict=True):
        frame["fl_x"] = focal
    rewrite(path, frames=frames, fl_x=None)
    assert read_views(path).intrinsics[:, 0].tolist() == [50, 60]


def test_transforms_json_follows_its_lists_of_splits(ring, nerfstudio_folder) -> None:
    data = nerfstudio_folder(
        ring([0, 90, 180], prefix="v"), train_filenames=["images/v2.png", "./images/v0.png"], val_filenames=["v1.png"]
    )
    assert read_views(data).names == ("v0.png", "v2.png")
    assert read_views(data, "val").names == ("v1.png",)
    with pytest.raises(PartitionError, match=r'for split "test": only train_filenames and val_filenames. Add "test_f'):
        read_views(data, "test")


def test_images_given_by_absolute_paths_have_the_same_names(ring, nerfstudio_folder) -> None:
    data = nerfstudio_folder(ring([0], prefix="v"))
    frames = [{"file_path": str(data / "images/v0.png"), "transform_matrix": IDENTITY}]
    rewrite(data / "transforms.json", frames=frames)
    assert read_views(data).names == ("v0.png",)


def test_transforms_json_without_lists_is_split_as_nerfstudio_does(ring, nerfstudio_folder) -> None:
    data = nerfstudio_folder(ring(range(0, 360, 18), prefix="v"))  # 20 frames, sorted v0, v1, v10, v11, ... by name
    by_name = sorted(f"v{number}.png" for number in range(20))
    train, test = read_views(data).names, read_views(data, "test").names
    assert len(train) == 18 and sorted(train + test) == by_name
    places = [int(place) for place in np.linspace(0, 19, 18)]
    assert list(train) == [by_name[place] for place in places]
    assert read_views(data, "val").names == test


def test_too_few_frames_for_a_test_split_are_told(ring, nerfstudio_folder) -> None:
    with pytest.raises(PartitionError, match=r'too few frames for a split "test". Add the list "test_filenames"'):
        read_views(nerfstudio_folder(ring([0, 90])), "test")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (["images/v9.png"], '"train_filenames" names images that have no frame: v9.png'),
        ([], '"train_filenames" is empty'),
        ("images/v0.png", '"train_filenames" must be a list of file names'),
    ],
)
def test_wrong_lists_of_splits_are_named(ring, nerfstudio_folder, listed: Any, message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        read_views(nerfstudio_folder(ring([0], prefix="v"), train_filenames=listed))


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match=r"There is no folder or file .*nowhere.*--data <folder>"):
        read_views(tmp_path / "nowhere")


def test_folder_without_poses_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match=r"looked for transforms_train.json and transforms.json.*ns-process-data"):
        read_views(tmp_path)


def test_bad_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    path.write_text('{"frames": [')
    with pytest.raises(PartitionError, match=r"transforms.json is not valid JSON \(Expecting value"):
        read_views(tmp_path)
    path.write_text("[]")
    with pytest.raises(PartitionError, match="holds a JSON list; expected an object"):
        read_views(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": []}, "transforms.json has no frames"),
        ({"frames": None}, "transforms.json has no frames"),
        ({"frames": [{"transform_matrix": IDENTITY}]}, 'entry 0 of "frames" .* has no "file_path"'),
        ({"frames": [{"file_path": "a.png"}]}, 'the frame of a.png has no "transform_matrix"'),
        ({"frames": [{"file_path": "a.png", "transform_matrix": [[1, 2], [3]]}]}, "is not a matrix of 4 x 4"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": IDENTITY}] * 2}, "more than once: a.png"),
        ({"fl_y": None}, 'has no "fl_y", neither globally nor in the frame of images/v0.png'),
        ({"w": "16"}, "\"w\" is '16'; expected a number"),
        ({"h": 0}, "image size that is not a positive number: v0.png"),
    ],
)
def test_defects_of_transforms_json_are_named(ring, nerfstudio_folder, changes: dict[str, Any], message: str) -> None:
    path = nerfstudio_folder(ring([0], prefix="v")) / "transforms.json"
    rewrite(path, **changes)
    with pytest.raises(PartitionError, match=message) as caught:
        read_views(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("angle", "message"), [(None, 'has no "camera_angle_x"'), (4.0, '"camera_angle_x" is 4.0; expected radians')]
)
def test_defects_of_the_blender_field_of_view_are_named(ring, blender_folder, angle: Any, message: str) -> None:
    data = blender_folder(ring([0]))
    rewrite(data / "transforms_train.json", camera_angle_x=angle)
    with pytest.raises(PartitionError, match=message):
        read_views(data)


def test_missing_first_blender_image_is_named(ring, blender_folder) -> None:
    data = blender_folder(ring([0]))
    (data / "train/r_0.png").unlink()
    with pytest.raises(PartitionError, match=r"Cannot read the size of .*r_0.png, the first image of"):
        read_views(data)


def test_views_reject_what_does_not_fit_together() -> None:
    pose = np.eye(4)[None, :3]
    with pytest.raises(PartitionError, match="at least one is needed"):
        Views((), np.empty((0, 3, 4)), np.empty((0, 6)))
    with pytest.raises(PartitionError, match=r"camera_to_worlds has shape \(1, 3, 3\); 1 names need \(1, 3, 4\)"):
        Views(("a",), pose[:, :, :3], [INTRINSICS])
    with pytest.raises(PartitionError, match=r"intrinsics has shape \(6,\); 1 names need \(1, 6\)"):
        Views(("a",), pose, INTRINSICS)
    with pytest.raises(PartitionError, match="these occur more than once: a, c"):
        Views(("c", "a", "b", "a", "c"), np.tile(pose, (5, 1, 1)), [INTRINSICS] * 5)
    with pytest.raises(PartitionError, match="a pose that is not finite: b"):
        Views(("a", "b"), np.concatenate([pose, pose * np.nan]), [INTRINSICS] * 2)
