"""What tests of the commands share: a shell, the trainings by ``ns-train``, and a scene of real photos."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from colmap_files import Camera, Photo, write_text
from forks import run_in_fork
from PIL import Image
from scipy.spatial.transform import Rotation
from tiny_flags import TINY_MODEL

from dac_nerfstudio.cli import main
from dac_nerfstudio.launch.flags import words
from dac_nerfstudio.launch.plan import Plan, Request, make_plan
from dac_nerfstudio.presets import PRESETS
from dac_nerfstudio.scene.data import read_views

STEPS = 90
SAVED = 40
"""A step at which the trainings that are resumed had been saved."""
GROUPS = 2
TEST_VIEWS = 4

TINY = (
    *words(TINY_MODEL),
    *("--pipeline.datamanager.train-num-rays-per-batch", "128"),
    *("--optimizers.fields.scheduler.warmup-steps", "5"),
    *("--optimizers.proposal-networks.scheduler.warmup-steps", "5"),
    *("--vis", "tensorboard"),
    *("--logging.steps-per-log", "1"),
)
SAVE_OFTEN = ("--steps-per-save", str(SAVED), "--save-only-latest-checkpoint", "False")
METHODS = ("dac-expert 1", "dac-expert 2", "dac-baseline", "dac-distill", "dac-finetune", "dac-ensemble")


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    output: str
    """stdout and stderr together."""


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Shell:
    """Runs the scripts that were installed with this Python, in a folder, with neither a GPU nor an ffmpeg in sight."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        search = [part for part in os.environ["PATH"].split(os.pathsep) if not Path(part, "ffmpeg").exists()]
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join(search),
            "PYTHONWARNINGS": "ignore",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(Path(sys.executable).parent / script), *arguments],
            cwd=self.folder,
            env=self.environment,
            # What runs in the background of a script ignores Ctrl-C, and so would all that it starts.
            preexec_fn=_hear_interrupts,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, script: str, *arguments: str, succeed: bool = True) -> Finished:
        """Run a command to its end, in a fork; one that has to succeed shows its output if it does not."""
        code, output = run_in_fork(script, arguments, self.folder, self.environment, timeout=300)
        assert not succeed or code == 0, f"{script} {' '.join(arguments)}:\n{output[-4000:]}"
        return Finished(code, output)

    def dac(self, *arguments: str) -> Finished:
        """Run ``dac`` in this very process, whose server forks what `dac run` starts."""
        before, output = Path.cwd(), io.StringIO()
        os.chdir(self.folder)
        try:
            with patch.object(sys, "argv", ["dac", *arguments]), redirect_stdout(output), redirect_stderr(output):
                main()
        except SystemExit as ended:
            return Finished(int(ended.code or 0), output.getvalue())
        finally:
            os.chdir(before)
        return Finished(0, output.getvalue())


def planned(shell: Shell, **changes: Any) -> Plan:
    """What ``dac run`` plans for the scene by default, in two groups."""
    preset, groups = changes.pop("preset", "quick"), changes.pop("groups", GROUPS)
    request = Request(
        data=shell.folder / "demo",
        output_dir=shell.folder / "whole",
        scene="demo",
        divide={} if groups is None else {"groups": groups},
        seed=7,
    )
    return make_plan(replace(request, **changes), PRESETS[preset])


@dataclass(frozen=True)
class Training:
    """One run of ns-train."""

    method: str
    run_dir: Path
    """Relative to the folder that commands are run in."""
    flags: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Names of the trainings that have to be there first."""


def training(name: str, suffix: str = "", run: str = "run", needs: tuple[str, ...] = (), *extra: str) -> Training:
    """A registered method, on the scene; ``suffix`` as in the method's name."""
    stage, _, group = name.partition(" ")
    scene = "real" if suffix else "demo"
    folder = Path("outputs", scene, f"{stage}{suffix}", f"group-{group}" if group else "", run)
    flags = (
        *("--data", scene, "--experiment-name", scene, "--timestamp", run, "--groups", str(GROUPS)),
        *(("--group", group) if group else ()),
        *("--max-num-iterations", str(STEPS), *TINY, *extra),
        *(("colmap",) if suffix else ()),
    )
    return Training(f"{stage}{suffix}", folder, flags, needs)


def all_trainings() -> dict[str, Training]:
    """Every registered method for both kinds of scenes (names end in -360 as methods do), then some with a twist."""
    needs = {
        "dac-distill": ("dac-expert 1", "dac-expert 2"),
        "dac-ensemble": ("dac-expert 1", "dac-expert 2"),
        "dac-finetune": ("dac-distill",),
    }
    extra = {"dac-baseline": SAVE_OFTEN, "dac-distill": SAVE_OFTEN}
    found: dict[str, Training] = {}
    for method in METHODS:
        for suffix in ("", "-360"):
            wanted = tuple(f"{need}{suffix}" for need in needs.get(method, ()))
            more = extra.get(method, ()) if not suffix else ()
            if method == "dac-ensemble" and not suffix:
                more = ("--pipeline.sharpness", "inf")
            found[f"{method}{suffix}"] = training(method, suffix, "run", wanted, *more)
    for method in extra:
        source = found[method].run_dir / "nerfstudio_models"
        flags = ("--load-dir", str(source), "--load-step", str(SAVED))
        # Not before fine-tuning, which by default starts from the latest student.
        found[f"resumed {method}"] = training(method, "", "resumed", (method, "dac-finetune"), *flags)
    still = (
        *("--student", str(found["dac-distill"].run_dir), "--max-num-iterations", "1"),
        *("--optimizers.fields.optimizer.lr", "0", "--optimizers.proposal-networks.optimizer.lr", "0"),
    )
    found["still dac-finetune"] = training("dac-finetune", "", "still", ("dac-distill", "dac-finetune"), *still)
    return found


class Trainings(Mapping[str, Path]):
    """Run folders by the names of ``all_trainings``; looking one up waits until it is there."""

    def __init__(self, shell: Shell, background: ThreadPoolExecutor) -> None:
        self.shell = shell
        self.futures: dict[str, Future[Path]] = {}
        # Each comes after those that it needs, so that waiting for them holds up nobody for ever.
        for name, one in all_trainings().items():
            self.futures[name] = background.submit(self._train, one)

    def _train(self, one: Training) -> Path:
        for need in one.needs:
            self.futures[need].result()
        self.shell("ns-train", one.method, *one.flags)
        return self.shell.folder / one.run_dir

    def __getitem__(self, name: str) -> Path:
        return self.futures[name].result()

    def __iter__(self) -> Iterator[str]:
        return iter(self.futures)

    def __len__(self) -> int:
        return len(self.futures)


def make_real_scene(source: Path, data: Path) -> None:
    """The demo scene as if it had been photographed: photos without alpha, and a COLMAP model whose cameras stand in a
    frame of their own and share points with their neighbours."""
    turn = Rotation.from_euler("xyz", [100, 20, -30], degrees=True)
    random = np.random.default_rng(0)
    points = random.normal(size=(400, 3))
    photos, lists = [], {}
    for split in ("train", "val", "test"):
        views = read_views(source, split)
        lists[split] = [name.replace("/", "_") for name in views.names]
        for name, photo, pose in zip(lists[split], views.photos or (), views.camera_to_worlds):
            (data / "images").mkdir(parents=True, exist_ok=True)
            with Image.open(photo) as image:
                Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert(
                    "RGB"
                ).save(data / "images" / name)
            to_camera = (turn * Rotation.from_matrix(pose[:, :3] * [1, -1, -1])).inv()
            x, y, z, w = to_camera.as_quat()
            shift = -to_camera.apply(turn.apply(pose[:, 3]))
            seen = np.flatnonzero(points @ pose[:, 3] > 2)  # points on a sphere, from the side they face
            photos.append(Photo(len(photos) + 1, name, (w, x, y, z), tuple(shift), points=tuple(seen.tolist())))
    fx, fy, cx, cy, width, height = views.intrinsics[0]
    model = data / "colmap" / "sparse" / "0"
    model.mkdir(parents=True)
    write_text(model, [Camera(1, "PINHOLE", int(width), int(height), (fx, fy, cx, cy))], photos)
    (model / "points3D.txt").write_text(
        "".join(f"{i} {x} {y} {z} 0 0 0 1 1 0\n" for i, (x, y, z) in enumerate(turn.apply(points)))
    )
    for split, names in lists.items():
        (data / f"{split}_list.txt").write_text("\n".join(names) + "\n")
