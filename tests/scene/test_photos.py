"""Photos are read as they are meant, or refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scene_folders import without_pixels

from dac_nerfstudio.errors import PhotoError
from dac_nerfstudio.scene.photos import photo_shape, read_photo


@pytest.fixture
def colours() -> np.ndarray:
    """Eight columns of grey, of a colour each below, [6, 8, 3]."""
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:3] = np.linspace(0, 255, 8).astype(np.uint8)[:, None]
    pixels[3:] = np.random.default_rng(0).integers(0, 256, (8, 3), dtype=np.uint8)
    return pixels


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_eight_bits_stay_to_the_bit(mode: str, colours: np.ndarray, tmp_path: Path) -> None:
    written = np.asarray(Image.fromarray(colours).convert(mode)).copy()
    written[..., -1] = np.arange(48).reshape(6, 8)
    Image.fromarray(written).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "photo.png")), written)


def test_a_palette_is_looked_up(colours: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(colours).quantize(16).save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as stored:
        assert stored.mode == "P"
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "photo.png")), colours)


def test_what_a_palette_calls_transparent_is(tmp_path: Path) -> None:
    photo = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).convert("P")
    photo.putpalette([10, 20, 30, 40, 50, 60])
    photo.save(tmp_path / "photo.png", transparency=1)
    read = np.asarray(read_photo(tmp_path / "photo.png"))
    assert read[0, 0].tolist() == [10, 20, 30, 255] and read[0, 1].tolist() == [40, 50, 60, 0]


def test_single_bits_are_black_and_white(tmp_path: Path) -> None:
    bits = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    Image.fromarray(bits).convert("1").save(tmp_path / "photo.png")
    np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "photo.png")), np.repeat(bits[..., None], 3, 2))


def test_of_sixteen_bits_the_upper_ones_count(tmp_path: Path) -> None:
    grey = np.array([[0, 255, 257], [128 * 257, 65535, 256]], np.uint16)
    for name in ("photo.png", "photo.tif"):
        Image.fromarray(grey).save(tmp_path / name)
        read = np.asarray(read_photo(tmp_path / name))
        assert read[..., 0].tolist() == [[0, 1, 1], [128, 255, 1]] and read.shape == (2, 3, 3)


def test_grey_with_alpha_has_four_channels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[7, 0], [200, 128]]], np.uint8)).save(tmp_path / "photo.png")
    assert np.asarray(read_photo(tmp_path / "photo.png")).tolist() == [[[7, 7, 7, 0], [200, 200, 200, 128]]]


def test_inks_become_light(tmp_path: Path) -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "photo.tif")
    assert np.asarray(read_photo(tmp_path / "photo.tif")).tolist() == [[[255] * 3, [0, 255, 255], [0] * 3]]


def test_numbers_without_a_white_are_refused(tmp_path: Path) -> None:
    for name, numbers in (("real.tif", np.ones((2, 2), np.float32)), ("whole.tif", np.ones((2, 2), np.int32))):
        Image.fromarray(numbers).save(tmp_path / name)
        with pytest.raises(PhotoError, match=f"{name} holds numbers of Pillow's mode"):
            read_photo(tmp_path / name)
        with pytest.raises(PhotoError, match=name):
            photo_shape(tmp_path / name)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_photo_is_turned_for_a_camera_of_the_turned_size_alone(
    orientation: int, colours: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("photo.png", "photo.jpg"):
        Image.fromarray(colours).save(tmp_path / name, exif=exif, quality=100)
        shape = photo_shape(tmp_path / name)
        assert shape.size == (8, 6) and shape.orientation == orientation
        assert shape.turned == ((6, 8) if orientation > 4 else (8, 6))
        stored = np.asarray(read_photo(tmp_path / name, (8, 6)))
        np.testing.assert_array_equal(stored, np.asarray(read_photo(tmp_path / name)))
    if orientation > 4:
        turned = {5: colours.swapaxes(0, 1), 6: np.rot90(colours, -1), 8: np.rot90(colours)}
        turned[7] = np.rot90(colours.swapaxes(0, 1), 2)
        np.testing.assert_array_equal(np.asarray(read_photo(tmp_path / "photo.png", (6, 8))), turned[orientation])


def test_a_photo_of_another_size_is_refused_but_for_a_rounded_pixel(colours: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(colours).save(path)
    assert read_photo(path, (7, 6)).size == (8, 6)
    for size in ((9, 6), (6, 6), (8, 4), (6, 8)):
        with pytest.raises(PhotoError, match=rf"photo.png has 8 x 6 pixels, its camera {size[0]} x {size[1]} pixels"):
            read_photo(path, size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: it has no bytes"),
        (b"no picture at all", r"cannot be read as a photo .*\. Copy it again, or save it as PNG or JPEG\."),
        (b"version https://git-lfs.github.com/spec/v1", ".*pointer of Git LFS: git lfs pull"),
        (b"\0\0\0\x20ftypheic" + b"\0" * 40, ".* is HEIC or AVIF, whatever its name says: save it as PNG or JPEG"),
        (without_pixels(100_000, 100_000), "cannot be read as a photo .*decompression bomb"),
        (without_pixels(8, 6), "cannot be read as a photo"),
    ],
    ids=["empty", "text", "pointer", "heic", "bomb", "without pixels"],
)
def test_what_is_no_photo_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(PhotoError, match=f"photo.png {message}"):
        read_photo(tmp_path / "photo.png")


def test_a_truncated_photo_is_refused_by_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("photo.png", "photo.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(PhotoError, match=f"{name} cannot be read as a photo"):
            read_photo(tmp_path / name)


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.png")
    for look in (photo_shape, read_photo):
        with pytest.raises(PhotoError, match=r"photo.png is no regular file"):
            look(tmp_path / "photo.png")
        with pytest.raises(PhotoError, match=r"nowhere.png is missing"):
            look(tmp_path / "nowhere.png")
