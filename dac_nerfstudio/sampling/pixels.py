"""Which pixels a training step draws, as a function of seed and step: nothing to save, any step can be repeated alone.

An epoch visits every pixel of a view of weight 1 once, in random order, and of a view of weight w a random share w of
them. The order comes from a keyed bijection of the pixel numbers instead of a stored permutation.
``permute`` and ``draw`` are plain PyTorch; training draws by their fused equal in ``kernels``.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.sampling.hashing import MASK, ROUNDS, key_of, mix


def permute(numbers: Int[Tensor, "n"], sizes: Int[Tensor, "n"], keys: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Where a keyed permutation of 0 .. size-1 takes each number; equal size and key mean the same permutation.

    A Feistel network on the cells of a rectangle that is hardly larger than the size: the row is shifted by a hash of
    the column, then the column by one of the row, and so on. Results outside 0 .. size-1 go round again until they fall
    inside (cycle walking), which keeps the map one-to-one and happens to few.
    """
    columns = sizes.double().sqrt().ceil().long()
    rows = (sizes + columns - 1) // columns
    out = numbers.clone()
    outside = torch.arange(len(numbers), device=numbers.device)
    while len(outside):
        height, width, key = rows[outside], columns[outside], keys[outside]
        row, column = out[outside] // width, out[outside] % width
        for round_number in range(0, ROUNDS, 2):
            row = (row + mix((column * 0x9E3779B1 + key + round_number) & MASK)) % height
            column = (column + mix((row * 0x9E3779B1 + key + round_number + 1) & MASK)) % width
        out[outside] = row * width + column
        outside = outside[out[outside] >= sizes[outside]]
    return out


class PixelSchedule:
    """Draws pixels from views of different size and weight.

    Args:
        sizes: pixels of each view.
        weights: of each view, in [0, 1].

    Raises:
        StageError: no pixel has a weight.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], num_rays_per_batch: int, seed: int) -> None:
        self.sizes = torch.tensor(sizes, dtype=torch.int64)
        counts = (self.sizes * torch.tensor(weights, dtype=torch.float64)).round().long()
        self.ends = counts.cumsum(0)
        self.starts = self.ends - counts
        self.epoch_length = int(self.ends[-1])
        self.num_rays_per_batch, self.seed = num_rays_per_batch, seed
        if self.epoch_length == 0:
            raise StageError("There is no pixel to draw: every view is empty, masked as a whole, or of weight 0.")

    def draw(self, step: int) -> Tuple[Int[Tensor, "batch"], Int[Tensor, "batch"]]:
        """View and pixel number within the view, for each ray of the step."""
        from dac_nerfstudio.sampling import kernels

        count = self.num_rays_per_batch
        first, last = step * count, (step + 1) * count - 1
        epochs = range(first // self.epoch_length, last // self.epoch_length + 1)
        keys = np.array([key_of(self.seed, epoch) for epoch in epochs])
        views, pixels = np.empty(count, np.int64), np.empty(count, np.int64)
        sizes, ends, starts = (numbers.numpy() for numbers in (self.sizes, self.ends, self.starts))
        kernels.draw(first, keys, sizes, ends, starts, views, pixels)
        return torch.from_numpy(views), torch.from_numpy(pixels)


def draw(schedule: PixelSchedule, step: int) -> Tuple[Int[Tensor, "batch"], Int[Tensor, "batch"]]:
    """What ``PixelSchedule.draw`` returns, operation by operation: its reference."""
    positions = torch.arange(step * schedule.num_rays_per_batch, (step + 1) * schedule.num_rays_per_batch)
    epochs = positions // schedule.epoch_length
    epoch_keys = torch.empty_like(positions)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        epoch_keys[epochs == epoch] = key_of(schedule.seed, epoch)
    lengths = torch.full_like(positions, schedule.epoch_length)
    order = permute(positions % schedule.epoch_length, lengths, epoch_keys)
    views = torch.searchsorted(schedule.ends, order, right=True)
    keys = mix((epoch_keys + views * 0x9E3779B1) & MASK)
    return views, permute(order - schedule.starts[views], schedule.sizes[views], keys)
