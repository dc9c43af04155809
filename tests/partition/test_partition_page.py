import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from pages import Page
from PIL import Image

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.partition import Similarity, assess, divide, measure
from dac_nerfstudio.partition.page import matrix, pyramids, space, write_page
from dac_nerfstudio.scene.views import viewing_directions

HOSTILE = """</script><script>alert(1)</script><img src=x onerror='alert("2")'>&amp;%{x}.jpg"""


@pytest.fixture
def scene(ring, tmp_path: Path):
    """A partition of twelve views with hostile names, one photo missing, with all that can be known of it."""
    # Not in order of azimuth.
    views, test = ring(range(0, 12 * 210, 210)), ring([15, 70, 140, 195, 255, 320], prefix="test/")
    paths = tuple(tmp_path / "photos" / f"{index}.jpg" for index in range(12))
    paths[0].parent.mkdir()
    for path in paths[1:]:
        Image.new("RGB", (640, 480), "brown").save(path)
    views = replace(views, names=tuple(f"{i}{HOSTILE}" for i in range(12)), photos=paths)
    test = replace(test, names=tuple(f"{name}{HOSTILE}" for name in test.names))
    similarity = measure(views)
    partition = divide(views, 3)
    about = {**partition.about, "notes": [f"note {HOSTILE}"], "quality": assess(partition, similarity, test)}
    return replace(partition, about=about), similarity, test


@pytest.fixture
def page(scene, tmp_path: Path) -> Page:
    partition, similarity, test = scene
    write_page(partition, tmp_path / "new" / "partition.html", similarity, test)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["partition.html"]
    return Page((tmp_path / "new" / "partition.html").read_text())


def test_names_are_text_and_nothing_else(scene, page: Page) -> None:
    names = scene[0].views.names
    assert sorted(page.text["figcaption"]) == sorted(names)
    assert len(page.all("script")) == 2  # the data and the page's own
    assert not set("<>&") & set(page.data())
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert f"note {HOSTILE}" in page.text["li"]
    for attributes in page.all("figure"):
        assert attributes["title"].startswith(tuple(f"{name}, group " for name in names))


def test_the_program_never_makes_markup_of_what_it_reads(page: Page) -> None:
    program = page.text["script"][-1]
    assert "textContent" in program
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert way not in program
    scene = json.loads(page.data())["scene"]
    words = [view["words"] for view in scene["views"] + scene["test"]]
    assert len(words) == 12 + 6 and all(HOSTILE in lines[0] for lines in words)


def test_page_fetches_nothing(page: Page) -> None:
    addresses = [
        value
        for _, attributes in page.elements
        for key, value in attributes.items()
        if key in ("src", "href", "srcset", "data", "poster", "action")
    ]
    assert len(addresses) == 11 and all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "http" not in policy


def test_photos_are_small_and_keep_their_shape_and_missing_ones_are_counted(page: Page) -> None:
    photos = page.all("img")
    for attributes in photos:
        with Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1]))) as photo:
            assert photo.format == "JPEG" and photo.size == (128, 96)
        assert attributes["loading"] == "lazy"
    assert len(photos) == 11
    assert any("1 photo not found" in text for text in page.text["p"])


def test_table_has_the_figures_of_every_group(scene, page: Page) -> None:
    quality = scene[0].about["quality"]
    cells = np.array(page.text["td"]).reshape(3, -1)
    assert cells[:, 0].tolist() == [str(size) for size in quality["sizes"]]
    assert cells[:, 2].tolist() == [f"{value:.3f}" for value in quality["within"]]
    assert cells[:, 1].astype(int).sum() == len(quality["border"]) > 0
    assert cells[:, 4].astype(int).sum() == 6
    for column, figure in ((5, "mean_distance"), (6, "largest_distance")):
        assert cells[:, column].tolist() == [f"{value:.3f}" for value in quality["test"][figure]]
    marked = [attributes for attributes in page.all("figure") if attributes["title"].endswith(", on a border")]
    assert len(marked) == len(quality["border"])
    assert page.text["b"] == [f"{quality['modularity']:.3f}", f"{quality['featureless_modularity']:.3f}"]


def test_what_is_not_known_is_left_out(ring, tmp_path: Path) -> None:
    partition = replace(divide(ring(range(0, 360, 30)), 3), about={})
    write_page(partition, tmp_path / "a.html")
    page = Page((tmp_path / "a.html").read_text())
    assert page.text["h2"] == ["Cameras in space"]
    assert not page.all("img") and not page.all("table") and "matrix" not in json.loads(page.data())


def test_cameras_are_pyramids_scaled_to_a_reach_of_1(scene) -> None:
    partition, similarity, test = scene
    drawn = space(partition, similarity, test)
    points = np.array([view["points"] for view in drawn["views"]])
    assert points.shape == (12, 5, 3)
    assert np.ptp(points[:, 0, :2], axis=0).max() == pytest.approx(2, abs=1e-3)
    lengths = np.linalg.norm(points[:, 1:] - points[:, :1], axis=-1)
    np.testing.assert_allclose(lengths, lengths[0, 0], atol=1e-3)
    assert [view["group"] for view in drawn["views"]] == partition.homes.tolist()
    assert [view["group"] for view in drawn["test"]] == partition.route(test.camera_to_worlds).tolist()


def test_pyramids_open_to_where_cameras_look(ring) -> None:
    views, length = ring(range(5, 360, 30)), 0.7
    drawn = pyramids(views, divide(views, 2).axis, length)
    tips, corners = drawn[:, 0], drawn[:, 1:]
    np.testing.assert_allclose(np.linalg.norm(corners - tips[:, None], axis=2), length, rtol=1e-6)
    middle = corners.mean(axis=1) - tips
    directions = viewing_directions(views.camera_to_worlds)
    np.testing.assert_allclose(middle / np.linalg.norm(middle, axis=1, keepdims=True), directions, atol=1e-6)
    assert (corners[:, :2, 2] > corners[:, 2:, 2]).all()  # the first two are the upper ones
    width, height = np.linalg.norm(corners[0, 1] - corners[0, 0]), np.linalg.norm(corners[0, 2] - corners[0, 1])
    assert width / height == pytest.approx(16 / 12)


def test_cameras_name_their_view_and_its_similarity(scene) -> None:
    partition, similarity, _ = scene
    views = space(partition, similarity, None)["views"]
    assert [view["index"] for view in views] == list(range(12))
    others = np.flatnonzero((partition.homes == partition.homes[4]) & (np.arange(12) != 4))
    assert views[4]["words"][0] == f"4{HOSTILE}"
    assert f"similarity to its group: {similarity.values[4, others].mean():.3f}" in views[4]["words"]


def test_the_matrix_holds_the_similarity_of_the_two_views_it_names(scene) -> None:
    partition, similarity, _ = scene
    drawn = matrix(partition, similarity)
    order = drawn["order"]
    assert sorted(order) == list(range(12)) and drawn["names"] == [partition.views.names[i] for i in order]
    values = np.frombuffer(base64.b64decode(drawn["values"]), np.uint8).reshape(12, 12) / 255
    np.testing.assert_allclose(values, similarity.values[order][:, order], atol=0.5 / 255 + 1e-9)
    assert drawn["groups"] == sorted(partition.homes)


def test_similarity_of_other_views_is_refused(scene, tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match="The similarity is of 3 views, but the partition has 12"):
        write_page(scene[0], tmp_path / "a.html", Similarity("frustum", np.eye(3)))
    assert not (tmp_path / "a.html").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_a_phone_turns_pinches_and_picks_and_keys_do_too(scene, page: Page, tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    with Browser((tmp_path / "new" / "partition.html").as_uri(), tmp_path / "profile") as browser:
        browser.resize(390, 844, mobile=True)
        browser.wait_for("document.readyState == 'complete' && placed.length > 0")
        assert browser.run("document.documentElement.scrollWidth") == 390, "nothing sticks out"
        canvas = "document.querySelector('#scene canvas')"
        browser.run(f"{canvas}.scrollIntoView({{block: 'center'}})")
        x, y, width, height = browser.run(f"(r => [r.x, r.y, r.width, r.height])({canvas}.getBoundingClientRect())")
        start = browser.screenshot()

        browser.pinch(x + width / 2, y + height / 2, 60, 120)
        zoom, turn = browser.run("zoom"), browser.run("turn")
        assert zoom == pytest.approx(2.0, rel=0.02) and turn == -1.02, "fingers apart come nearer and turn nothing"
        browser.touch((x + 100, y + 100), (x + 150, y + 100))
        assert browser.run("turn") == pytest.approx(turn - 0.4, abs=0.01) and browser.run("zoom") == zoom
        # A finger is less exact than a mouse.
        places = browser.run("placed.filter(({view}) => view.index).map(({points}) => points[0].slice(0, 2))")
        left, top = min(places, key=lambda place: np.hypot(place[0] - width / 2, place[1] - height / 2))
        browser.touch((x + left, y + top + 15))
        assert browser.run("marked") is not None
        assert browser.run("!!document.querySelector('#scene-photos figcaption')")

        browser.run(f"{canvas}.focus()")
        turn = browser.run("turn")
        for key in ("+", "ArrowLeft"):
            browser.press(key)
        assert browser.run("zoom") == pytest.approx(1.2 * zoom) and browser.run("turn") > turn
        assert np.abs(browser.screenshot().astype(int) - start).mean() > 1
