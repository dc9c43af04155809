"""How fast ``dac view`` shows a scene, and in how much memory, as one who opens its page finds it.

A viewer is started in a process of its own, and spoken to as its page speaks: a camera goes round the scene, a step
on for each picture that comes, and then stands still; in the end each expert and the baseline are looked at once, and
so loaded. No browser takes part. "processor" is the time that the viewer had on all cores: unlike the wall's, it hardly
depends on what else the machine does, and "frames per s" go by it. Pin both processes at once:

    taskset -c 0 python benchmarks/viewer.py outputs/demo --json viewer.json
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import msgspec
import numpy as np
import psutil
import timing
import tyro
from PIL import Image
from viser.transforms import SO3
from websockets.sync.client import ClientConnection, connect

STEP = 0.02
"""Radians that the camera moves between two pictures."""
PAUSE = 0.1
"""Seconds after which it moves on though none has come: a camera that is not heard of for 0.2 s is taken to stand."""
ASPECT = 1.5
"""Width over height of the page's scene."""
PATIENCE = 300.0
"""Seconds to wait for what has to come."""


@dataclass
class Options:
    """What to measure."""

    scene: Annotated[Path, tyro.conf.Positional]
    """Folder of results, such as outputs/demo."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    seconds: float = 20.0
    """How long the camera moves."""
    turns: int = 3
    """How often it stands still."""
    json: Optional[Path] = None
    """Also write all figures to this file."""


class Page:
    """Stands for the viewer's page: says where the camera is, chooses layers, receives pictures.

    Args:
        socket: leads to the viewer.
        process: the viewer's.
    """

    def __init__(self, socket: ClientConnection, process: psutil.Process) -> None:
        self.socket = socket
        self.process = process
        self.controls: dict[str, dict[str, Any]] = {}
        """Inputs of the panel by their ids, which are named in messages."""
        self.sizes: list[tuple[int, int]] = []
        """Width and height of each picture that has come."""
        self.distance = 0.0
        """Of the camera from the origin, once the panel has taken it somewhere."""
        self.angle = 0.0
        self.wait_for(lambda: {"Output type", "Max res"} <= {control["label"] for control in self.controls.values()})

    def receive(self, seconds: float) -> None:
        """Take what comes in so many seconds, or until a picture has."""
        end, pictures = time.perf_counter() + seconds, len(self.sizes)
        while len(self.sizes) == pictures and (left := end - time.perf_counter()) > 0:
            try:
                messages = msgspec.msgpack.decode(self.socket.recv(timeout=left))
            except TimeoutError:
                return
            for message in messages:
                if message["type"] == "BackgroundImageMessage":
                    self.sizes.append(Image.open(io.BytesIO(message["rgb_bytes"])).size)
                elif "label" in message and "value" in message:
                    self.controls[message["id"]] = message
                elif message["type"] == "GuiUpdateMessage" and message["id"] in self.controls:
                    self.controls[message["id"]].update(message["updates"])
                elif message["type"] == "SetCameraPositionMessage":
                    # The panel takes whoever opens the page to a training view.
                    self.distance = float(np.linalg.norm(message["position"]))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.perf_counter() + PATIENCE
        while not condition():
            if time.perf_counter() > end:
                raise TimeoutError(f"The viewer did not do in {PATIENCE:.0f} s what it was waited for.")
            self.receive(0.01)

    def send(self, kind: str, **content: Any) -> None:
        self.socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    def look(self) -> None:
        """Say where the camera is: on a circle round the origin, 30 degrees above it."""
        away = np.array([np.cos(self.angle) * np.sqrt(0.75), np.sin(self.angle) * np.sqrt(0.75), 0.5])
        right = np.array([-np.sin(self.angle), np.cos(self.angle), 0.0])
        pose = SO3.from_matrix(np.stack((right, np.cross(-away, right), -away), axis=1))
        self.send(
            "ViewerCameraMessage", wxyz=pose.wxyz.tolist(), position=((self.distance or 1.0) * away).tolist(), fov=0.7,
            aspect=ASPECT, look_at=[0.0, 0.0, 0.0], up_direction=[0.0, 0.0, 1.0],
        )  # fmt: skip

    def control(self, label: str) -> dict[str, Any]:
        """The input of a label, of which there is one."""
        (found,) = [control for control in self.controls.values() if control["label"] == label]
        return found

    def choose(self, layer: str) -> None:
        self.send("GuiUpdateMessage", id=self.control("Output type")["id"], updates={"value": layer})

    def whole(self) -> bool:
        """Whether the last picture has all pixels that the panel allows."""
        return bool(self.sizes) and max(self.sizes[-1]) == self.control("Max res")["value"]

    def processor(self) -> float:
        """Seconds that the viewer's process has had on all cores."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Megabytes of the viewer's process."""
        return round(self.process.memory_info().rss / 1e6)


def measure(page: Page, options: Options) -> list[dict[str, Any]]:
    """What a page shows, moving and at rest, and the memory that each takes."""
    page.look()
    page.wait_for(lambda: page.distance > 0)
    page.look()
    page.wait_for(page.whole)
    alone = page.memory()

    def moving(seconds: float) -> dict[str, Any]:
        page.sizes.clear()
        start, before = time.perf_counter(), page.processor()
        while (passed := time.perf_counter() - start) < seconds or not page.sizes:
            page.angle += STEP
            page.look()
            page.receive(PAUSE)
        frames, spent = len(page.sizes), page.processor() - before
        width, height = np.median(page.sizes, axis=0).astype(int)
        return {
            "camera": "moves",
            "size": f"{width} x {height}",
            "frames per s": round(frames / spent, 1),
            "wall, s": round(passed / frames, 3),
            "processor, s": round(spent / frames, 3),
        }

    def still() -> tuple[float, float]:
        """From a camera that stood still to the whole picture: seconds of the wall and of the processor."""
        page.angle += 0.1
        page.sizes.clear()
        page.look()
        start, before = time.perf_counter(), page.processor()
        page.wait_for(page.whole)
        return time.perf_counter() - start, page.processor() - before

    moving(options.seconds / 4)  # the viewer sets its size by the frames that it has seen
    rows = [moving(options.seconds)]
    walls, spent = map(timing.Times, zip(*(still() for _ in range(options.turns)), strict=True))
    width, height = page.sizes[-1]
    rows.append(
        {
            "camera": "stands",
            "size": f"{width} x {height}",
            "frames per s": round(1 / spent.median, 2),
            "wall, s": walls,
            "processor, s": spent,
        }
    )
    layers = page.control("Output type")["options"]
    others = [layer for layer in layers if layer.startswith("expert ") or layer == "baseline"]
    for layer in others:
        page.choose(layer)
        page.sizes.clear()
        page.wait_for(page.whole)
    memory = {"student alone, MB": alone, f"with {', '.join(others)}, MB": page.memory()}
    return [{**row, **memory} for row in rows]


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def viewing(options: Options) -> Iterator[tuple[Page, subprocess.Popen[bytes]]]:
    """The page of a viewer that is started for it, and the viewer's process."""
    port = free_port()
    command = [sys.executable, "-m", "dac_nerfstudio.cli", "view", str(options.scene), "--port", str(port)]
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {})
    with ExitStack() as stack:
        viewer = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        stack.callback(viewer.wait)
        stack.callback(viewer.terminate)
        end = time.perf_counter() + PATIENCE
        while True:
            try:
                connection = stack.enter_context(connect(f"ws://127.0.0.1:{port}", max_size=None, proxy=None))
                break
            except OSError:
                if viewer.poll() is not None or time.perf_counter() > end:
                    raise
                time.sleep(0.5)
        yield Page(connection, psutil.Process(viewer.pid)), viewer


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    cores = sorted(os.sched_getaffinity(0))
    with viewing(options) as (page, _):
        entries = [{**entry, "cores": cores} for entry in measure(page, options)]
    timing.show(f"dac view {options.scene} on {options.device}", entries)
    timing.write_results(options.json, options, entries)


if __name__ == "__main__":
    main()
