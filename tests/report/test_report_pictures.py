"""What pictures show: planes of known features, crops where the difference is."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import RUN, picture

from dac_nerfstudio.report.pictures import compare, partition_picture, png
from dac_nerfstudio.report.results import ViewGain
from dac_nerfstudio.report.runs import read_scene


def decoded(address: str) -> np.ndarray:
    kind, _, data = address.partition(";base64,")
    assert kind.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def spoiled(photo: np.ndarray, rows: slice) -> np.ndarray:
    image = photo.copy()
    image[rows] = 255 - image[rows]
    return image


def test_the_crop_is_where_gain_or_loss_is(maker: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from dac_nerfstudio.report import pictures

    monkeypatch.setattr(pictures, "SMALLEST_CROP", 8)
    made = maker().everything()
    # The baseline is wrong at the top, the student at the bottom.
    made.keep_pairs(made.run_dir("dac-baseline"), lambda number, photo: spoiled(photo, slice(0, 8)))
    made.keep_pairs(made.run_dir("dac-finetune"), lambda number, photo: spoiled(photo, slice(16, 24)))
    scene = read_scene(made.folder, RUN)
    baseline, student = scene.scored("dac-baseline")[0], scene.scored("dac-finetune")[0]
    gained = compare(ViewGain("test/b.png", 1, 0.5), baseline, student)
    lost = compare(ViewGain("test/b.png", 1, -0.5), baseline, student)
    assert gained is not None and lost is not None
    np.testing.assert_array_equal(gained.photo, picture(1))
    assert (gained.box[0], gained.box[2]) == (0, 9)
    assert lost.box[0] in (15, 16)
    # Inverted colours are off by |255 - 2c| / 255, and untouched ones by nothing.
    wrong = np.abs(255 - 2.0 * picture(1)[:8]).mean(axis=2) / 255
    np.testing.assert_allclose(gained.error(gained.baseline)[:8], wrong)
    assert (gained.error(gained.baseline)[8:] == 0).all()
    assert gained.crop(gained.photo).shape == (9, 9, 3)


def test_views_without_kept_pictures_are_not_compared(maker: Callable) -> None:
    made = maker().everything()
    made.keep_pairs(made.run_dir("dac-baseline"), lambda number, photo: photo)
    scene = read_scene(made.folder, RUN)
    runs = scene.scored("dac-baseline")[0], scene.scored("dac-finetune")[0]
    view = ViewGain("test/a.png", 1, 1.0)
    assert compare(view, *runs) is None
    for path in (made.run_dir("dac-baseline") / "test").iterdir():
        path.unlink()
    assert compare(view, runs[0], runs[0]) is None


def test_a_record_reaches_no_file_outside_its_folder(maker: Callable) -> None:
    made = maker().everything()
    run = read_scene(made.folder, RUN).scored("dac-baseline")[0]
    Image.new("RGB", (8, 4)).save(made.folder / "secret.png")
    assert run.evaluation is not None
    run.evaluation["views"][0]["pair"] = "../../../secret.png"
    assert compare(ViewGain("test/a.png", 1, 1.0), run, run) is None


def test_pictures_survive_their_way_into_the_page(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(png(picture(0))), picture(0))
    Image.fromarray(picture(0)).save(tmp_path / "partition.png")
    address = partition_picture(tmp_path / "partition.png")
    assert address is not None and decoded(address).shape == picture(0).shape
    assert partition_picture(tmp_path / "other.png") is None
