"""What a CUDA graph would do with a step, on the CPU, and what it would not let pass."""

import os
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = {
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "repeat_interleave",
}  # fmt: skip
"""Operations that wait for the device, or whose result's size depends on values."""


def tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class Tape(TorchDispatchMode):
    """Records every operation of a step, backward and optimizer included, and repeats the list in the same memory.

    As in a graph, numbers of Python are what they were, and memory is read anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], None]] = []
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = {storage(tensor) for tensor in tensors((args, kwargs))}
        result = function(*args, **kwargs)
        # Views, and what was changed in place, lie in memory that is up to date by itself.
        made = [(number, one) for number, one in enumerate(tensors(result)) if storage(one) not in inputs]
        self.names.append(function.overloadpacket.__name__)

        def again() -> None:
            fresh = tensors(function(*args, **kwargs))
            for number, one in made:
                one.copy_(fresh[number])

        self.calls.append(again)
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for call in self.calls:
            call()


class Tapes:
    """Captures as `CudaGraphs` does: a capture changes nothing, and draws nothing.

    Args:
        state: tensors that a step changes.
    """

    def __init__(self, state: Callable[[], Iterable[Tensor]]) -> None:
        self.state, self.tapes = state, list[Tape]()
        self.replayed = 0

    def warm_up(self, body: Callable[[], Tensor]) -> Tensor:
        return body()

    def capture(self, body: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        kept, generator, tape = [(one, one.clone()) for one in self.state()], torch.get_rng_state(), Tape()
        with tape:
            values = body()
        with torch.no_grad():
            for one, before in kept:
                one.copy_(before)
            values.fill_(torch.nan)
        torch.set_rng_state(generator)
        self.tapes.append(tape)

        def replay() -> None:
            self.replayed += 1
            tape.replay()

        return replay, values

    def synchronize(self) -> None:
        pass


MEMORY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "_unsafe_view"}
"""Operations that ask for memory alone, or name it otherwise, beside views."""


class Launches(TorchDispatchMode):
    """Counts the operations that a GPU would start kernels for; a fused one is one."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view and function.overloadpacket.__name__ not in MEMORY
        return function(*args, **(kwargs or {}))


class Legal(TorchDispatchMode):
    """Notes what cannot be captured: what waits for the device, and what is read from other memory than is held."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.kept = list(held)
        self.known = {storage(tensor) for tensor in self.kept}
        self.broken: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, inputs = function.overloadpacket.__name__, tensors((args, kwargs))
        if name in WAITING:
            self.broken.append(f"{name} in {where()}")
        if name in ("index", "index_put", "index_put_") and any(
            one.dtype in (torch.bool, torch.uint8) for one in tensors(args[1])
        ):
            self.broken.append(f"mask in {where()}")
        # A tensor of Python's numbers is made on the CPU, and copied.
        self.broken += [f"{name} of foreign memory in {where()}" for one in inputs if storage(one) not in self.known]
        result = function(*args, **(kwargs or {}))
        self.kept += tensors(result)
        self.known.update(map(storage, tensors(result)))
        return result


def where() -> str:
    """The line outside of PyTorch that is being run."""
    frames = [frame for frame in traceback.extract_stack() if f"{os.sep}torch{os.sep}" not in frame.filename]
    frames = [frame for frame in frames if frame.filename != __file__]
    return f"{os.path.basename(frames[-1].filename)}: {frames[-1].line}"
