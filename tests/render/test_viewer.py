"""``dac view``: where it listens, how it ends, and benchmarks/viewer.py, which measures it."""

from __future__ import annotations

import importlib
import io
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.render.view import latest_student, view_scene

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
benchmark = importlib.import_module("viewer")


def test_moving_and_standing_pictures_are_timed_all_models_loaded_and_ctrl_c_ends_it(
    results: Callable[..., Path],
) -> None:
    # Where tests run in the background of a shell, the signal would be ignored, here and in what is started from here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = benchmark.Options(results(), seconds=1.0, turns=1)
    with benchmark.viewing(options) as (page, process):
        moves, stands = benchmark.measure(page, options)
        listening = [one for one in psutil.net_connections("tcp") if (one.pid, one.status) == (process.pid, "LISTEN")]
        page.look()  # and while it renders
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}, "nobody else sees it"
    assert (moves["camera"], stands["camera"]) == ("moves", "stands")
    assert stands["size"] == "512 x 341" and int(moves["size"].split()[0]) < 512
    assert 0 < moves["processor, s"] < stands["processor, s"].median
    assert "with expert 1, expert 2, baseline, MB" in stands


def test_a_broken_record_among_students_is_passed_over(results: Callable[..., Path]) -> None:
    scene_dir = results()
    (whole,) = (scene_dir / "dac-finetune").iterdir()
    broken = whole.with_name("broken")
    broken.mkdir()
    (broken / "stage.json").write_text("{")
    assert latest_student(scene_dir, None) == whole
    with pytest.raises(StageError, match="holds no finished student named broken"):
        latest_student(scene_dir, "broken")


def test_it_listens_where_it_is_asked_to(results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import nerfstudio.viewer.viewer as room

    hosts, output = [], io.StringIO()

    class Viewer:
        def __init__(self, config: Any, **_: Any) -> None:
            hosts.append((config.websocket_host, config.websocket_port))
            self.pause_train, self.render_statemachines = SimpleNamespace(), {}
            # The next free port, as viser does where the wanted one is taken.
            self.viser_server = SimpleNamespace(stop=lambda: None, get_port=lambda: config.websocket_port + 1)
            self.init_scene = self.update_step = lambda *_: None

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "Viewer", Viewer)
    monkeypatch.setattr(time, "sleep", interrupted)
    view_scene(results(), None, None, 7011, "0.0.0.0", Console(file=output, width=200))
    assert hosts == [("0.0.0.0", 7011)]
    assert ":7012" in output.getvalue() and "//0.0.0.0" not in output.getvalue()
