"""How sharply a blend should favour each camera's own expert, found on views that nothing was trained on."""

from __future__ import annotations

import math
from typing import Callable, Dict, Iterable, List, Sequence, Tuple

import torch
from jaxtyping import Float
from torch import Tensor

SHARPNESSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
"""What is tried, from averaging all experts to asking one."""
UNCHOSEN = 4.0
"""Where there are no views to choose on."""
MOST_VIEWS = 8
"""So many views of a split are enough to choose one number."""

Pictures = Tuple[Float[Tensor, "experts height width 3"], Float[Tensor, "height width 3"], Float[Tensor, "3 4"]]
"""What each expert renders at a view, the photo, and the view's camera-to-world matrix."""
Weights = Callable[[Float[Tensor, "cameras 3 4"], float], Float[Tensor, "cameras experts"]]
"""Camera-to-world matrices and a sharpness -> the weights of the experts at each camera."""


def choose_sharpness(
    views: Iterable[Pictures],
    blend: Weights,
    candidates: Sequence[float] = SHARPNESSES,
) -> Tuple[float, Dict[float, float]]:
    """The sharpness whose blend comes nearest to the photos.

    Args:
        views: rendered by every expert; held by turns.
        blend: weights of the experts at cameras, by sharpness.
        candidates: what is tried; of equals the first wins.

    Returns:
        The best, and each candidate's PSNR in dB, mean over views.

    Raises:
        ValueError: there is no view.
    """
    found: Dict[float, List[float]] = {sharpness: [] for sharpness in candidates}
    for pictures, photo, pose in views:
        for sharpness, values in found.items():
            (weights,) = blend(pose[None], sharpness)
            mean = torch.einsum("e,ehwc->hwc", weights.to(pictures), pictures)
            values.append(-10 * math.log10(max((mean - photo).square().mean().item(), 1e-12)))
    if not all(found.values()):
        raise ValueError("There is no view to choose a sharpness on.")
    means = {sharpness: sum(values) / len(values) for sharpness, values in found.items()}
    return max(means, key=lambda sharpness: means[sharpness]), means
