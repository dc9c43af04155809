"""The viewer in a real browser: in ns-viewer a group is flown to, a layer chosen, two layers wiped; in dac view a
camera is clicked."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import CHROMIUM, Browser, choose, split_screen, wait_for_page, wait_for_picture

from dac_nerfstudio.runs.layout import CONFIG, PARTITION, run_dirs
from dac_nerfstudio.runs.reopen import recorded_config

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")

SCENE = (slice(60, 790), slice(0, 950))
"""Where the page shows the scene, beside its panel."""


@pytest.fixture
def addresses(results: Callable[..., Path], tmp_path: Path) -> Iterator[list[str]]:
    """Where ns-viewer and dac view show the same student."""
    scene_dir = results()
    (student,) = run_dirs(scene_dir, "dac-finetune")
    write_config(student, tmp_path / "demo")
    ports = [str(free_port()) for _ in range(2)]
    host = ("--viewer.websocket-host", "127.0.0.1")
    commands = (
        ("nerfstudio.scripts.viewer.run_viewer", "--load-config", str(student / CONFIG), *host,
         "--viewer.websocket-port", ports[0]),
        ("dac_nerfstudio.cli", "view", str(scene_dir), "--port", ports[1]),
    )  # fmt: skip
    log = tmp_path / "viewers.log"
    with log.open("wb") as output, ExitStack() as viewers:
        for module, *options in commands:
            command = [sys.executable, "-m", module, *options]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            viewer = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
            viewers.callback(viewer.wait, 30)
            viewers.callback(viewer.terminate)
        yield [f"http://127.0.0.1:{port}" for port in ports]
    print(log.read_text(errors="replace")[-4000:])


def write_config(run_dir: Path, data: Path) -> None:
    """Leave the configuration in a run's folder from which nerfstudio's commands open it."""
    config = recorded_config(run_dir, data, "cpu")
    config.timestamp = run_dir.name
    config.pipeline.datamanager.partition = run_dir / PARTITION
    (run_dir / CONFIG).write_text(yaml.dump(config))


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def test_groups_layers_wipe_and_photos(addresses: list[str], tmp_path: Path) -> None:
    (tmp_path / "profile").mkdir()
    with Browser("about:blank", tmp_path / "profile") as page:
        for address, look in zip(addresses, (look_at_layers, look_at_photos), strict=True):
            assert wait_for_page(address, lambda: True)
            page.open(address)
            wait_for_picture(page)
            look(page)


def look_at_layers(page: Browser) -> None:
    start = settled(page)
    assert start.std() > 1, "something is shown"

    choose(page, "Show", "2")
    flown = settled(page, differs_from=start)
    assert page.run("document.body.innerText.includes('This view is of group 2 ■')")
    assert page.run("document.body.innerText.includes('■ group 2, ')")

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


def look_at_photos(page: Browser) -> None:
    assert settled(page).std() > 1
    # Somewhere in view, hidden by what is rendered or not, are other training cameras.
    places = ((x, y) for y in range(100, 780, 60) for x in range(60, 940, 60))
    assert any(page.click(*place) or page.run("!!document.querySelector('img[alt=photo]')") for place in places)
