"""``dac view``: where it listens, how it ends."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.render.view import latest_student, view_scene


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
