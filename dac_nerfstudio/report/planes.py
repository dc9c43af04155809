"""Pictures of what a model has learned: the lengths of the features on its finest planes."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.runs.layout import latest_checkpoint

PLANES = ("x–y", "x–z", "y–z")
"""Column and row axis of each plane, as ``kplanes.planes`` has them."""
SIDE = 320
"""Planes are drawn with no more pixels a side than this."""


def read_planes(run_dir: Path) -> Tuple[Optional[np.ndarray], str]:
    """Lengths of the feature vectors on the finest planes [3, side, side] of a run, or None and why.

    Rows are the plane's second axis, upwards from the first.
    """
    try:
        path = latest_checkpoint(run_dir)
    except StageError as error:
        return None, str(error)
    import pickle

    import torch

    try:
        # Mapped: of a large checkpoint only the planes are read.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["pipeline"]
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError):
        return None, f"The checkpoint in {run_dir} cannot be read."
    prefix = "_model.field.planes.scales."
    scales: Dict[int, torch.Tensor] = {}
    for key, value in state.items():
        number = key.removeprefix("module.").removeprefix(prefix)
        if number.isdigit():
            scales[int(number)] = value
    if not scales:
        return None, f"The checkpoint in {run_dir} holds no planes."
    finest = max(scales.values(), key=lambda planes: planes.shape[1])
    return finest.detach().float().norm(dim=-1).numpy(), ""


def shrunk(plane: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A plane [rows, columns] with no more than ``side`` pixels a side, as means over blocks."""
    factor = -(-max(plane.shape) // side)
    if factor == 1:
        return plane
    rows, columns = (length // factor * factor for length in plane.shape)
    blocks = plane[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    return blocks.mean(axis=(1, 3))


def scale_of(planes: List[np.ndarray]) -> Tuple[float, float]:
    """Lengths at which the darkest and the lightest colour are reached; few points lie beyond."""
    values = np.concatenate([plane.ravel() for plane in planes])
    low, high = np.quantile(values, [0.01, 0.995])
    return float(low), float(high if high > low else low + 1)
