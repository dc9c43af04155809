"""Counter-based random keys: all randomness is a function of seed, stage and step."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
"""32 bits."""
ROUNDS = 6
"""Rounds of the keyed permutation of pixels, in PyTorch and in the kernel alike."""

Numbers = TypeVar("Numbers", int, Tensor)


def mix(x: Numbers) -> Numbers:
    """Avalanche of 32-bit numbers, tensors held in int64 (the finaliser of MurmurHash3)."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & MASK
    return x ^ (x >> 16)


def key_of(*parts: int) -> int:
    """One 31-bit key from several numbers, such as (seed, epoch)."""
    state = 0
    for part in parts:
        state = mix((state * 31 + (part & MASK) + 0x9E3779B9) & MASK)
    return state >> 1


def seed_generators(key: int, device: torch.device) -> None:
    """Seed PyTorch's generators of the CPU and of one device. ``torch.manual_seed`` would also queue a call with a
    stack trace for every kind of device that is not there, which takes longer than drawing the step's numbers."""
    torch.default_generator.manual_seed(key)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(key)
