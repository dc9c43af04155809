from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from colmap_files import CAMERA_MODELS, Camera, Photo
from scipy.spatial.transform import Rotation

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.scene.colmap import read_model
from dac_nerfstudio.scene.reading import find_model

PINHOLE = (100.0, 101.0, 8.0, 6.0)
CAMERAS = [Camera(3, "SIMPLE_RADIAL", 64, 48, (50.0, 32.0, 24.0, 0.1)), Camera(7, "PINHOLE", 16, 12, PINHOLE)]
# Numbers are neither consecutive nor ordered, names have folders and blanks, and features repeat points or have none.
PHOTOS = [
    Photo(9, "left/b 1.jpg", (0.5, 0.5, -0.5, 0.5), (1.0, -2.0, 3.5), 7, (5, -1, 2, 5, -1)),
    Photo(2, "a.jpg", (1.0, 0.0, 0.0, 0.0), (0.0, 0.25, 0.0), 3, ()),
    Photo(4, "ü.jpg", (0.1, -0.2, 0.3, 0.9), (-1.0, 0.0, 7.0), 3, (-1,)),
    Photo(30, "c.jpg", (-0.6, 0.0, 0.8, 0.0), (0.0, 0.0, 1.0), 7, (2, 10**12)),
]
KINDS = pytest.mark.parametrize("kind", ["bin", "txt"])
Model = Callable[..., Path]


@KINDS
def test_photos_come_in_the_order_of_their_numbers_with_unique_points(colmap_model: Model, kind: str) -> None:
    views = read_model(colmap_model(PHOTOS, CAMERAS, kind))
    assert views.names == ("a.jpg", "ü.jpg", "left/b 1.jpg", "c.jpg")
    assert views.tracks is not None
    assert [points.tolist() for points in views.tracks] == [[], [], [2, 5], [2, 10**12]]
    radial, pinhole = [50, 50, 32, 24, 64, 48], [100, 101, 8, 6, 16, 12]
    assert views.intrinsics.tolist() == [radial, radial, pinhole, pinhole]
    assert not views.upright and views.photos is None


def test_both_formats_give_equal_views(colmap_model: Model) -> None:
    binary, text = (read_model(colmap_model(PHOTOS, CAMERAS, kind, kind)) for kind in ("bin", "txt"))
    assert binary.names == text.names
    np.testing.assert_array_equal(binary.camera_to_worlds, text.camera_to_worlds)
    np.testing.assert_array_equal(binary.intrinsics, text.intrinsics)


@KINDS
def test_a_point_is_projected_to_the_pixel_that_the_model_tells(colmap_model: Model, kind: str) -> None:
    rng = np.random.default_rng(0)
    rotations = Rotation.random(20, rng)
    quaternions = rotations.as_quat()[:, [3, 0, 1, 2]] * rng.uniform(0.5, 2, (20, 1))  # of any length
    in_camera = np.array([0.4, -0.3, 2.0])  # right of the middle, above it and ahead, as x is right and y down
    translations = rng.normal(size=(20, 3))
    photos = [Photo(i + 1, f"{i}.jpg", tuple(q), tuple(t)) for i, (q, t) in enumerate(zip(quaternions, translations))]
    views = read_model(colmap_model(photos, kind=kind))
    points = rotations.inv().apply(in_camera - translations)  # in the world
    x, y, z = np.einsum("nji,nj->in", views.camera_to_worlds[:, :, :3], points - views.centres)
    fx, fy, cx, cy, _, _ = views.intrinsics.T
    assert (z < 0).all()
    np.testing.assert_allclose(cx + fx * x / -z, 8 + 100 * 0.4 / 2, atol=1e-3)
    np.testing.assert_allclose(cy - fy * y / -z, 6 - 101 * 0.3 / 2, atol=1e-3)


# Focal lengths and principal point lead all parameters, see src/colmap/sensor/models.h.
ONE_FOCAL_LENGTH = dict.fromkeys(("SIMPLE_PINHOLE",), 3)
ONE_FOCAL_LENGTH |= dict.fromkeys(("SIMPLE_RADIAL", "SIMPLE_RADIAL_FISHEYE"), 4)
ONE_FOCAL_LENGTH |= dict.fromkeys(("RADIAL", "RADIAL_FISHEYE"), 5)
TWO_FOCAL_LENGTHS = {"PINHOLE": 4, "FOV": 5, "OPENCV": 8, "OPENCV_FISHEYE": 8, "FULL_OPENCV": 12}
TWO_FOCAL_LENGTHS |= {"THIN_PRISM_FISHEYE": 12}


@KINDS
@pytest.mark.parametrize("model", CAMERA_MODELS)
def test_every_camera_model_gives_its_focal_lengths_and_principal_point(
    colmap_model: Model, model: str, kind: str
) -> None:
    one = model in ONE_FOCAL_LENGTH
    count = ONE_FOCAL_LENGTH[model] if one else TWO_FOCAL_LENGTHS[model]
    parameters = tuple(range(10, 10 + count))
    # The second camera is found only if all parameters of the first were taken.
    cameras = [Camera(1, model, 40, 30, tuple(map(float, parameters))), Camera(2)]
    views = read_model(colmap_model([Photo(1, "a.jpg"), Photo(2, "b.jpg", camera=2)], cameras, kind))
    expected = [10, 10, 11, 12, 40, 30] if one else [10, 11, 12, 13, 40, 30]
    assert views.intrinsics.tolist() == [expected, [*PINHOLE, 16, 12]]


def test_text_with_windows_line_ends_comments_and_blank_lines_reads_the_same(colmap_model: Model) -> None:
    folder = colmap_model(PHOTOS, CAMERAS, "txt")
    expected = read_model(folder)
    for path in (folder / "cameras.txt", folder / "images.txt"):
        text = path.read_text(encoding="utf-8").replace("\n30 ", "\n\n# photo\n30 ").replace("\n7 ", "\n# camera\n\n7 ")
        path.write_bytes(text.replace("\n", "\r\n").encode())
    found = read_model(folder)
    assert found.names == expected.names
    np.testing.assert_array_equal(found.camera_to_worlds, expected.camera_to_worlds)
    assert [points.tolist() for points in found.tracks] == [points.tolist() for points in expected.tracks]


def test_the_empty_line_of_features_at_the_end_may_be_missing(colmap_model: Model) -> None:
    folder = colmap_model([Photo(1, "a.jpg", points=(3,)), Photo(2, "b.jpg")], kind="txt")
    (folder / "images.txt").write_text((folder / "images.txt").read_text().rstrip())
    assert [points.tolist() for points in read_model(folder).tracks] == [[3], []]


@pytest.mark.parametrize("name", ["cameras", "images"])
def test_a_binary_file_cut_off_anywhere_is_refused(colmap_model: Model, name: str) -> None:
    path = colmap_model(PHOTOS[:2], CAMERAS) / f"{name}.bin"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(PartitionError, match=rf"{name}.bin is truncated or damaged.* of \d entries. Copy it again"):
            read_model(path.parent)


def test_damaged_counts_are_refused_and_not_allocated(colmap_model: Model) -> None:
    path = colmap_model([Photo(1, "a.jpg", points=(1,))]) / "images.bin"
    whole = path.read_bytes()
    at = whole.index(b"a.jpg\0") + len(b"a.jpg\0")
    for damaged in (b"\xff" * 8 + whole[8:], whole[:at] + b"\xff" * 8 + whole[at + 8 :]):
        path.write_bytes(damaged)
        with pytest.raises(PartitionError, match="images.bin is truncated or damaged"):
            read_model(path.parent)


@pytest.mark.parametrize(
    ("photos", "cameras", "message"),
    [
        ([], CAMERAS, "images.{kind} lists no photos"),
        ([Photo(1, "a.jpg", camera=8)], CAMERAS, "cameras.{kind} lacks the cameras of a.jpg"),
        ([Photo(1, "a.jpg")], [], "cameras.{kind} lacks the cameras of a.jpg"),
        ([Photo(1, "a.jpg", (0.0, 0.0, 0.0, 0.0))], None, r"the rotation of a.jpg is \(0.0, 0.0, 0.0, 0.0\), which is"),
        ([Photo(1, "a.jpg", (float("nan"), 0.0, 0.0, 1.0))], None, "the rotation of a.jpg"),
        ([Photo(1, "a.jpg", translation=(0.0, float("nan"), 0.0))], None, "a pose that is not finite: a.jpg"),
        ([Photo(1, "a.jpg"), Photo(2, "a.jpg")], None, "more than once: a.jpg"),
        ([Photo(1, "a.jpg")], [Camera(parameters=(0.0, 1.0, 1.0, 1.0))], "not a positive number: a.jpg"),
    ],
)
@KINDS
def test_models_of_no_use_are_refused(colmap_model: Model, photos, cameras, message: str, kind: str) -> None:
    folder = colmap_model(photos, cameras, kind)
    with pytest.raises(PartitionError, match=message.format(kind=kind)) as caught:
        read_model(folder)
    assert str(folder) in str(caught.value)


def test_names_that_are_no_unicode_are_refused(colmap_model: Model) -> None:
    path = colmap_model([Photo(1, "a.jpg")]) / "images.bin"
    path.write_bytes(path.read_bytes().replace(b"a.jpg", b"\xfc.jpg"))
    with pytest.raises(PartitionError, match="images.bin: the name of a photo is no UTF-8 .*Rename the photo"):
        read_model(path.parent)


def test_cameras_of_one_number_are_refused(colmap_model: Model) -> None:
    with pytest.raises(PartitionError, match="cameras.bin has several cameras of one number. Copy it again"):
        read_model(colmap_model([Photo(1, "a.jpg")], [Camera(), Camera(width=32)]))


def test_unknown_camera_models_are_refused(colmap_model: Model) -> None:
    folder = colmap_model([Photo(1, "a.jpg")])
    content = bytearray((folder / "cameras.bin").read_bytes())
    for number in (len(CAMERA_MODELS), 255):
        content[12] = number
        (folder / "cameras.bin").write_bytes(content)
        with pytest.raises(PartitionError, match=f"cameras.bin: camera 1 is of an unknown model, {number}. Undistort"):
            read_model(folder)
    folder = colmap_model([Photo(1, "a.jpg")], [Camera(model="LENSLESS")], "txt")
    with pytest.raises(PartitionError, match="cameras.txt, line 2: unknown camera model LENSLESS. Undistort"):
        read_model(folder)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("cameras", "1 PINHOLE 16 12 100 100 8", r"line 1 describes no camera \(3 parameters where PINHOLE has 4\)"),
        ("cameras", "1 PINHOLE 16", "line 1 describes no camera"),
        ("cameras", "1 PINHOLE 16 12 100 100 8 six", r"line 1 describes no camera \(.*'six'"),
        ("images", "1 1 0 0 0 0 0 0 1\n", "line 1 describes no photo"),
        ("images", "1 1 0 0 0 0 0 zero 1 a.jpg\n", "line 1 describes no photo .*'zero'"),
        ("images", "1 1 0 0 0 0 0 0 1 a.jpg\n1.5 2.5", r"line 1 describes no photo \(it is incomplete\)"),
        ("images", "1 1 0 0 0 0 0 0 1 a.jpg\n1.5 2.5 a", "line 1 describes no photo"),
        ("images", "1 1 0 0 0 0 0 0 1 a.jpg\n1.5 2.5 18446744073709551615", "line 1 describes no photo"),
    ],
)
def test_lines_of_no_use_are_refused(colmap_model: Model, name: str, row: str, message: str) -> None:
    folder = colmap_model([Photo(1, "a.jpg")], kind="txt")
    (folder / f"{name}.txt").write_text(row)
    with pytest.raises(PartitionError, match=rf"{name}.txt, {message}.*Copy the file again"):
        read_model(folder)


@KINDS
@pytest.mark.parametrize("name", ["cameras", "images"])
def test_a_missing_file_is_refused(colmap_model: Model, name: str, kind: str) -> None:
    folder = colmap_model([Photo(1, "a.jpg")], kind=kind)
    (folder / f"{name}.{kind}").unlink()
    # Without cameras.txt nothing says that the model is one of text.
    expected = f"{name}.{kind}" if (name, kind) != ("cameras", "txt") else "cameras.bin"
    with pytest.raises(PartitionError, match=f"is no COLMAP model: {expected} is missing. Copy the whole model"):
        read_model(folder)


def test_text_wins_over_binary_as_in_nerfstudio(colmap_model: Model) -> None:
    colmap_model([Photo(1, "binary.jpg")])
    assert read_model(colmap_model([Photo(1, "text.jpg")], kind="txt")).names == ("text.jpg",)


def test_the_models_folder_is_found(colmap_model: Model, tmp_path: Path) -> None:
    assert find_model(tmp_path) is None
    plain = colmap_model([Photo(1, "a.jpg")], kind="txt", folder="sparse/0")
    assert find_model(tmp_path) == plain
    processed = colmap_model([Photo(1, "a.jpg")], folder="colmap/sparse/0")
    assert find_model(tmp_path) == processed
