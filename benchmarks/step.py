"""How fast a training step is, beside the naive path's (see naive.py), and where its time goes.

A step is what nerfstudio's trainer does: draw rays, render and compare them, go back, update. Both paths first have to
render the same colours from the same weights; then they take turns, each in its own process. "ratio" is the naive
path's time over ours, turn by turn; figures are medians with the least and the greatest in brackets.

    python benchmarks/step.py --sizes demo reference --json step.json
    python benchmarks/step.py --device cuda --sizes reference --rays 4096
"""

from __future__ import annotations

import copy
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, Optional

import naive
import timing
import torch
import tyro
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig, Optimizers

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig
from dac_nerfstudio.kplanes.teaching import ExpertModel, StudentModel
from dac_nerfstudio.methods import BOUNDED, methods
from dac_nerfstudio.partition import divide, publish_first
from dac_nerfstudio.presets import PRESETS
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.teachers.ensemble import Ensemble


def model_of(preset: str) -> dict[str, Any]:
    """Settings of a preset's model."""
    settings = {}
    for flag, value in PRESETS[preset].flags.items():
        name = flag.removeprefix("pipeline.model.").replace("-", "_")
        if hasattr(KPlanesModelConfig, name):
            several = isinstance(getattr(KPlanesModelConfig, name), tuple)
            settings[name] = (value,) if several and not isinstance(value, tuple) else value
    return settings


SIZES = {"demo": model_of("demo"), "quick": model_of("quick"), "reference": {}}
"""The models of two presets, and the reference's."""
PARTS = ("data", "forward", "losses", "backward", "update")
"""The parts of a step. Data are pixels and their rays; the model's own regularisers are part of its forward pass."""


@dataclass
class Options:
    """What to time."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where. On CUDA both paths use half precision where training does."""
    sizes: tuple[Literal["demo", "quick", "reference"], ...] = ("demo",)
    """Models."""
    decoders: tuple[Literal["explicit", "hybrid"], ...] = ("explicit", "hybrid")
    """Decoders."""
    stages: tuple[Literal["baseline", "expert", "distill"], ...] = ("baseline", "distill")
    """An expert's step is a baseline's, with fewer photos."""
    rays: int = 512
    """Rays per step."""
    groups: int = 4
    """Number of experts that answer in distillation."""
    threads: int = 1
    """CPU threads."""
    turns: int = 5
    """Timings of each path. A turn has as many steps as it takes for the proposals to be updated once."""
    profile: bool = False
    """Also print what our step spends its time on, by torch's profiler."""
    json: Optional[Path] = None
    """Also write all figures to this file."""


class Training:
    """One model's training, step by step, without nerfstudio's trainer around it."""

    def __init__(self, config: Any, groups: int, device: torch.device) -> None:
        self.device, self.mixed = device, config.mixed_precision and config.pipeline.model.implementation == "tcnn"
        manager = config.pipeline.datamanager
        self.manager = manager.setup(device=device, test_mode="val", world_size=1, local_rank=0)
        self.manager.to(device)
        self.model = self.new_model(config)
        if isinstance(self.model, StudentModel):
            box = self.manager.train_dataset.scene_box
            experts = [ExpertModel(config.pipeline.model, box, num_train_data=0) for _ in range(groups)]
            self.experts = [expert.teach_on(device) for expert in experts]
            self.model.teach = Ensemble(self.experts, range(1, groups + 1), self.manager.blend).teach
        self.optimizers = Optimizers(copy.deepcopy(config.optimizers), self.model.get_param_groups())
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.mixed)
        self.model.step = config.pipeline.model.proposal_warmup
        self.period = config.pipeline.model.proposal_update_every + 1

    def new_model(self, config: Any) -> KPlanesModel:
        box = self.manager.train_dataset.scene_box
        return config.pipeline.model.setup(scene_box=box, num_train_data=0).to(self.device)

    def step(self, stage: timing.Stage) -> torch.Tensor:
        self.model.train()
        with stage("data"):
            rays, batch = self.manager.next_train(self.model.step)
        with stage("forward"), torch.autocast(self.device.type, enabled=self.mixed):
            outputs = self.model(rays)
        with stage("losses"), torch.autocast(self.device.type, enabled=self.mixed):
            loss = torch.stack(list(self.model.get_loss_dict(outputs, batch).values())).sum()
        with stage("backward"):
            self.optimizers.zero_grad_all()
            self.scaler.scale(loss).backward()
        with stage("update"):
            self.optimizers.optimizer_scaler_step_all(self.scaler)
            self.scaler.update()
        self.model.step += 1
        return loss

    def turn(self, stage: timing.Stage) -> None:
        """As many steps as it takes for the proposals to be updated once."""
        for _ in range(self.period):
            self.step(stage)


def settings(scene: Path, size: str, decoder: str, stage: str, options: Options) -> Any:
    """What is registered for a stage, on the generated scene."""
    config = copy.deepcopy(methods(BOUNDED)[stage].config)
    chosen = {**SIZES[size], "linear_decoder": decoder == "explicit", "implementation": "torch"}
    for name, value in chosen.items():
        setattr(config.pipeline.model, name, value)
    manager = config.pipeline.datamanager
    manager.dataparser.data, manager.train_num_rays_per_batch = scene, options.rays
    if stage != "baseline":
        manager.sort_by_group = stage == "distill"
        manager.group = 1 if stage == "expert" else None
        _, manager.partition = publish_first(divide(read_views(scene), options.groups), scene.parent)
    return config


def naively(config: Any) -> Any:
    """The same with torch's default Adam and, where no groups are asked for, nerfstudio's own data manager."""
    config = copy.deepcopy(config)
    for group in config.optimizers.values():
        group["optimizer"] = AdamOptimizerConfig(lr=group["optimizer"].lr, eps=group["optimizer"].eps)
    manager = config.pipeline.datamanager
    if not manager.sort_by_group:
        config.pipeline.datamanager = VanillaDataManagerConfig(
            dataparser=manager.dataparser, train_num_rays_per_batch=manager.train_num_rays_per_batch
        )
    return config


def agree(ours: Training, slow: Training) -> None:
    """Give the naive path's model our weights; both must then see the same colours."""
    pairs = [(ours.model, slow.model)]
    if isinstance(ours.model, StudentModel):
        pairs += zip(ours.experts, slow.experts)
    rays = ours.model.collider(ours.manager.next_train(0)[0])
    for one, other in pairs:
        naive.copy_weights(one, other)
        with torch.no_grad(), torch.autocast(ours.device.type, enabled=ours.mixed):
            seen = [model.eval().render(rays, torch.ones(3, device=ours.device)).rgb for model in (one, other)]
        torch.testing.assert_close(seen[0], seen[1], atol=1e-2 if ours.mixed else 1e-4, rtol=0)


READY: list[Training] = []
"""The naive path's training, in its process."""


def begin(config: Any, options: Options) -> None:
    """Get the naive path ready in this process."""
    torch.set_num_threads(options.threads)
    with naive.parts():
        READY.append(Training(naively(config), options.groups, torch.device(options.device)))


def naive_turn() -> dict[str, float]:
    """Milliseconds of the naive path's next turn, by part."""
    with naive.parts():
        return timing.once(READY[0].turn, READY[0].device)


def per_step(stages: dict[str, timing.Times], period: int) -> dict[str, timing.Times]:
    """Times of a step, from those of turns of several."""
    return {part: timing.Times(t / period for t in spent) for part, spent in stages.items()}


def measure(scene: Path, size: str, decoder: str, stage: str, options: Options) -> list[dict[str, Any]]:
    """One entry per path."""
    device = torch.device(options.device)
    config = settings(scene, size, decoder, stage, options)
    ours = Training(config, options.groups, device)
    with naive.parts():
        agree(ours, Training(naively(config), options.groups, device))
    if options.profile:
        timing.profile(f"{stage}, {decoder}, {size}", ours.turn, device)
    # In a process of its own: what this one does about memory helps the naive path, too.
    slow = ProcessPoolExecutor(1, get_context("spawn"), begin, (config, options))
    with slow:
        paths = {"naive": lambda stage: slow.submit(naive_turn).result(), "ours": ours.turn}
        spent = timing.alternate(paths, options.turns, device)
    times = {name: per_step(stages, ours.period) for name, stages in spent.items()}
    whole = {name: timing.total(spent.values()) for name, spent in times.items()}
    return [
        {
            "stage": stage,
            "decoder": decoder,
            "size": size,
            "path": name,
            **{part: times[name][part] for part in PARTS},
            "step": whole[name],
            "ratio": whole["naive"].over(whole[name]),
        }
        for name in paths
    ]


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        scene = make_demo_scene(Path(folder) / "scene")
        entries = [
            entry
            for size in options.sizes
            for decoder in options.decoders
            for stage in options.stages
            for entry in measure(scene, size, decoder, stage, options)
        ]
    timing.report(f"Training step of {options.rays} rays on {options.device}, ms", options, entries)


if __name__ == "__main__":
    main()
