"""benchmarks/few.py makes small scenes and configurations that `dac run` takes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dac_nerfstudio.partition.reading import read_views
from dac_nerfstudio.run.flags import read_flags
from dac_nerfstudio.scenes import make_demo_scene

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
few = importlib.import_module("few")


def test_a_small_scene_has_the_photos_that_were_asked_for_smaller(tmp_path: Path) -> None:
    source = make_demo_scene(tmp_path / "source", size=16, train=8, val=2, test=3)
    few.small_blender(source, tmp_path / "small", photos=3, size=8)
    views = read_views(tmp_path / "small")
    assert len(views) == 3 and len(json.loads((tmp_path / "small" / "transforms_test.json").read_text())["frames"]) == 3
    for split in ("train", "val", "test"):
        frame = json.loads((tmp_path / "small" / f"transforms_{split}.json").read_text())["frames"][0]
        large, small = (
            np.asarray(Image.open(folder / f"{frame['file_path']}.png").convert("RGBA"), float) / 255
            for folder in (source, tmp_path / "small")
        )
        assert small.shape == (8, 8, 4)
        # What is seen on black is the mean of what was seen there.
        seen, expected = (picture[..., :3] * picture[..., 3:] for picture in (small, large))
        assert np.abs(seen - expected.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))).max() < 1.5 / 255


def test_student_and_baseline_get_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    options = few.Options(data=tmp_path, steps=80, student_steps=160)
    for real in (False, True):
        (tmp_path / "flags.toml").write_text(few.flags(options, real))
        tables = read_flags(tmp_path / "flags.toml")
        steps = {name: table["max-num-iterations"] for name, table in tables.items() if name != "all"}
        assert steps == {"dac-expert": 40, "dac-baseline": 80, "dac-distill": 16, "dac-finetune": 144}
        assert ("pipeline.model.linear-decoder-layers" in tables["all"]) != real
