"""Scores are what somebody else's library says of the same pictures."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dac_nerfstudio.demo import make_demo_scene
from dac_nerfstudio.image_scores import image_scores


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Test views of the demo scene, on white."""
    folder = make_demo_scene(tmp_path_factory.mktemp("demo") / "scene", size=64, train=1, val=1, test=3)
    views = [Image.open(folder / "test" / f"r_{number}.png") for number in range(3)]
    return [Image.alpha_composite(Image.new("RGBA", view.size, "white"), view).convert("RGB") for view in views]


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_scores_of_the_demos_pictures_are_scikit_images(photos: list[Image.Image], radius: float) -> None:
    for photo in photos:
        pictures = (photo.filter(ImageFilter.GaussianBlur(radius)), photo)
        prediction, truth = (np.asarray(picture, dtype=np.float64) / 255 for picture in pictures)
        scores = image_scores(*(torch.from_numpy(p).float().permute(2, 0, 1)[None] for p in (prediction, truth)))
        assert 10 < scores["psnr"] < 45 and 0.3 < scores["ssim"] < 0.999, "there is something to tell apart"
        assert scores["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, prediction, data_range=1.0), abs=1e-3)
        # Wang et al.: Gaussian windows of 11 pixels, moments that are divided by n. scikit-image leaves out windows
        # that stick out; ours, as nerfstudio's, count, with the picture mirrored beyond its edge.
        truth, prediction = (
            np.pad(picture, ((5, 5), (5, 5), (0, 0)), mode="reflect") for picture in (truth, prediction)
        )
        windows = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        other = structural_similarity(truth, prediction, data_range=1.0, channel_axis=2, **windows)
        assert scores["ssim"] == pytest.approx(other, abs=1e-4)
