"""Readers of what others have written come to clean errors or to views, in bounded memory, whatever the bytes are."""

import copy
import json
import random
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cameras import ring_of
from colmap_files import Camera, Photo, write_binary, write_text
from PIL import Image

from dac_nerfstudio.errors import UserError
from dac_nerfstudio.partition import Partition, divide
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.scene.data import read_views, scene_at
from dac_nerfstudio.scene.examination import examine
from dac_nerfstudio.scene.photos import PhotoError, photo_shape, read_photo

LEAVES: list[Any] = [
    *(None, True, 0, -1, 1, 2**31, 2**70, 10**400, 0.5, -0.0, float("nan"), float("inf"), 1e308, 1e-320),
    *("", "a", "..", "/", "images/v0.png", "\0", "\ud800", "x" * 5000, [], {}, [[]], {"frames": []}, [1, 2, 3]),
]
MEMORY = 2**30
"""Bytes that a fuzzer may come to hold beyond what it began with."""


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value, and a key of it."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def mutated(content: Any, rng: random.Random) -> Any:
    """JSON with some values replaced, removed, doubled or exchanged."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        found = list(places(content))
        if not found:
            return rng.choice(LEAVES)
        holder, key = rng.choice(found)
        change = rng.randrange(4)
        if change == 0:
            holder[key] = copy.deepcopy(rng.choice(LEAVES))
        elif change == 1:
            del holder[key]
        elif change == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            other, place = rng.choice(found)
            try:
                holder[key] = copy.deepcopy(other[place])
            except (KeyError, IndexError):
                holder[key] = None
    return content


def spoilt(content: bytes, rng: random.Random) -> bytes:
    """Bytes with some changed, cut out, doubled, or the end cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        start = rng.randrange(len(data))
        end = min(len(data), start + rng.choice((1, 1, 4, 8, 64)))
        change = rng.randrange(5)
        if change == 0:
            data[start:end] = bytes(rng.randrange(256) for _ in range(end - start))
        elif change == 1:
            del data[start:end]
        elif change == 2:
            data[start:start] = data[start:end]
        elif change == 3:
            data[start:end] = rng.choice((b"\xff", b"\0")) * (end - start)
        else:
            del data[start:]
    return bytes(data)


@pytest.fixture
def fuzz(seconds: float, record_property: Callable[..., None]) -> Callable[..., None]:
    """Tries a function again and again with a random number generator; it may raise the errors that are named."""

    def go_on(attempt: Callable[[random.Random], Any], *allowed: type[Exception]) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        deadline, executions, refused = time.process_time() + seconds, 0, 0
        while time.process_time() < deadline:
            seed, executions = executions, executions + 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    attempt(random.Random(seed))
            except allowed as error:
                assert str(error).strip(), f"seed {seed}: an error without a word"
                refused += 1
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
        record_property("executions", executions)
        print(f"{executions} executions, {refused} refused")
        assert 0 < refused < executions, "some are good and some are not"
        assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) < MEMORY

    return go_on


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Photos, and no poses yet."""
    for number in range(10):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (16, 12)).save(tmp_path / "images" / f"v{number}.png")
    return tmp_path


def frames(suffix: str) -> list[dict[str, Any]]:
    poses = [np.vstack([pose, [0, 0, 0, 1]]) for pose in ring_of(36 * np.arange(10)).camera_to_worlds]
    return [{"file_path": f"images/v{n}{suffix}", "transform_matrix": p.tolist()} for n, p in enumerate(poses)]


@pytest.mark.parametrize("kind", ["blender", "nerfstudio", "lists"])
def test_json_of_poses(scene: Path, fuzz: Callable[..., None], kind: str) -> None:
    if kind == "blender":
        name, content = "transforms_train.json", {"camera_angle_x": 0.7, "frames": frames("")}
    else:
        camera = {"fl_x": 20.0, "fl_y": 20.0, "cx": 8.0, "cy": 6.0, "w": 16, "h": 12}
        name, content = "transforms.json", {**camera, "frames": frames(".png")}
    if kind == "lists":
        names = [frame["file_path"] for frame in content["frames"]]
        content.update(train_filenames=names[:8], val_filenames=names[8:], test_filenames=names[8:])
    text = json.dumps(content).encode()

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.7:
            written = json.dumps(mutated(content, rng)).encode()
        else:
            written = spoilt(text, rng)
        (scene / name).write_bytes(written)
        found = examine(scene_at(scene))
        assert all(isinstance(problem, str) for problem in found.problems)
        for split in ("train",) if kind == "blender" else ("train", "test"):
            read_views(scene, split)

    fuzz(attempt, UserError)


@pytest.mark.parametrize("kind", ["txt", "bin"])
def test_colmap_models(scene: Path, fuzz: Callable[..., None], kind: str) -> None:
    model = scene / "sparse" / "0"
    model.mkdir(parents=True)
    photos = [
        Photo(n + 1, f"v{n}.png", (1.0, 0.1 * n, 0.0, 0.2), (0.0, 1.0, float(n)), points=(1, 2, n)) for n in range(10)
    ]
    (write_text if kind == "txt" else write_binary)(model, [Camera()], photos)
    whole = {path: path.read_bytes() for path in model.iterdir()}

    def attempt(rng: random.Random) -> None:
        for path, content in whole.items():
            path.write_bytes(spoilt(content, rng) if rng.random() < 0.6 else content)
        examine(scene_at(scene))
        read_views(scene)

    fuzz(attempt, UserError)


def test_photos(scene: Path, fuzz: Callable[..., None]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = []
    for name, settings in (("a.png", {"exif": exif}), ("a.jpg", {"exif": exif}), ("a.tif", {}), ("a.webp", {})):
        for mode in ("RGB", "L", "P") if name == "a.png" else ("RGB",):
            Image.fromarray(noise).convert(mode).save(scene / name, **settings)
            whole.append((scene / name, (scene / name).read_bytes()))

    def attempt(rng: random.Random) -> None:
        path, content = rng.choice(whole)
        path.write_bytes(spoilt(content, rng))
        shape = photo_shape(path)
        if shape.size[0] * shape.size[1] < 10**7:
            read_photo(path, (12, 16))

    fuzz(attempt, PhotoError)


def test_partition_files(scene: Path, fuzz: Callable[..., None]) -> None:
    (scene / "transforms_train.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames("")}))
    divide(read_views(scene), groups=2).save(scene / "partition.json")
    content = json.loads((scene / "partition.json").read_text())

    def attempt(rng: random.Random) -> None:
        (scene / "partition.json").write_text(json.dumps(mutated(content, rng)))
        assert Partition.load(scene / "partition.json").fingerprint

    fuzz(attempt, UserError)


def test_records(scene: Path, fuzz: Callable[..., None]) -> None:
    Stage("dac-expert", "lego", {"model": {"near_plane": 2.0}}, 42, 100, group=1, inputs={"partition": "a"}).save(scene)
    content = json.loads((scene / "stage.json").read_text())

    def attempt(rng: random.Random) -> None:
        (scene / "stage.json").write_text(json.dumps(mutated(content, rng)))
        record = Stage.load(scene)
        assert len(record.fingerprint) == 16 and record.complete == (record.steps >= record.total_steps)
        record.damage(scene / "step-000000009.ckpt")

    fuzz(attempt, UserError)
