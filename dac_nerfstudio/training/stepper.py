"""The training step as one function over buffers that stay where they are, which a CUDA graph repeats without Python.

On a fast GPU a step of a K-Planes model waits for Python, which asks for some hundred kernels one by one. A graph asks
for all of them at once. What changes from step to step is therefore in memory: the batch, the learning rates, the
exponent on the proposals' weights. There is one graph for steps on which proposals learn, and one for the others.
"""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.optimizers import Optimizers
from torch import Tensor

from dac_nerfstudio.training.pipeline import DaCPipeline

EAGER_STEPS = 2
"""Steps of each kind before its graph: they make the optimizer's state, and compile kernels."""

Output = Tuple[Tensor, Dict[str, Tensor], Dict[str, Tensor]]
"""Loss, its terms, and metrics."""
Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a function over buffers, and returns one that repeats it."""


class Stepper:
    """Takes the steps of one model's training by graphs, once these are made.

    Args:
        pipeline: of a model that is trained by itself, without teachers.
        optimizers: Adam in one kernel, see `obstacle`.
        capture: makes a graph.
    """

    def __init__(self, pipeline: DaCPipeline, optimizers: Optimizers, capture: Capture) -> None:
        self.pipeline, self.model, self.optimizers, self.capture = pipeline, pipeline.model, optimizers, capture
        device = pipeline.device
        self.anneal = torch.ones((), device=device)
        self.rates = {name: torch.zeros((), device=device) for name in optimizers.optimizers}
        self.rays: Optional[RayBundle] = None
        self.batch: Dict[str, Tensor] = {}
        self.graphs: Dict[bool, Callable[[], None]] = {}
        self.names: Dict[bool, Tuple[List[str], List[str]]] = {}
        self.values: Dict[bool, Tensor] = {}
        self.seen = {False: 0, True: 0}
        self.failed = False

    def __call__(self, step: int) -> Optional[Output]:
        """Take a step, or None where an eager one has to be taken instead.

        The first capture that fails is the last: a warning says why, and all steps are eager from there on.
        """
        _, learn = self.model.schedule()
        self.seen[learn] += 1
        if self.failed or self.seen[learn] <= EAGER_STEPS:
            return None
        self.load(step)
        if learn not in self.graphs:
            try:
                self.graphs[learn] = self.capture(lambda: self.body(learn))
            except Exception as error:  # whatever an operation, a driver or a kernel can raise
                self.give_up(error)
                return None
            # Making a graph may have drawn random numbers.
            self.pipeline.seed(step)
        self.graphs[learn]()
        self.optimizers.scheduler_step_all(step)
        # Graphs write the same memory again and again; losses are kept for longer.
        values = list(self.values[learn].clone())
        terms, metrics = self.names[learn]
        return values[0], dict(zip(terms, values[1:])), dict(zip(metrics, values[1 + len(terms) :]))

    def load(self, step: int) -> None:
        """Put in what changes from step to step. Seeded as an eager step: a graph reads the seed when it is run."""
        self.pipeline.seed(step)
        rays, batch = self.pipeline.datamanager.next_train(step)
        if self.rays is None:
            self.rays = rays._apply_fn_to_fields(torch.clone)
            self.batch = {name: value.clone() for name, value in batch.items()}
        for name, value in _tensors(rays).items():
            _tensors(self.rays)[name].copy_(value)
        for name, value in batch.items():
            self.batch[name].copy_(value)
        anneal, _ = self.model.schedule()
        self.anneal.fill_(anneal)
        for name, optimizer in self.optimizers.optimizers.items():
            self.rates[name].fill_(optimizer.param_groups[0]["lr"])

    def body(self, learn: bool) -> None:
        """One step on what is in the buffers: what nerfstudio's trainer does, with schedules that are read from memory.

        Args:
            learn: whether proposal fields do.
        """
        self.zero_grad()
        self.model.fixed_schedule = self.anneal, learn
        try:
            # The collider sets nears and fars in the bundle.
            outputs = self.model(copy.copy(self.rays))
            metrics = self.model.get_metrics_dict(outputs, self.batch)
            losses = self.model.get_loss_dict(outputs, self.batch, metrics)
        finally:
            self.model.fixed_schedule = None
        loss = functools.reduce(torch.add, losses.values())
        loss.backward()
        for name, optimizer in self.optimizers.optimizers.items():
            adam(optimizer, self.rates[name])
        self.names[learn] = list(losses), list(metrics)
        self.values[learn] = torch.stack([loss.detach(), *(v.detach() for v in (*losses.values(), *metrics.values()))])

    def zero_grad(self) -> None:
        for optimizer in self.optimizers.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def give_up(self, error: Exception) -> None:
        self.failed = True
        if self.anneal.is_cuda:
            torch.cuda.synchronize(self.anneal.device)
        self.graphs.clear()
        self.zero_grad()
        said = next((line for line in str(error).splitlines() if line.strip()), "no more is known")
        warnings.warn(
            f"No CUDA graph could be made of the training step ({type(error).__name__}: {said}). Training goes on "
            "without, more slowly. To do without this warning: --cuda-graphs False",
            stacklevel=2,
        )


def _tensors(rays: RayBundle) -> Dict[str, Tensor]:
    """The tensors of a bundle by name."""
    named = {**vars(rays), **rays.metadata}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def adam(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """What `torch.optim.Adam.step` does with ``fused``, on its own state, with a rate that is read from memory."""
    for group in optimizer.param_groups:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            continue
        states = [optimizer.state[parameter] for parameter in parameters]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        with torch.no_grad():
            torch._fused_adam_(
                parameters, [parameter.grad for parameter in parameters],
                [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states], [], steps,
                lr=rate, beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=group["weight_decay"],
                eps=group["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip


def on_cuda() -> Capture:
    """Captures CUDA graphs, which share their memory."""
    pool = torch.cuda.graph_pool_handle()

    def capture(body: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads, which copy the next batch, may go on meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            body()
        return graph.replay

    return capture


def obstacle(trainer: Any) -> Optional[str]:
    """Why a training's steps cannot be graphs; None if they can."""
    config, model, optimizers = trainer.config, trainer.pipeline.model, trainer.optimizers
    reasons = {
        "--cuda-graphs False": not config.cuda_graphs,
        "no CUDA": torch.device(trainer.device).type != "cuda",
        "several processes": trainer.world_size > 1,
        "teachers": getattr(model, "teach", None) is not None,
        "mixed precision": trainer.mixed_precision or trainer.grad_scaler.is_enabled(),
        "gradients that are logged": config.log_gradients,
        "gradients that are summed up": any(steps > 1 for steps in trainer.gradient_accumulation_steps.values()),
        "gradients that are cut": any(o["optimizer"].max_norm is not None for o in config.optimizers.values()),
        "another optimizer than Adam in one kernel": not all(
            type(optimizer) is torch.optim.Adam and optimizer.defaults["fused"] and not optimizer.defaults["amsgrad"]
            for optimizer in optimizers.optimizers.values()
        ),
        "tiny-cuda-nn": any(type(module).__module__.startswith("tinycudann") for module in model.modules()),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
