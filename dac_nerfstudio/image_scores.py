"""How near a rendered view comes to its photo: the scores that need no learned weights, and why one is left out."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Tuple

import torch
from jaxtyping import Float
from nerfstudio.utils import colormaps
from PIL import Image
from torch import Tensor

MS_SSIM_SIDE = 176
"""Fewest pixels of a side for which torchmetrics computes MS-SSIM: 11 on the coarsest of its five scales."""
PAIR_SIDE = 1024
"""Most pixels of a side of a picture that is kept."""
FLIP_MISSING = "flip-evaluator cannot be imported. Install it: pip install flip-evaluator"


def image_scores(prediction: Float[Tensor, "1 3 H W"], truth: Float[Tensor, "1 3 H W"]) -> Dict[str, float]:
    """PSNR (dB), SSIM, MS-SSIM (from 176 pixels a side on) and FLIP (where it is installed) of colours in [0, 1].

    SSIM is torchmetrics' and nerfstudio's: windows at the edge count, with the picture mirrored beyond it, where
    scikit-image leaves out five pixels all round.

    FLIP (Andersson et al. 2020) is the mean difference that a viewer sees who flips between the two, in [0, 1], at the
    67 pixels per degree that are its default; lower is better.
    """
    # Takes longer to import than all of this package, and every ns-* command imports this module.
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    ssim = structural_similarity_index_measure(prediction, truth, data_range=1.0)
    assert isinstance(ssim, Tensor)
    scores = {
        "psnr": peak_signal_noise_ratio(prediction, truth, data_range=1.0).item(),
        "ssim": ssim.item(),
    }
    if min(truth.shape[-2:]) >= MS_SSIM_SIDE:
        scores["ms_ssim"] = multiscale_structural_similarity_index_measure(prediction, truth, data_range=1.0).item()
    if can_flip():
        scores["flip"] = flip(prediction[0], truth[0])
    return scores


def scores_and_images(
    outputs: Dict[str, Tensor], truth: Float[Tensor, "H W 3"]
) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
    """Scores of a rendered view, with LPIPS where its weights are, and pictures of it: photo and rendering side by side
    (``img``), accumulation and depth.

    Args:
        outputs: ``rgb``, ``accumulation`` and ``depth`` of the view.
    """
    images = {
        "img": torch.cat([truth, outputs["rgb"]], dim=1),
        "accumulation": colormaps.apply_colormap(outputs["accumulation"]),
        "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=outputs["accumulation"]),
    }
    photo, prediction = (image.permute(2, 0, 1)[None] for image in (truth, outputs["rgb"]))
    metrics = image_scores(prediction, photo)
    if lpips_weights().exists():
        metrics["lpips"] = _lpips(truth.device)(prediction, photo).item()
    return metrics, images


@lru_cache(maxsize=1)
def _lpips(device: torch.device) -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    # Of no model: as a module of one it would travel in every checkpoint.
    return LearnedPerceptualImagePatchSimilarity(normalize=True).to(device)


def lpips_weights() -> Path:
    """Where torchvision keeps the AlexNet weights that LPIPS needs. LPIPS is reported only where they are: nothing is
    downloaded behind the user's back."""
    return Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"


def flip(prediction: Float[Tensor, "3 H W"], truth: Float[Tensor, "3 H W"]) -> float:
    """Mean FLIP of colours in [0, 1], taken for sRGB."""
    import flip_evaluator

    photo, view = (
        image.detach().float().clamp(0, 1).permute(1, 2, 0).cpu().contiguous().numpy() for image in (truth, prediction)
    )
    _, mean, _ = flip_evaluator.evaluate(photo, view, "LDR", applyMagma=False)
    return float(mean)


def can_flip() -> bool:
    """Whether NVIDIA's flip-evaluator is there; it has no wheels for some platforms."""
    try:
        import flip_evaluator  # noqa: F401
    except ImportError:
        return False
    return True


def left_out(height: int, width: int, lpips_weights: Path) -> Dict[str, str]:
    """Why scores are left out for images of this size, in a sentence each."""
    reasons = {}
    if min(height, width) < MS_SSIM_SIDE:
        reasons["ms_ssim"] = f"it needs images of {MS_SSIM_SIDE} pixels a side, and these have {width} x {height}."
    if not lpips_weights.exists():
        where = f"torchvision's AlexNet weights are not in torch's cache (checkpoints/{lpips_weights.name})"
        reasons["lpips"] = f"{where}. Fetch them: dac check --fetch-lpips"
    if not can_flip():
        reasons["flip"] = f"{FLIP_MISSING}."
    return reasons


def save_pair(pair: Float[Tensor, "H 2W 3"], path: Path) -> None:
    """Write photo and rendering, side by side, as a PNG of moderate size: one of many pixels is scaled down."""
    picture = Image.fromarray((pair.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy())
    width, height = picture.width // 2, picture.height
    shrink = PAIR_SIDE / max(width, height)
    if shrink < 1:
        size = (2 * max(1, round(shrink * width)), max(1, round(shrink * height)))
        picture = picture.resize(size, Image.Resampling.BOX)
    picture.save(path)
