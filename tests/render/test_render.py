"""What is shown of a scene: baseline and student from the same place, at the size asked for."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from dac_nerfstudio import cli
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.render.pictures import default_scale, mosaic, orbit, picture, scaled, show, strip
from dac_nerfstudio.render.scene import Scene, open_scene
from dac_nerfstudio.style import colour


def find(page: np.ndarray, image: np.ndarray) -> tuple[int, int]:
    """Where an image lies on a page."""
    windows = np.lib.stride_tricks.sliding_window_view(page, image.shape)[:, :, 0]
    places = np.argwhere((windows == image).all(axis=(2, 3, 4)))
    assert len(places) == 1
    return int(places[0][0]), int(places[0][1])


def test_an_orbit_shows_both_from_the_same_place(scene: Scene) -> None:
    frames = list(orbit(scene, 2.0, 5))
    assert len(frames) == 5
    assert len({frame.shape for frame in frames}) == 1
    height, width = frames[0].shape[:2]
    left, right = frames[0][-36:-4, 4:36], frames[0][-36:-4, 40:72]
    assert (height, width) == (frames[0].shape[0], 76), "two images of 32 pixels and three gaps of 4"
    assert np.abs(left.astype(int) - right).mean() > 5, "baseline and student are not one model"
    twin = next(orbit(replace(scene, student=scene.baseline), 2.0, 5))
    np.testing.assert_array_equal(twin[-36:-4, 4:36], twin[-36:-4, 40:72])
    np.testing.assert_array_equal(twin[-36:-4, 4:36], left)
    assert (frames[0] != frames[2]).any()


def test_a_mosaic_has_each_expert_in_each_groups_view_and_marks_those_at_home(scene: Scene) -> None:
    page = mosaic(scene, 1.0)
    places = {}
    for row, view in enumerate((0, 2)):
        camera = scaled(scene.cameras[view : view + 1], 1.0)
        for column, model in enumerate((*scene.experts.values(), scene.student)):
            places[row, column] = find(page, picture(model, camera))
    assert places[0, 0][0] == places[0, 1][0] < places[1, 0][0]
    assert places[0, 0][1] == places[1, 0][1] < places[0, 1][1] < places[0, 2][1]
    for group in (1, 2):
        top, left = places[group - 1, group - 1]
        ink = tuple(int(colour(group)[i : i + 2], 16) for i in (1, 3, 5))
        assert tuple(page[top - 1, left - 1]) == ink
    assert tuple(page[places[0, 1][0] - 1, places[0, 1][1] - 1]) == (255, 255, 255)


def test_a_strip_shows_photo_and_renderings_pixel_by_pixel_and_errors(scene: Scene) -> None:
    view = scene.gains[0]
    page = strip(view)
    factor = 400 // 16
    assert page.shape[1] == 5 * 400 + 6 * 10
    row, closer = page[-820:-420], page[-410:-10]
    for number, image in enumerate((view.photo, view.baseline, view.student)):
        column = slice(10 + number * 410, 410 + number * 410)
        shown = row[:, column][factor // 2 :: factor, factor // 2 :: factor]
        np.testing.assert_array_equal(shown, image)
        # The square of 8 pixels fills the room of 16.
        np.testing.assert_array_equal(closer[:, column][factor::50, factor::50], image[2:10, 3:11])
    exact = strip(replace(view, student=view.photo))[-820:-420, 10 + 4 * 410 :][:, :400]
    assert (exact[factor // 2 :: factor, factor // 2 :: factor] == exact[factor // 2, factor // 2]).all()


def test_small_photos_are_shown_larger_and_large_ones_smaller(scene: Scene) -> None:
    for side, scale in ((16, 25.0), (100, 4.0), (400, 1.0), (640, 1.0), (1600, 0.5)):
        cameras = scaled(scene.cameras, side / 16)
        assert int(cameras.width[0]) == side and default_scale(cameras) == scale


def test_a_larger_picture_is_of_the_same_field_of_view(scene: Scene) -> None:
    small = picture(scene.student, scaled(scene.cameras[:1], 1.0)).astype(float)
    large = picture(scene.student, scaled(scene.cameras[:1], 3.0)).astype(float)
    assert large.shape == (48, 48, 3)
    means = large.reshape(16, 3, 16, 3, 3).mean(axis=(1, 3))
    assert np.abs(means - small).mean() < 0.5 * np.abs(np.roll(small, 3, axis=1) - small).mean()


def test_all_pictures_of_a_scene(scene: Scene, tmp_path: Path) -> None:
    output = io.StringIO()
    show(scene, tmp_path, (), 4, 2.0, Console(file=output, width=200))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"gain.png", "loss.png", "experts.png", "wipe.webp", "wipe.mp4", "orbit.webp", "orbit.mp4"}
    for name in ("wipe", "orbit"):
        with Image.open(tmp_path / f"{name}.webp") as file:
            assert file.n_frames == 4  # type: ignore[attr-defined]
    assert all(name in output.getvalue() for name in names)


def test_what_a_scene_lacks_is_said_and_is_an_error_where_it_was_asked_for(scene: Scene, tmp_path: Path) -> None:
    poor, output = replace(scene, experts={}, gains=[], losses=[]), io.StringIO()
    show(poor, tmp_path, (), 2, 1.0, Console(file=output, width=200))
    assert {path.name for path in tmp_path.iterdir()} == {"wipe.webp", "wipe.mp4", "orbit.webp", "orbit.mp4"}
    assert "needs an expert of each group" in output.getvalue() and "--only evaluate" in output.getvalue()
    with pytest.raises(StageError, match="needs an expert of each group"):
        show(poor, tmp_path, ("experts",), 2, 1.0, Console(file=output))


def test_a_scene_is_opened_from_its_folder_alone(results: Callable[..., Path]) -> None:
    scene = open_scene(results(), None, None)
    assert len(scene.cameras) == 3 and scene.names == [f"test/r_{number}.png" for number in range(3)]
    assert set(scene.experts) == {1, 2} and set(scene.homes) <= {1, 2} and scene.homes
    one, other = (model.state_dict() for model in (scene.baseline, scene.student))
    assert any((one[name] != other[name]).any() for name in one)
    image = picture(scene.student, scaled(scene.cameras[:1], 1.0))
    assert image.shape == (16, 16, 3)
    # No pictures of the test views were kept.
    assert scene.gains == scene.losses == []
    assert not any(torch.is_grad_enabled() and value.requires_grad for value in scene.baseline.parameters())


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (("dac-finetune",), r"There is no fine-tuned student named quick-seed7\. .* dac run --data"),
        (("dac-baseline",), r"There is no baseline named quick-seed7\. .* dac run --data"),
    ],
)
def test_what_is_not_trained_is_named(without: tuple[str, ...], message: str, results: Callable[..., Path]) -> None:
    with pytest.raises(StageError, match=message):
        open_scene(results(without), None, None)


def test_lost_photos_are_asked_for_and_settings_are_checked(results: Callable[..., Path], tmp_path: Path) -> None:
    scene_dir = results()
    (tmp_path / "demo").rename(tmp_path / "moved")
    with pytest.raises(StageError, match=r"no photos at .*demo, where they were at training\. .*--data FOLDER"):
        open_scene(scene_dir, None, None)
    assert len(open_scene(scene_dir, None, tmp_path / "moved").cameras) == 3
    for wrong, message in (({"frames": 1}, "--frames is 1; an animation"), ({"scale": -1.0}, "--scale is -1")):
        with pytest.raises(StageError, match=message):
            cli.render(scene_dir, **wrong)  # type: ignore[arg-type]


def test_the_demo_ends_in_pictures_several_times_as_large_as_its_photos(
    results: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene_dir = results()
    monkeypatch.setattr("dac_nerfstudio.demo.make_demo_scene", lambda data, progress: None)
    monkeypatch.setattr(cli, "run", lambda data, output_dir, **_: None)
    cli.demo(scene_dir.parent, tmp_path / "demo")
    with Image.open(scene_dir / "pictures" / "orbit.webp") as file:
        assert file.n_frames == 30 and min(file.size) > 3 * 16  # type: ignore[attr-defined]
