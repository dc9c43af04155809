from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.partition import Transform, Views, align, as_recorded, left_out, read_views

IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def rewrite(path: Path, **changes: Any) -> None:
    """Changes top-level entries of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


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


@pytest.mark.parametrize("layout", ["blender", "nerfstudio", "colmap"])
def test_views_without_a_photo_are_left_out_where_that_is_asked_for(layout: str, ring, request) -> None:
    data = request.getfixturevalue(f"{layout}_folder")(ring(range(0, 300, 30)))
    whole = read_views(data)
    for photo in whole.photos:
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12)).save(photo)
    assert left_out(data, read_views(data, skip_missing=True)) == []
    gone = [whole.names[number] for number in (3, 6)]
    for number in (3, 6):
        whole.photos[number].unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        views = read_views(data, skip_missing=True)
        assert left_out(data, views) == [f"Left out, as their photos are not there: {', '.join(gone)}."]
        # Those that stay are in the split that they were in.
        assert read_views(data).names == whole.names
    assert views.names == tuple(name for name in whole.names if name not in gone)
    for photo in whole.photos:
        photo.unlink(missing_ok=True)
    with pytest.raises(PartitionError, match="size|None of the photos of the split 'train' is there"):
        read_views(data, skip_missing=True)


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
    assert set(train) == {by_name[place] for place in places}
    assert read_views(data, "val").names == test


def test_too_few_frames_for_a_test_split_are_refused(ring, nerfstudio_folder) -> None:
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


# COLMAP's models


@pytest.fixture
def photographed(ring: Callable[..., Views]) -> Views:
    """Twenty views by structure from motion: view i shows points 10 i to 10 i + 19."""
    views = ring(range(0, 360, 18), prefix="v")
    return replace(views, upright=False, tracks=tuple(np.arange(10 * i, 10 * i + 20) for i in range(20)))


def numbers(views: Views) -> list[int]:
    return [int(name.removesuffix(".png").removeprefix("v")) for name in views.names]


@pytest.mark.parametrize("model", ["colmap/sparse/0", "sparse/0"])
@pytest.mark.parametrize("images", ["images", "images_2"])
def test_colmap_folder_gives_names_poses_tracks_and_photos(
    photographed: Views, colmap_folder, model: str, images: str
) -> None:
    data = colmap_folder(photographed, model, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_views(data)
    train = [i for i in range(20) if i % 8]
    assert numbers(read) == train and not read.upright
    np.testing.assert_allclose(read.camera_to_worlds, photographed.camera_to_worlds[train], atol=1e-6)
    np.testing.assert_array_equal(read.intrinsics, [[100, 101, 8, 6, 16, 12]] * 17)
    assert [points.tolist() for points in read.tracks] == [photographed.tracks[i].tolist() for i in train]
    assert read.photos == tuple(data / images / name for name in read.names)
    for split in ("val", "test"):
        assert numbers(read_views(data, split)) == [0, 8, 16]


def test_photos_that_the_folder_lacks_are_named(photographed: Views, colmap_folder) -> None:
    data = colmap_folder(photographed)
    (data / "images/v3.png").unlink()
    (data / "images/v11.png").unlink()
    with pytest.warns(
        UserWarning, match=r"images lacks 2 of the 20 photos of .*sparse/0: v3.png, v11.png. Training needs them"
    ):
        assert len(read_views(data)) == 17


def test_a_missing_folder_of_photos_is_named(photographed: Views, colmap_folder) -> None:
    with pytest.warns(UserWarning, match="images lacks 20 of the 20 photos .* and 15 more. Training needs them"):
        read_views(colmap_folder(photographed, images=None))


def test_photos_without_a_pose_are_named(photographed: Views, colmap_folder) -> None:
    data = colmap_folder(photographed)
    (data / "images/left").mkdir()
    (data / "images/left/blurred.JPG").write_bytes(b"")
    (data / "images/notes.txt").write_text("no photo")
    with pytest.warns(UserWarning, match=r"no pose for 1 of the photos in .*images: left/blurred.JPG. They stay out"):
        assert len(read_views(data)) == 17


def test_lists_of_splits_beside_a_colmap_model_are_followed(photographed: Views, colmap_folder) -> None:
    data = colmap_folder(photographed)
    (data / "train_list.txt").write_bytes(b"v12.png\r\nv3.png\r\n\r\n")
    (data / "test_list.txt").write_text("v4.png")
    assert numbers(read_views(data)) == [3, 12]
    assert numbers(read_views(data, "test")) == [4]
    with pytest.raises(PartitionError, match="has lists of splits, but no val_list.txt. Add it"):
        read_views(data, "val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"v0.png\nv20.png\nx.png", r"train_list.txt lists 2 photos that .*0 does not know: v20.png, x.png. Take them"),
        (b"\n\n", r"has no photo for the split 'train'; list some in train_list.txt"),
        (b"\xff\xfe", "lists 1 photos that"),
    ],
)
def test_wrong_lists_beside_a_colmap_model_are_refused(
    photographed, colmap_folder, content: bytes, message: str
) -> None:
    data = colmap_folder(photographed)
    (data / "train_list.txt").write_bytes(content)
    with pytest.raises(PartitionError, match=message):
        read_views(data)


def test_a_colmap_model_of_one_photo_has_no_training_views(photographed: Views, colmap_folder) -> None:
    with pytest.raises(PartitionError, match="has no photo for the split 'train'; list some in train_list.txt"):
        read_views(colmap_folder(photographed.select([0])))


@pytest.fixture
def processed(ring, nerfstudio_folder, colmap_folder) -> Callable[..., Path]:
    """A `transforms.json`, and beside it the COLMAP model of the same or other views."""

    def make(views: Views, modelled: Views) -> Path:
        data = nerfstudio_folder(views)
        (data / "colmap").mkdir()
        (colmap_folder(modelled, images=None) / "colmap/sparse").rename(data / "colmap/sparse")
        return data

    return make


def test_transforms_json_gets_tracks_from_the_model_beside_it(photographed: Views, processed) -> None:
    chosen = [9, 2, 5, 7]
    read = read_views(processed(photographed.select(chosen), photographed))
    assert numbers(read) == chosen
    assert [points.tolist() for points in read.tracks] == [photographed.tracks[i].tolist() for i in chosen]
    np.testing.assert_array_equal(read.camera_to_worlds, photographed.camera_to_worlds[chosen])


def test_transforms_json_gets_no_tracks_from_a_model_of_other_photos(photographed: Views, processed) -> None:
    read = read_views(processed(photographed.select([5, 2, 9]), photographed.select([5, 2])))
    assert numbers(read) == [5, 2, 9] and read.tracks is None


def test_a_broken_model_beside_transforms_json_costs_only_the_tracks(photographed: Views, processed) -> None:
    data = processed(photographed, photographed)
    model = next((data / "colmap").rglob("images.bin"), None) or next((data / "colmap").rglob("images.txt"))
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="without the 3D points"):
        assert read_views(data).tracks is None


# As a data parser delivers them


def parsed(views: Views, order: list[int]) -> Views:
    """What a data parser makes of views: turned, shifted, scaled, in single precision, with smaller photos."""
    moved = Transform(0.1, Rotation.random(None, np.random.default_rng(0)).as_matrix(), np.array([1.0, -2.0, 0.5]))
    poses = moved.apply(views.camera_to_worlds).astype(np.float32)
    return Views(tuple(views.names[i] for i in order), poses[order], views.intrinsics[order] / 2)


def test_parsed_views_are_known_as_the_data_records_them(photographed: Views, colmap_folder) -> None:
    order = [7, 1, 8, 3]  # whatever the parser's splits are
    found = as_recorded(colmap_folder(photographed), parsed(photographed, order))
    order.sort()  # as the files have them
    assert numbers(found) == order and not found.upright
    np.testing.assert_allclose(found.camera_to_worlds, photographed.camera_to_worlds[order], atol=1e-6)
    assert [points.tolist() for points in found.tracks] == [photographed.tracks[i].tolist() for i in order]


def test_parsed_views_of_blenders_format_are_upright(ring, blender_folder) -> None:
    views = ring(range(0, 360, 30))
    found = as_recorded(blender_folder(views), parsed(views, [3, 0, 5]))
    assert found.upright and found.names == ("train/r_0.png", "train/r_3.png", "train/r_5.png")


def test_parsed_views_stay_where_the_files_tell_of_others(photographed: Views, colmap_folder, tmp_path: Path) -> None:
    views = parsed(photographed, list(range(20)))
    poses = views.camera_to_worlds.copy()
    poses[4, :, 3] += 0.01
    moved = replace(views, camera_to_worlds=poses)
    renamed = replace(views, names=("other.png", *views.names[1:]))
    data = colmap_folder(photographed)
    for other in (moved, renamed):
        assert as_recorded(data, other) is other
    (tmp_path / "images").mkdir()
    for unknown in (tmp_path / "images", tmp_path / "nowhere"):
        assert as_recorded(unknown, views) is views


def test_colmap_folders_are_read_as_nerfstudio_does(photographed: Views, colmap_folder) -> None:
    from nerfstudio.data.dataparsers.colmap_dataparser import ColmapDataParserConfig

    data = colmap_folder(photographed)
    parser = ColmapDataParserConfig(data=data, downscale_factor=1, load_3D_points=False).setup()

    def compare(split: str) -> None:
        ours, theirs = read_views(data, split), parser.get_dataparser_outputs(split)
        assert ours.names == tuple(path.relative_to(data / "images").as_posix() for path in theirs.image_filenames)
        poses = theirs.cameras.camera_to_worlds.numpy().astype(np.float64)
        np.testing.assert_allclose(align(poses, ours.camera_to_worlds).apply(poses), ours.camera_to_worlds, atol=1e-5)
        columns = [getattr(theirs.cameras, name)[:, 0].numpy() for name in ("fx", "fy", "cx", "cy", "width", "height")]
        np.testing.assert_array_equal(ours.intrinsics, np.stack(columns, axis=1))

    for split in ("train", "val", "test"):
        compare(split)
    for split, listed in (("train", "v7.png\nv2.png\nv19.png\nv11.png"), ("val", "v1.png"), ("test", "v3.png\nv0.png")):
        (data / f"{split}_list.txt").write_text(listed)
    for split in ("train", "val", "test"):
        compare(split)
