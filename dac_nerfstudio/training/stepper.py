"""The training step as one function over fixed buffers, so that a CUDA graph can repeat it without Python.

A captured step reads batch, learning rates and annealing anew from the same memory, and draws from the generator as it
is seeded before; Python's numbers and branches in it stay those of its capture. So numbers that change are tensors, and
steps on which the proposals learn and steps on which they do not are captured apart.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.optim import Adam, Optimizer

from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.kplanes.proposals import Schedule
from dac_nerfstudio.messages import say
from dac_nerfstudio.teachers.slots import Slots

Body = Callable[[], Tensor]
Replay = Callable[[], None]

WARM_UP = 2
"""Steps of either kind before one is captured: kernels are compiled, and workspaces made, at first use."""


class CudaGraphs:
    """Takes, captures and repeats steps on a CUDA device. Graphs share one pool of memory, for one runs at a time."""

    def __init__(self, device: Union[torch.device, str]) -> None:
        self.device = torch.device(device)
        self.stream = torch.cuda.Stream(self.device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, body: Body) -> Tensor:
        """Take a step as it will be captured: on a stream of its own."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            values = body()
        current.wait_stream(self.stream)
        return values

    def capture(self, body: Body) -> Tuple[Replay, Tensor]:
        """What repeats a step, and where it leaves its result. The step itself is not taken."""
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: another one pins the memory of the next batch meanwhile.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            values = body()
        return graph.replay, values

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)


@dataclass
class Kind:
    """Steps that take the same branches."""

    taken: int = 0
    replay: Optional[Replay] = None
    values: Optional[Tensor] = None
    """What the latest repetition left, overwritten by the next one of any kind."""


class Stepper:
    """Takes the steps of nerfstudio's trainer, whose models, optimizers and schedulers stay as they are.

    Made when weights and Adam's moments are loaded: graphs hold on to the memory that these lie in.

    Args:
        trainer: set up, and such that `can_capture`.
        graphs: who captures; without it every step is taken by Python.
        slots: of the teachers who answer in every step.
    """

    def __init__(self, trainer: Trainer, graphs: Optional[CudaGraphs], slots: Optional[Slots] = None) -> None:
        self.pipeline: Any = trainer.pipeline
        self.model: Any = trainer.pipeline.model
        self.optimizers = trainer.optimizers
        self.graphs, self.slots = graphs, slots
        if slots is not None:
            self.model.teach = slots.teach
        device = self.model.device
        self.anneal = torch.ones((), device=device)
        self.rates = {name: torch.zeros((), device=device) for name in self.optimizers.optimizers}
        self.rays: Any = None
        self.batch: Dict[str, Tensor] = {}
        self.kinds = {True: Kind(), False: Kind()}
        self.names: List[List[str]] = []
        """Of the losses and of the metrics, in the order of the body's result."""

    def step(self, step: int) -> Tuple[Tensor, Dict[str, Tensor], Dict[str, Tensor]]:
        """Take a training step; total loss, losses and metrics, as nerfstudio's ``train_iteration``."""
        values = self.advance(step, self.load(step))
        self.optimizers.scheduler_step_all(step)
        loss, *rest = values.unbind()
        losses, metrics = self.names
        return loss, dict(zip(losses, rest)), dict(zip(metrics, rest[len(losses) :]))

    def load(self, step: int) -> bool:
        """Put in all that a step reads from outside; whether the proposals learn in it."""
        self.pipeline.seed_step(step)
        rays, batch = self.pipeline.datamanager.next_train(step)
        if self.slots is not None:
            self.slots.place(rays.metadata.pop("group")[:, 0])
        if self.rays is None:
            self.rays, self.batch = rays._apply_fn_to_fields(torch.clone), {k: v.clone() for k, v in batch.items()}
        for name, value in vars(rays).items():
            if isinstance(value, Tensor):
                getattr(self.rays, name).copy_(value)
        for held, given in ((self.rays.metadata, rays.metadata), (self.batch, batch)):
            for name, value in given.items():
                held[name].copy_(value)
        schedule = self.model.schedule()
        self.anneal.fill_(schedule.anneal)
        for name, optimizer in self.optimizers.optimizers.items():
            self.rates[name].fill_(optimizer.param_groups[0]["lr"])
        return schedule.learn

    def advance(self, step: int, learn: bool) -> Tensor:
        """Take the step that is loaded; what its body returns."""
        kind, body = self.kinds[learn], partial(self.body, learn)
        if self.graphs is None or not (self.slots is None or self.slots.fits):
            return body()
        if kind.taken < WARM_UP:
            kind.taken += 1
            return self.graphs.warm_up(body)
        if kind.replay is None:
            try:
                kind.replay, kind.values = self.graphs.capture(body)
            except Exception as error:
                self.give_up(error)
            self.pipeline.seed_step(step)
        if kind.replay is None:
            return body()
        kind.replay()
        assert kind.values is not None
        return kind.values.clone()

    def body(self, learn: bool) -> Tensor:
        """The step itself: total loss, losses and metrics. Reads what changes from the buffers alone."""
        for optimizer in self.optimizers.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.model.fixed_schedule = Schedule(self.anneal, learn)
        try:
            # A copy: the collider notes nears and fars in the bundle.
            outputs = self.model(copy.copy(self.rays))
            metrics = self.model.get_metrics_dict(outputs, self.batch)
            losses = self.model.get_loss_dict(outputs, self.batch, metrics)
        finally:
            self.model.fixed_schedule = None
        loss = reduce(torch.add, losses.values())
        loss.backward()
        for name, optimizer in self.optimizers.optimizers.items():
            with rate_as_tensor(optimizer, self.rates[name]):
                optimizer.step()
        self.names = [list(losses), list(metrics)]
        return torch.stack([loss, *losses.values(), *metrics.values()]).detach()

    def give_up(self, error: BaseException) -> None:
        """Let Python take the steps from here on, and say what could not be captured."""
        assert self.graphs is not None
        self.graphs.synchronize()
        self.graphs, self.kinds = None, {True: Kind(), False: Kind()}
        for optimizer in self.optimizers.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        text = f"The training step cannot be captured as a CUDA graph and is slower for it: {operation(error)}"
        say(CONSOLE, (text, "yellow"))


@contextmanager
def rate_as_tensor(optimizer: Optimizer, rate: Tensor) -> Iterator[None]:
    """Let Adam read its learning rate from a tensor; groups and checkpoints keep the number."""
    capturing = rate.is_cuda and torch.cuda.is_current_stream_capturing()
    kept = [(group["lr"], group["capturable"]) for group in optimizer.param_groups]
    try:
        for group in optimizer.param_groups:
            group["lr"], group["capturable"] = rate, capturing
        yield
    finally:
        for group, (lr, capturable) in zip(optimizer.param_groups, kept):
            group["lr"], group["capturable"] = lr, capturable


def operation(error: BaseException) -> str:
    """Where an error began, outside of PyTorch, and what it says."""
    while error.__context__ is not None:
        error = error.__context__
    frames = list(traceback.extract_tb(error.__traceback__))
    last = ([frame for frame in frames if Path(torch.__file__).parent not in Path(frame.filename).parents] or frames)[
        -1
    ]
    place = f"{last.line} ({Path(last.filename).name}:{last.lineno})"
    return f"{place}: {(str(error) or type(error).__name__).splitlines()[0]}"


def can_capture(trainer: Trainer, teachers: Sequence[Any] = ()) -> bool:
    """Whether a trainer that is set up takes steps that a CUDA graph can repeat: of K-Planes, on one GPU, in one
    precision, without tiny-cuda-nn, and by fused Adam alone."""
    config, model = trainer.config, trainer.pipeline.model
    return (
        getattr(config, "cuda_graphs", False)
        and isinstance(model, KPlanesModel)
        and model.device.type == "cuda"
        and trainer.world_size == 1
        and not (trainer.mixed_precision or trainer.grad_scaler.is_enabled() or config.log_gradients)
        and set(config.gradient_accumulation_steps.values()) <= {1}
        and all(getattr(one.config, "implementation", None) == "torch" for one in (model, *teachers))
        and all(settings["optimizer"].max_norm is None for settings in config.optimizers.values())
        and all(
            isinstance(optimizer, Adam) and all(group["fused"] for group in optimizer.param_groups)
            for optimizer in trainer.optimizers.optimizers.values()
        )
    )
