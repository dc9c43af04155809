"""Scores of images whose scores are known, and the pairs that are kept."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dac_nerfstudio.image_scores import MS_SSIM_SIDE, flip, image_scores, left_out, save_pair
from dac_nerfstudio.units import clock, signed, size

pytest.importorskip("flip_evaluator")
torch.set_num_threads(1)


def noise(side: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_an_image_is_equal_to_itself() -> None:
    image = noise(MS_SSIM_SIDE)
    scores = image_scores(image, image)
    assert list(scores) == ["psnr", "ssim", "ms_ssim", "flip"]
    assert scores["psnr"] == float("inf")
    assert scores["ssim"] == pytest.approx(1) and scores["ms_ssim"] == pytest.approx(1)
    assert scores["flip"] == pytest.approx(0, abs=1e-6)


def test_flip_of_black_and_white_is_nearly_one() -> None:
    black = torch.zeros(3, 32, 32)
    assert flip(black + 1, black) > 0.95
    # Neither photo nor rendering has to be within bounds.
    assert flip(black + 9, black - 5) == flip(black + 1, black)


def test_what_is_left_out_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "alexnet.pth"
    reasons = left_out(100, 300, weights)
    assert set(reasons) == {"ms_ssim", "lpips"}
    assert reasons["ms_ssim"] == "it needs images of 176 pixels a side, and these have 300 x 100."
    assert "checkpoints/alexnet.pth" in reasons["lpips"]
    weights.touch()
    assert left_out(176, 300, weights) == {}
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    assert "pip install flip-evaluator" in left_out(176, 300, weights)["flip"]
    assert list(image_scores(noise(16), noise(16))) == ["psnr", "ssim"]


def test_a_pair_is_kept_as_it_is(tmp_path: Path) -> None:
    pair = torch.rand(6, 10, 3, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    save_pair(pair, tmp_path / "pair.png")
    kept = np.asarray(Image.open(tmp_path / "pair.png"))
    assert kept.shape == (6, 10, 3)
    np.testing.assert_allclose(kept / 255, pair.clamp(0, 1).numpy(), atol=0.5 / 255 + 1e-6)


def test_large_pairs_are_kept_smaller(tmp_path: Path) -> None:
    save_pair(torch.ones(100, 2 * 2048, 3), tmp_path / "pair.png")
    assert Image.open(tmp_path / "pair.png").size == (2 * 1024, 50)


def test_figures_for_people() -> None:
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599, 3600)] == ["0:00", "1:00", "59:59", "1:00:00"]
    assert [size(count) for count in (4.6e6, 14e6, 2.34e9)] == ["4.6 MB", "14 MB", "2.3 GB"]
    assert [signed(gain) for gain in (0.126, -1.0)] == ["+0.13", "−1.00"]
