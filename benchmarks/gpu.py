"""What there is to learn from a GPU, most informative first, within a given time.

    python benchmarks/gpu.py --minutes 9.5 --json gpu.json --keep kept --data FOLDER
    python benchmarks/gpu.py page --json gpu.json

First whether kernels and captured steps are right, then milliseconds of a step, the lookup, a table of kernels; then
the paper's recipe on a scene in Blender's format, which goes on in the background between calls; the rest after it.
Each part runs in a process of its own: one that fails or hangs costs no other. The file is written after every figure;
curves and figures of the background's runs are copied beside it. The same command goes on from there: parts that are
done with the same settings, on the same device, are not done again.

Without CUDA, or with --small, everything is tiny and takes minutes: it shows that the script works, and nothing else.
"page" writes what the file holds into docs/speed.md and docs/results.md.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Optional
from unittest.mock import patch

import lookup
import memory
import psutil
import render
import step
import timing
import torch
import tyro
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
GROUPS = 4
STEPS = 60
"""Steps after which weights are compared; runs resume in the middle."""
TURN = 12
"""Steps of a turn: two on which the proposals learn."""
DAC = (sys.executable, "-c", "from dac_nerfstudio.cli import main; main()")
"""As `dac`, which is not on PATH where the package is not installed."""
DOCS = Path(__file__).parent.parent / "docs"


@dataclass
class Options:
    """How long, and on what."""

    action: tyro.conf.Positional[Literal["measure", "page"]] = "measure"
    """Measure, or write the pages."""
    minutes: float = 20.0
    """Time for all parts together."""
    json: Path = Path("gpu.json")
    """File of results; the same command goes on from what is in it."""
    keep: Path = Path("gpu")
    """Folder of the runs in the background, which stays between calls."""
    data: Optional[Path] = None
    """Scene in Blender's format for the paper's recipe; the generated one without it."""
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
    keep: Path
    """Where the runs in the background lie."""
    copies: Path
    """Where their curves and figures are copied to."""
    context: str
    """How multiprocessing starts processes."""
    until: float
    """When to be done, in the seconds of time.time()."""

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
    """Device and versions."""
    device = torch.device(task.device)
    about = timing.machine(device, ("nerfstudio", "numba", "triton", "tinycudann"))
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {"memory, GB": round(properties.total_memory / 1e9, 1), "cuda": torch.version.cuda}
        about |= {"compute capability": f"{properties.major}.{properties.minor}"}
    tell(about)


def exactness(task: Task, tell: Tell) -> None:
    """Triton's kernels beside plain PyTorch in single precision on the same numbers."""
    sizes: list[tuple[tuple[int, ...], int, int]] = [((2, 7), 4, 30), ((5,), 8, 30)]
    if not task.small:
        sizes = [((128, 256, 512), 32, 4096 * 48), ((128,), 8, 4096 * 128)]
    for resolutions, channels, points in sizes:
        for dtype in (torch.float32, torch.float16):
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


def trainer(task: Task, stage: str, decoder: str = "explicit", run: str = "run", **settings: Any) -> Any:
    """A trainer that is set up; the same settings give the same weights."""
    config = copy.deepcopy(methods(BOUNDED)[stage].config)
    config.output_dir, config.experiment_name, config.timestamp = task.folder / decoder, "scene", run
    config.vis, config.max_num_iterations, config.machine.device_type = "tensorboard", STEPS, task.device
    config.pipeline.datamanager.data = task.demo
    config.pipeline.datamanager.train_num_rays_per_batch = task.options.rays
    model = {**step.SIZES[task.size], "linear_decoder": decoder == "explicit"}
    model["implementation"] = "tcnn" if decoder == "tiny-cuda-nn" else "torch"
    for owner, values in ((config.pipeline.model, model), (config, settings)):
        for name, value in values.items():
            setattr(owner, name, value)
    torch.manual_seed(0)
    made = config.setup(local_rank=0, world_size=1)
    made.setup()
    return made


def save_experts(task: Task, decoder: str) -> None:
    """Experts for students to learn from: untrained, and finished."""
    for group in range(1, GROUPS + 1):
        trainer(task, "expert", decoder, group=group, groups=GROUPS).save_checkpoint(STEPS - 1)


def ways(task: Task) -> dict[str, dict[str, Any]]:
    """Who takes the steps, and the settings for it."""
    return {"Python": {"cuda_graphs": False}, **({"graph": {}} if task.device == "cuda" else {})}


def graphs(task: Task, tell: Tell) -> None:
    """Weights after captured steps, after Python's once more (a GPU adds up in any order), and after a run that resumed
    in the middle, beside those after Python's steps."""
    save_experts(task, "explicit")
    for stage in STAGES[:2]:
        done: dict[str, Any] = {}
        for name, settings in (*ways(task).items(), ("again", {"cuda_graphs": False})):
            done[name] = trainer(task, stage, run=name, **settings)
            for number in range(STEPS):
                done[name].train_iteration(number)
                if number + 1 == STEPS // 2 and name == [*ways(task)][-1]:
                    done[name].save_checkpoint(number)
                    saved = done[name].checkpoint_dir, settings
        done["resumed"] = trainer(task, stage, run="resumed", load_dir=saved[0], **saved[1])
        for number in range(STEPS // 2, STEPS):
            done["resumed"].train_iteration(number)
        weights = {name: [w for w in one.pipeline.model.parameters() if w.numel()] for name, one in done.items()}
        for name in [*done][1:]:
            tell({"stage": stage, "steps by": name, "weights": _apart(weights[name], weights["Python"])})


def steps(task: Task, tell: Tell, decoder: str) -> None:
    """Milliseconds of a step that Python takes, and of one that a graph repeats, all taking turns."""
    if decoder == "tiny-cuda-nn" and find_spec("tinycudann") is None:
        return tell({"skipped": "tiny-cuda-nn is not installed"})
    save_experts(task, decoder)
    contestants: dict[str, Callable[[timing.Stage], None]] = {}
    for stage in STAGES:
        for way, settings in ways(task).items():
            group = {"group": 1, "groups": GROUPS} if stage == "expert" else {}
            contestants[f"{stage}, {way}"] = partial(turn, warmed(task, stage, decoder, f"{way}", **settings, **group))
    times = timing.alternate(contestants, task.options.turns, torch.device(task.device))
    for name, spent in times.items():
        stage, way = name.split(", ")
        tell({"stage": stage, "decoder": decoder, "steps by": way, "ms": step.per_step(spent, TURN)["step"]})


def warmed(task: Task, stage: str, decoder: str, run: str, **settings: Any) -> Any:
    """A trainer late in its schedule, whose steps are captured if they will be."""
    one = trainer(task, stage, decoder, run, **settings)
    one.pipeline.model.first_step = 10_000
    for _ in range(3):
        turn(one, lambda label: nullcontext())
    return one


def turn(one: Any, stage: timing.Stage) -> None:
    with stage("step"):
        for number in range(TURN):
            one.train_iteration(number)


def kernels(task: Task, tell: Tell, stage: str) -> None:
    """What a step's milliseconds are spent on by the device, greatest first."""
    save_experts(task, "explicit")
    one = warmed(task, stage, "explicit", "kernels", **[*ways(task).values()][-1])
    found = timing.table(partial(turn, one), torch.device(task.device))
    found["all"] = sum(calls for calls, _ in found.values()), sum(ms for _, ms in found.values())
    for name, (calls, ms) in sorted(found.items(), key=lambda entry: -entry[1][1])[:61]:
        tell({"kernel": name[:100], "calls": calls / TURN, "ms": ms / TURN})


def paper(task: Task, tell: Tell) -> None:
    """`dac run` with the paper's recipe, two stages at a time, in a process that outlives this one."""
    output, started = task.keep / "outputs", task.keep / "started.json"
    results = output / "scene" / "report" / "results.json"
    if not results.exists() and not (started.exists() and alive(json.loads(started.read_text())["pid"])):
        task.keep.mkdir(parents=True, exist_ok=True)
        flags = {"max-num-iterations": 4} if task.small else {"steps-per-save": 20000, "steps-per-eval-image": 1000}
        (task.keep / "flags.toml").write_text(
            "[all]\n" + "".join(f"{name} = {value}\n" for name, value in flags.items())
        )
        devices, preset = ("0,0", "reference") if task.device == "cuda" else ("cpu", "demo")
        scene = task.data or replace(task, folder=task.keep).demo
        where = ("--data", str(scene), "--scene", "scene", "--output-dir", str(output))
        how = ("--config", str(task.keep / "flags.toml"), "--preset", preset, "--devices", devices, "--no-video")
        with (task.keep / "log.txt").open("a") as log:
            process = subprocess.Popen((*DAC, "run", *where, *how), stdout=log, stderr=log, start_new_session=True)
        before = json.loads(started.read_text())["time"] if started.exists() else time.time()
        write_json(started, {"pid": process.pid, "time": before})
    while True:
        alone = results.exists() or not alive(json.loads(started.read_text())["pid"])
        for path in output.rglob("*"):
            if path.suffix in (".json", ".html") or "tfevents" in path.name:
                target = task.copies / path.relative_to(output)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if alone:
            break
        time.sleep(1 if task.small else 10)
    if not results.exists():
        raise RuntimeError("dac run ended: " + " ".join(tail(task.keep / "log.txt")))
    seconds = results.stat().st_mtime - json.loads(started.read_text())["time"]
    for method, entry in json.loads(results.read_text("utf8"))["methods"].items():
        tell({"method": method, "steps": entry["steps"], "seconds": entry.get("seconds"), **entry["scores"]})
    tell({"method": "all stages", "seconds": round(seconds)})


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def naively(task: Task, tell: Tell, decoder: str) -> None:
    """The same step beside the naive path's."""
    for stage in STAGES[:1] if task.small else STAGES[:2]:
        for entry in step.measure(task.demo, task.size, decoder, stage, task.options):
            tell(entry)


def lookups(task: Task, tell: Tell) -> None:
    """The lookup alone."""
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


PARTS = (
    Part("exact", exactness, most=120, interpreted=True),
    Part("graphs", graphs, most=180),
    *(Part(f"steps, {decoder}", partial(steps, decoder=decoder), most=180) for decoder in DECODERS),
    Part("lookup", lookups, most=60),
    *(Part(f"kernels, {stage}", partial(kernels, stage=stage), most=60) for stage in STAGES[:2]),
    Part("paper", paper),
    *(
        Part(f"steps beside the naive path, {decoder}", partial(naively, decoder=decoder), most=240)
        for decoder in DECODERS
    ),
    Part("peak memory", peaks, most=240),
    Part("rendering", rendering, most=180),
    Part("steps, tiny-cuda-nn", partial(steps, decoder="tiny-cuda-nn"), most=180),
)


# How it is asked


def main(options: Options) -> dict[str, Any]:
    """Carry out all parts; what the file then holds."""
    if options.action == "page":
        write_pages(json.loads(options.json.read_text("utf8")))
        return {}
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
            keep, copies = options.keep.resolve(), options.json.resolve().parent / "runs"
            task = Task(device, small, data, Path(folder), keep, copies, context, end)
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
                carry_out(part, replace(task, until=until), write)
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


BEGIN, END = "<!-- begin gpu.json -->", "<!-- end gpu.json -->"


def write_pages(content: dict[str, Any], docs: Path = DOCS) -> None:
    """Replace what stands between the marks of the pages on speed and on results, or add it at their ends."""
    parts = {name: part["results"] for name, part in content["parts"].items() if part["results"]}
    paper = parts.pop("paper", None)
    about = f"Measured on {content['machine']['device']} by `benchmarks/gpu.py`."
    for name, tables in (("speed.md", parts), ("results.md", {"The paper's recipe": paper} if paper else {})):
        if tables:
            page = docs / name
            text = "\n\n".join([about, *(f"### {title}\n\n{table(rows[:13])}" for title, rows in tables.items())])
            head, _, rest = page.read_text("utf8").partition(BEGIN)
            after = rest.partition(END)[2] or "\n"
            page.write_text(f"{head.rstrip()}\n\n{BEGIN}\n{text}\n{END}{after}", "utf8")


def table(rows: list[dict[str, Any]]) -> str:
    """Rows in Markdown; a column for each entry that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([shown(row.get(name, "")) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, dict) and "median" in value:
        return f"{value['median']:.3g} ({value['min']:.3g}–{value['max']:.3g})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(one)}" for name, one in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    # However it ends, no part goes on alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main(tyro.cli(Options, description=__doc__))
