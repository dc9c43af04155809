"""What this machine has of what the commands need, and what a scene has: ``dac check``."""

from __future__ import annotations

import ctypes.util
import shutil
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, List, Literal, Optional

from dac_nerfstudio.errors import StageError, UserError

STAGE, DISTILLATION, PHOTOS = 1.5e9, 1.8e9, 0.26e9
"""Bytes on the GPU with models of the reference's size (docs/install.md): a stage, distillation from four experts, 100
photos of 800x800 pixels."""


State = Literal["good", "optional", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line of the check."""

    state: State
    text: str


def findings() -> List[Finding]:
    """Look everything up. Imports nerfstudio, which takes seconds."""
    from nerfstudio.configs.method_configs import all_methods

    from dac_nerfstudio.image_scores import lpips_weights
    from dac_nerfstudio.runs.record import versions

    def either(there: Any, good: str, lacking: str, state: State = "optional") -> Finding:
        return Finding("good", good) if there else Finding(state, lacking)

    ours = ", ".join(sorted(name for name in all_methods if name.startswith("dac-")))
    unknown = "ns-train does not know our methods. Install this package where nerfstudio is: pip install ."
    tcnn = "tiny-cuda-nn is not installed: the small MLPs run in PyTorch."
    ffmpeg = shutil.which("ffmpeg") or (find_spec("imageio_ffmpeg") and "the ffmpeg of imageio-ffmpeg")
    no_ffmpeg = "ns-render finds no ffmpeg. Install it: pip install imageio-ffmpeg"
    usb = "ns-export needs libusb-1.0. Debian: apt-get install libusb-1.0-0"
    lpips = f"LPIPS is left out: its weights are not at {lpips_weights()}. Fetch them: dac check --fetch-lpips"
    return [
        Finding("good", ", ".join(f"{name} {version}" for name, version in versions().items())),
        either(ours, f"ns-train knows {ours}.", unknown, "bad"),
        _device(),
        _kernels(),
        either(find_spec("tinycudann"), "tiny-cuda-nn is installed.", tcnn),
        either(ffmpeg, f"ns-render uses {ffmpeg}.", no_ffmpeg, "bad"),
        either(ctypes.util.find_library("usb-1.0"), "ns-export finds libusb-1.0.", usb),
        either(lpips_weights().exists(), "LPIPS is reported.", lpips),
    ]


def fetch_lpips(file: Optional[Path] = None) -> Path:
    """Put the AlexNet weights that LPIPS needs where torchvision looks for them; where that is.

    Args:
        file: a copy of them; by default they are fetched from where torchvision has them.

    Raises:
        StageError: they cannot be fetched, or are not those weights.
    """
    import torch
    from torchvision.models import AlexNet_Weights

    from dac_nerfstudio.image_scores import lpips_weights

    place = lpips_weights()
    source = AlexNet_Weights.IMAGENET1K_V1.url if file is None else file.absolute().as_uri()
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        # torchvision names its files by the digits that their digest begins with.
        torch.hub.download_url_to_file(source, str(place), hash_prefix=place.stem.rpartition("-")[2])
    except OSError as error:
        raise StageError(
            f"{source} cannot be read ({error}). Without a network, bring {place.name} from elsewhere, and "
            f"name it: dac check --lpips-file {place.name}"
        ) from None
    except RuntimeError as error:
        raise StageError(f"{source} is not {place.name} as torchvision knows it ({error}). Fetch it again.") from None
    return place


def scene_findings(
    data: Path, thorough: bool = False, skip_missing: bool = False, downscale: Optional[int] = None
) -> List[Finding]:
    """All that there is to say of a scene's files. Imports nerfstudio, which takes seconds.

    Args:
        thorough: decode its photos and masks.
    """
    from dac_nerfstudio.scene.data import scene_at
    from dac_nerfstudio.scene.examination import examine

    start = time.perf_counter()
    try:
        found = examine(scene_at(data, downscale, skip_missing), thorough)
    except UserError as error:
        return [Finding("bad", str(error))]
    wrong = found.problems if skip_missing else [*found.problems, *found.missing]
    lines = [Finding("bad", text) for text in wrong]
    lines += [Finding("optional", text) for text in [*(found.missing if skip_missing else ()), *found.remarks]]
    if found.views:
        splits = ", ".join(f"{split} {count}" for split, count in found.views.items())
        how = f"{'decoded' if thorough else 'opened'} in {time.perf_counter() - start:.1f} s"
        verdict = f"{len(wrong)} wrong" if wrong else "nothing is wrong"
        lines.append(Finding("bad" if wrong else "good", f"Views: {splits}; every photo {how}: {verdict}."))
    return lines


def _device() -> Finding:
    from dac_nerfstudio.device import default_device

    device = default_device()
    if device == "cuda":
        import torch

        memory = torch.cuda.get_device_properties(0).total_memory
        return Finding(
            "good", f"Training runs on {torch.cuda.get_device_name(0)} ({memory / 1e9:.0f} GB). {stages_in(memory)}"
        )
    return Finding("optional", f"No CUDA device: training runs on {device}. --preset quick suits it.")


def stages_in(memory: float) -> str:
    """How many stages fit on a GPU at a time, by its bytes of memory, in words."""
    at_a_time = int(memory // (DISTILLATION + PHOTOS))
    if not at_a_time:
        return f"The reference's models need {DISTILLATION / 1e9:.1f} GB: take --preset quick."
    devices = "--devices 0" if at_a_time == 1 else "such as --devices 0,0"
    return (
        f"By arithmetic, for models of the reference's size: a stage takes {STAGE / 1e9:.1f} GB, distillation "
        f"{DISTILLATION / 1e9:.1f} GB with all of 4 experts at a time, so there is room for {at_a_time} at a time "
        f"({devices})."
    )


def _kernels() -> Finding:
    """Compiles the kernels of the default model, which takes seconds the first time."""
    from dac_nerfstudio.device import default_device
    from dac_nerfstudio.kplanes.model import KPlanesModelConfig
    from dac_nerfstudio.kplanes.planes import kernel_problem

    config, device = KPlanesModelConfig(), default_device()
    sizes = [(config.grid_feature_dim, len(config.multiscale_res)), (config.proposal_feature_dim, 1)]
    problem = kernel_problem(device, sizes)
    if problem is None:
        return Finding("good", f"Fast kernels look the planes up on {device}.")
    return Finding("optional", problem)
