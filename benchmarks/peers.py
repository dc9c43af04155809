"""The first comparison that one makes: PSNR against seconds of training, with what else one would train.

    python benchmarks/peers.py run --data data/dac-demo --minutes 4 --json docs/peers.json
    python benchmarks/peers.py run --data data/bonsai --downscale 2 --stride 8 --json docs/peers.json
    python benchmarks/peers.py page docs/peers.json docs/peers.md       # and docs/peers.png

Every peer has its own method's defaults and --minutes of training, and is scored on the same test views, now and then;
that takes no time from it. Seconds are the processor's, of all its threads and processes, so that a machine that is
shared does not count, and on a GPU the clock's. Ours train for as many steps as the time allows, since their rate falls
along a cosine whose end has to be known: steps are timed first. The student's seconds are those of all stages.

Methods that want CUDA are left out without it, and from real scenes those that are for bounded ones alone. Each
finished peer is kept in the file: the same command goes on.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Optional
from unittest.mock import patch

import numpy as np
import psutil
import torch
import tyro
from matplotlib.figure import Figure
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from timing import machine
from torch import Tensor

from dac_nerfstudio.errors import StageError, UserError
from dac_nerfstudio.files import write_json, write_text
from dac_nerfstudio.launch.flags import words
from dac_nerfstudio.launch.plan import Job, Request, make_plan
from dac_nerfstudio.presets import METHOD_STEPS, PRESETS, Flags, Recipe
from dac_nerfstudio.report.markdown import table
from dac_nerfstudio.report.tables import Grid
from dac_nerfstudio.runs.layout import PARTITION
from dac_nerfstudio.scene.layout import find_layout
from dac_nerfstudio.style import COLOURS, MARKERS
from dac_nerfstudio.units import clock, signed

MARKS = (1 / 8, 1 / 4, 1 / 2, 1)
"""Shares of a training after which it is scored."""
TRIAL = 1 / 10
"""Share of the time in which steps are timed beforehand."""
NEVER = 10**9
QUIET: Flags = {
    "vis": "tensorboard",
    **dict.fromkeys(("steps-per-save", "steps-per-eval-batch", "steps-per-eval-image"), NEVER),
    "steps-per-eval-all-images": NEVER,
}
"""Nothing else is done while the clock runs."""


@dataclass(frozen=True)
class Peer:
    """What stands in the table."""

    title: str
    kind: Literal["nerfstudio", "baseline", "naive", "student"] = "nerfstudio"
    method: str = ""
    """Of ns-train, where it is one of nerfstudio's own."""
    flags: Flags = field(default_factory=dict)
    """Where its defaults are not those that one would choose here."""
    bounded: Flags = field(default_factory=dict)
    """More of them in scenes of Blender's format, if its defaults are meant for real ones."""
    real: bool = True
    """Whether it is for real scenes too."""
    cuda: bool = False
    """Whether it needs CUDA."""


IMPLEMENTATION = "pipeline.model.implementation"
NERFACTO: Flags = {
    "pipeline.model.near-plane": 2.0,
    "pipeline.model.far-plane": 6.0,
    "pipeline.model.use-appearance-embedding": False,
    "pipeline.model.background-color": "white",
    "pipeline.model.proposal-initial-sampler": "uniform",
    "pipeline.model.distortion-loss-mult": 0.0,
    "pipeline.model.disable-scene-contraction": True,
    "pipeline.model.average-init-density": 1.0,
    "pipeline.model.camera-optimizer.mode": "off",
}
"""As NerfBaselines 1.2.12 runs it on Blender's scenes."""
INSTANT_NGP: Flags = {
    "pipeline.model.near-plane": 0.01,
    "pipeline.model.background-color": "white",
    "pipeline.model.disable-scene-contraction": True,
    "pipeline.model.grid-levels": 1,
    "pipeline.model.alpha-thre": 0.0,
    "pipeline.model.cone-angle": 0.0,
}
"""As nerfstudio's instant-ngp-bounded, with a white background."""
PEERS = {
    "nerfacto": Peer("nerfacto, PyTorch", method="nerfacto", flags={IMPLEMENTATION: "torch"}, bounded=NERFACTO),
    "tensorf": Peer("TensoRF", method="tensorf", real=False),
    "vanilla-nerf": Peer("NeRF", method="vanilla-nerf", real=False),
    "naive": Peer("K-Planes of stock parts", "naive"),
    "baseline": Peer("K-Planes (dac-baseline)", "baseline"),
    "student": Peer("Divide and Conquer, all stages", "student"),
    "nerfacto-tcnn": Peer(
        "nerfacto, tiny-cuda-nn", method="nerfacto", flags={IMPLEMENTATION: "tcnn"}, bounded=NERFACTO, cuda=True
    ),
    "instant-ngp": Peer("Instant NGP", method="instant-ngp", bounded=INSTANT_NGP, cuda=True),
    "splatfacto": Peer(
        "Gaussian splatting", method="splatfacto", bounded={"pipeline.model.background-color": "white"}, cuda=True
    ),
}  # fmt: skip
OURS = "student"


@dataclass(frozen=True)
class Options:
    """What is compared."""

    data: Path
    """Scene in Blender's format, or a COLMAP model beside its photos."""
    downscale: Optional[int] = None
    """For real photos: take those in images_2, images_4 and so on."""
    minutes: float = 4.0
    """Of training, for each peer."""
    stride: int = 1
    """Score every n-th pixel of every n-th row of all test views: on a CPU, rendering takes minutes."""
    peers: tuple[str, ...] = ()
    """Which; by default all that this machine can train."""
    preset: Literal["demo", "quick", "reference"] = "demo"
    """Recipe of ours."""
    seed: int = 42
    """Of all trainings."""
    device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to train."""
    output_dir: Path = Path("outputs/peers")
    """Where runs go."""
    json: Path = Path("outputs/peers/peers.json")
    """Where figures go."""

    @property
    def seconds(self) -> float:
        return 60 * self.minutes

    @property
    def real(self) -> bool:
        return find_layout(self.data).suffix != ""

    def chosen(self) -> tuple[str, ...]:
        """Who is trained.

        Raises:
            StageError: somebody was named who is not there.
        """
        unknown = set(self.peers) - set(PEERS)
        if unknown:
            raise StageError(f"There is no peer {', '.join(sorted(unknown))}; choose from {', '.join(PEERS)}.")
        fit = (
            name
            for name, peer in PEERS.items()
            if (peer.real or not self.real) and (not peer.cuda or self.device == "cuda")
        )
        return self.peers or tuple(fit)


# One training, in a process of its own


@dataclass(frozen=True)
class Training:
    """A command of ns-train, how long to follow it, and what to score."""

    arguments: tuple[str, ...]
    stride: int
    """0 scores nothing."""
    log: Path
    seconds: Optional[float] = None
    """Stop then; None: after the method's steps."""
    naive: bool = False
    marks: tuple[float, ...] = MARKS


Point = dict[str, Any]
"""`step`, `seconds`: spent so far; `psnr`: on test views, or None."""


class Over(Exception):
    """The time is spent."""


class Spent:
    """Seconds of training; stands still while something else is done."""

    def __init__(self, cuda: bool) -> None:
        me = psutil.Process()
        self.processes = [] if cuda else [me, *me.children(recursive=True)]
        self.seconds = 0.0

    def read(self) -> float:
        if not self.processes:
            torch.cuda.synchronize()
            return time.perf_counter()
        times = [process.cpu_times() for process in self.processes]
        return sum(one.user + one.system for one in times)

    def start(self) -> None:
        self.begun = self.read()

    def stop(self) -> None:
        self.seconds += self.read() - self.begun


def follow(training: Training) -> list[Point]:
    """Train, and score at the marks."""
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

    from dac_nerfstudio.launch.commands import parse

    training.log.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        log = stack.enter_context(training.log.open("a"))
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        stack.enter_context(without_lpips())
        if training.naive:
            from naive import parts

            stack.enter_context(parts())
        config = parse(training.arguments)
        torch.manual_seed(config.machine.seed)
        trainer = config.setup(local_rank=0, world_size=1)
        teaching = counting_teachers(trainer)
        trainer.setup()
        test = trainer.pipeline.datamanager.dataparser.get_dataparser_outputs("test")
        score = scorer(test, training.stride) if training.stride else None
        spent, points, marks = Spent(config.machine.device_type == "cuda"), [], list(training.marks)
        spent.seconds = teaching.seconds

        def after_step(step: int) -> None:
            done = step + 1 - trainer._start_step
            if done == 1:  # kernels are compiled and workers start: no peer's time
                spent.start()
                return
            spent.stop()
            share = spent.seconds / training.seconds if training.seconds else done / config.max_num_iterations
            if marks and share >= marks[0]:
                while marks and share >= marks[0]:
                    marks.pop(0)
                psnr = score(trainer.pipeline) if score else None
                points.append({"step": done, "seconds": spent.seconds, "psnr": psnr})
            if training.seconds and not marks:
                raise Over
            spent.start()

        trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after_step))
        with suppress(Over):
            trainer.train()
        return points


def counting_teachers(trainer: Any) -> Spent:
    """Counts the seconds in which teachers render new views as a trainer is set up, as part of the student's time."""
    spent = Spent(trainer.config.machine.device_type == "cuda")
    call: Any = getattr(trainer, "call_teachers", None)

    def counted() -> Any:
        spent.start()
        teachers = call()
        spent.stop()
        return teachers

    if call is not None:
        trainer.call_teachers = counted
    return spent


@contextmanager
def without_lpips() -> Iterator[None]:
    """nerfstudio's models fetch the weights of LPIPS as they are built; nothing here asks for that score."""
    with patch("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", lambda **settings: torch.nn.Identity()):
        yield


def scorer(outputs: DataparserOutputs, stride: int) -> Callable[[Any], float]:
    """What gives a pipeline's PSNR on white, mean over test views; of every `stride`-th pixel of such rows.

    Args:
        outputs: of a data parser, for the test views.
    """
    from nerfstudio.data.datasets.base_dataset import InputDataset
    from nerfstudio.models.splatfacto import SplatfactoModel

    dataset, cameras = InputDataset(outputs), outputs.cameras
    cameras.fx, cameras.fy = cameras.fx.float(), cameras.fy.float()
    truths = [on_white(dataset.get_image_float32(number)[::stride, ::stride]) for number in range(len(dataset))]

    def score(pipeline: Any) -> float:
        pipeline.eval()
        model, found = pipeline.model, []
        for number, truth in enumerate(truths):
            camera = cameras[number : number + 1].to(pipeline.device)
            if isinstance(model, SplatfactoModel):  # draws whole pictures alone
                picture = model.get_outputs_for_camera(camera)["rgb"][::stride, ::stride]
            else:
                rays = camera.generate_rays(camera_indices=0, keep_shape=True)[::stride, ::stride]
                rendered = model.get_outputs_for_camera_ray_bundle(rays)
                picture = rendered["rgb"] if "rgb" in rendered else rendered["rgb_fine"]  # the first NeRF has no other
            found.append(psnr(picture.cpu(), truth))
        return sum(found) / len(found)

    return score


def on_white(photo: Tensor) -> Tensor:
    """RGB of a photo, which our own methods read with its alpha."""
    colour, alpha = photo[..., :3], photo[..., 3:]
    return colour * alpha + 1 - alpha if alpha.shape[-1] else colour


def psnr(picture: Tensor, truth: Tensor) -> float:
    """In dB, of colours in [0, 1]."""
    return -10 * (picture.clamp(0, 1) - truth).square().mean().log10().item()


def apart(training: Training) -> list[Point]:
    """Follow a training in a fresh process: two in one would share nerfstudio's writers.

    Raises:
        StageError: it fails.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:
        try:
            return pool.submit(follow, training).result()
        except (Exception, SystemExit) as error:
            said = str(error).strip().splitlines()
            raise StageError(f"{type(error).__name__}: {said[0] if said else ''}") from error


def end_with_parent() -> None:
    """A training is of no use to anybody once the process that asked for it has been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


# Peers


def command(options: Options, peer: Peer, folder: Path) -> tuple[str, ...]:
    """Arguments of ns-train for one of nerfstudio's own methods."""
    flags = {
        "data": options.data, "output-dir": folder, "experiment-name": peer.method, "timestamp": "run",
        "machine.device-type": options.device, "machine.seed": options.seed, **QUIET, **peer.flags,
        **({} if options.real else peer.bounded),
    }  # fmt: skip
    parser = find_layout(options.data, options.downscale).flags or ("blender-data",)
    return (peer.method, *words(flags), *parser)


def trained(options: Options, peer: Peer) -> list[Point]:
    """A peer's curve."""
    folder = options.output_dir / options.data.name
    log = folder / "logs" / f"{peer.title}.log"
    one = Training((), options.stride, log, naive=peer.kind == "naive")
    if peer.kind == "nerfstudio":
        return apart(replace(one, arguments=command(options, peer, folder), seconds=options.seconds))
    steps = steps_in(options, one)
    jobs = stages(options, steps, f"{peer.kind}-{steps}")
    if peer.kind != "student":
        return apart(replace(one, arguments=jobs["baseline total"].arguments))
    points: list[Point] = []
    spent = {"seconds": 0.0, "step": 0}
    for name, job in jobs.items():
        if job.stage in ("expert", "distill", "finetune"):
            student = job.stage in ("distill", "finetune")
            marks = MARKS if job.stage == "finetune" else (1.0,)
            stride = options.stride if student else 0
            found = apart(
                replace(one, arguments=job.arguments, marks=marks, stride=stride, log=folder / f"logs/{name}.log")
            )
            if student:
                points += [{**point, **{key: point[key] + spent[key] for key in spent}} for point in found]
            for key in spent:
                spent[key] += found[-1][key]
    return points


def steps_in(options: Options, one: Training) -> int:
    """Steps of the baseline that the time allows, by a trial."""
    job = stages(options, 10**6, "trial")["baseline total"]
    trial = replace(one, arguments=job.arguments, stride=0, seconds=TRIAL * options.seconds, marks=(1.0,))
    (end,) = apart(trial)
    return max(round(options.seconds * end["step"] / end["seconds"]), 20)


def stages(options: Options, steps: int, scene: str) -> dict[str, Job]:
    """Jobs of `dac run` with ``steps`` in all stages together, and the baseline of as many; views are divided."""
    from dac_nerfstudio.partition.split import split
    from dac_nerfstudio.scene.data import scene_at

    recipe = scaled(PRESETS[options.preset], steps)
    folder = options.output_dir / options.data.name
    request = Request(
        options.data, folder, scene, baseline="total", video=False, device=options.device, seed=options.seed,
        downscale=options.downscale, flags={"all": QUIET},
    )  # fmt: skip
    if not (request.scene_dir / PARTITION).exists():
        scene = scene_at(options.data)
        views, test = scene.views(), scene.test_views()
        split(views, request.scene_dir, test, softness=recipe.softness)
    return {job.name: job for job in make_plan(request, recipe).jobs}


EXPERTS = 4


def scaled(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with ``steps`` in all stages together, each in its proportion, or in that of the paper's."""
    own = recipe.steps or {stage: METHOD_STEPS[""][stage] for stage in ("expert", "distill", "finetune")}
    total = sum(count * (EXPERTS if stage == "expert" else 1) for stage, count in own.items())
    return replace(recipe, steps={stage: max(round(count * steps / total), 1) for stage, count in own.items()})


# Commands


def run(options: tyro.conf.OmitArgPrefixes[Options]) -> None:
    """Train and score, one peer after another."""
    chosen = options.chosen()
    results = json.loads(options.json.read_text("utf8")) if options.json.exists() else {"scenes": {}}
    scene = results["scenes"].setdefault(f"{options.data.name}, {options.device}", about(options))
    if scene["settings"] != about(options)["settings"]:
        raise StageError(f"{options.json} was made with {scene['settings']}. Name another file with --json.")
    for name in chosen:
        if "points" in scene["peers"].get(name, {}):
            continue
        print(f"{PEERS[name].title} …", flush=True)
        try:
            found: dict[str, Any] = {"points": rounded(trained(options, PEERS[name]))}
        except StageError as error:
            found = {"error": str(error)}
        scene["peers"][name] = found
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, results)
        print(f"    {found.get('error') or found['points'][-1]}", flush=True)


def about(options: Options) -> dict[str, Any]:
    """A scene's entry, without its peers."""
    from PIL import Image

    if options.real:
        photos = options.data / ("images" if options.downscale in (None, 1) else f"images_{options.downscale}")
        photo = min(photos.iterdir())
    else:
        meta = json.loads((options.data / "transforms_test.json").read_text("utf8"))
        photo = options.data / f"{meta['frames'][0]['file_path']}.png"
    with Image.open(photo) as image:
        size = list(image.size)
    settings = {name: getattr(options, name) for name in ("minutes", "stride", "preset", "seed")}
    return {
        "machine": machine(torch.device(options.device), ("nerfstudio", "numba")),
        "threads": torch.get_num_threads(),
        "settings": settings,
        "size": size,
        "peers": {},
    }


def rounded(points: Sequence[Point]) -> list[Point]:
    return [{name: round(value, 2) if value is not None else None for name, value in one.items()} for one in points]


# The page

INTRODUCTION = """Made by `python benchmarks/peers.py page` from peers.json: do not edit.

Methods of nerfstudio 1.1.5 with their own defaults (nerfacto with NerfBaselines' settings for synthetic scenes),
trained for the same time on one machine and scored on the same pixels of the test views. Scoring and the first step,
which compiles kernels, do not count. K-Planes and the student have the preset's small models, and as many steps as
the time allows, to the end of the learning rate's cosine. The student's time is that of all stages, rendered views
included: its curve begins where the experts are done. NeRF and TensoRF are for bounded scenes alone. PSNR is
interpolated between scorings. Look at the steps: a method that took some dozens has hardly begun; most of these are
made for hours, or for a GPU. All but dac-demo were measured with earlier settings of the preset."""


def page(results: dict[str, Any]) -> str:
    """All figures as Markdown."""
    parts = ["# Beside other methods", INTRODUCTION, "![PSNR against seconds of training](peers.png)"]
    for name, scene in results["scenes"].items():
        parts += [f"## {name}", circumstances(scene), *tables(scene), verdict(scene)]
    return "\n\n".join(part for part in parts if part) + "\n"


def circumstances(scene: dict[str, Any]) -> str:
    """What was measured, where."""
    settings, on = scene["settings"], scene["machine"]
    width, height = scene["size"]
    stride = settings["stride"]
    nth = {2: "2nd", 3: "3rd"}.get(stride, f"{stride}th")
    pixels = f"every {nth} pixel of every {nth} row of " if stride > 1 else ""
    clocked = "Seconds by the clock."
    if not on_cuda(scene):
        clocked = "Seconds of the processor, all threads together, so that other load does not count."
    return (
        f"{clocked} {on['device']}, threads: {scene['threads']}; {settings['minutes']:g} minutes for each; scored on "
        f"{pixels}all test views of {width}x{height}; preset `{settings['preset']}`; seed {settings['seed']}."
    )


def on_cuda(scene: dict[str, Any]) -> bool:
    return scene["machine"]["device"].startswith("NVIDIA")


def tables(scene: dict[str, Any]) -> Iterator[str]:
    """Who is where when, the best in the end first; then who did not train, and who was left out."""
    curves = {name: peer["points"] for name, peer in scene["peers"].items() if "points" in peer}
    moments = [60 * scene["settings"]["minutes"] * mark for mark in MARKS[1:-1]]
    rows = []
    for name, points in sorted(curves.items(), key=lambda item: -item[1][-1]["psnr"]):
        early = ["–" if (psnr := psnr_at(points, moment)) is None else f"{psnr:.2f}" for moment in moments]
        last = points[-1]
        rows.append([PEERS[name].title, *early, f"{last['psnr']:.2f}", str(int(last["step"])), clock(last["seconds"])])
    yield table(Grid(["PSNR", *(f"after {clock(moment)}" for moment in moments), "in the end", "steps", "time"], rows))
    for name, peer in scene["peers"].items():
        if "error" in peer:
            yield f"{PEERS[name].title} did not train here: {peer['error']}"
    left_out = [peer.title for name, peer in PEERS.items() if name not in scene["peers"]]
    if left_out:
        yield f"Not run here: {', '.join(left_out)}."


def psnr_at(points: Sequence[Point], moment: float) -> Optional[float]:
    """What a peer scored after ``moment`` seconds, interpolated; None before its first score, then the last."""
    if moment < points[0]["seconds"]:
        return None
    return float(np.interp(moment, [one["seconds"] for one in points], [one["psnr"] for one in points]))


def verdict(scene: dict[str, Any]) -> str:
    """Who is ahead of the student once it is done, and whom it is ahead of."""
    curves = {name: peer["points"] for name, peer in scene["peers"].items() if "points" in peer}
    if OURS not in curves:
        return ""
    done = curves.pop(OURS)[-1]
    ahead: list[str] = []
    behind: list[str] = []
    for name, points in curves.items():
        psnr = psnr_at(points, done["seconds"])
        if psnr is not None:
            side = ahead if psnr > done["psnr"] else behind
            side.append(f"{PEERS[name].title} ({signed(psnr - done['psnr'])})")
    said = []
    if ahead:
        said.append(f"**After {clock(done['seconds'])} ahead of the student, in dB: {', '.join(ahead)}.**")
    if behind:
        said.append(f"Behind the student: {', '.join(behind)}.")
    return " ".join(said)


def plot(results: dict[str, Any], path: Path) -> None:
    """Curves of all peers, a panel for each scene, one below another."""
    scenes = results["scenes"]
    figure = Figure(figsize=(7.5, 4.2 * len(scenes)), layout="constrained")
    for panel, (title, scene) in zip(figure.subplots(len(scenes), 1, squeeze=False)[:, 0], scenes.items()):
        for number, name in enumerate(PEERS):
            points = scene["peers"].get(name, {}).get("points", [])
            if points:
                panel.plot(
                    [one["seconds"] for one in points], [one["psnr"] for one in points], label=PEERS[name].title,
                    color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], markersize=4,
                )  # fmt: skip
        what = "by the clock" if on_cuda(scene) else "of the processor"
        panel.set(title=title, xlabel=f"seconds of training, {what}", ylabel="PSNR on test views, dB")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=110)


def write_page(results: tyro.conf.Positional[Path], page_: tyro.conf.Positional[Path]) -> None:
    """Make the page, and the plot beside it.

    Args:
        results: as `run` writes it.
        page_: the file to write.
    """
    content = json.loads(results.read_text("utf8"))
    write_text(page_, page(content))
    plot(content, page_.with_suffix(".png"))


def main() -> None:
    try:
        tyro.extras.subcommand_cli_from_dict({"run": run, "page": write_page}, description=__doc__)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
