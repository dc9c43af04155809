import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dac_nerfstudio
from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.partition import Views, view_name

INTRINSICS = [100.0, 100.0, 8.0, 6.0, 16.0, 12.0]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("train/r_0.png", "train/r_0.png"),
        ("./train/r_0.png", "train/r_0.png"),
        ("images/a.jpg", "a.jpg"),
        ("images_2/a.jpg", "a.jpg"),
        ("./images_16/left/a.jpg", "left/a.jpg"),
        (Path("images/a.jpg"), "a.jpg"),
        ("images_old/a.jpg", "images_old/a.jpg"),
        ("left/images/a.jpg", "left/images/a.jpg"),
        ("images", "images"),
    ],
)
def test_view_name_is_the_same_at_every_downscale_factor(path: str | Path, name: str) -> None:
    assert view_name(path) == name


def test_importing_the_package_loads_numpy_but_nothing_heavy() -> None:
    heavy = ("sklearn", "scipy", "networkx", "matplotlib", "jinja2", "PIL", "torch", "nerfstudio")
    program = f"import sys, dac_nerfstudio.partition; print([m for m in {heavy} if m in sys.modules])"
    root = Path(dac_nerfstudio.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_views_reject_what_does_not_fit_together() -> None:
    pose = np.eye(4)[None, :3]
    with pytest.raises(PartitionError, match="at least one is needed"):
        Views((), np.empty((0, 3, 4)), np.empty((0, 6)))
    with pytest.raises(PartitionError, match="these occur more than once: a, c"):
        Views(("c", "a", "b", "a", "c"), np.tile(pose, (5, 1, 1)), [INTRINSICS] * 5)
    with pytest.raises(PartitionError, match="a pose that is not finite: b"):
        Views(("a", "b"), np.concatenate([pose, pose * np.nan]), [INTRINSICS] * 2)


def test_views_are_selected_with_all_that_is_known_of_them() -> None:
    poses = np.arange(36.0).reshape(3, 3, 4)
    tracks, photos = (np.array([1]), np.array([2]), np.array([3])), (Path("a"), Path("b"), Path("c"))
    views = Views(("a", "b", "c"), poses, [INTRINSICS] * 3, upright=False, tracks=tracks, photos=photos)
    some = views.select(np.array([2, 0]))
    assert some.names == ("c", "a") and some.photos == (Path("c"), Path("a")) and not some.upright
    assert [points.tolist() for points in some.tracks] == [[3], [1]]
    np.testing.assert_array_equal(some.camera_to_worlds, poses[[2, 0]])


def test_poses_and_intrinsics_are_rounded_to_what_data_parsers_deliver() -> None:
    poses = np.full((1, 3, 4), 0.1)
    exact = Views(("a",), poses, [[100.123456, *INTRINSICS[1:]]])
    delivered = Views(("a",), poses.astype(np.float32), [[np.float32(100.123456), *INTRINSICS[1:]]])
    np.testing.assert_array_equal(exact.camera_to_worlds, delivered.camera_to_worlds)
    assert exact.intrinsics[0, 0] == delivered.intrinsics[0, 0] == 100.12
