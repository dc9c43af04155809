"""A scene is what nerfstudio's data parser gives: names, cameras, splits, shared points."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dac_nerfstudio.errors import PartitionError, SplitError, StageError
from dac_nerfstudio.partition import Views, align
from dac_nerfstudio.scene.data import read_views, scene_at


def rewrite(path: Path, **changes: Any) -> None:
    """Changes top-level entries of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refusal(data: Path, split: str = "train") -> str:
    """Why a scene has no such views."""
    with pytest.raises(PartitionError) as caught:
        read_views(data, split)
    return str(caught.value)


def assert_same_cameras(read: Views, views: Views) -> None:
    """Cameras are the same ones, whatever frame they are in."""
    moved = align(read.camera_to_worlds, views.camera_to_worlds).apply(read.camera_to_worlds)
    np.testing.assert_allclose(moved, views.camera_to_worlds, atol=1e-5)


# Blender's format


def test_blender_folder_gives_names_poses_and_intrinsics(ring, blender_folder) -> None:
    views = ring([10, 100, 190])
    read = read_views(blender_folder(views))
    assert read.names == ("train/r_0.png", "train/r_1.png", "train/r_2.png") and read.upright
    np.testing.assert_array_equal(read.camera_to_worlds, views.camera_to_worlds)
    # 90 degrees across 16 pixels: the focal length is half the width.
    np.testing.assert_allclose(read.intrinsics, [[8, 8, 8, 6, 16, 12]] * 3, rtol=1e-9)


def test_splits_of_blenders_format_are_files(ring, blender_folder) -> None:
    blender_folder(ring([10, 100]))
    data = blender_folder(ring([20, 30, 40], prefix="test/r_"), split="test")
    scene = scene_at(data)
    assert len(scene.views("test")) == 3 == len(scene.test_views() or ())
    with pytest.raises(SplitError, match=r"There is no .*transforms_val.json"):
        scene.views("val")
    with pytest.raises(StageError, match=f"Name the scene's folder: --data {data}$"):
        scene_at(data / "transforms_train.json")


@pytest.mark.parametrize("layout", ["blender", "nerfstudio", "colmap"])
def test_views_without_a_photo_are_left_out_where_that_is_asked_for(layout: str, ring, request) -> None:
    data = request.getfixturevalue(f"{layout}_folder")(ring(range(0, 300, 30)))
    whole = read_views(data)
    assert scene_at(data, skip_missing=True).left_out() == []
    gone = [whole.names[number] for number in (3, 6)]
    for number in (3, 6):
        whole.photos[number].unlink()
    scene = scene_at(data, skip_missing=True)
    assert scene.left_out() == [f"Left out, as their photos are not there: {', '.join(gone)}."]
    # Those that stay are in the split that they were in.
    assert scene.names() == tuple(name for name in whole.names if name not in gone)
    assert read_views(data).names == whole.names
    for photo in whole.photos:
        photo.unlink(missing_ok=True)
    message = "is missing" if layout == "blender" else "None of the photos of the split 'train' is there"
    with pytest.raises(PartitionError, match=message):
        read_views(data, skip_missing=True)


def test_a_scene_is_read_once_while_its_files_stay(ring, blender_folder) -> None:
    data = blender_folder(ring([10, 100]))
    assert scene_at(data) is scene_at(data)
    before = scene_at(data)
    Image.new("RGBA", (32, 24)).save(data / "train/r_0.png")
    before.views()  # after this the size of the first photo counts, too
    os.utime(data / "train/r_0.png", (1, 1))
    assert scene_at(data) is not before and scene_at(data).views().intrinsics[0, 4] == 32


# nerfstudio's format


def test_transforms_json_gives_names_and_cameras(ring, nerfstudio_folder) -> None:
    views = ring([10, 100], prefix="v")
    data = nerfstudio_folder(views)
    for source in (data, data / "transforms.json"):
        read = read_views(source)
        assert read.names == ("v0.png", "v1.png") and not read.upright
        assert_same_cameras(read, views)
        np.testing.assert_array_equal(read.intrinsics, [[100, 101, 8, 6, 16, 12]] * 2)


def test_transforms_json_follows_its_lists_of_splits(ring, nerfstudio_folder) -> None:
    lists = {"train_filenames": ["images/v2.png", "./images/v0.png"], "val_filenames": ["images/v1.png"]}
    data = nerfstudio_folder(ring([0, 90, 180], prefix="v"), **lists)
    assert read_views(data).names == ("v0.png", "v2.png")
    assert read_views(data, "val").names == ("v1.png",)
    with pytest.raises(SplitError, match=r"has no views for the split 'test', as others have lists. Add its list"):
        read_views(data, "test")


def test_too_few_frames_for_a_test_split_are_no_split(ring, nerfstudio_folder) -> None:
    with pytest.raises(SplitError, match=r"transforms.json has too few photos for a split 'test'. List some for it"):
        read_views(nerfstudio_folder(ring([0, 90], prefix="v")), "test")


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("absolute", [True, False])
def test_names_are_the_same_however_folder_and_photos_are_given(
    ring, nerfstudio_folder, monkeypatch: pytest.MonkeyPatch, relative: bool, absolute: bool
) -> None:
    data = nerfstudio_folder(ring(range(0, 300, 30), prefix="cam-b/v"))
    expected = read_views(data)
    if absolute:
        frames = json.loads((data / "transforms.json").read_text())["frames"]
        for frame in frames:
            frame["file_path"] = str(data / frame["file_path"])
        rewrite(data / "transforms.json", frames=frames)
    monkeypatch.chdir(data.parent)
    read = read_views(Path("nerfstudio") if relative else data)
    assert read.names == expected.names == tuple(f"cam-b/v{number}.png" for number in range(10) if number != 8)
    assert_same_cameras(read, expected)


# What parsers refuse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"frames": [', r"transforms.json is not valid JSON \(Expecting value"),
        (
            "\ufeff{}",
            r"transforms.json is not valid JSON \(Unexpected UTF-8 BOM .*\). Save it without a byte order mark.",
        ),
        ("[]", "transforms.json holds a JSON list; expected an object"),
        ('{"frames": []}', "transforms.json has no frames"),
        ("{}", "transforms.json has no frames"),
    ],
)
def test_bad_json_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(PartitionError, match=message):
        read_views(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cx": None, "h": None}, 'has no "cx", "h", neither for all frames nor for images/v0.png, images/v1.png.'),
        (
            {"fl_x": None, "camera_angle_x": 1.0},
            'has no "fl_x" (in pixels; fl_x is w / 2 / tan(camera_angle_x / 2)), neither for all frames nor for',
        ),
        ({"fl_y": None}, 'has no "fl_y", neither for all frames nor for images/v0.png, images/v1.png.'),
        ({"w": 10**400}, 'has "w" that is no number of a camera for all frames.'),
        ({"train_filenames": 7}, 'has a "train_filenames" that is not a list of file names: 7.'),
        ({"train_filenames": []}, "has too few photos for a split 'train'. List some for it."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_the_parser_refuses_is_named(ring, nerfstudio_folder, changes: dict[str, Any], message: str) -> None:
    path = nerfstudio_folder(ring([0, 20], prefix="v")) / "transforms.json"
    rewrite(path, **changes)
    assert refusal(path).startswith(f"{path} {message}")


@pytest.mark.parametrize(("angle", "message"), [(None, 'has no "camera_angle_x"'), ("a", "which is no number")])
def test_defects_of_the_blender_field_of_view_are_named(ring, blender_folder, angle: Any, message: str) -> None:
    data = blender_folder(ring([0]))
    rewrite(data / "transforms_train.json", camera_angle_x=angle)
    assert message in refusal(data)


# COLMAP's models


@pytest.fixture
def photographed(ring: Callable[..., Views]) -> Views:
    """Twenty views by structure from motion: view i shows points 10 i to 10 i + 19."""
    views = ring(range(0, 360, 18), prefix="v")
    return replace(views, upright=False, tracks=tuple(np.arange(10 * i, 10 * i + 20) for i in range(20)))


def numbers(views: Views) -> list[int]:
    return [int(name.removesuffix(".png").removeprefix("v")) for name in views.names]


@pytest.mark.parametrize("model", ["colmap/sparse/0", "sparse/0", "sparse", "sparse/1", "."])
@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_colmap_folder_gives_names_poses_tracks_and_photos(
    photographed: Views, colmap_folder, model: str, kind: str
) -> None:
    data = colmap_folder(photographed, model, kind=kind)
    read = read_views(data)
    train = [i for i in range(20) if i % 8]
    assert numbers(read) == train and not read.upright
    assert_same_cameras(read, photographed.select(train))
    np.testing.assert_array_equal(read.intrinsics, [[100, 101, 8, 6, 16, 12]] * 17)
    assert [points.tolist() for points in read.tracks] == [photographed.tracks[i].tolist() for i in train]
    assert read.photos == tuple(data / "images" / name for name in read.names)
    for split in ("val", "test"):
        assert numbers(read_views(data, split)) == [0, 8, 16]


def test_smaller_photos_of_a_model_are_taken_where_that_is_asked_for(photographed: Views, colmap_folder) -> None:
    data = colmap_folder(photographed)
    with pytest.raises(PartitionError, match=r"There is no .*images_2. Choose another --downscale, or make it"):
        scene_at(data, downscale=2).views()
    (data / "images_2").mkdir()
    small = scene_at(data, downscale=2).views()
    assert small.intrinsics[0].tolist() == [50, 50.5, 4, 3, 8, 6] and small.names == read_views(data).names


def test_photos_too_large_for_nerfstudio_are_told_of_without_a_question(photographed: Views, colmap_folder) -> None:
    data = colmap_folder(photographed)
    Image.new("RGB", (1700, 12)).save(data / "images/v0.png")
    assert "more than 1600 pixels on their longer side" in refusal(data) and "images_2, which is not" in refusal(data)


def test_lists_of_splits_beside_a_colmap_model_are_followed(photographed: Views, colmap_folder) -> None:
    data = colmap_folder(photographed)
    (data / "train_list.txt").write_bytes(b"v12.png\r\nv3.png\r\n")
    (data / "test_list.txt").write_text("v4.png")
    assert numbers(read_views(data)) == [3, 12]
    assert numbers(read_views(data, "test")) == [4]
    with pytest.raises(SplitError, match="has no views for the split 'val', as others have lists. Add its list"):
        read_views(data, "val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("v0.png\nx.png", r"list of the split 'train' names photos that .*sparse/0 does not have: .*/images/x.png"),
        ("", "has too few photos for a split 'train'"),
    ],
)
def test_wrong_lists_beside_a_colmap_model_are_refused(photographed, colmap_folder, content: str, message: str) -> None:
    data = colmap_folder(photographed)
    (data / "train_list.txt").write_text(content)
    with pytest.raises(PartitionError, match=message):
        read_views(data)


@pytest.fixture
def processed(nerfstudio_folder, colmap_folder) -> Callable[..., Path]:
    """A `transforms.json`, and beside it the COLMAP model of the same or other views."""

    def make(views: Views, modelled: Views) -> Path:
        data = nerfstudio_folder(views, train_filenames=[f"images/{name}" for name in views.names])
        (data / "colmap").mkdir()
        (colmap_folder(modelled, images=None) / "colmap/sparse").rename(data / "colmap/sparse")
        return data

    return make


def test_transforms_json_gets_tracks_from_the_model_beside_it(photographed: Views, processed) -> None:
    data = processed(photographed.select([9, 2, 5, 7]), photographed)
    read = read_views(data)
    assert numbers(read) == [2, 5, 7, 9]
    assert [points.tolist() for points in read.tracks] == [photographed.tracks[i].tolist() for i in (2, 5, 7, 9)]
    assert scene_at(data).views(tracks=False).tracks is None


def test_transforms_json_gets_no_tracks_from_a_model_of_other_photos(photographed: Views, processed) -> None:
    read = read_views(processed(photographed.select([5, 2, 9]), photographed.select([5, 2])))
    assert numbers(read) == [2, 5, 9] and read.tracks is None


def test_a_broken_model_beside_transforms_json_costs_only_the_tracks(photographed: Views, processed) -> None:
    data = processed(photographed, photographed)
    model = data / "colmap/sparse/0/images.bin"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="without the 3D points"):
        assert read_views(data).tracks is None


def test_folders_without_a_scene_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"There is no data at .*nowhere. Name a scene's folder: --data PATH"):
        scene_at(tmp_path / "nowhere")
    with pytest.raises(StageError, match=r"holds nothing; expected a folder with .*ns-process-data images"):
        scene_at(tmp_path)


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("scan.MOV", "video --data {0}"),
        ("keyframes/cameras/1.json", "polycam --data {1}"),
        ("EXR_RGBD/metadata.json", "record3d --data {1}"),
        ("opensfm/reconstruction.json", "odm --data {1}"),
        ("cameras.xml", "metashape --data PHOTOS --xml {0}"),
        ("cameras.csv", "realitycapture --data PHOTOS --csv {0}"),
        ("poses_bounds.npy", "images --data PHOTOS"),
    ],
)
def test_folders_of_other_programs_come_with_the_command_that_reads_them(tmp_path: Path, name: str, way: str) -> None:
    path, data = tmp_path / "scan" / name, tmp_path / "scan"
    path.parent.mkdir(parents=True)
    path.touch()
    command = f"to make it: ns-process-data {way.format(path, data)} --output-dir FOLDER) or a COLMAP model"
    with pytest.raises(StageError, match=re.escape(command)):
        scene_at(data)
    if path.parent == data:
        with pytest.raises(StageError, match=f"{name} is a file; expected a folder with transforms_train.json"):
            scene_at(path)


@pytest.mark.parametrize(
    ("mark", "named", "scene"),
    [
        ("transforms.json", "images", "."),
        ("transforms.json", ".", "a"),
        ("transforms_train.json", ".", "a/b"),
        ("sparse/0/images.bin", "sparse/0", "."),
        ("sparse/0/images.bin", "sparse", "."),
        ("sparse/images.bin", ".", "dense/0"),
    ],
)
def test_a_scene_near_the_folder_that_was_named_is_told_of(tmp_path: Path, mark: str, named: str, scene: str) -> None:
    path = tmp_path / scene / mark
    (tmp_path / scene / "images").mkdir(parents=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(StageError, match=f"Name the scene's folder: --data {tmp_path / scene}$"):
        scene_at(tmp_path / named)
