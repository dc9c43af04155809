"""How many tensor operations a training step asks of torch, and how often it waits for the device, by part.

Counted on the CPU with the reference's number of planes and levels at tiny sizes, on which counts do not depend; views
and empty tensors are no operations. nerfstudio's own loop runs the step, with the gradient scaler as on a GPU.
A synchronisation is whatever needs a number of the device on the host: reading one (``item``, ``tolist``), shapes that
depend on values (masks as indices, ``nonzero``, ``unique``), and copies of this project that wait for their end. What
the draw computes lies on the host, so that reading it waits for nothing. What training does ahead, in a thread, is done
at once here, and counted.

    python benchmarks/operations.py --json operations.json
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional
from unittest import mock

import timing
import torch
import tyro
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer
from nerfstudio.model_components.ray_generators import RayGenerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import dac_nerfstudio
from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.methods import BOUNDED, methods
from dac_nerfstudio.partition import find_or_divide
from dac_nerfstudio.sampling.pixels import PixelSchedule
from dac_nerfstudio.scene.reading import read_views
from dac_nerfstudio.teachers.ensemble import ExpertBank
from dac_nerfstudio.teachers.models import ExpertModel
from dac_nerfstudio.training.datamanager import DaCDataManager

PARTS = ("draw", "rays", "batch", "forward", "teachers", "losses", "backward", "update", "loop")
"""The parts of a step; "batch" is the rest of what the data manager does, "loop" is nerfstudio's, with metrics."""
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "equal")
ALLOCATIONS = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "lift_fresh")
TINY = {
    "grid_base_resolution": 8,
    "grid_feature_dim": 4,
    "proposal_resolutions": (8, 16),
    "num_proposal_samples": (16, 8),
    "num_samples": 6,
    "implementation": "torch",
}
STEP = 17
"""A step at which the proposals are updated."""


@dataclass
class Options:
    """What to count."""

    stages: tuple[Literal["baseline", "expert", "distill"], ...] = ("baseline", "expert", "distill")
    """Steps."""
    lenses: tuple[Literal["pinhole", "distorted"], ...] = ("pinhole", "distorted")
    """Kinds of cameras."""
    groups: int = 4
    """Number of experts that answer in distillation."""
    json: Optional[Path] = None
    """Also write all figures to this file."""
    device: Literal["cpu"] = "cpu"
    """Where this runs; a GPU is asked for the same."""


class Count(TorchDispatchMode):
    """Counts what happens while it is entered, by the part of the step that is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.part = "loop"

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_host = self.part == "draw" or (bool(read) and all(getattr(tensor, "on_host", False) for tensor in read))
        if on_host:
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    leaf.on_host = True  # type: ignore[attr-defined]
        if not function.is_view and name not in ALLOCATIONS:
            self.operations[self.part] += 1
        by_mask = name in ("index", "index_put_") and any(t.dtype in (torch.bool, torch.uint8) for t in read[1:2])
        if (name in WAITS or by_mask) and not on_host:
            self.waits[self.part] += 1
        return result

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        outer, self.part = self.part, part
        try:
            yield
        finally:
            self.part = outer

    def marked(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The function as that part of the step."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.within(part):
                return function(*args, **kwargs)

        return run

    def copy(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Stands in place of ``Tensor.to``: on a GPU, what this project sends there is copied."""
        result = TO(tensor, *args, **kwargs)
        by_us = sys._getframe(1).f_code.co_filename.startswith(str(Path(dac_nerfstudio.__file__).parent))
        target = args[0] if args else kwargs.get("device")
        if by_us and self.part == "batch" and isinstance(target, (str, torch.device)):
            self.waits[self.part] += not kwargs.get("non_blocking", False)
            result = result.clone()
            result.on_host = False  # type: ignore[attr-defined]
        return result

    def listed(self, tensor: Tensor) -> Any:
        """Stands in place of ``Tensor.tolist``."""
        self.waits[self.part] += not getattr(tensor, "on_host", False)
        return TOLIST(tensor)


TO, TOLIST = Tensor.to, Tensor.tolist


@contextmanager
def marks(count: Count) -> Iterator[None]:
    """Tell the count which part of a step runs."""
    parts: list[tuple[Any, str, str]] = [
        (PixelSchedule, "draw", "draw"),
        (RayGenerator, "forward", "rays"),
        (DaCDataManager, "next_train", "batch"),
        (KPlanesModel, "forward", "forward"),
        (ExpertBank, "__call__", "teachers"),
        (Tensor, "backward", "backward"),
        (Optimizers, "optimizer_scaler_step_some", "update"),
    ]
    if "dac_nerfstudio.sampling.rays" in sys.modules:
        parts.append((sys.modules["dac_nerfstudio.sampling.rays"].PixelRays, "__call__", "rays"))
    with ExitStack() as stack:
        if "dac_nerfstudio.sampling.prefetch" in sys.modules:
            at_once = lambda ahead, number, size: count.marked(ahead.function, "draw")(number)  # noqa: E731
            stack.enter_context(
                mock.patch.object(sys.modules["dac_nerfstudio.sampling.prefetch"].Ahead, "__call__", at_once)
            )
        for owner, name, part in parts:
            if hasattr(owner, name):
                original = getattr(owner, name)
                stack.enter_context(mock.patch.object(owner, name, count.marked(original, part)))
        stack.enter_context(mock.patch.object(Tensor, "to", lambda *args, **kwargs: count.copy(*args, **kwargs)))
        stack.enter_context(mock.patch.object(Tensor, "tolist", lambda tensor: count.listed(tensor)))
        yield


def trainer_of(scene: Path, stage: str, lens: str, options: Options) -> Trainer:
    """nerfstudio's trainer for one stage on a generated scene, without its viewer, files and log."""
    config = copy.deepcopy(methods(BOUNDED)[stage].config)
    for name, value in TINY.items():
        setattr(config.pipeline.model, name, value)
    manager = config.pipeline.datamanager
    manager.dataparser.data, manager.data, manager.train_num_rays_per_batch = scene, scene, 256
    if stage != "baseline":
        _, manager.partition = find_or_divide(scene.parent, read_views(scene), groups=options.groups)
    if stage == "expert":
        manager.group = 1
    manager.sort_by_group = stage == "distill"
    config.machine.device_type = "cpu"
    trainer = Trainer(config)
    trainer.pipeline = config.pipeline.setup(device="cpu", test_mode="val", world_size=1, local_rank=0)
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    if stage == "distill":
        box = data.train_dataset.scene_box
        experts = [ExpertModel(config.pipeline.model, scene_box=box, num_train_data=0) for _ in range(options.groups)]
        model.teachers = ExpertBank([[expert] for expert in experts])
    if lens == "distorted":
        cameras = data.train_dataset.cameras
        cameras.distortion_params = torch.tensor([0.1, -0.02, 0.0, 0.0, 1e-3, 0.0]).expand(len(cameras), 6)
        data.setup_train()
    trainer.optimizers = trainer.setup_optimizers()
    trainer.grad_scaler = torch.amp.GradScaler("cpu")  # type: ignore[assignment]
    trainer.pipeline.train()
    return trainer


def counts(trainer: Trainer) -> Count:
    """The counts of one step, after one that is not counted."""
    trainer.train_iteration(STEP - 1)
    count = Count()
    model = type(trainer.pipeline.model)
    with marks(count), mock.patch.object(model, "get_loss_dict", count.marked(model.get_loss_dict, "losses")):
        with count:
            trainer.train_iteration(STEP)
    return count


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    entries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scene = make_demo_scene(Path(folder) / "scene", size=16, train=8, val=1, test=1)
        for stage in options.stages:
            for lens in options.lenses:
                count = counts(trainer_of(scene, stage, lens, options))
                for kind, numbers in (("operations", count.operations), ("synchronisations", count.waits)):
                    by_part = {part: numbers[part] for part in PARTS}
                    entries.append(
                        {"stage": stage, "lens": lens, "count": kind, **by_part, "step": sum(by_part.values())}
                    )
    timing.show("A training step, counted", entries)
    timing.write_results(options.json, options, entries)


if __name__ == "__main__":
    main()
