"""What ``dac check`` says of a machine."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from dac_nerfstudio import check
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes import planes


def test_kernels_that_work_or_fail_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dac_nerfstudio.device.default_device", lambda: "cpu")
    assert check._kernels() == check.Finding("good", "Fast kernels look the planes up on cpu.")
    asked = []
    monkeypatch.setattr(planes, "kernel_problem", lambda device, sizes: asked.append(sizes) or "no C compiler")
    assert check._kernels() == check.Finding("optional", "no C compiler")
    # The planes of the default field, and of its proposals.
    assert asked == [[(32, 3), (8, 1)]]


@pytest.mark.parametrize(
    ("gigabytes", "words"),
    [(1, "--preset quick"), (3, "1 at a time (--devices 0)"), (8, "3 at a time (such as --devices 0,0)")],
)
def test_the_stages_fit_the_card(gigabytes: int, words: str) -> None:
    assert words in check.stages_in(gigabytes * 10**9)


def test_lpips_weights_are_taken_from_a_file_or_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = b"weights"
    place = tmp_path / "hub" / f"alexnet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr("dac_nerfstudio.image_scores.lpips_weights", lambda: place)
    brought = tmp_path / "brought file.pth"
    brought.write_bytes(content)
    assert check.fetch_lpips(brought) == place and place.read_bytes() == content

    place.unlink()
    weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=brought.as_uri()))
    monkeypatch.setattr("torchvision.models.AlexNet_Weights", weights)
    assert check.fetch_lpips() == place and place.read_bytes() == content


def test_lpips_weights_that_cannot_be_had_or_are_others_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "hub" / "alexnet-7be5be79.pth"
    monkeypatch.setattr("dac_nerfstudio.image_scores.lpips_weights", lambda: place)
    with pytest.raises(StageError, match=r"nowhere.pth cannot be read .* dac check --lpips-file alexnet-7be5be79.pth"):
        check.fetch_lpips(tmp_path / "nowhere.pth")
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(StageError, match=r"other.pth is not alexnet-7be5be79.pth as torchvision knows it"):
        check.fetch_lpips(tmp_path / "other.pth")
    assert not place.exists()
