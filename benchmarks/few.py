"""The preset `few` where photos are few and training converges: the product's own path, small enough for one core.

A copy of a scene is made, of some of its photos and smaller, and `dac run --preset few` does the rest, with a small
model (that of converged.toml) and few steps. Experts and baseline have the total variation that validation views prefer
there, the student a tenth of it, as the preset has it. The baseline has the steps that are best for one, the student
twice as many, as in converged.toml.

    python benchmarks/few.py --data data/lego_200 --photos 25 --size 50 --seeds 1 --json docs/few.json
    python benchmarks/few.py --data data/bonsai --photos 25 --size 100 --tv 1e-1 --seeds 1 --json docs/few.json

Runs are kept below --output-dir and go on after any mishap; the file gets each seed's figures as they come.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from small import averaged, camera_to_world, is_real, read_real, spaced

from dac_nerfstudio.files import write_json

DAC = (sys.executable, "-c", "from dac_nerfstudio.cli import main; main()")
TEST = 40
"""At the most, evenly spread."""
SMALL = {
    "pipeline.model.grid-base-resolution": 32,
    "pipeline.model.grid-feature-dim": 16,
    "pipeline.model.multiscale-res": [1, 2],
    "pipeline.model.linear-decoder-layers": 1,
    "pipeline.model.proposal-resolutions": 32,
    "pipeline.model.num-proposal-samples": 32,
    "pipeline.model.num-samples": 16,
    "pipeline.model.proposal-warmup": 500,
    "pipeline.model.proposal-weights-anneal-max-num-iters": 100,
    "pipeline.datamanager.train-num-rays-per-batch": 512,
    "optimizers.fields.optimizer.lr": 2e-2,
    "optimizers.proposal-networks.optimizer.lr": 2e-2,
    "optimizers.fields.scheduler.warmup-steps": 50,
    "optimizers.proposal-networks.scheduler.warmup-steps": 50,
    "steps-per-save": 4000,
    "steps-per-eval-image": 1000000,
}


@dataclass
class Options:
    """What to train."""

    data: Path
    """Scene in Blender's format, or a COLMAP model beside its photos."""
    photos: int = 25
    """For training, evenly spread."""
    size: int = 50
    """Width of the copies, in pixels."""
    steps: int = 8000
    """Of the baseline where it is best; an expert has half as many."""
    student_steps: int = 16000
    """Of the student: a tenth for distillation, the others for fine-tuning."""
    tv: float = 1e-2
    """Total variation of the baseline and the experts."""
    seeds: tuple[int, ...] = (1,)
    """One run for each."""
    output_dir: Path = Path("outputs/few")
    """Where copies and runs go."""
    json: Path = Path("outputs/few/results.json")
    """Where figures go."""


def small_blender(source: Path, target: Path, photos: int, size: int) -> None:
    """A copy of a scene in Blender's format, averaged over squares of pixels, colours by their opacity."""
    for split, most in (("train", photos), ("val", 10**6), ("test", TEST)):
        meta = json.loads((source / f"transforms_{split}.json").read_text("utf8"))
        meta["frames"] = spaced(meta["frames"], most)
        for frame in meta["frames"]:
            with Image.open(source / f"{frame['file_path']}.png") as image:
                pixels = averaged(image, image.width // size)
            pixels[..., :3] /= np.maximum(pixels[..., 3:], 1e-6)
            path = target / f"{frame['file_path']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * pixels.clip(0, 1)).round().astype(np.uint8)).save(path)
        write_json(target / f"transforms_{split}.json", meta)


def small_real(source: Path, target: Path, photos: int, size: int) -> None:
    """A copy of a scene with a COLMAP model of one pinhole camera, as nerfstudio's format wants it."""
    camera, images = read_real(source, photos)
    height = round(size * camera.height / camera.width)
    (target / "images").mkdir(parents=True, exist_ok=True)
    frames = []
    for image in (image for chosen in images.values() for image in chosen):
        with Image.open(source / "images" / image.name) as photo:
            photo.convert("RGB").resize((size, height), Image.Resampling.BOX).save(target / named(image))
        frames.append({"file_path": named(image), "transform_matrix": camera_to_world(image).tolist()})
    across, down = size / camera.width, height / camera.height
    fx, fy, cx, cy = camera.params
    intrinsics = {"w": size, "h": height, "fl_x": fx * across, "fl_y": fy * down, "cx": cx * across, "cy": cy * down}
    lists = {f"{split}_filenames": [named(image) for image in chosen] for split, chosen in images.items()}
    write_json(target / "transforms.json", {"camera_model": "OPENCV", **intrinsics, "frames": frames, **lists})


def named(image: Any) -> str:
    return f"images/{Path(image.name).stem}.png"


def flags(options: Options, real: bool) -> str:
    """A file for --config."""
    small = {name: value for name, value in SMALL.items() if not (real and "decoder" in name)}
    distill = options.student_steps // 10
    lengths = {
        "expert": options.steps // 2,
        "baseline": options.steps,
        "distill": distill,
        "finetune": options.student_steps - distill,
    }
    tables: dict[str, dict[str, Any]] = {"all": {**small, **smoothness(options.tv)}}
    for stage, steps in lengths.items():
        of_student = smoothness(options.tv / 10) if stage in ("distill", "finetune") else {}
        tables[f"dac-{stage}"] = {"max-num-iterations": steps, **of_student}
    return "\n".join(
        f"[{name}]\n" + "".join(f'"{key}" = {value}\n' for key, value in table.items())
        for name, table in tables.items()
    )


def smoothness(weight: float) -> dict[str, float]:
    return {f"pipeline.model.regularizers.{which}-tv": weight for which in ("plane", "proposal")}


def main(options: Options) -> None:
    real = is_real(options.data)
    scene = f"{options.data.name}-{options.photos}-{options.size}"
    data = options.output_dir / "data" / scene
    if not data.exists():
        (small_real if real else small_blender)(options.data, data, options.photos, options.size)
    output = options.output_dir / f"student-{options.student_steps}"
    output.mkdir(parents=True, exist_ok=True)
    config = output / f"{scene}.toml"
    config.write_text(flags(options, real))
    results = json.loads(options.json.read_text("utf8")) if options.json.exists() else {}
    for seed in options.seeds:
        where = ("--data", str(data), "--scene", scene, "--output-dir", str(output), "--config", str(config))
        command = (*DAC, "run", *where, "--preset", "few", "--seed", str(seed), "--groups", "4", "--no-video")
        subprocess.run(command, check=True)
        report = json.loads((output / scene / "report" / "results.json").read_text("utf8"))
        found = {
            method: {"psnr": round(entry["scores"]["psnr"], 3), "steps": entry["steps"]}
            for method, entry in report["methods"].items()
        }
        results.setdefault(f"{scene}, student of {options.student_steps} steps", {})[str(seed)] = found
        write_json(options.json, results)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
