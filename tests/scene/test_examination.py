"""A scene is examined before anything long: all that is wrong is found at once, in seconds, and nothing hangs."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from colmap_files import Camera
from PIL import Image
from scene_folders import edited

from dac_nerfstudio.check import scene_findings
from dac_nerfstudio.partition import PartitionError, Views
from dac_nerfstudio.scene.data import read_views, scene_at
from dac_nerfstudio.scene.examination import Findings, examine, refuse
from dac_nerfstudio.scene.photos import ORIENTATION

Folder = Callable[..., Path]


def examine_at(data: Path, **settings: Any) -> Findings:
    """What an examination of the scene in a folder finds."""
    return examine(scene_at(data), **settings)


@pytest.fixture
def data(blender: Folder) -> Path:
    """A scene in Blender's format."""
    return blender()


def test_a_good_scene_has_nothing_to_mend(data: Path) -> None:
    found = examine_at(data, thorough=True)
    assert (found.problems, found.missing, found.remarks) == ([], [], [])
    assert found.views == {"train": 12, "val": 2, "test": 3}


def test_all_that_is_wrong_is_in_one_list(data: Path) -> None:
    (data / "train/r_0.png").write_bytes(b"")
    (data / "train/r_1.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    Image.new("RGBA", (32, 12)).save(data / "test/r_1.png")
    (data / "test/r_2.png").unlink()

    def spoil(content: dict[str, Any]) -> None:
        frames = content["frames"]
        frames[8]["transform_matrix"] = [[1, 2], [3]]
        del frames[9]["transform_matrix"]
        frames[10] = "no frame"

    edited(data / "transforms_train.json", spoil)
    edited(data / "transforms_test.json", lambda content: content["frames"][0]["transform_matrix"][1].reverse())
    edited(data / "transforms_val.json", lambda content: content.update(camera_angle_x=-1))
    found = examine_at(data)
    told = "\n".join(found.problems)
    for part in (
        # The parser refuses the training views, of which the photos are looked at nevertheless,
        "r_0.png is empty",
        "r_1.png cannot be read as a photo",
        '"transform_matrix" that is not 4 x 4 finite numbers for ./train/r_8',
        'has no "transform_matrix" for ./train/r_9',
        'has no "file_path" in these of its "frames", counted from 0: 10',
        # and takes the others.
        "test/r_1.png has 32 x 12 pixels, others beside it 16 x 12 pixels. Resize it, or take its frame out.",
        "transforms_test.json has a pose whose rotation is singular: its axes lie in a plane, for ./test/r_0",
        'transforms_val.json has "camera_angle_x" -1, which is no angle from 0 to pi in radians, for all frames.',
        "transforms_val.json gives these a focal length or image size that is not a positive number",
    ):
        assert part in told
    assert len(found.problems) == 9 and found.missing == [f"{data}/test/r_2.png is missing."]
    with pytest.raises(PartitionError, match="Correct the scene in here first:\n"):
        refuse(found.problems, Path("here"))


def test_a_long_list_is_cut_where_a_run_is_refused(data: Path) -> None:
    with pytest.raises(PartitionError) as caught:
        refuse([f"{number}." for number in range(50)], data)
    assert str(caught.value).endswith(f"19.\n… and 30 more; all of them: dac check --data {data}")


def test_a_split_without_any_photo_is_one_that_is_not_there(data: Path) -> None:
    for path in (data / "val").iterdir():
        path.unlink()
    found = examine_at(data)
    assert found.problems == found.missing == [] and len(found.remarks) == 1
    assert found.remarks[0].startswith("None of the photos of the split 'val' is there")


def test_a_pipe_among_the_photos_is_named_at_once(
    data: Path, real: Folder, ring: Callable[..., Views], colmap_folder: Folder
) -> None:
    model = colmap_folder(ring(np.linspace(0, 300, 9), prefix="v"))
    for scene, name in ((data, "train/r_"), (real(), "images/v"), (model, "images/v")):
        for path in (scene / f"{name}0.png", scene / f"{name}4.png"):
            photo = path.read_bytes()
            path.unlink()
            os.mkfifo(path)
            assert set(examine_at(scene).problems) == {f"{path} is no regular file."}
            if name == "train/r_" and path.stem == "r_0":
                with pytest.raises(PartitionError, match="is no regular file"):
                    read_views(scene)
            path.unlink()
            path.write_bytes(photo)


@pytest.mark.parametrize("text", ['{"frames": ' + "[" * 100_000, '{"frames": ' + "9" * 5000 + "}", "{", "\0", "[]"])
def test_json_that_is_none_is_one_sentence(data: Path, text: str) -> None:
    for split in ("train", "test"):
        good = (data / f"transforms_{split}.json").read_text()
        (data / f"transforms_{split}.json").write_text(text)
        (problem,) = examine_at(data).problems
        assert f"transforms_{split}.json" in problem
        (data / f"transforms_{split}.json").write_text(good)


@pytest.mark.parametrize("name", ["fl_x", "h"])
def test_a_camera_without_focal_length_or_size_is_named(real: Folder, name: str) -> None:
    data = real(**{name: 0})
    problem = examine_at(data).problems[0]
    assert problem.startswith(f"{data}/transforms.json gives these a focal length or image size that is not a positive")
    assert "v2.png" in problem


@pytest.mark.parametrize(
    ("numbers", "remark"),
    [
        ({"cx": -1.0}, "has principal points (cx, cy) at the photo's edge or outside: "),
        ({"cy": 4000.0}, "has principal points (cx, cy) at the photo's edge or outside: "),
        ({"cx": 0.5, "cy": 0.5}, "has principal points (cx, cy) at the photo's edge or outside: "),  # of its size
        ({"fl_x": 1.0}, "has focal lengths (fl_x, fl_y, in pixels) that make a photo show more than 150 degrees: "),
        ({"k1": 50.0, "fl_x": 10.0, "fl_y": 10.0}, "has lenses (k1 to k4) that move a photo's corners by more than"),
        ({"k1": -0.8, "fl_x": 10.0, "fl_y": 10.0}, "has lenses (k1 to k4) that move a photo's corners by more than"),
        ({"k1": 50.0, "cx": 1.0}, None),  # which moves the corners of so narrow a view by a seventh
        ({"k1": -0.3, "k2": 0.1, "fl_x": 10.0, "fl_y": 10.0}, None),
        # The corners of a circular fisheye show nothing.
        ({"camera_model": "OPENCV_FISHEYE", "k1": -0.8, "fl_x": 10.0, "fl_y": 10.0}, None),
    ],
)
def test_cameras_of_hardly_any_photo_are_remarked_upon(
    real: Folder, numbers: dict[str, Any], remark: str | None
) -> None:
    found = examine_at(real(**numbers))
    assert found.problems == [] and len(found.remarks) == (1 if remark else 0)
    assert all((remark or "") in one and one.endswith("correct them if they are wrong.") for one in found.remarks)


def test_a_path_from_which_nerfstudio_takes_a_part_is_named(data: Path) -> None:
    (data / "train").rename(data / "train.")
    edited(data / "transforms_train.json", lambda content: [
        frame.update(file_path=frame["file_path"].replace("train/", "train./")) for frame in content["frames"]
    ])  # fmt: skip
    (problem, *_) = examine_at(data).problems
    assert problem.startswith(f'{data}/transforms_train.json has a "file_path" with "./", which nerfstudio removes')
    assert "./train./r_0" in problem


def test_only_decoding_finds_what_is_missing_at_a_files_end(data: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 4), dtype=np.uint8)
    path = data / "test/r_1.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert examine_at(data).problems == []
    (problem,) = examine_at(data, thorough=True).problems
    assert problem.startswith(f"{path} cannot be read as a photo")


# Splits


def test_no_test_frames_are_a_problem_and_no_test_file_is_a_remark(data: Path) -> None:
    path = data / "transforms_test.json"
    edited(path, lambda content: content.update(frames=[]))
    assert "transforms_test.json has no frames" in examine_at(data).problems[0]
    path.unlink()
    found = examine_at(data)
    assert found.problems == [] and found.remarks[0].startswith("There are no test views, so nothing will be scored")


TRAIN = [f"images/v{number}.png" for number in range(10)]


@pytest.mark.parametrize(
    ("lists", "problem", "remark"),
    [
        ({"train": TRAIN, "test": []}, None, "There are no test views, so nothing will be scored"),
        ({"train": TRAIN, "test": ["images/no.png"]}, "transforms.json does not have: ", None),
        ({"train": TRAIN}, None, "There are no test views, so nothing will be scored"),
        ({"train": TRAIN, "test": TRAIN}, None, "All test views are training views (v0.png, "),
        ({"train": TRAIN, "test": ["images/v9.png", "images/v11.png"]}, None, "1 of 2 test views are training views ("),
        ({"train": TRAIN, "test": ["images/v10.png", "images/v11.png"]}, None, None),
        (
            {"train": TRAIN, "val": TRAIN[:3], "test": ["images/v10.png", "images/v11.png"]},
            None,
            "All validation views are training views (v0.png, v1.png, v2.png): what is chosen on them",
        ),
    ],
    ids=["empty", "unknown", "absent", "equal", "overlapping", "good", "chosen on"],
)
def test_lists_of_test_views_are_looked_at(
    real: Folder, lists: dict[str, list[str]], problem: str | None, remark: str | None
) -> None:
    found = examine_at(real(**{f"{split}_filenames": names for split, names in lists.items()}))
    assert len(found.problems) == (problem is not None) and (problem or "") in "".join(found.problems)
    assert len(found.remarks) == (remark is not None) and (remark or "") in "".join(found.remarks)


def test_frames_that_the_format_passes_over_are_a_remark(data: Path) -> None:
    (data / "transforms.json").write_text("{}")
    (remark,) = examine_at(data).remarks
    assert remark.startswith(f"{data}/transforms.json is not used")


def test_sizes_are_those_of_the_cameras(real: Folder, ring: Callable[..., Views], colmap_folder: Folder) -> None:
    data = real()
    Image.new("RGB", (12, 16)).save(data / "images/v3.png")
    said = f"{data}/images/v3.png has 12 x 16 pixels, its camera 16 x 12 pixels. Turn it by 90 degrees."
    assert examine_at(data).problems == [said]
    model = colmap_folder(ring(np.linspace(0, 300, 9), prefix="v"))
    assert Camera().width == 16 and examine_at(model).problems == []
    Image.new("RGB", (17, 12)).save(model / "images/v3.png")
    assert examine_at(model).problems == []
    Image.new("RGB", (32, 24)).save(model / "images/v3.png")
    (problem,) = examine_at(model).problems
    assert problem.startswith(f"{model}/images/v3.png has 32 x 24 pixels, its camera 16 x 12 pixels. Resize it, or")


@pytest.mark.parametrize("name", ["images/\0.png", "images/\ud800.png"], ids=["null byte", "half of a character"])
def test_names_that_no_file_can_have_are_missing(real: Folder, name: str) -> None:
    data = real()
    edited(data / "transforms.json", lambda content: content["frames"][2].update(file_path=name))
    found = examine_at(data)
    assert len(found.problems) + len(found.missing) == 1


@pytest.mark.parametrize(("layout", "prefix"), [("nerfstudio", "v"), ("colmap", "v"), ("colmap", "cam/v")])
def test_smaller_photos_that_are_not_there_come_with_the_command_that_makes_them(
    layout: str, prefix: str, ring: Callable[..., Views], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = request.getfixturevalue(f"{layout}_folder")(ring(np.linspace(0, 300, 12), prefix=prefix))
    data = data.rename(data.with_name("my scene"))
    # COLMAP takes pixels as they are stored, so a tag that turns them must not be followed.
    turned, half = Image.Exif(), Image.new("RGB", (16, 12))
    turned[ORIENTATION] = 3
    half.paste("white", (0, 0, 8, 12))
    half.save(data / "images/turned.jpg", exif=turned)
    found = examine(scene_at(data, downscale=2))
    (problem,) = found.problems
    assert found.remarks == []
    refusal, _, command = problem.partition("make it: ")
    assert refusal == f"There is no {data}/images_2. Choose another --downscale, or "
    (tmp_path / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    ran = subprocess.run(["sh", "-c", command], env=environment, check=True, capture_output=True, text=True)
    assert "Is a directory" not in ran.stderr
    assert Image.open(data / "images_2/turned.jpg").convert("L").getpixel((1, 3)) > 200
    small, large = ({str(p.relative_to(f)) for p in f.rglob("*")} for f in (data / "images_2", data / "images"))
    assert small == large and Image.open(data / f"images_2/{prefix}0.png").size == (8, 6)
    assert examine(scene_at(data, downscale=2)).problems == []


def test_a_fisheye_lens_is_made_smaller_with_its_photos(real: Folder) -> None:
    data = real(camera_model="OPENCV_FISHEYE", fisheye_crop_radius=5.0)
    (data / "images_2").mkdir()
    for number in range(12):
        Image.new("RGB", (8, 6)).save(data / f"images_2/v{number}.png")
    for downscale, radius in ((None, 5.0), (2, 2.5)):
        for split in ("train", "test"):
            cameras = scene_at(data, downscale).listed(split).cameras
            assert cameras.metadata["fisheye_crop_radius"] == radius
            assert cameras.width.unique().item() == 16 // (downscale or 1)


# dac check --data


def test_views_of_two_splits_at_a_time_are_counted_once(real: Folder) -> None:
    (last,) = scene_findings(real())
    assert last.text.startswith("Views: train 11, val and test 1; ")


def test_the_check_of_a_scene_says_what_is_to_mend(data: Path) -> None:
    (last,) = scene_findings(data)
    assert last.state == "good" and last.text.startswith("Views: train 12, val 2, test 3; every photo opened in ")
    (data / "train/r_3.png").unlink()
    (data / "train/r_4.png").write_bytes(b"")
    found = scene_findings(data, thorough=True)
    assert [finding.state for finding in found] == ["bad"] * 3
    assert "r_4.png is empty" in found[0].text and "r_3.png is missing" in found[1].text
    assert found[2].text.endswith("2 wrong.") and "decoded" in found[2].text
    last = scene_findings(data, skip_missing=True)[-1]
    assert last.text.startswith("Views: train 11, ") and last.text.endswith("1 wrong.")
    (nowhere,) = scene_findings(data / "nowhere")
    assert nowhere.state == "bad" and "There is no data at" in nowhere.text
