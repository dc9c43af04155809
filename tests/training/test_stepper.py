"""Steps by graphs are nerfstudio's steps. A tape stands in for a CUDA graph: it records every operation of a step once
and repeats the list. Numbers of Python are baked in, memory is read anew, random numbers from the seed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from dac_nerfstudio import methods
from dac_nerfstudio.kplanes import lookup, regularizers
from dac_nerfstudio.training.stepper import Stepper, obstacle
from dac_nerfstudio.training.trainer import DaCTrainer

STEPS = 30
SMALL: dict[str, Any] = {
    "grid_base_resolution": 8,
    "grid_feature_dim": 4,
    "multiscale_res": (1, 2),
    "linear_decoder_layers": 1,
    "proposal_resolutions": (8,),
    "num_proposal_samples": (12,),
    "num_samples": 8,
    "proposal_warmup": 10,
}
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "equal", "is_nonzero", "repeat_interleave", "lift_fresh",
}  # fmt: skip
"""Operations that wait for a device, or bring in what was made on the CPU: a CUDA graph can hold none of them."""


class Tape(TorchDispatchMode):
    """Records operations, and repeats them.

    Args:
        baked: tensors that are taken for constants, wrongly.
    """

    def __init__(self, baked: list[Tensor]) -> None:
        super().__init__()
        self.operations: list[Any] = []
        self.constants = {id(tensor): tensor.clone() for tensor in baked}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Tensor, lambda t: self.constants.get(id(t), t), (args, kwargs or {}))
        result = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, result))
        return result

    @torch.no_grad()
    def repeat(self) -> None:
        made: dict[int, Tensor] = {}
        for function, args, kwargs, result in self.operations:
            now = function(
                *tree_map_only(Tensor, lambda t: made.get(id(t), t), args),
                **tree_map_only(Tensor, lambda t: made.get(id(t), t), kwargs),
            )
            made.update({id(old): new for old, new in zip(tree_leaves(result), tree_leaves(now))})
        # What the step returns is made last, in memory that stays.
        result.copy_(made[id(result)])


def taped(baked: list[Tensor]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def capture(body: Callable[[], None]) -> Callable[[], None]:
        tape = Tape(baked)
        with tape:
            body()
        # Unlike a CUDA graph's, the recorded step was carried out.
        first = [True]
        return lambda: None if first and first.pop() else tape.repeat()

    return capture


class Legal(TorchDispatchMode):
    """Fails where a CUDA graph would."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in WAITS:
            raise RuntimeError(f"{name} in a graph")
        if name in ("index", "index_put_", "index_put"):
            chosen = [t for t in tree_leaves(args[1]) if isinstance(t, Tensor)]
            if any(t.dtype in (torch.bool, torch.uint8) for t in chosen):
                raise RuntimeError("a mask in a graph")
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plain PyTorch everywhere: a tape does not see what numba does."""
    monkeypatch.setattr(lookup, "choose", lambda *arguments: "reference")
    monkeypatch.setattr(regularizers, "smoothness_case_of", lambda scale: None)
    yield


@pytest.fixture
def begin(demo: Path, tmp_path: Path) -> Callable[..., DaCTrainer]:
    """Sets up a method's trainer, small; keyword arguments are the model's settings."""

    def make(method: str = "baseline", **settings: Any) -> DaCTrainer:
        config = copy.deepcopy(getattr(methods, method).config)
        config.output_dir, config.vis, config.groups = tmp_path / "outputs", "tensorboard", 2
        config.timestamp, config.max_num_iterations, config.machine.device_type = "run", STEPS, "cpu"
        config.pipeline.datamanager.data = demo
        config.pipeline.datamanager.train_num_rays_per_batch = 64
        for group in config.optimizers.values():
            group["scheduler"].warmup_steps = 5
        for name, value in {**SMALL, "proposal_weights_anneal_max_num_iters": 20, **settings}.items():
            setattr(config.pipeline.model, name, value)
        if method == "expert":
            config.group = 1
        torch.manual_seed(0)
        trainer = config.setup(local_rank=0, world_size=1)
        trainer.setup()
        return trainer

    return make


def by_graphs(trainer: DaCTrainer, bake: str = "") -> DaCTrainer:
    baked: list[Tensor] = []
    trainer.stepper = Stepper(trainer.pipeline, trainer.optimizers, taped(baked))
    baked += {"": [], "rates": [*trainer.stepper.rates.values()], "anneal": [trainer.stepper.anneal]}[bake]
    return trainer


def train(trainer: DaCTrainer, first: int = 0) -> list[dict[str, float]]:
    """All losses and metrics, step by step."""
    found = []
    for step in range(first, STEPS):
        loss, losses, metrics = trainer.train_iteration(step)
        found.append({"loss": loss, **losses, **metrics})
    return [{name: float(value) for name, value in one.items()} for one in found]


def weights(trainer: DaCTrainer) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in trainer.pipeline.model.named_parameters()}


def apart(one: DaCTrainer, other: DaCTrainer) -> float:
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel())


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("baseline", {}),
    ("baseline", {"linear_decoder": False, "background_color": "white", "is_contracted": True}),
    ("expert", {"regularizers": methods.RegularizerWeights(distortion=1e-3, proposal_tv=0)}),
]


@pytest.mark.parametrize(("method", "settings"), SETTINGS)
def test_steps_by_graphs_are_the_trainers(
    method: str, settings: dict[str, Any], begin: Callable[..., DaCTrainer]
) -> None:
    eager, graphs = begin(method, **settings), by_graphs(begin(method, **settings))
    theirs, ours = train(eager), train(graphs)
    assert graphs.stepper is not None and set(graphs.stepper.graphs) == {True, False}
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert apart(eager, graphs) < 1e-5
    for name, optimizer in eager.optimizers.optimizers.items():
        assert graphs.optimizers.optimizers[name].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("bake", ["rates", "anneal"])
def test_what_is_baked_into_a_graph_is_noticed(bake: str, begin: Callable[..., DaCTrainer]) -> None:
    eager, graphs = begin(), by_graphs(begin(), bake)
    train(eager), train(graphs)
    assert apart(eager, graphs) > 1e-4


@pytest.mark.parametrize(("method", "settings"), SETTINGS)
@pytest.mark.parametrize("learn", [True, False])
def test_a_graph_can_hold_the_step(
    method: str, settings: dict[str, Any], learn: bool, begin: Callable[..., DaCTrainer]
) -> None:
    trainer = begin(method, **settings)
    trainer.train_iteration(0)
    stepper = Stepper(trainer.pipeline, trainer.optimizers, lambda body: body)
    stepper.load(1)
    with Legal():
        stepper.body(learn)


def test_a_failed_capture_is_said_once_and_training_goes_on(begin: Callable[..., DaCTrainer]) -> None:
    asked: list[Any] = []

    def fail(body: Callable[[], None]) -> Callable[[], None]:
        asked.append(body)
        body()
        raise RuntimeError("operation not permitted when stream is capturing: aten::item")

    class Rehearsed(Stepper):
        def body(self, learn: bool) -> None:
            torch.rand(7)

    eager, graphs = begin(), begin()
    graphs.stepper = Rehearsed(graphs.pipeline, graphs.optimizers, fail)
    theirs = train(eager)
    with pytest.warns(UserWarning, match="No CUDA graph .*aten::item.*--cuda-graphs False") as said:
        ours = train(graphs)
    assert len(asked) == len([w for w in said if "CUDA graph" in str(w.message)]) == 1
    assert ours == theirs and apart(eager, graphs) == 0


def test_a_resumed_run_by_graphs_is_the_undisturbed_one(begin: Callable[..., DaCTrainer]) -> None:
    whole, resumed = by_graphs(begin()), by_graphs(begin())
    train(whole)
    half = begin()
    for step in range(15):
        half.train_iteration(step)
    resumed.pipeline.load_state_dict(half.pipeline.state_dict())
    for name, optimizer in half.optimizers.optimizers.items():
        resumed.optimizers.optimizers[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
        resumed.optimizers.schedulers[name].load_state_dict(half.optimizers.schedulers[name].state_dict())
    train(resumed, first=15)
    assert apart(whole, resumed) < 1e-5


def test_what_no_graph_can_do_is_named(begin: Callable[..., DaCTrainer], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = begin()
    assert obstacle(trainer) == "no CUDA" and trainer.stepper is None
    monkeypatch.setattr(trainer, "device", "cuda:0")
    assert obstacle(trainer) is None
    trainer.config.log_gradients = True
    assert obstacle(trainer) == "gradients that are logged"
    trainer.config.cuda_graphs = False
    assert obstacle(trainer) == "--cuda-graphs False"
