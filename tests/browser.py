"""Headless Chromium on a page, such as the viewer's, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import connect

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
"""The browser, where there is one."""
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy that the machine may have is of no use for 127.0.0.1."""

LABELLED = "[...document.querySelectorAll('label')].filter(l => l.innerText == '{}').map(l => l.control)"
"""The inputs of a label, in JavaScript."""
PLACE = "(e => {{ e.scrollIntoView(); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + 9]; }})({})"
"""Where an element is, once it is scrolled to, in JavaScript."""
KEYS = {"Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowDown": 40, "+": 187}
"""What systems call the keys that are pressed."""


def wait_for_page(address: str, alive: Callable[[], bool], seconds: float = 240) -> str:
    """What is served at an address once it is; empty where nothing was in time, or its server is no longer alive."""
    end = time.monotonic() + seconds
    while alive() and time.monotonic() < end:
        try:
            with DIRECT.open(address, timeout=5) as page:
                return str(page.read().decode(errors="replace"))
        except OSError:
            time.sleep(0.3)
    return ""


class Browser:
    """A browser with one page, at first of 1280 x 800 pixels; closed at the end of a ``with`` block.

    Args:
        address: of the page.
        profile: an empty folder for what it keeps.
    """

    def __init__(self, address: str, profile: Path) -> None:
        assert CHROMIUM is not None
        # WebGL without a graphics card; root may start no sandbox.
        flags = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
        places = ("--remote-debugging-port=0", f"--user-data-dir={profile}", "--window-size=1280,800")
        self.log = (profile / "log").open("wb")
        self.process = subprocess.Popen(
            [CHROMIUM, *flags, *places, "--no-proxy-server", "--disable-dev-shm-usage", "about:blank"],
            stdout=self.log, stderr=self.log, env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
        )  # fmt: skip
        port = self.when(lambda: (profile / "DevToolsActivePort").read_text().split()[0])
        pages = json.loads(DIRECT.open(f"http://127.0.0.1:{port}/json/list").read())
        (page,) = [one for one in pages if one["type"] == "page"]
        self.closing = ExitStack()
        self.socket = self.closing.enter_context(connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None))
        self.number = 0
        self.resize(1280, 800)
        self.open(address)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()
        self.process.terminate()
        self.process.wait(30)
        self.log.close()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have something done, and its result."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    def run(self, script: str) -> Any:
        """What an expression in JavaScript comes to."""
        return self.send("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60) -> Any:
        """The first value of an expression that is neither false nor missing."""

        def value() -> Any:
            found = self.run(script)
            if not found:
                raise LookupError(script)
            return found

        return self.when(value, seconds)

    def click(self, x: float, y: float) -> None:
        """Click at a place, in pixels from the top left."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            time.sleep(0.1)

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, move it by the others and let go of it at the last."""
        kinds = ("mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased")
        for kind, (x, y) in zip(kinds, (*places, places[-1]), strict=True):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def touch(self, *places: tuple[float, float]) -> None:
        """Put a finger on the first place, move it by the others and take it off at the last."""
        for number, (x, y) in enumerate(places):
            points = [{"x": x, "y": y}]
            self.send("Input.dispatchTouchEvent", type="touchMove" if number else "touchStart", touchPoints=points)
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def pinch(self, x: float, y: float, before: float, after: float) -> None:
        """Put two fingers either side of a place, so many pixels apart, move them as far apart and take them off."""
        for number in range(6):
            half = (before + number / 5 * (after - before)) / 2
            points = [{"x": x - half, "y": y, "id": 0}, {"x": x + half, "y": y, "id": 1}]
            self.send("Input.dispatchTouchEvent", type="touchMove" if number else "touchStart", touchPoints=points)
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def wheel(self, x: float, y: float, down: float) -> None:
        """Turn the mouse's wheel at a place, by so many pixels."""
        self.send("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=down)

    def press(self, key: str) -> None:
        """Press and release a key by its name in JavaScript."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind, typed in (("keyDown", text), ("keyUp", {})):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key], **typed)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Give the page a size, in pixels; a mobile one has the browser of a phone."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def open(self, address: str) -> None:
        """Go to a page."""
        self.send("Page.navigate", url=address)

    def screenshot(self) -> np.ndarray:
        """The page as one sees it: bytes [height, width, 3]."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def when(self, attempt: Callable[[], Any], seconds: float = 60) -> Any:
        """The result of an attempt that is made again until it succeeds."""
        end = time.monotonic() + seconds
        while True:
            try:
                return attempt()
            except (OSError, LookupError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)


def wait_for_picture(page: Browser) -> None:
    """Wait until the viewer has layers to offer and shows the student."""
    page.wait_for("document.body && document.body.innerText.includes('Layers are among')", 240)
    page.wait_for(LABELLED.format("Output type") + "[0]?.value == 'rgb'", 120)


def choose(page: Browser, label: str, value: str) -> None:
    """Choose from a dropdown of the panel."""
    page.click(*page.wait_for(PLACE.format(LABELLED.format(label) + "[0]")))
    listed = f"document.getElementById({LABELLED.format(label)}[0].getAttribute('aria-controls'))"
    option = f"[...{listed}.querySelectorAll('[role=option]')].find(o => o.innerText == '{value}')"
    page.click(*page.wait_for(f"{option} && " + PLACE.format(option)))
    page.wait_for(LABELLED.format(label) + f"[0].value == '{value}'")


def split_screen(page: Browser) -> None:
    """Enable the wipe: its box is the first of the two called so."""
    page.click(*page.wait_for(PLACE.format(LABELLED.format("Enable") + "[0]")))
