from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dac_nerfstudio
from dac_nerfstudio.partition import divide, plot_partition
from dac_nerfstudio.partition.plot import COLOURS


def colours_in(path: Path) -> set[str]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {"#{:02X}{:02X}{:02X}".format(*pixel) for pixel in np.unique(pixels, axis=0).tolist()}


@pytest.mark.parametrize("groups", [1, 3])
def test_picture_has_the_colours_of_all_groups_and_no_other(ring, tmp_path: Path, groups: int) -> None:
    path = tmp_path / "new" / "partition.png"
    plot_partition(divide(ring(range(5, 360, 30)), groups), path)
    assert colours_in(path) & set(COLOURS[:-1]) == set(COLOURS[:groups])  # the last is black, which text may contain
    assert [file.name for file in path.parent.iterdir()] == ["partition.png"]


def test_test_views_change_the_picture(ring, tmp_path: Path) -> None:
    partition = divide(ring(range(5, 360, 30)), 12)
    plot_partition(partition, tmp_path / "without.png")
    plot_partition(partition, tmp_path / "with.png", test=ring([20, 50], prefix="test/r_"))
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from dac_nerfstudio.partition import *\n"
        "views = Views(('a',), np.eye(4)[None, :3], np.ones((1, 6)))\n"
        f"plot_partition(divide(views, 1), {str(tmp_path / 'a.png')!r}); print('matplotlib.pyplot' in sys.modules)"
    )
    root = Path(dac_nerfstudio.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
