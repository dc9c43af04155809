"""nerfstudio's tools on the results, far from where they were made: of a student's run the experts' files are gone."""

import ctypes
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import GROUPS, TEST_VIEWS, Shell
from PIL import Image

STUDENT = ("--load-config", str(Path("outputs", "demo", "dac-finetune", "run", "config.yml")))


def has_libusb() -> bool:
    try:
        ctypes.CDLL("libusb-1.0.so.0")
    except OSError:
        return False
    return True


needs_open3d = pytest.mark.skipif(
    not has_libusb(), reason="ns-export imports open3d, which wants the system library libusb-1.0"
)


@pytest.fixture(scope="session")
def student(relocated: Callable[..., Shell], trainings: Mapping[str, Path]) -> Shell:
    """A copy of the fine-tuned student's run, without the experts' and the distilled student's."""
    assert trainings["dac-finetune"].exists()
    shell = relocated("dac-finetune")
    # What the copy is asked for must come from the copy: the folder in which it was trained might as well be gone.
    config = shell.folder / STUDENT[1]
    typed_in = "".join(f"\n- {part}" for part in trainings["dac-finetune"].parents[3].parts)
    text = config.read_text()
    assert typed_in in text
    config.write_text(text.replace(typed_in, "\n- /\n- gone"))
    return shell


CAMERA_PATH = {
    "camera_type": "perspective",
    "render_height": 24,
    "render_width": 32,
    "fps": 2,
    "seconds": 1,
    "is_cycle": False,
    "crop": None,
    "camera_path": [
        # 4 along x and along y, looking at the origin with z up.
        {"camera_to_world": [0, 0, 1, 4, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1], "fov": 40, "aspect": 4 / 3},
        {"camera_to_world": [-1, 0, 0, 0, 0, 0, 1, 4, 0, 1, 0, 0, 0, 0, 0, 1], "fov": 40, "aspect": 4 / 3},
    ],
}

PNG = ("--output-format", "images", "--image-format", "png")
COMMANDS: dict[str, tuple[str, ...]] = {
    "eval": ("ns-eval", *STUDENT, "--output-path", "eval.json", "--render-output-path", "pictures"),
    "interpolate": (
        *("ns-render", "interpolate", *STUDENT, "--output-path", "interpolated.mp4"),
        *("--interpolation-steps", "2", "--frame-rate", "4"),
    ),
    "camera-path": (
        *("ns-render", "camera-path", *STUDENT, "--output-path", "path", *PNG),
        *("--camera-path-filename", "camera_path.json", "--rendered-output-names", "rgb", "depth"),
    ),
    "dataset": ("ns-render", "dataset", *STUDENT, "--output-path", "dataset", "--image-format", "png"),
    "pointcloud": (
        *("ns-export", "pointcloud", *STUDENT, "--output-dir", "cloud", "--num-points", "500"),
        *("--normal-method", "open3d", "--remove-outliers", "False", "--num-rays-per-batch", "200"),
    ),
}


@pytest.fixture(scope="session")
def tool(student: Shell, background: ThreadPoolExecutor) -> Callable[[str], Path]:
    """Starts all commands; gives the folder that the named one has written into."""
    (student.folder / "camera_path.json").write_text(json.dumps(CAMERA_PATH))
    futures: dict[str, Future[Any]] = {}
    for name, command in COMMANDS.items():
        if command[0] != "ns-export" or has_libusb():
            futures[name] = background.submit(student, *command)

    def wait(name: str) -> Path:
        futures[name].result()
        return student.folder

    return wait


@pytest.fixture(scope="session")
def scores(trainings: Mapping[str, Path], background: ThreadPoolExecutor) -> Mapping[str, dict[str, float]]:
    """What ns-eval says of the experts and of the ensemble."""
    shell: Shell = trainings.shell  # type: ignore[attr-defined]

    def evaluate(name: str) -> dict[str, float]:
        path = shell.folder / f"{name}.json"
        shell("ns-eval", "--load-config", str(trainings[name] / "config.yml"), "--output-path", str(path))
        return json.loads(path.read_text())["results"]

    names = ("dac-expert 1", "dac-expert 2", "dac-ensemble")
    futures = {name: background.submit(evaluate, name) for name in names}
    return {name: future.result() for name, future in futures.items()}


def varied(path: Path) -> bool:
    """Whether a picture is more than one colour."""
    return bool(np.asarray(Image.open(path).convert("RGB")).std(axis=(0, 1)).max() > 1)


def test_eval_scores_views_and_groups(tool: Callable[[str], Path]) -> None:
    folder = tool("eval")
    content = json.loads((folder / "eval.json").read_text())
    assert content["method_name"] == "dac-finetune"
    results = content["results"]
    per_group = [results[f"psnr_group_{group}"] for group in range(1, GROUPS + 1)]
    # As many test views in each of two groups: the mean of the groups is that of the views.
    assert results["psnr"] == pytest.approx(sum(per_group) / GROUPS)
    assert 5 < results["psnr"] < 40 and 0 < results["ssim"] < 1
    assert "psnr_own_group" not in results
    assert len(list((folder / "pictures").glob("eval_img_*.png"))) == TEST_VIEWS


@pytest.mark.parametrize("group", [1, 2])
def test_eval_scores_an_expert_on_its_own_group(group: int, scores: Mapping[str, dict[str, float]]) -> None:
    results = scores[f"dac-expert {group}"]
    for score in ("psnr", "ssim"):
        assert results[f"{score}_own_group"] == results[f"{score}_group_{group}"]
        assert results[f"{score}_group_1"] != results[f"{score}_group_2"]


@pytest.mark.parametrize("group", [1, 2])
def test_routed_ensemble_is_as_good_as_each_expert_on_its_own_group(
    group: int, scores: Mapping[str, dict[str, float]]
) -> None:
    own = scores[f"dac-expert {group}"]["psnr_own_group"]
    assert scores["dac-ensemble"][f"psnr_group_{group}"] == pytest.approx(own, abs=1e-4)


def test_student_learned_more_than_white(tool: Callable[[str], Path]) -> None:
    results = json.loads((tool("eval") / "eval.json").read_text())["results"]
    errors = []
    for path in sorted((tool("eval") / "demo" / "test").glob("r_*.png")):
        rgba = np.asarray(Image.open(path)) / 255
        errors.append(np.mean(((rgba[..., :3] - 1) * rgba[..., 3:]) ** 2))
    assert len(errors) == TEST_VIEWS
    assert results["psnr"] > np.mean(-10 * np.log10(errors)) + 0.5


def test_interpolated_video(tool: Callable[[str], Path]) -> None:
    content = (tool("interpolate") / "interpolated.mp4").read_bytes()
    assert content[4:8] == b"ftyp"
    frames = _frames(tool("interpolate") / "interpolated.mp4")
    assert len(frames) == 2 * (TEST_VIEWS - 1)
    assert all(frame.std(axis=(0, 1)).max() > 1 for frame in frames)


def _frames(path: Path) -> list[np.ndarray]:
    """A video's frames, decoded by the ffmpeg that comes with imageio-ffmpeg."""
    from imageio_ffmpeg import read_frames

    reader = read_frames(str(path))
    width, height = next(reader)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


def test_camera_path(tool: Callable[[str], Path]) -> None:
    pictures = sorted((tool("camera-path") / "path").glob("*.png"))
    assert len(pictures) == len(CAMERA_PATH["camera_path"])  # type: ignore[arg-type]
    for picture in pictures:
        # Colour and depth side by side.
        assert Image.open(picture).size == (64, 24)
        assert varied(picture)


def test_dataset(tool: Callable[[str], Path]) -> None:
    folder = tool("dataset") / "dataset" / "test"
    for name in ("rgb", "gt-rgb", "depth", "accumulation"):
        pictures = sorted((folder / name).glob("r_*.png"))
        assert len(pictures) == TEST_VIEWS, name
        assert all(Image.open(picture).size == (32, 32) for picture in pictures)
    assert all(varied(picture) for picture in (folder / "rgb").glob("*.png"))


@needs_open3d
def test_point_cloud_has_as_many_points_as_asked_for(tool: Callable[[str], Path]) -> None:
    header, _, body = (tool("pointcloud") / "cloud" / "point_cloud.ply").read_bytes().partition(b"end_header\n")
    lines = header.decode().splitlines()
    (count,) = [int(line.split()[2]) for line in lines if line.startswith("element vertex")]
    assert count >= 500
    kinds = {"double": "<f8", "float": "<f4", "uchar": "u1"}
    columns = [(line.split()[2], kinds[line.split()[1]]) for line in lines if line.startswith("property")]
    points = np.frombuffer(body, np.dtype(columns), count)
    xyz = np.stack([points[axis] for axis in "xyz"], axis=1)
    assert np.isfinite(xyz).all()
    # The scene's box has a half side of 1.3; cameras stand at a distance of 4 and see from 2 to 6.
    assert np.linalg.norm(xyz, axis=1).max() < 4
    # One batch of rays has 200: the cloud is not the same rays over and over.
    assert len(np.unique(xyz.round(6), axis=0)) > 0.9 * count
