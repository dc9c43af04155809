"""Makes this folder's pictures from the results of ``dac demo``: python docs/pictures.py [outputs/demo]"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from torchvision.utils import make_grid, save_image

from dac_nerfstudio.device import default_device
from dac_nerfstudio.runs.layout import run_dirs
from dac_nerfstudio.runs.reopen import photos_of, recorded_config, reopen

HERE = Path(__file__).parent
METHODS = ("dac-baseline", "dac-finetune")
SHOWN = ("orbit.webp", "experts.png")
"""Pictures that the demo ends with."""


def main(scene_dir: Path) -> None:
    shutil.copy(scene_dir / "partition.png", HERE / "partition.png")
    for name in SHOWN:
        shutil.copy(scene_dir / "pictures" / name, HERE / name)
    columns = []
    for method in METHODS:
        run_dir = run_dirs(scene_dir, method)[0]
        pipeline = reopen(recorded_config(run_dir, photos_of(run_dir), default_device()), run_dir)
        dataset = pipeline.datamanager.eval_dataset
        truths, predictions = [], []
        # One view from each quarter of the orbit.
        for number in range(0, len(dataset), max(len(dataset) // 4, 1)):
            camera, batch = pipeline.datamanager.fixed_indices_eval_dataloader.get_camera(number)
            outputs = pipeline.model.get_outputs_for_camera(camera)
            truths.append(pipeline.model.true_colour(outputs, batch))
            predictions.append(outputs["rgb"])
        columns.append(predictions)
    rows = [truths, *columns]
    pictures = torch.stack([picture.permute(2, 0, 1).cpu() for row in rows for picture in row])
    pictures = torch.nn.functional.interpolate(pictures, scale_factor=2)
    save_image(make_grid(pictures, nrow=len(truths), padding=4, pad_value=1.0), HERE / "demo.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/demo"))
