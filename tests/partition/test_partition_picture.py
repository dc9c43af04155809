import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cameras import manual
from matplotlib.colors import to_rgba
from PIL import Image

import dac_nerfstudio
from dac_nerfstudio.partition import assess, divide, find_axis, measure
from dac_nerfstudio.partition.contacts import border_views, darkest, in_order, small_photo
from dac_nerfstudio.partition.picture import draw_partition, plot_partition
from dac_nerfstudio.style import COLOURS

ALL_ROUND = range(5, 360, 30)
SPACE, ABOVE = "Cameras in space", "Cameras from above"
ALIKE, DRAWN = "How alike views are (frustum)", "What each expert draws from (white: never, full colour: weight 1)"
PHOTOS = "Photos, group by group, once round the scene's up axis"


@pytest.fixture
def photographed(ring, tmp_path: Path):
    """Views of which some have a photo of 160 x 120 pixels; the files of the others are missing."""

    def make(degrees, taken):
        views = ring(degrees)
        paths = tuple(tmp_path / f"{index}.png" for index in range(len(views)))
        for index in taken:
            Image.new("RGB", (160, 120), (20 * index, 0, 0)).save(paths[index])
        return replace(views, photos=paths)

    return make


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def colours_in(path: Path) -> set[str]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {"#{:02X}{:02X}{:02X}".format(*pixel) for pixel in np.unique(pixels, axis=0).tolist()}


@pytest.mark.parametrize("groups", [1, 3])
def test_picture_has_the_colours_of_all_groups_and_no_other(ring, tmp_path: Path, groups: int) -> None:
    path = tmp_path / "new" / "partition.png"
    plot_partition(divide(ring(ALL_ROUND), groups), path)
    assert colours_in(path) & set(COLOURS[:-1]) == set(COLOURS[:groups])  # the last is black, which text may contain
    assert [file.name for file in path.parent.iterdir()] == ["partition.png"]


def test_panels_are_those_that_have_something_to_show(ring, photographed) -> None:
    views = ring(ALL_ROUND)
    assert titles(draw_partition(divide(views, 3), None, None)) == [SPACE, ABOVE]
    assert titles(draw_partition(divide(views, 3), measure(views), None)) == [SPACE, ABOVE, ALIKE]
    for soft in (divide(views, 3, overlap=0.5), divide(views, 3, softness=0.2)):
        assert titles(draw_partition(soft, None, None)) == [SPACE, ABOVE, DRAWN]
    # Nothing but hard divisions goes without the matrix, whatever the settings say.
    by_hand = divide(views, 3)
    weights = by_hand.membership.copy()
    weights[0, -1] = 0.5
    assert titles(draw_partition(replace(by_hand, membership=weights), None, None)) == [SPACE, ABOVE, DRAWN]
    assert titles(draw_partition(divide(photographed(ALL_ROUND, [0, 7]), 3), None, None)) == [SPACE, ABOVE, PHOTOS]


def test_test_views_have_the_colours_of_the_groups_that_answer_for_them(ring) -> None:
    partition, test = divide(ring(ALL_ROUND), 4), ring([20, 110, 300], prefix="test/r_")
    assert partition.route(test.camera_to_worlds).tolist() == [1, 2, 4]
    expected = [to_rgba(COLOURS[group - 1]) for group in (1, 2, 4)]
    for axes in draw_partition(partition, None, test).axes[:2]:
        hollow = [drawn for drawn in axes.collections if drawn.get_label() == "test view"]
        assert [tuple(drawn.get_edgecolor()[0]) for drawn in hollow] == expected


def test_title_has_the_quality_and_how_many_photos_are_lost(photographed) -> None:
    views = photographed(ALL_ROUND, [0, 4, 5])
    views.photos[5].write_bytes(views.photos[5].read_bytes()[:50])  # damaged
    similarity, partition = measure(views), divide(views, 3)
    quality = assess(partition, similarity)
    figure = draw_partition(replace(partition, about={"quality": quality}), similarity, None)
    _, line, lost = figure.get_suptitle().splitlines()
    assert f"modularity {quality['modularity']:.3f} by frustum, {quality['featureless_modularity']:.3f}" in line
    assert lost == "10 photos not found or not readable"
    assert [len(axes.images) for axes in figure.axes if axes.get_title() == PHOTOS] == [1]


def test_rows_of_photos_run_round_the_axis(photographed) -> None:
    degrees = [5, 95, 355, 100, 20, 340]
    figure = draw_partition(divide(photographed(degrees, range(6)), 2, strategy="kmeans"), None, None)
    rows = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    red = [row[55, 75 + 150 * place, 0] // 20 for row in rows for place in range(row.shape[1] // 150)]
    assert red == [5, 2, 0, 4, 1, 3]  # from 340 degrees over 0 to 20, then 95 and 100


def test_rows_of_photos_say_how_many_of_the_views_they_show(photographed) -> None:
    partition = divide(photographed([*range(0, 26, 2), 180, 190], range(15)), 2, strategy="kmeans")
    rows = [axes for axes in draw_partition(partition, None, None).axes if axes.images]
    assert {row.get_yticklabels()[0].get_text().split("\n")[1] for row in rows} == {"10 of 12 views", "3 views"}


def test_names_with_dollars_are_no_formulas(ring, tmp_path: Path) -> None:
    partition = divide(ring(ALL_ROUND), 2, strategy="kmeans")
    plot_partition(replace(partition, settings={**partition.settings, "strategy": r"$\wrong$"}), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_views_on_a_border_are_ringed(ring) -> None:
    views = ring(range(0, 360, 10))
    similarity = measure(views)
    partition = divide(views, 2, strategy="kmeans")
    border = border_views(partition, similarity)
    assert 0 < border.sum() < len(views)
    above = draw_partition(partition, similarity, None).axes[1]
    rings = [drawn for drawn in above.collections if np.isin(88, drawn.get_sizes())]
    assert sum(len(drawn.get_offsets()) for drawn in rings) == border.sum()


def test_order_is_by_group_and_round_the_axis_in_any_frame(ring, random_transform) -> None:
    views = ring([5, 25, 355, 100, 20, 340, 190, 170, 12])
    turned = replace(views, camera_to_worlds=random_transform(3).apply(views.camera_to_worlds), upright=False)
    for some in (views, turned):
        partition = replace(manual(some, [1, 2, 1, 2, 1, 1, 3, 3, 1]), axis=find_axis(some))
        assert in_order(partition).tolist() == [5, 2, 0, 8, 4, 1, 3, 7, 6]


def test_shades_are_spread_over_what_different_views_have_in_common() -> None:
    values = np.array([[1.0, 0.2, 0.3], [0.2, 1.0, 0.1], [0.3, 0.1, 1.0]])
    assert 0.29 < darkest(values) <= 0.3
    assert darkest(np.eye(3)) == darkest(np.eye(1)) == 1.0


def test_small_photos_keep_their_shape_and_lie_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (300, 100), (0, 0, 0, 0)).save(tmp_path / "a.png")
    photo = small_photo(tmp_path / "a.png", 90, 90)
    assert photo is not None and photo.size == (90, 30) and photo.getpixel((5, 5)) == (255, 255, 255)


def test_a_photo_that_claims_to_be_huge_counts_as_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (300, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert small_photo(tmp_path / "a.png", 90, 90) is None


def test_drawing_leaves_pyplot_alone_and_importing_loads_no_drawing_library(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from dac_nerfstudio.partition import Views, divide\n"
        "from dac_nerfstudio.partition.picture import plot_partition\n"
        "print([name for name in ('matplotlib', 'jinja2', 'PIL') if name in sys.modules])\n"
        "views = Views(('a',), np.eye(4)[None, :3], np.ones((1, 6)))\n"
        f"plot_partition(divide(views, 1), {str(tmp_path / 'a.png')!r}); print('matplotlib.pyplot' in sys.modules)"
    )
    root = Path(dac_nerfstudio.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.split("\n") == ["[]", "False", ""]
