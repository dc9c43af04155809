"""The viewer in a real browser: a group is flown to, a layer chosen, two layers wiped, a camera clicked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser, choose, split_screen, wait_for_page, wait_for_picture

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")

SCENE = (slice(60, 790), slice(0, 950))
"""Where the page shows the scene, beside its panel."""


@pytest.fixture
def page(results: Callable[..., Path], tmp_path: Path) -> Iterator[Browser]:
    """The viewer's page on a scene's student, once it shows a picture."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "dac_nerfstudio.cli", "view", str(results()), "--port", port]
    log = tmp_path / "viewer.log"
    with log.open("wb") as output:
        viewer = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"})
    profile = tmp_path / "profile"
    profile.mkdir()
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for_page(address, lambda: viewer.poll() is None)
        with Browser(address, profile) as browser:
            wait_for_picture(browser)
            yield browser
    finally:
        viewer.terminate()
        viewer.wait(30)
        print(log.read_text(errors="replace")[-4000:])


def settled(page: Browser, differs_from: np.ndarray | None = None) -> np.ndarray:
    """The scene's part of the page, once it has stopped to change and is another than it was."""
    shown = [page.screenshot()[SCENE]]

    def still() -> np.ndarray:
        shown.append(page.screenshot()[SCENE])
        if apart(*shown[-2:]) > 0.1 or (differs_from is not None and apart(shown[-1], differs_from) < 0.5):
            raise LookupError("The page has not changed, or has not stopped to.")
        return shown[-1]

    return page.when(still)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two screenshots, of 255."""
    return float(np.abs(one.astype(float) - other).mean())


def test_groups_layers_wipe_and_photos(page: Browser) -> None:
    start = settled(page)
    assert start.std() > 1, "something is shown"

    choose(page, "Show", "2")
    flown = settled(page, differs_from=start)
    assert page.run("document.body.innerText.includes('This view is of group 2')")

    choose(page, "Output type", "baseline")
    baseline = settled(page, differs_from=flown)
    choose(page, "Output type", "student - experts")
    difference = settled(page, differs_from=baseline)
    assert apart(difference, flown) > 0.5

    choose(page, "Output type", "rgb")
    student = settled(page, differs_from=difference)
    split_screen(page)
    choose(page, "Output render split", "baseline")
    wiped = settled(page, differs_from=student)
    width = wiped.shape[1]
    left, right = (slice(None), slice(0, width // 4)), (slice(None), slice(3 * width // 4, width))
    assert apart(wiped[left], student[left]) < apart(wiped[left], baseline[left])
    assert apart(wiped[right], baseline[right]) < apart(wiped[right], student[right])

    # Somewhere in view, hidden by what is rendered or not, are other training cameras.
    places = ((x, y) for y in range(100, 780, 60) for x in range(60, 940, 60))
    assert any(page.click(*place) or page.run("!!document.querySelector('img[alt=photo]')") for place in places)
