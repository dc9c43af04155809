"""COLMAP's models are read by nerfstudio; what it cannot read is one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
from colmap_files import Camera, Photo

from dac_nerfstudio.errors import PartitionError, StageError
from dac_nerfstudio.partition import Views
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.scene.layout import find_layout, find_model
from dac_nerfstudio.scene.points import photos_in, tracks_of

Model = Callable[..., Path]
KINDS = pytest.mark.parametrize("kind", ["bin", "txt"])
PHOTOS = [Photo(7, "b.jpg", points=(5, -1, 3, 5)), Photo(2, "left/a.jpg"), Photo(30, "ü.jpg", points=(3,))]


@KINDS
def test_points_are_joined_by_name_and_counted_once(colmap_model: Model, kind: str) -> None:
    model = colmap_model(PHOTOS, kind=kind)
    found = tracks_of(model, ("ü.jpg", "b.jpg", "left/a.jpg"))
    assert found is not None and [points.tolist() for points in found] == [[3], [3, 5], []]
    assert tracks_of(model, ("b.jpg", "c.jpg")) is None


def test_a_model_without_points_for_most_photos_compares_none(colmap_model: Model) -> None:
    model = colmap_model([Photo(1, "a.jpg"), Photo(2, "b.jpg", points=(3,))])
    with pytest.warns(UserWarning, match="lists no 3D points for most photos. Going on without them"):
        assert tracks_of(model, ("a.jpg", "b.jpg")) is None


@KINDS
def test_photos_of_a_model_are_counted(colmap_model: Model, kind: str) -> None:
    assert photos_in(colmap_model(PHOTOS, kind=kind)) == 3


def test_the_models_folder_is_found(colmap_model: Model, tmp_path: Path) -> None:
    assert find_model(tmp_path) is None
    for folder in ("sparse/1", ".", "sparse", "sparse/0", "colmap/sparse/0"):
        assert find_model(tmp_path) != tmp_path / folder
        colmap_model(PHOTOS, folder=folder)
        assert find_model(tmp_path) == tmp_path / folder


@pytest.mark.parametrize("downscale", [0, -1])
def test_a_downscale_that_is_none_is_refused(downscale: int, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=f"--downscale is {downscale}; expected a whole number from 1 up"):
        find_layout(tmp_path, downscale)


# What nerfstudio cannot read


@pytest.fixture
def spoil(ring: Callable[..., Views], colmap_folder: Callable[..., Path]) -> Callable[..., str]:
    """Writes a model, changes a file of it, and gives what is said of that."""

    def refused(name: str, change: Callable[[bytes], bytes]) -> str:
        data = colmap_folder(ring(range(0, 300, 30), prefix="v"), kind=name.rpartition(".")[2])
        path = data / "colmap/sparse/0" / name
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(PartitionError) as caught:
            read_views(data)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin"])
@pytest.mark.parametrize("length", [0, 5, 20, 50, -1])
def test_a_binary_file_that_is_cut_off_is_refused(spoil: Callable[..., str], name: str, length: int) -> None:
    message = spoil(name, lambda whole: whole[:length])
    assert "truncated or damaged" in message or "lists no photos" in message


def test_damaged_counts_are_refused_and_not_allocated(spoil: Callable[..., str]) -> None:
    def count(whole: bytes) -> bytes:
        at = whole.index(b"v0.png\0") + len(b"v0.png\0")
        return whole[:at] + b"\xff" * 7 + b"\0" + whole[at + 8 :]

    assert "images.bin is truncated or damaged. Copy it again" in spoil("images.bin", count)


FISHEYE = b"1 OPENCV_FISHEYE 16 12 100 100 8 6 0.1 0 0 0.1"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cameras.txt", lambda text: b"1 LENSLESS 16 12 100 100 8 6", "LENSLESS camera model is not supported yet!"),
        ("cameras.txt", lambda text: b"1 FOV 16 12 100 100 8 6 0.5", "Undistort the photos first (colmap image_und"),
        ("cameras.txt", lambda text: b"", "it lacks 1"),
        ("cameras.txt", lambda text: b"1 PINHOLE 16 12 100 100", "index 2 is out of bounds"),
        ("cameras.txt", lambda text: text.replace(b"100.0", b"a"), "could not convert string to float: 'a'"),
        ("images.txt", lambda text: text.replace(b"v3.png", b""), "list index out of range"),
        ("images.txt", lambda text: text.replace(b"\n\n", b"\n"), "each photo takes two lines; the second"),
        (
            "cameras.txt",
            lambda text: FISHEYE,
            "nerfstudio reads k4 of a fisheye lens from its own format alone: ns-pro",
        ),
        ("images.txt", lambda text: b"", "No images found in the colmap model"),
        ("images.bin", lambda text: text.replace(b"v3.png", b"\xfc.png"), "can't decode byte 0xfc"),
    ],
)
def test_what_nerfstudio_cannot_read_is_one_sentence(
    spoil: Callable[..., str], name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    found = spoil(name, change)
    assert "colmap/sparse/0 cannot be used: " in found and message in found


def test_a_model_of_two_kinds_of_files_is_refused(ring, colmap_folder) -> None:
    data = colmap_folder(ring(range(0, 90, 30), prefix="v"))
    model = data / "colmap/sparse/0"
    (model / "cameras.txt").write_text("1 PINHOLE 16 12 100 100 8 6")
    with pytest.raises(
        PartitionError, match=f"There is no {model}/images.txt. nerfstudio reads text where cameras.txt"
    ):
        read_views(data)


def test_cameras_of_several_kinds_are_refused(ring, colmap_folder, colmap_model: Model) -> None:
    data = colmap_folder(ring(range(0, 90, 30), prefix="v"))
    cameras = [Camera(), Camera(2, "OPENCV_FISHEYE", parameters=(1.0,) * 8)]
    photos = [Photo(n + 1, f"v{n}.png", translation=(n, 0.0, 0.0), camera=1 + n % 2) for n in range(3)]
    colmap_model(photos, cameras, folder="colmap_scene/colmap/sparse/0")
    with pytest.raises(PartitionError, match=r"sparse/0 cannot be used: Multiple camera models are not supported. U"):
        read_views(data)
