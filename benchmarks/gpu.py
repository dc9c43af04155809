"""All that there is to know of a new GPU, most informative first, within a given time.

    python benchmarks/gpu.py --minutes 20 --json gpu.json

Each part runs in a process of its own, so that one that fails or hangs costs no other; what it has found is kept. The
file is written after every figure. The same command goes on from it: parts that are done with the same settings, on the
same device, are not done again. Parts that no longer fit into the time are named as skipped; the last ones, which train
with the reference's constants, take all that is left.

Without CUDA, or with --small, everything is tiny and takes a minute or two: it then shows that the script works, and
nothing else.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Optional
from unittest.mock import patch

import lookup
import memory
import render
import step
import timing
import torch
import tyro
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from rich.console import Console
from torch import Tensor

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.device import default_device
from dac_nerfstudio.files import write_json
from dac_nerfstudio.kplanes.lookup import lookup as look_up
from dac_nerfstudio.kplanes.regularizers import squared_differences
from dac_nerfstudio.methods import BOUNDED, methods

DECODERS = ("explicit", "hybrid")
STAGES = ("baseline", "distill", "expert")
DAC = (sys.executable, "-c", "from dac_nerfstudio.cli import main; main()")
"""As `dac`, which is not on PATH where the package is not installed."""


@dataclass
class Options:
    """How long, and on what."""

    minutes: float = 20.0
    """Time for all parts together."""
    json: Path = Path("gpu.json")
    """File of results; the same command goes on from what is in it."""
    data: Optional[Path] = None
    """Scene in Blender's format for real training; the generated one without it."""
    small: bool = False
    """Everything tiny: to see that the script works. Always so without CUDA."""
    parts: tuple[str, ...] = ()
    """Names of the parts to carry out, where time is short; by default all."""


@dataclass(frozen=True)
class Task:
    """What a part has to know."""

    device: str
    small: bool
    data: Optional[Path]
    folder: Path
    """Where files go that are written on the way."""
    context: str
    """How multiprocessing starts processes."""
    until: float
    """When to be done, in the seconds of time.time()."""
    results: dict[str, Any] = field(default_factory=dict)
    """Results of the parts before, by name."""

    @property
    def size(self) -> str:
        return "quick" if self.small else "reference"

    @property
    def options(self) -> step.Options:
        """How steps are timed."""
        return step.Options(device=self.device, rays=64 if self.small else 4096, turns=1 if self.small else 5)

    @property
    def demo(self) -> Path:
        """The generated scene."""
        tiny = {"size": 24, "train": 12, "val": 2, "test": 4} if self.small else {}
        return make_demo_scene(self.folder / "demo", **tiny)

    @property
    def scene(self) -> Path:
        """The scene for real training."""
        return self.data or self.demo

    @property
    def seconds(self) -> float:
        """Left."""
        return self.until - time.time()


Tell = Callable[[dict[str, Any]], None]
"""Adds a row to the results of a part, at once."""


@dataclass(frozen=True)
class Part:
    """A question, and how long its answer takes on a GPU."""

    name: str
    ask: Callable[[Task, Tell], None]
    least: float = 20.0
    """Seconds without which it is not begun."""
    most: float = float("inf")
    """Seconds after which it is stopped."""
    interpreted: bool = False
    """Whether Triton's interpreter runs its kernels, where there is no CUDA."""


# What is asked


def machine(task: Task, tell: Tell) -> None:
    """Device, versions and bandwidth."""
    device = torch.device(task.device)
    about = timing.machine(device, ("nerfstudio", "numba", "triton", "tinycudann"))
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {"memory, GB": round(properties.total_memory / 1e9, 1), "cuda": torch.version.cuda}
        about |= {"compute capability": f"{properties.major}.{properties.minor}"}
    tell({**about, "copy, GB/s": round(timing.copy_bandwidth(device, 16 if task.small else 1024) / 1e9, 1)})


def exactness(task: Task, tell: Tell) -> None:
    """Triton's kernels beside plain PyTorch in single precision on the same numbers."""
    sizes: list[tuple[tuple[int, ...], int, int]] = [((2, 7), 4, 30), ((5,), 8, 30)]
    if not task.small:
        points = 4096 * 48
        sizes = [((128, 256, 512), 32, points), ((64, 128, 256, 512), 32, points)]
        sizes += [((64,), 8, 4096 * 256), ((128,), 8, 4096 * 128)]
    for resolutions, channels, points in sizes:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            torch.manual_seed(0)
            # Off zero, as trained planes are; beyond the box, too, where the border's values count.
            planes = [torch.rand(3, r, r, channels, device=task.device) + 0.1 for r in resolutions]
            where = torch.rand(points, 3, device=task.device) * 2.2 - 1.1
            stored = [plane.to(dtype) for plane in planes]
            about = {"planes": f"{','.join(map(str, resolutions))} x {channels}", "dtype": str(dtype)[len("torch.") :]}
            answers = {"lookup": _looked_up}
            if dtype == torch.float32:
                # Planes that are trained are in single precision; teachers' have no total variation.
                answers["tv"] = _total_variation
            for what, answer in answers.items():
                try:
                    tell({"what": what, **about, **answer(stored, where)})
                except Exception as error:  # A type that does not compile says nothing of the others.
                    tell({"what": what, **about, "error": f"{type(error).__name__}: {error}"[-500:]})


def _looked_up(planes: list[Tensor], points: Tensor) -> dict[str, Any]:
    def both(backend: Any, planes: list[Tensor], upstream: Tensor) -> list[list[Tensor]]:
        leaves = [plane.clone().requires_grad_() for plane in planes]
        where = points.clone().requires_grad_()
        features = look_up(leaves, where, backend)
        *of_planes, of_points = torch.autograd.grad(features, [*leaves, where], upstream.to(features.dtype))
        return [[features.detach()], of_planes, [of_points]]

    width = sum(plane.shape[3] for plane in planes)
    upstream = torch.randn(len(points), width, device=points.device).to(planes[0].dtype)
    ours = both("triton", planes, upstream)
    theirs = both("reference", [plane.float() for plane in planes], upstream)
    return dict(zip(("values", "planes' gradient", "points' gradient"), map(_apart, ours, theirs)))


def _total_variation(planes: list[Tensor], points: Tensor) -> dict[str, Any]:
    def both(backend: Any, planes: list[Tensor]) -> list[list[Tensor]]:
        leaves = [plane.clone().requires_grad_() for plane in planes]
        values = [squared_differences(plane, backend) for plane in leaves]
        return [[value.detach() for value in values], list(torch.autograd.grad(sum(values), leaves))]  # type: ignore

    ours, theirs = both("triton", planes), both("reference", [plane.float() for plane in planes])
    return dict(zip(("values", "gradient"), map(_apart, ours, theirs)))


def _apart(ours: list[Tensor], theirs: list[Tensor]) -> dict[str, Any]:
    """The largest difference, and that over the largest number."""
    absolute = max(float((one.float() - other).abs().max()) for one, other in zip(ours, theirs, strict=True))
    return {"absolute": absolute, "relative": absolute / max(float(other.abs().max()) for other in theirs)}


def steps(task: Task, tell: Tell, decoder: str, implementation: str = "torch") -> None:
    """Milliseconds of a training step by part: ``device`` from event to event, waiting included; ``host`` what the host
    takes to ask for it; ``kernels`` what the device works."""
    if implementation == "tcnn" and find_spec("tinycudann") is None:
        tell({"skipped": "tiny-cuda-nn is not installed"})
        return
    device, options = torch.device(task.device), task.options
    bandwidth = timing.copy_bandwidth(device, 16 if task.small else 256)
    for stage in STAGES if implementation == "torch" else STAGES[:1]:
        config = step.settings(task.demo, task.size, decoder, stage, options)
        config.pipeline.model.implementation = implementation
        training = step.Training(config, options.groups, device)

        def timed(clock: torch.device, training: step.Training = training) -> dict[str, timing.Times]:
            turns = timing.alternate({"ours": training.turn}, options.turns, clock)
            return step.per_step(turns["ours"], training.period)

        spent, asked = timed(device), timed(torch.device("cpu"))
        whole = timing.total(spent.values())
        worked = timing.operations(training.turn, device)
        tell(
            {
                "stage": stage,
                "decoder": decoder,
                "implementation": implementation,
                "step": whole,
                "device": {part: times.median for part, times in spent.items()},
                "host": {part: times.median for part, times in asked.items()},
                "kernels": {name: number / training.period for name, number in worked.items()},
                "share of copy bandwidth": step.least_bytes(training) / bandwidth / (whole.median / 1e3),
            }
        )


def naively(task: Task, tell: Tell, decoder: str) -> None:
    """The same step beside the naive path's."""
    for stage in STAGES[:1] if task.small else STAGES[:2]:
        for entry in step.measure(task.demo, task.size, decoder, stage, task.options):
            tell(entry)


def lookups(task: Task, tell: Tell) -> None:
    """The lookup alone, with its share of the copy bandwidth."""
    reference = lookup.Size((128, 256, 512), 32, 4096 * 48), lookup.Size((128,), 8, 4096 * 128)
    dtypes = ("float32",) if task.small else ("float32", "float16", "bfloat16")
    options = lookup.Options(device=task.device, points="rays", turns=1 if task.small else 10)  # type: ignore[arg-type]
    for size in (lookup.Size((8, 16), 8, 640),) if task.small else reference:
        for dtype in dtypes:
            for entry in lookup.measure(size, options, getattr(torch, dtype), threads=1):
                tell(entry)


def peaks(task: Task, tell: Tell) -> None:
    """Peak memory of each stage."""
    options = memory.Options(device=task.device, rays=task.options.rays)  # type: ignore[arg-type]
    for decoder in DECODERS[:1] if task.small else DECODERS:
        tell(memory.measure(task.demo, task.size, decoder, options, task.context))


def rendering(task: Task, tell: Tell) -> None:
    """Rays per second."""
    options = render.Options(device=task.device, width=24 if task.small else 800, turns=task.options.turns)  # type: ignore[arg-type]
    for decoder in DECODERS:
        for entry in render.measure(task.size, decoder, options):
            tell(entry)


def demo_run(task: Task, tell: Tell, both: bool) -> None:
    """`dac run` on the generated scene, one stage at a time or two."""
    device = "0" if task.device == "cuda" else "cpu"
    devices = f"{device},{device}" if both else device
    flags = {"all": {"max-num-iterations": 4}} if task.small else {}
    tell({"devices": devices, **dac_run(task, task.demo, "demo", devices, flags)})


def dac_run(task: Task, scene: Path, preset: str, devices: str, flags: dict[str, Any]) -> dict[str, Any]:
    """Seconds and final figures of the whole pipeline."""
    config = task.folder / "flags.toml"
    tables = [f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in table.items()) for name, table in flags.items()]
    config.write_text("\n".join(tables))
    output = task.folder / f"dac-{preset}-{devices}"
    where = ("--data", str(scene), "--scene", "scene", "--output-dir", str(output), "--config", str(config))
    start = time.perf_counter()
    command = (*DAC, "run", *where, "--preset", preset, "--devices", devices, "--no-video")
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    results = json.loads((output / "scene" / "report" / "results.json").read_text("utf8"))
    figures = {
        method: {name: value for name, value in entry.items() if name != "per_view"}
        for method, entry in results["methods"].items()
    }
    return {"seconds": seconds, "methods": figures}


class Stop(Exception):
    """The time is up."""


def train(task: Task, steps: int, marks: Collection[int], tell: Tell, graphs: bool = True, test: int = 0) -> None:
    """Train a baseline with the reference's constants; print PSNR on validation views and seconds of training at marks.

    Args:
        steps: its length, which its cosine has, too.
        marks: numbers of steps after which to look.
        test: score so many test views in the end, or where time runs out.
    """
    method = methods(BOUNDED)["baseline"]
    config = replace(
        method.config, vis="tensorboard", max_num_iterations=steps, cuda_graphs=graphs, data=task.scene,
        output_dir=Path(tempfile.mkdtemp(dir=task.folder)), timestamp="run", experiment_name="scene",
        steps_per_save=10**9, steps_per_eval_batch=10**9, steps_per_eval_image=10**9,
    )  # fmt: skip
    config.machine.device_type = task.device  # type: ignore[assignment]
    manager = config.pipeline.datamanager
    manager.data, manager.train_num_rays_per_batch = task.scene, task.options.rays
    for name, value in step.SIZES[task.size].items():
        setattr(config.pipeline.model, name, value)
    config.save_config()
    torch.manual_seed(config.machine.seed)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    looking, start = 0.0, time.perf_counter()

    def look(step: int) -> None:
        nonlocal looking
        late = test and task.seconds < seconds_to_test(task, test)
        if not (late or step + 1 in marks):
            return
        if task.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        tell({"steps": step + 1, "of": steps, "seconds": now - start - looking, "val psnr": psnr(trainer.pipeline)})
        looking += time.perf_counter() - now
        if late:
            raise Stop

    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], look))
    try:
        trainer.train()
    except Stop:
        pass
    if test:
        held_out = manager.setup(device=task.device, test_mode="test", world_size=1, local_rank=0)
        with patch.object(trainer.pipeline, "datamanager", held_out):
            views = trainer.pipeline.score_views(most=test)
        scores = {name: sum(view[name] for view in views) / len(views) for name in ("psnr", "ssim")}
        tell({"test views": len(views), **{f"test {name}": value for name, value in scores.items()}})


def seconds_to_test(task: Task, views: int) -> float:
    """Set aside for scores of test views."""
    return 2 if task.small else 20 + 2 * views


@torch.no_grad()
def psnr(pipeline: Any, most: int = 4) -> float:
    """Mean over a few validation views."""
    pipeline.eval()
    loader = pipeline.datamanager.fixed_indices_eval_dataloader
    scores = []
    for number in range(min(most, len(pipeline.datamanager.eval_dataset))):
        camera, batch = loader.get_camera(number)
        outputs = pipeline.model.get_outputs_for_camera(camera=camera)
        scores.append(float(pipeline.model.get_metrics_dict(outputs, batch)["psnr"]))
    pipeline.train()
    return sum(scores) / len(scores)


def captured(task: Task, tell: Tell) -> None:
    """Training with steps that a CUDA graph repeats beside training with steps that Python takes."""
    steps = 4 if task.small else 2000
    for graphs in (True, False):
        about = {"steps by": "graph" if graphs and task.device == "cuda" else "Python"}
        train(task, steps, {steps // 2, steps}, lambda row, about=about: tell({**about, **row}), graphs)


def real(task: Task, tell: Tell) -> None:
    """A baseline with the reference's constants: PSNR against seconds, as many of its steps as there is time for."""
    rows: list[dict[str, Any]] = []
    rehearsal = (2, 4) if task.small else (100, 400)
    train(task, rehearsal[1], rehearsal, rows.append)
    pace = (rows[1]["seconds"] - rows[0]["seconds"]) / (rehearsal[1] - rehearsal[0])
    test = 2 if task.small else 25
    # A tenth for looking at validation views on the way.
    fit = 8 if task.small else int(0.9 * (task.seconds - seconds_to_test(task, test)) / pace)
    steps = max(min(fit, methods(BOUNDED)["baseline"].config.max_num_iterations), 1)
    tell({"ms per step": pace * 1e3, "steps": steps})
    # As often as the curve bends: at 1/64, 1/32, ... of the way, and at every tenth.
    marks = {steps >> shift for shift in range(7)} | {steps * tenth // 10 for tenth in range(1, 11)}
    train(task, steps, marks, tell, test=test)


def divided(task: Task, tell: Tell) -> None:
    """All stages with the reference's constants, the baseline included, by one factor shorter to fit the time."""
    pace = task.results["real"]["results"][0]["ms per step"] / 1e3
    steps = 4 * BOUNDED.steps["expert"] + sum(BOUNDED.steps[stage] for stage in ("distill", "finetune", "baseline"))
    share = 1e-4 if task.small else min(1.0, 0.7 * task.seconds / (pace * steps))
    lengths = {stage: max(int(share * count), 2) for stage, count in BOUNDED.steps.items()}
    flags = {f"dac-{stage}": {"max-num-iterations": length} for stage, length in lengths.items()}
    device = "0" if task.device == "cuda" else "cpu"
    tell(
        {
            "share of the reference's steps": share,
            **dac_run(task, task.scene, "demo" if task.small else "reference", device, flags),
        }
    )


PARTS = (
    Part("exact", exactness, most=300, interpreted=True),
    *(Part(f"steps, {decoder}", partial(steps, decoder=decoder), most=240) for decoder in DECODERS),
    Part("peak memory", peaks, most=240),
    Part("rendering", rendering, most=180),
    *(
        Part(f"steps beside the naive path, {decoder}", partial(naively, decoder=decoder), most=240)
        for decoder in DECODERS
    ),
    Part("lookup", lookups, most=120),
    *(Part(f"dac run, {count} at a time", partial(demo_run, both=count == "two"), 60, 300) for count in ("one", "two")),
    Part("tiny-cuda-nn", partial(steps, decoder="hybrid", implementation="tcnn"), most=120),
    Part("captured", captured, 60, 240),
    Part("real", real, 120),
    Part("experts and student", divided, 180),
)


# How it is asked


def main(options: Options) -> dict[str, Any]:
    """Carry out all parts; what the file then holds."""
    end = time.time() + 60 * options.minutes
    unknown = set(options.parts) - {part.name for part in PARTS}
    if unknown:
        sys.exit(f"There is no part {', '.join(sorted(unknown))}. Parts: {'; '.join(part.name for part in PARTS)}.")
    device = default_device()
    small = options.small or device != "cuda"
    data = options.data.resolve() if options.data else None
    settings = {"small": small, "data": data.name if data else "demo"}
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        # Forking saves the imports, but fails where those have touched CUDA, as tiny-cuda-nn's does.
        for context in ("fork", "spawn"):
            task = Task(device, small, data, Path(folder), context, end)
            about = carry_out(Part("machine", machine), task, lambda entry: None)
            if about["status"] == "done":
                break
        else:
            sys.exit("The device cannot be used:\n" + "\n".join(about["error"]))
        settings["machine"] = {name: about["results"][0][name] for name in ("device", "versions")}
        content = found(options.json, settings)
        content["machine"], parts = about["results"][0], content["parts"]
        for part in PARTS:
            if options.parts and part.name not in options.parts:
                continue
            if parts.get(part.name, {}).get("status") == "done":
                console.print(f"{part.name}: kept")
                continue

            def write(entry: dict[str, Any], name: str = part.name) -> None:
                parts[name] = entry
                write_json(options.json, content)

            left = end - time.time()
            if left < (1 if small else part.least):
                write({"status": "skipped", "why": f"{left:.0f} s were left"})
            else:
                until = min(end, time.time() + part.most)
                carry_out(part, replace(task, until=until, results=parts), write)
            entry = parts[part.name]
            console.print(f"{part.name}: {entry['status']}, {entry.get('seconds', 0):.0f} s")
    return content


def found(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run with these settings on this machine has left, or a new beginning."""
    if path.exists():
        content = json.loads(path.read_text("utf8"))
        if content.get("settings") == settings:
            return content
        path.replace(path.with_suffix(".old.json"))
    return {"settings": settings, "parts": {}}


def carry_out(part: Part, task: Task, write: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Ask in a process of its own; ``write`` gets the entry as often as it grows."""
    start = time.time()
    entry: dict[str, Any] = {"status": "running", "results": []}
    interpret = {"TRITON_INTERPRET": "1"} if part.interpreted and task.device != "cuda" else {}
    # Triton reads the variable when it is imported, which it may have been here.
    context: Any = multiprocessing.get_context("spawn" if interpret else task.context)
    receiver, sender = context.Pipe(duplex=False)
    log = task.folder / "log.txt"
    process = context.Process(target=answer, args=(sender, part.ask, task, log))
    with patch.dict(os.environ, interpret):
        process.start()
    sender.close()
    try:
        while entry["status"] == "running":
            if not receiver.poll(max(task.seconds, 0)):
                entry["status"] = "stopped when its time was up"
                break
            kind, content = receiver.recv()
            if kind == "row":
                entry["results"].append(content)
            else:
                entry["status"] = kind
                entry |= content
            entry["seconds"] = round(time.time() - start, 1)
            write(entry)
    except EOFError:
        process.join()
        entry |= {"status": "failed", "error": [f"It ended with code {process.exitcode}.", *tail(log)]}
    finally:
        end_group(process)
    entry["seconds"] = round(time.time() - start, 1)
    write(entry)
    return entry


def answer(sender: Connection, ask: Callable[[Task, Tell], None], task: Task, log: Path) -> None:
    """The process of a part."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1 if task.small else torch.get_num_threads())
    try:
        ask(task, lambda row: sender.send(("row", timing.summarised(row))))
        sender.send(("done", {}))
    except BaseException:
        sys.stdout.flush()
        trace = traceback.format_exc().splitlines()
        # What a command that was started has to say stands in the log alone.
        said = tail(log) if "CalledProcessError" in trace[-1] else []
        sender.send(("failed", {"error": [*trace[-12:], *said]}))


def tail(log: Path, lines: int = 12) -> list[str]:
    """The last lines of what a part has printed."""
    return log.read_text("utf8", "replace").splitlines()[-lines:] if log.exists() else []


def end_group(process: Any) -> None:
    """End a part and all that it has started: kindly first, as `dac run` then ends its own."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        process.join(patience)
    process.join()


if __name__ == "__main__":
    # However it ends, no part goes on alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main(tyro.cli(Options, description=__doc__))
