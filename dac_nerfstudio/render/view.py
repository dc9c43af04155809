"""``dac view``: nerfstudio's viewer on a scene's student, for this machine alone unless asked otherwise."""

from __future__ import annotations

import time
from pathlib import Path
from socket import gethostname
from threading import Lock
from typing import Optional

from rich.console import Console

from dac_nerfstudio.device import default_device
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.messages import say
from dac_nerfstudio.naming import UNBOUNDED, MethodName
from dac_nerfstudio.presets import KINDS
from dac_nerfstudio.runs.layout import RECORD
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.reopen import photos_of, recorded_config, reopen
from dac_nerfstudio.runs.store import find


def view_scene(place: Path, run: Optional[str], data: Optional[Path], port: int, host: str, console: Console) -> None:
    """Show a run until the user has had enough; arguments as of ``dac view``.

    Raises:
        StageError: there is no finished student, a file is damaged, or the photos are gone or others.
    """
    # Not at the top: nerfstudio's writer can be imported only after what it goes round in circles with.
    from nerfstudio.utils import writer
    from nerfstudio.viewer.viewer import Viewer

    folder = place if (place / RECORD).exists() else latest_student(place, run)
    with console.status("Opening the scene …"):
        config = recorded_config(folder, data or photos_of(folder), default_device())
        pipeline = reopen(config, folder)
    config.viewer.websocket_host, config.viewer.websocket_port = host, port
    viewer = Viewer(
        config.viewer,
        log_filename=folder / config.viewer.relative_log_filename,
        datapath=pipeline.datamanager.get_datapath(),
        pipeline=pipeline,
        train_lock=Lock(),
    )
    # Nothing is logged, but the viewer counts its rays there.
    config.logging.local_writer.enable = False
    writer.setup_local_writer(config.logging, max_iter=config.max_num_iterations)
    viewer.init_scene(pipeline.datamanager.train_dataset, "completed", pipeline.datamanager.eval_dataset)
    viewer.update_step(Stage.load(folder).steps)
    viewer.pause_train.visible = False  # there is no training to pause
    # Browsers have no page at the address that stands for all of a machine's.
    address = host if host != "0.0.0.0" else gethostname()
    port = viewer.viser_server.get_port()  # the next free one, where the wanted one is not
    say(console, f"{folder}: http://{address}:{port}  (Ctrl-C ends it)")
    try:
        while True:
            time.sleep(0.2)
    except KeyboardInterrupt:
        # A thread that still renders while Python ends takes the process down with it.
        renderers = list(viewer.render_statemachines.values())
        for renderer in renderers:
            renderer.running, renderer.interrupt_render_flag = False, True
        for renderer in renderers:
            renderer.join()
        viewer.viser_server.stop()
        console.print("Stopped.")


def latest_student(scene_dir: Path, run: Optional[str]) -> Path:
    """Run folder of the fine-tuned student that was finished last, of all or of those of one name.

    Raises:
        StageError: there is none.
    """
    methods = [MethodName("finetune", suffix, model) for suffix in ("", UNBOUNDED) for model in KINDS.values()]
    students = [one for method in methods for one in find(scene_dir, method)]
    finished = [
        student.folder for student in students if student.record.complete and run in (None, student.folder.name)
    ]
    if not finished:
        named = f" named {run}" if run else ""
        raise StageError(
            f"{scene_dir} holds no finished student{named}. Make one (dac run --data …), or name another run's folder."
        )
    return max(finished, key=lambda folder: (folder / RECORD).stat().st_mtime)
