"""Scenes of kinds that people bring: each trains, or is refused with a sentence before anything long."""

import json
import unicodedata
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colmap_files import Camera, Photo
from PIL import Image
from rich.console import Console
from scene_folders import edited
from scipy.spatial.transform import Rotation

from dac_nerfstudio import methods
from dac_nerfstudio.errors import PhotoError
from dac_nerfstudio.messages import say
from dac_nerfstudio.partition import Views
from dac_nerfstudio.scene.data import scene_at
from dac_nerfstudio.scene.examination import SEEN, Findings, examine
from dac_nerfstudio.scene.frames import where_axes_meet
from dac_nerfstudio.scene.photos import read_mask

Change = Callable[[dict[str, Any]], Any]


def of_frames(**fields: Any) -> Change:
    """Gives every frame these fields; functions are called with its number."""

    def change(content: dict[str, Any]) -> None:
        for number, frame in enumerate(content["frames"]):
            frame.update({key: value(number) if callable(value) else value for key, value in fields.items()})

    return change


def found(data: Path, downscale: int | None = None) -> Findings:
    return examine(scene_at(data, downscale))


def only_problem(data: Path, downscale: int | None = None) -> str:
    findings = found(data, downscale)
    assert len(findings.problems + findings.missing) == 1, findings
    return (findings.problems + findings.missing)[0]


def test_cameras_whose_up_directions_cancel_are_a_sentence(real: Callable[..., Path]) -> None:
    def rolled(number: int) -> list[list[float]]:
        (cos, sin), x = [(1, 0), (0, 1), (-1, 0), (0, -1)][number % 4], number // 4
        return [[cos, -sin, 0, x], [sin, cos, 0, number % 4], [0, 0, 1, 3], [0, 0, 0, 1]]

    problem = only_problem(real(of_frames(transform_matrix=rolled)))
    assert "up directions cancel" in problem and '"orientation_override": "none"' in problem


# Masks


def test_a_folder_of_masks_that_is_not_used_is_a_remark(
    real: Callable[..., Path], ring: Callable[..., Views], colmap_folder: Callable[..., Path]
) -> None:
    model = colmap_folder(ring(np.linspace(0, 300, 12), prefix="v"))
    for data, way in ((real(), '"mask_path" of each frame'), (model, "ns-train … colmap --masks-path masks")):
        (data / "masks").mkdir()
        assert found(data).remarks == [f"{data}/masks is not used. nerfstudio takes masks by {way}."]
    data = real(of_frames(mask_path="masks/mask.png"))
    Image.new("L", (16, 12), 255).save(data / "masks/mask.png")
    (remark,) = found(data).remarks
    assert remark.startswith("Scores are of whole test photos")


def saved_mask(data: Path, mode: str) -> Path:
    """A mask of 16 x 12 pixels that shows columns 4 to 11."""
    shown = np.zeros((12, 16), np.uint8)
    shown[:, 4:12] = 255
    if mode == "I;16":
        image = Image.fromarray((shown > 0).astype(np.uint16))  # 0 and 1
    elif mode == "F":
        image = Image.fromarray(shown.astype(np.float32))
    elif mode == "alpha":
        image = Image.merge("RGBA", (*[Image.new("L", (16, 12), 255)] * 3, Image.fromarray(shown)))
    else:
        image = Image.fromarray(shown).convert(mode)
    path = data / ("mask.tif" if mode in ("F", "CMYK") else "mask.png")
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "alpha", "I;16", "F", "CMYK"])
def test_masks_of_any_mode_are_read_as_grey(real: Callable[..., Path], mode: str) -> None:
    data = real(of_frames(mask_path="mask.png"))
    mask = saved_mask(data, mode)
    edited(data / "transforms.json", of_frames(mask_path=mask.name))
    assert found(data).problems == []
    shown = read_mask(mask, (16, 12))
    assert shown.dtype == bool and shown[:, 4:12].all() and shown.sum() == 8 * 12
    assert read_mask(mask, (16, 12), scale=0.5).sum() == 4 * 6


def test_masks_that_cannot_be_used_are_listed(real: Callable[..., Path]) -> None:
    data = real(of_frames(mask_path=lambda number: f"masks/{number}.png"))
    (data / "masks").mkdir()
    for number in range(12):
        Image.new("L", (16, 12), 255).save(data / f"masks/{number}.png")
    assert found(data).problems == []
    Image.new("L", (8, 6), 255).save(data / "masks/1.png")
    (data / "masks/2.png").write_bytes(b"none")
    (data / "masks/3.png").unlink()
    told = found(data).problems
    assert len(told) == 3 and f"{data}/masks/3.png is missing." in told
    for start in ("1.png has 8 x 6 pixels, its camera 16 x 12 pixels. Resize it.", "2.png cannot be read"):
        assert any(problem.startswith(f"{data}/masks/{start}") for problem in told)
    with pytest.raises(PhotoError, match="1.png has 8 x 6 pixels"):
        read_mask(data / "masks/1.png", (16, 12))


def test_masks_that_hide_everything_are_refused(real: Callable[..., Path]) -> None:
    data = real(of_frames(mask_path="mask.png"))
    Image.new("RGB", (16, 12)).save(data / "mask.png")
    assert only_problem(data) == f"All 1 masks are black, from {data}/mask.png on: they leave no pixel to train on."


def test_masks_that_hide_all_training_photos_are_refused(real: Callable[..., Path]) -> None:
    data = real(of_frames(mask_path=lambda number: f"{number}.png"))
    for number in range(12):
        Image.new("L", (16, 12), 255 * (number == 11)).save(data / f"{number}.png")

    def divided(content: dict[str, Any]) -> None:
        names = [frame["file_path"] for frame in content["frames"]]
        content.update(train_filenames=names[:10], val_filenames=names[10:11], test_filenames=names[11:])

    edited(data / "transforms.json", divided)
    assert only_problem(data) == f"All 10 masks are black, from {data}/0.png on: they leave no pixel to train on."


# What the file says and no parser can make use of


def of_some(key: str, value: Any) -> Change:
    """Gives every other frame a field."""
    return lambda content: [frame.update({key: value}) for frame in content["frames"][1::2]]


def of_all(key: str, value: Any) -> Change:
    return lambda content: content.update({key: value})


TURNED = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()
SHIFTED = np.eye(4) + np.outer([1, 2, 3, 0], [0, 0, 0, 1])
SHEARED = [[1.0, 0.3, 0, 0], [0, 0.954, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
SOME = "images/v1.png, images/v3.png, images/v5.png and 3 more."
OTHERS = "images/v0.png, images/v2.png, images/v4.png and 3 more."


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (of_all("fl_x", "100.0"), 'has "fl_x" "100.0", which is no number, for all frames.'),
        (of_all("k1", None), 'has "k1" null, which is no number, for all frames.'),
        (of_some("cx", [8]), f'has "cx" [8], which is no number, for {SOME}'),
        (of_some("distortion_params", "0.1"), '"distortion_params" "0.1", which is no list of numbers, for '),
        (of_some("transform_matrix", TURNED), f"has a pose that is mirrored: its axes are left-handed, for {SOME}"),
        (of_some("transform_matrix", np.zeros((4, 4)).tolist()), f"its axes lie in a plane, for {SOME}"),
        (of_some("transform_matrix", (2 * np.eye(4)).tolist()), f"axes are 2 long and should be 1, for {SOME}"),
        (of_some("transform_matrix", SHEARED), f"has a pose whose axes are not at right angles, for {SOME}"),
        (of_some("transform_matrix", (SHIFTED * [1, 1, 1, 1e38]).tolist()), f"not 4 x 4 finite numbers for {SOME}"),
        (of_some("transform_matrix", np.full((4, 4), np.nan).tolist()), f"not 4 x 4 finite numbers for {SOME}"),
        (of_some("transform_matrix", np.eye(4).astype(str).tolist()), f"that is not 4 x 4 finite numbers for {SOME}"),
        (of_some("transform_matrix", np.eye(4)[:3].tolist()), f"that is not 4 x 4 finite numbers for {SOME}"),
        (of_some("transform_matrix", SHIFTED.T.tolist()), f"(transpose it if its last column is) for {SOME}"),
        (
            of_some("mask_path", "mask.png"),
            f'has a "mask_path" for other frames, which nerfstudio takes for all or for none, and not for {OTHERS}',
        ),
        (of_frames(mask_path=None), 'has "mask_path" null, which names no file, for images/v0.png, images/v1.png'),
        (of_frames(depth_file_path=""), 'has "depth_file_path" "", which names no file, for images/v0.png'),
        (of_some("fisheye_crop_radius", 5.0), f"which nerfstudio reads for all frames at once, for {SOME}"),
        (of_all("fisheye_crop_radius", 0), '"fisheye_crop_radius" 0, which is no length in pixels, for all frames'),
        (of_all("applied_transform", np.eye(4).tolist()), '"applied_transform" that is not 3 x 4 finite numbers, or'),
        (of_all("applied_transform", np.zeros((3, 4)).tolist()), '"applied_transform" that is not 3 x 4 finite'),
        (of_all("applied_scale", "1"), 'has "applied_scale" "1", which is no number, for all frames.'),
        (of_all("orientation_override", "sideways"), '"orientation_override" "sideways" (nerfstudio knows none, up, '),
        (of_all("camera_model", "FULL_OPENCV"), 'has "camera_model" "FULL_OPENCV" (nerfstudio knows SIMPLE_PINHOLE, '),
        (of_all("camera_model", "VR180_L"), 'has "camera_model" "VR180_L" (nerfstudio knows SIMPLE_PINHOLE, '),
    ],
)
def test_fields_that_cannot_be_used_are_told_as_the_file_has_them(
    real: Callable[..., Path], change: Change, fault: str
) -> None:
    data = real(change)
    problems = found(data).problems
    assert problems[0].startswith(f"{data}/transforms.json has ") and fault in problems[0]
    assert not any("cannot be used" in problem for problem in problems)


def test_blenders_last_rows_say_nothing_unless_poses_are_transposed(blender: Callable[..., Path]) -> None:
    def with_zeros(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            frame["transform_matrix"][3] = [0, 0, 0, 0]

    def transposed(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            frame["transform_matrix"] = np.transpose(frame["transform_matrix"]).tolist()

    assert found(blender(with_zeros)).problems == []
    assert "(transpose it if its last column is) for ./train/r_0" in found(blender(transposed)).problems[0]


def test_blenders_matrices_of_three_rows_are_taken_and_a_mixture_is_not(blender: Callable[..., Path]) -> None:
    def three(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            frame["transform_matrix"] = frame["transform_matrix"][:3]

    assert found(blender(three)).problems == []
    data = blender()
    edited(data / "transforms_val.json", lambda content: content["frames"][1]["transform_matrix"].pop())
    assert f'{data}/transforms_val.json has a "transform_matrix" that is not 4 x 4 finite numbers for ./val/r_1.' in (
        found(data).problems
    )


# What the file says and the parser passes over


PERSPECTIVE = 'perspective cameras (a fisheye lens is "camera_model": "OPENCV_FISHEYE" in transforms.json)'


@pytest.mark.parametrize(
    ("change", "key", "said", "taken"),
    [
        (of_frames(camera_model="OPENCV_FISHEYE"), "camera_model", '"OPENCV_FISHEYE"', "perspective cameras"),
        (of_frames(camera_model="fisheye"), "camera_model", '"fisheye"', "perspective cameras"),
        (of_all("is_fisheye", True), "is_fisheye", "true", PERSPECTIVE),
        (of_frames(fl_x=200.0), "fl_x", "200.0", "100"),
        (of_frames(cy=9.0), "cy", "9.0", "6"),
        (lambda content: content.update(camera_angle_x=1.0), "camera_angle_x", "1.0", "0.15966"),
        (lambda content: [content.update(k1=0.0), of_frames(k2=0.1)(content)], "k2", "0.1", "0"),
        (lambda content: content.update(k4=0.1), "k4", "0.1", "0"),
        (lambda content: content.update(k1=0.2, distortion_params=[0.1] * 6), "k1", "0.2", "0.1"),
    ],
)
def test_what_nerfstudios_parser_passes_over_is_a_problem(
    real: Callable[..., Path], change: Change, key: str, said: str, taken: str
) -> None:
    data = real(change)
    problem = only_problem(data)
    assert problem.startswith(f'{data}/transforms.json has "{key}" {said} for ')
    assert problem.endswith(f"where nerfstudio takes {taken}. Correct or remove the wrong one.")


@pytest.mark.parametrize(
    "change",
    [
        of_frames(camera_model="pinhole", fl_x=100.0, k1=0.0, is_fisheye=False),
        lambda content: content.update(camera_model="OPENCV_FISHEYE", is_fisheye=True),
        lambda content: content.update(camera_angle_x=2 * np.arctan(16 / 200), camera_angle_y=2 * np.arctan(12 / 202)),
        lambda content: [of_frames(fl_x=100.0, distortion_params=[0.1] * 6)(content), content.pop("fl_x")],
        lambda content: content.update(distortion_params=[0.1, 0, 0, 0, 0, 0], k1=0.1),
    ],
)
def test_what_agrees_is_none(real: Callable[..., Path], change: Change) -> None:
    assert found(real(change)) == Findings(views={"train": 11, "val and test": 1})


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"fl_x": 16.0, "w": 16}, ["fl_x"]),
        ({"cx": 9.0, "cy": 3.0}, ["cx", "cy"]),
        ({"k1": 0.1}, ["k1"]),
        ({"camera_angle_y": 1.0}, ["camera_angle_y"]),
        ({"camera_model": "OPENCV_FISHEYE"}, ["camera_model"]),
        ({"fl_x": 8.0, "fl_y": 8.0, "cx": 8, "cy": 6, "w": 16, "h": 12, "camera_angle_x": np.pi / 2}, []),
        ({"fl_x": 80.0, "cx": 80, "w": 160}, []),  # of photos that were made smaller since
    ],
)
def test_what_blenders_parser_passes_over_is_a_problem(
    blender: Callable[..., Path], fields: dict[str, Any], keys: list[str]
) -> None:
    data = blender(lambda content: content.update(fields))
    told = found(data).problems
    assert len(told) == len(keys)
    for key, problem in zip(keys, told):
        assert problem.startswith(f'{data}/transforms_train.json has "{key}" {json.dumps(fields[key])} for all frames')


def test_times_are_said_to_play_no_part(blender: Callable[..., Path]) -> None:
    data = blender(of_frames(time=lambda number: number / 11))
    findings = found(data)
    assert findings.problems == []
    assert findings.remarks[0] == (
        f'{data}/transforms_train.json has a "time" for its frames, which plays no part: the scene is at rest.'
    )


@pytest.mark.parametrize("count", [4, 5, 8, 12])
@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE"])
@pytest.mark.parametrize("per_frame", [True, False])
def test_lenses_of_other_than_six_parameters_are_refused(
    real: Callable[..., Path], count: int, model: str, per_frame: bool
) -> None:
    lens = {"distortion_params": [0.1] + [0.0] * (count - 1)}
    data = real(of_frames(**lens) if per_frame else lambda content: content.update(lens), camera_model=model)
    assert only_problem(data) == (
        f"{data}/transforms.json gives lenses of {count} distortion parameters; expected 6: k1, k2, k3, k4, p1, p2."
    )


# Poses


def at(centre: Any, tilt: float = 0.0) -> Change:
    """Puts all cameras on one spot, or within `tilt` of it."""

    def matrix(number: int) -> list[list[float]]:
        angle = 0.3 * number
        turned = np.eye(4)
        turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turned[:3, 3] = np.array(centre) + tilt * np.array([np.cos(angle), np.sin(angle), 0])
        return turned.tolist()

    return of_frames(transform_matrix=matrix)


@pytest.mark.parametrize(
    ("change", "spot"),
    [
        (of_frames(transform_matrix=np.eye(4).tolist()), "(0, 0, 0)"),
        (at([0.3, 0.3, 0.3]), "(0.3, 0.3, 0.3)"),
        (at([5e5, 5e6, 100.0], tilt=2.0), "(5e+05, 5e+06, 100)"),
    ],
    ids=["identical", "tripod", "map"],
)
def test_cameras_on_one_spot_are_refused(real: Callable[..., Path], change: Change, spot: str) -> None:
    data = real(change)
    assert only_problem(data).startswith(f"{data}/transforms.json has all 12 cameras on one spot, {spot}, as far as")


def test_cameras_that_are_apart_are_not_on_one_spot(real: Callable[..., Path]) -> None:
    assert found(real(at([500.0, 500.0, 0.0], tilt=0.1))).problems == []


@pytest.mark.parametrize("scale", [0.1, 10.0])
@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_blenders_cameras_that_miss_the_origin_are_a_remark(
    blender: Callable[..., Path], scale: float, shift: float
) -> None:
    def moved(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            for row in frame["transform_matrix"][:3]:
                row[3] = scale * row[3] + shift

    assert found(blender()).remarks == []
    data = blender(moved)
    (remark,) = found(data).remarks
    assert remark.startswith(f"{data}/transforms_train.json has 1") and "the origin 2 to 6 ahead of them" in remark


def test_the_scene_is_looked_for_where_the_methods_see() -> None:
    model = methods.baseline.config.pipeline.model
    assert SEEN == (model.near_plane, model.far_plane)


@pytest.mark.parametrize(
    ("times", "first", "cameras", "count"),
    [
        (10, 4, 1, 0),
        (100, 4, 1, 1),
        (100, 8, 1, 1),  # a validation view, and a test view too
        (100, 4, 5, 0),
    ],
)
def test_a_camera_far_from_all_others_is_a_remark(
    real: Callable[..., Path], times: int, first: int, cameras: int, count: int
) -> None:
    def moved(content: dict[str, Any]) -> None:
        for frame in content["frames"][first : first + cameras]:
            for row in frame["transform_matrix"][:2]:
                row[3] *= times

    remarks, named = found(real(moved)).remarks, f"the middle as the median camera: v{first}.png. nerfstudio"
    assert len(remarks) == count and all(named in remark for remark in remarks)


def test_axes_of_another_convention_are_a_remark(real: Callable[..., Path]) -> None:
    def flipped(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])).tolist()

    data = real(flipped)
    assert found(data).problems == []
    (remark,) = found(data).remarks
    assert remark.startswith(f"{data}/transforms.json has cameras that look away from where their axes meet.")


def orbit(tilts: Any, outward: bool = False) -> list[np.ndarray]:
    """Camera-to-world matrices of upright cameras around a place, or back to back on one spot, at such angles."""
    poses = []
    for number, tilt in enumerate(tilts):
        axes = Rotation.from_euler("ZX", [30 * number, 90 - tilt], degrees=True).as_matrix()
        centre = [0.0, 0.0, -4.0] if outward else [1.0, 2.0, 0.5] + 4 * axes[:, 2]
        poses.append(np.vstack([np.column_stack([axes, centre]), [0, 0, 0, 1]]))
    return poses


@pytest.mark.parametrize("axes", [[1, 1, 1, 1], [1, -1, -1, 1]], ids=["nerfstudio", "OpenCV"])
def test_inverted_poses_are_a_remark(real: Callable[..., Path], axes: list[int]) -> None:
    poses = [np.linalg.inv(pose @ np.diag(axes)) for pose in orbit(np.linspace(0, 60, 12))]
    data = real(of_frames(transform_matrix=lambda number: poses[number].tolist()))
    (remark,) = found(data).remarks
    assert remark.startswith(f"{data}/transforms.json has poses that look like world-to-camera matrices: ")


@pytest.mark.parametrize("outward", [False, True])
def test_poses_that_may_be_meant_are_no_remark(real: Callable[..., Path], outward: bool) -> None:
    """The inverses of the second kind are cameras that look at one place."""
    poses = orbit(np.linspace(0, 60, 12), outward) + [np.eye(4)] * outward
    poses[-1][:3, 3] += [0.5, 0.0, 0.0]
    data = real(of_frames(transform_matrix=lambda number: poses[number].tolist()))
    assert not any("world-to-camera" in remark for remark in found(data).remarks)


@pytest.mark.parametrize(
    ("photo", "remark"),
    [
        (Image.new("RGB", (16, 12)), "is opaque: its background is taken for a part of the scene."),
        (Image.new("RGBA", (16, 12), "red"), "is opaque: its background is taken for a part of the scene."),
        (Image.new("RGBA", (16, 12)), "is transparent everywhere."),
        (Image.new("LA", (16, 12), (9, 128)), None),
    ],
)
def test_blenders_photos_without_a_background_are_a_remark(
    blender: Callable[..., Path], photo: Image.Image, remark: str | None
) -> None:
    data = blender()
    photo.save(data / "train/r_0.png")
    assert [told.partition("/train/r_0.png ")[2][: len(remark or "")] for told in found(data).remarks] == (
        [remark] if remark else []
    )


@pytest.mark.parametrize("capture", ["drone", "loop"])
def test_axes_that_hardly_meet_are_of_no_convention(real: Callable[..., Path], capture: str) -> None:
    """A drone looks straight down but for a few degrees outwards; on a walk along a circle the camera looks ahead and a
    little outwards."""

    def pose(number: int) -> np.ndarray:
        turn = Rotation.from_euler("z", 30 * number, degrees=True).as_matrix()
        if capture == "drone":
            axes, centre = turn @ Rotation.from_euler("y", -3, degrees=True).as_matrix(), turn @ [2.0, 0.0, 0.0]
        else:
            ahead = np.array([np.sin(0.4), np.cos(0.4), 0.0])
            axes = turn @ np.stack([np.cross(ahead, [0, 0, 1]), [0, 0, 1], -ahead], axis=1)
            centre = turn @ [2.0, 0.0, 0.0]
        return np.vstack([np.column_stack([axes, centre]), [0, 0, 0, 1]])

    met = where_axes_meet(np.stack([pose(number)[:3] for number in range(12)]))
    assert met is not None and (met[1] < 0).all()
    data = real(of_frames(transform_matrix=lambda number: pose(number).tolist()))
    assert found(data).problems == found(data).remarks == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_photos_are_a_scene(
    count: int, ring: Callable[..., Views], nerfstudio_folder: Callable[..., Path], blender_folder: Callable[..., Path]
) -> None:
    for data in (nerfstudio_folder(ring(range(count), prefix="v")), blender_folder(ring(range(count)))):
        assert found(data).problems == []
        views = scene_at(data).views()
        assert len(views) == count and np.isfinite(views.camera_to_worlds).all()
        assert np.abs(views.centres).max() < 10


# Paths


@pytest.mark.parametrize("downscale", [None, 1])
def test_backslashes_are_named(real: Callable[..., Path], downscale: int | None) -> None:
    data = real(of_frames(file_path=lambda number: f"images\\v{number}.png"))
    findings = found(data, downscale)
    told = "\n".join(findings.problems + findings.missing)
    assert "images\\v0.png, images\\v1.png" in told and "backslashes, which separate folders on Windows alone" in told


def test_sub_folders_that_nerfstudio_drops_at_a_downscale_are_named(real: Callable[..., Path]) -> None:
    data = real(prefix="cam/v")
    assert found(data).problems == []
    (data / "images_2/cam").mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (8, 6)).save(data / f"images_2/cam/v{number}.png")
    problem = found(data, downscale=2).missing[0]
    assert problem.startswith(f"{data}/images_2 lacks ") and "itself, without the sub-folders of the large" in problem


def test_blenders_photos_of_another_suffix_are_a_problem_in_every_split(blender: Callable[..., Path]) -> None:
    data = blender()
    edited(data / "transforms_test.json", lambda content: of_frames(file_path=lambda n: f"test/r_{n}.png")(content))
    told = only_problem(data).splitlines()[0]
    lacking = f"{data}/test lacks 3 files: r_0.png.png, r_1.png.png, r_2.png.png. r_0.png is there, but nerfstudio adds"
    assert told.startswith(lacking) and told.endswith("leave the suffix out.")
    for number in range(12):
        Image.new("RGB", (16, 12)).save(data / f"train/r_{number}.jpg")
        (data / f"train/r_{number}.png").unlink()
    assert "train lacks 12 files" in found(data).problems[0]
    assert (
        "r_0.jpg is there: the names differ in their suffix, in capitals or in how accents are encoded."
        in found(data).problems[0]
    )


def test_blenders_first_photo_cannot_be_left_out(blender: Callable[..., Path]) -> None:
    data = blender()
    (data / "train/r_0.png").unlink()
    told = examine(scene_at(data, skip_missing=True)).problems
    assert told[0] == (
        f"nerfstudio takes the photos' size from {data}/train/r_0.png: put it back, or take its frame out."
    )


@pytest.mark.parametrize("place", ["rgb", "rgb/images", "."])
def test_photos_of_another_folder_are_found(
    real: Callable[..., Path], ring: Callable[..., Views], colmap_folder: Callable[..., Path], place: str
) -> None:
    model = colmap_folder(ring(np.linspace(0, 300, 12), prefix="v"))
    for data in (real(), model):
        if place == ".":
            for photo in list((data / "images").iterdir()):
                photo.rename(data / photo.name)
            (data / "images").rmdir()
        else:
            (data / place).parent.mkdir(exist_ok=True)
            (data / "images").rename(data / place)
        told = only_problem(data)
        assert told.startswith(f"There is no folder {data}/images, which is to hold 12 files: v0.png")
        where = f" {data / place} has files of such names: if they are meant, correct the paths, or link the folder."
        assert told.endswith(where) == (place != "rgb/images")


def test_why_a_photo_is_missing_is_said(real: Callable[..., Path]) -> None:
    data = real()
    photo = data / "images/v1.png"
    photo.unlink()
    photo.symlink_to("away/v1.png")
    assert only_problem(data) == f"{photo} is missing. It is a link to away/v1.png, which is not there."
    photo.unlink()
    Image.new("RGB", (16, 12)).save(data / "images" / unicodedata.normalize("NFD", "Küche.png"))
    edited(data / "transforms.json", lambda content: content["frames"][1].update(file_path="images/Küche.png"))
    assert only_problem(data).endswith(
        " is there: the names differ in their suffix, in capitals or in how accents are encoded."
    )


@pytest.mark.parametrize("joined", [True, False])
def test_nerfstudios_fields_under_blenders_name_are_told_of(blender: Callable[..., Path], joined: bool) -> None:
    data = blender(lambda content: [content.pop("camera_angle_x"), content.update(fl_x=8.0)])
    if joined:
        (data / "transforms.json").write_text("{}")
    way = "" if joined else "write all frames to one file, and "
    assert (
        found(data)
        .problems[0]
        .endswith(f"of nerfstudio's format: {way}name it, --data {data}/transforms.json): all frames.")
    )


def test_names_with_blanks_in_colmaps_text_are_told_of(colmap_model: Callable[..., Path], tmp_path: Path) -> None:
    photos = [Photo(n + 1, f"my\tphoto {n}.heic", translation=(n, 0.0, n % 3)) for n in range(12)]
    for kind in ("bin", "txt"):
        colmap_model(photos, [Camera()], kind=kind, folder=f"{kind}/sparse/0")
        (tmp_path / kind / "images").mkdir()
        for photo in photos:
            Image.new("RGB", (16, 12)).save(tmp_path / kind / "images" / photo.name, format="PNG")
    assert found(tmp_path / "bin").problems == []
    assert only_problem(tmp_path / "txt").startswith(f"{tmp_path}/txt/sparse/0 has names of photos with blanks, at")


def test_a_larger_model_beside_is_a_remark(ring: Callable[..., Views], colmap_folder: Callable[..., Path]) -> None:
    data = colmap_folder(ring(range(0, 300, 25), prefix="v"), model="sparse/1")
    colmap_folder(ring(range(0, 75, 25), prefix="v"), model="sparse/0")
    findings = found(data)
    assert findings.problems == [] and findings.views["train"] == 2
    assert findings.remarks[0].startswith(f"{data}/sparse/0 is a model of 3 photos, and {data}/sparse/1 one of 12:")
    assert "colmap --colmap-path sparse/1" in findings.remarks[0]
    assert findings.remarks[1].startswith(f"9 of the photos in {data}/images have no pose or no split: v10.png, v11")


# Messages


@pytest.mark.parametrize(
    "name", ["shot [v3].png", "q[/b]", "[red]a[/red]", "a\\[b]", "\ud800.png", "\x1b[31m\r\x9b\u202e"]
)
def test_messages_show_names_to_the_letter(name: str) -> None:
    console = Console(file=StringIO(), width=20, force_terminal=False)
    say(console, ("Error:", "bold red"), f" {name} is missing, as it is longer than a line.")
    written = console.file.getvalue()  # type: ignore[attr-defined]
    shown = {"\ud800.png": "\\ud800.png", "\x1b[31m\r\x9b\u202e": "\\x1b[31m\\r\\x9b\\u202e"}.get(name, name)
    assert written == f"Error: {shown} is missing, as it is longer than a line.\n"
