"""Sheets, wipes and animations: sizes, places of pixels, and bytes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.video import save_mp4
from dac_nerfstudio.render.drawing import close_up, save_webp, sheet, wipe

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int], height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def noise(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_sheet_shows_every_image_as_it_is() -> None:
    page = sheet(
        [[plain(RED), plain(BLUE)], [plain(BLUE), plain(RED)]], ["one", "two"], ["a", "b"], {(1, 0): "#00FF00"}
    )
    for colour in (RED, BLUE):
        assert (page == colour).all(axis=2).sum() == 2 * 40 * 60
    reds = np.argwhere((page == RED).all(axis=2))
    blues = np.argwhere((page == BLUE).all(axis=2))
    assert reds[0, 0] == blues[0, 0] and reds[0, 1] + 60 < blues[0, 1], "the first row is red, then blue"
    green = np.argwhere((page == (0, 255, 0)).all(axis=2))
    assert len(green) > 2 * (40 + 60) and green[:, 0].min() > 40, "the frame is round the image of the second row"


@pytest.mark.parametrize("side", [3, 4, 5])
def test_a_close_up_is_as_high_as_the_whole(side: int) -> None:
    image = noise(0, 10, 16)
    page = close_up(image, (1, 2, side), 2)
    assert page.shape == (20, 32, 3)
    rows = (np.arange(20) + 0.5) * side / 20
    nearest = rows.astype(int)
    np.testing.assert_array_equal(page[:, 6:26], image[1 : 1 + side, 2 : 2 + side][np.ix_(nearest, nearest)])
    assert (page[:, :6] == 255).all() and (page[:, 26:] == 255).all()


def test_a_wipe_shows_more_of_the_left_image_and_then_less() -> None:
    shares = [float((frame == RED).all(axis=2).mean()) for frame in wipe(plain(RED), plain(BLUE), 20)]
    assert len(shares) == 20 and shares[0] < 0.05 and shares[10] > 0.9
    assert (np.diff(shares[:11]) > 0).all() and (np.diff(shares[10:]) < 0).all()


def test_an_animation_has_all_frames_and_is_as_small_as_asked(tmp_path: Path) -> None:
    frames = [noise(seed) for seed in range(6)]
    save_webp(frames, tmp_path / "large.webp", 10)
    with Image.open(tmp_path / "large.webp") as file:
        assert (file.n_frames, file.size) == (6, (96, 64))  # type: ignore[attr-defined]
    whole = (tmp_path / "large.webp").stat().st_size
    frames = [np.kron(frame, np.ones((4, 4, 1), dtype=np.uint8)) for frame in frames]
    save_webp(frames, tmp_path / "small.webp", 10, most=2 * whole)
    assert (tmp_path / "small.webp").stat().st_size <= 2 * whole
    with Image.open(tmp_path / "small.webp") as file:
        assert file.n_frames == 6 and 64 <= file.size[1] < 256  # type: ignore[attr-defined]
    with pytest.raises(StageError, match=r"6 frames do not fit into 100 bytes .*--frames"):
        save_webp(frames, tmp_path / "none.webp", 10, most=100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.webp", "small.webp"]


def test_a_video_of_odd_size_has_all_frames(tmp_path: Path) -> None:
    import imageio_ffmpeg

    save_mp4([plain(RED, 33, 51), plain(BLUE, 33, 51), plain(RED, 33, 51)], tmp_path / "video.mp4", 5)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "video.mp4"))
    about = next(reader)
    assert about["size"] == (52, 34) and about["pix_fmt"].startswith("yuv420p"), "which every player shows"
    colours = [np.frombuffer(frame, np.uint8).reshape(-1, 3).mean(axis=0) for frame in reader]
    assert len(colours) == 3
    assert [bool(colour[0] > colour[2]) for colour in colours] == [True, False, True]
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"], "no temporary file is left"
