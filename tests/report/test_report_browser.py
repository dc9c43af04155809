"""The report in a real browser: two pictures are wiped, charts enlarged, by mouse, keys and a finger."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from run_folders import RUN, Maker

from dac_nerfstudio.report.writing import page_path, write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")

PICTURES = "document.querySelector('#wipe .pictures')"
SEAM = 5
"""Pixels either side of the middle in which the seam is drawn, and more."""


def place(page: Browser, element: str) -> list[int]:
    """Left, top, width and height of an element, once it is scrolled to."""
    rectangle = f"(e => {{ e.scrollIntoView({{block: 'center'}}); return e.getBoundingClientRect(); }})({element})"
    return [round(value) for value in page.run(f"(r => [r.x, r.y, r.width, r.height])({rectangle})")]


def pictures(page: Browser) -> np.ndarray:
    """What is shown to be wiped."""
    left, top, width, height = place(page, PICTURES)
    return page.screenshot()[top : top + height, left : left + width].astype(int)


def choose(page: Browser, name: str, *keys: str) -> np.ndarray:
    """What is shown once keys were pressed in one of the lists."""
    page.run(f"document.querySelector('#wipe [name={name}]').focus()")
    for key in keys:
        page.press(key)
    return pictures(page)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two pictures, of 255, but for their middle, where the seam may be drawn."""
    middle = one.shape[1] // 2
    difference = np.abs(one - other)
    difference[:, middle - SEAM : middle + SEAM] = 0
    return float(difference.mean())


def seam(page: Browser) -> float:
    """Where the seam is, in per cent."""
    return float(page.run("document.querySelector('#wipe input').value"))


@pytest.fixture
def page(whole: Maker, tmp_path: Path) -> Iterator[Browser]:
    """The report's page."""
    write_report(whole.folder, RUN)
    (tmp_path / "profile").mkdir()
    with Browser(page_path(whole.folder).as_uri(), tmp_path / "profile") as page:
        page.wait_for(f"document.readyState == 'complete' && !!{PICTURES}")
        yield page


def test_wiping_and_enlarging(page: Browser) -> None:
    wiped = pictures(page)
    student = choose(page, "left", "End")
    choose(page, "right", "Home", "ArrowDown")
    baseline = choose(page, "left", "Home", "ArrowDown")
    half = wiped.shape[1] // 2
    left, right = np.s_[:, : half - SEAM], np.s_[:, half + SEAM :]
    assert apart(student, baseline) > 10
    assert np.abs(wiped[left] - baseline[left]).mean() < 1 and np.abs(wiped[right] - student[right]).mean() < 1

    choose(page, "right", "End")
    page.run("document.querySelector('#wipe input').focus()")
    page.press("Home")
    assert seam(page) == 0 and apart(pictures(page), student) < 1
    x, y, width, height = place(page, PICTURES)
    page.drag((x + width / 2, y + height / 2), (x + width - 1, y + height / 2))
    assert seam(page) > 99 and apart(pictures(page), baseline) < 1
    assert apart(choose(page, "view", "ArrowDown"), baseline) > 10

    # By its key a chart is opened as large as the window, by the wheel it grows where that points.
    chart = "document.querySelector('.chart .enlarge')"
    page.run(f"{chart}.scrollIntoView({{block: 'center'}}); {chart}.focus()")
    before = page.screenshot().astype(int)
    page.press("Enter")
    page.wait_for("document.getElementById('large').open")
    opened = page.screenshot().astype(int)
    page.wheel(300, 400, down=-600)
    page.wait_for("document.querySelector('.room').scrollLeft > 0")
    grown = page.screenshot().astype(int)
    page.press("Escape")
    page.wait_for("!document.getElementById('large').open")
    assert min(apart(opened, before), apart(grown, opened)) > 1
    assert apart(page.screenshot().astype(int), before) < 0.1 and page.run(f"document.activeElement == {chart}")

    page.resize(390, 844, mobile=True)
    assert page.run("document.documentElement.scrollWidth") == 390, "nothing sticks out"
    x, y, width, height = place(page, PICTURES)
    page.touch((x + width / 2, y + height / 2), (x + width / 4, y + height / 2))
    assert 20 < seam(page) < 30
