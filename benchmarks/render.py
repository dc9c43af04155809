"""How fast pictures are rendered, beside the naive path (see naive.py) with nerfstudio's 4096 rays at a time.

Both paths render the same camera with the same weights, as ns-eval, ns-render and the viewer do. "ratio" is the naive
path's time over ours, turn by turn; figures are medians with the least and the greatest in brackets.

    python benchmarks/render.py --sizes quick reference --json render.json
    python benchmarks/render.py --device cuda --sizes reference --width 800
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import naive
import timing
import torch
import tyro
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import SceneBox
from step import SIZES

from dac_nerfstudio.demo.scene import CAMERA_ANGLE_X, camera_to_world
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig


@dataclass
class Options:
    """What to time."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where."""
    sizes: tuple[Literal["quick", "reference"], ...] = ("quick",)
    """Models."""
    decoders: tuple[Literal["explicit", "hybrid"], ...] = ("explicit", "hybrid")
    """Decoders."""
    width: int = 100
    """Side of the square picture, in pixels."""
    threads: int = 1
    """CPU threads."""
    turns: int = 5
    """Timings of each path."""
    json: Optional[Path] = None
    """Also write all figures to this file."""


def measure(size: str, decoder: str, options: Options) -> list[dict[str, Any]]:
    """One entry per path."""
    device = torch.device(options.device)
    pose = torch.tensor(camera_to_world(azimuth=0.5, elevation=0.5)[None, :3], dtype=torch.float32)
    middle = options.width / 2
    focal = middle / torch.tan(torch.tensor(CAMERA_ANGLE_X / 2)).item()
    camera = Cameras(pose, focal, focal, middle, middle, options.width, options.width).to(device)
    config = KPlanesModelConfig(**SIZES[size], linear_decoder=decoder == "explicit", implementation="torch")
    box = SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3]))
    ours = config.setup(scene_box=box, num_train_data=0).to(device).eval()
    with naive.parts():
        slow = config.setup(scene_box=box, num_train_data=0).to(device).eval()
    naive.copy_weights(ours, slow)

    def turn(model: KPlanesModel, parts: Callable[[], Any]) -> Callable[[timing.Stage], torch.Tensor]:
        def run(stage: timing.Stage) -> torch.Tensor:
            with parts(), stage("picture"):
                return model.get_outputs_for_camera(camera)["rgb"]

        return run

    paths = {"naive": turn(slow, naive.parts), "ours": turn(ours, nullcontext)}
    pictures = [path(lambda label: nullcontext()) for path in paths.values()]
    # A GPU may multiply matrices in less than single precision.
    torch.testing.assert_close(*pictures, atol=1e-2 if device.type == "cuda" else 1e-4, rtol=0)
    times = {name: spent["picture"] for name, spent in timing.alternate(paths, options.turns, device).items()}
    return [
        {
            "decoder": decoder,
            "size": size,
            "path": name,
            "rays": options.width**2,
            "ms": spent,
            "rays per s": round(options.width**2 / spent.median * 1e3),
            "ratio": times["naive"].over(spent),
        }
        for name, spent in times.items()
    ]


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(options.threads)
    entries = [
        entry for size in options.sizes for decoder in options.decoders for entry in measure(size, decoder, options)
    ]
    timing.report(f"A picture of {options.width} x {options.width} pixels on {options.device}", options, entries)


if __name__ == "__main__":
    main()
