"""A finished run of any nerfstudio method teaches: it is asked in the student's frame, and has seen no test views."""

import copy
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.pipelines.base_pipeline import Pipeline
from PIL import Image
from tiny_training import small_config

from dac_nerfstudio import methods
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.store import Run, made_from
from dac_nerfstudio.scene.frames import Transform
from dac_nerfstudio.teachers.finished_runs import Views, ensemble_of, fingerprint_of, folder_of, transform_to
from dac_nerfstudio.training.trainer import DaCTrainer

TEACHERS_STEPS, STEPS = 5, 3


@pytest.fixture(scope="module")
def scene(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's views in nerfstudio's format, off the origin and opaque: 8 to train on, 2 to test."""
    folder = tmp_path_factory.mktemp("real") / "scene"
    (folder / "images").mkdir(parents=True)
    frames: list[dict[str, Any]] = []
    split: dict[str, list[str]] = {}
    for name in ("train", "test"):
        meta = json.loads((demo / f"transforms_{name}.json").read_text())
        split[f"{name}_filenames"] = []
        for number, frame in enumerate(meta["frames"]):
            file = f"images/{name}_{number}.png"
            photo = Image.open(demo / f"{frame['file_path']}.png")
            Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo).convert("RGB").save(folder / file)
            pose = np.array(frame["transform_matrix"])
            pose[:3, 3] += (1.0, -2.0, 3.0)
            frames.append({"file_path": file, "transform_matrix": pose.tolist()})
            split[f"{name}_filenames"].append(file)
    split["val_filenames"] = split["test_filenames"]
    focal = 8 / np.tan(meta["camera_angle_x"] / 2)
    camera = {"fl_x": focal, "fl_y": focal, "cx": 8.0, "cy": 8.0, "w": 16, "h": 16}
    (folder / "transforms.json").write_text(json.dumps({**camera, **split, "frames": frames}))
    return folder


class NoLPIPS(torch.nn.Module):
    """Stands for the score whose weights are downloaded."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()


def train_nerfacto(data: Path, outputs: Path, background: str, **parser: Any) -> tuple[Path, Pipeline]:
    """Trains a plain nerfacto with a tiny hash for a few steps, and gives its folder and pipeline."""
    torch.manual_seed(0)
    config: Any = copy.deepcopy(all_methods["nerfacto"])
    config.output_dir, config.vis = outputs, "tensorboard"
    config.timestamp, config.experiment_name = background, "scene"
    config.max_num_iterations, config.machine.device_type, config.mixed_precision = TEACHERS_STEPS, "cpu", False
    manager, model = config.pipeline.datamanager, config.pipeline.model
    manager.dataparser, manager.data = NerfstudioDataParserConfig(**parser), data
    manager.train_num_rays_per_batch = 256
    network = {"hidden_dim": 8, "log2_hashmap_size": 6, "num_levels": 2, "max_res": 16, "use_linear": False}
    model.num_levels, model.max_res, model.log2_hashmap_size, model.hidden_dim, model.hidden_dim_color = 2, 32, 8, 8, 8
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (16, 12), 8
    model.proposal_net_args_list, model.implementation, model.background_color = [network], "torch", background
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    for step in range(TEACHERS_STEPS):
        trainer.train_iteration(step)
    with torch.no_grad():
        for name, parameter in trainer.pipeline.named_parameters():
            if name.endswith("hash_table"):
                parameter.uniform_(-20, 20)  # there is something to see, other than a few steps leave
    trainer.base_dir.mkdir(parents=True, exist_ok=True)
    config.save_config()
    trainer.save_checkpoint(TEACHERS_STEPS - 1)
    for process in trainer.pipeline.datamanager.data_procs:
        process.terminate()
    return trainer.base_dir, trainer.pipeline.eval()


@pytest.fixture(scope="module")
def runs(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, Pipeline]]]:
    """nerfactos by their backgrounds, with another up, centre and scale than the student's."""
    outputs = tmp_path_factory.mktemp("nerfacto")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", NoLPIPS)
        yield {
            background: train_nerfacto(
                scene, outputs, background, orientation_method="none", center_method="none", scale_factor=0.7
            )
            for background in ("random", "white", "last_sample")
        }


@pytest.fixture
def learner(scene: Path) -> tuple[Views, Cameras]:
    outputs = NerfstudioDataParserConfig(data=scene).setup().get_dataparser_outputs("train")
    names = [path.name for path in outputs.image_filenames]
    return Views(names, outputs.cameras.camera_to_worlds), outputs.cameras


@pytest.mark.parametrize("background", ["random", "white", "last_sample"])
def test_a_nerfacto_of_another_frame_renders_what_it_would_by_itself(
    background: str, runs: dict[str, tuple[Path, Pipeline]], learner: tuple[Views, Cameras]
) -> None:
    (folder, pipeline), (views, cameras) = runs[background], learner
    teachers = ensemble_of([folder], views, [], torch.device("cpu"))
    theirs = pipeline.datamanager.train_dataset.cameras  # type: ignore[union-attr]
    assert (theirs.camera_to_worlds - cameras.camera_to_worlds).abs().max() > 0.1, "the frames differ"
    for number in (0, 5):
        ours = teachers.premultiplied(cameras[number : number + 1], torch.ones(1))
        own = pipeline.model.get_outputs_for_camera(theirs[number : number + 1])
        rgb, opacity, seen = ours[..., :3], ours[..., 3:4], ours[..., 4]
        elsewhere = pipeline.model.get_outputs_for_camera(cameras[number : number + 1])
        assert (elsewhere["rgb"] - own["rgb"]).abs().max() > 0.02 and (seen == 1).all()
        behind = {"random": 0.0, "white": 1.0, "last_sample": 0.0}[background]
        difference = float((rgb + behind * (1 - opacity) - own["rgb"]).abs().max())
        print(f"{background}, view {number}: largest difference {difference:.2e}")
        assert difference <= 1e-3
        expected = torch.ones_like(opacity) if background == "last_sample" else own["accumulation"]
        assert (opacity - expected).abs().max() <= 1e-3


def configure(scene: Path, outputs: Path, *teachers: Path, **settings: Any) -> Any:
    settings = {"timestamp": "taught", "max_num_iterations": 2 * STEPS, "teachers": teachers, **settings}
    return small_config(methods.finetune_360, scene, outputs, **settings)


def train(config: Any, first: int, steps: int) -> DaCTrainer:
    torch.manual_seed(0)
    trainer, told = config.setup(local_rank=0, world_size=1), list[tuple[int, int]]()

    def tell_rendered(done: int, total: int) -> None:
        told.append((done, total))
        time.sleep(0.5 if done == 1 else 0)

    trainer.tell_rendered = tell_rendered
    trainer.setup()
    ready = time.perf_counter()
    assert trainer._start_step == first and told[-1] == 2 * (len(trainer.pipeline.datamanager.rendered.pixels),)
    for step in range(first, steps):
        trainer.train_iteration(step)
    before = time.perf_counter()
    trainer.save_checkpoint(steps - 1)
    if not first:  # what teachers render is a part of the student's time
        assert trainer.stage.seconds > before - ready + 0.5
    return trainer


def test_a_student_is_taught_from_scratch_and_goes_on_as_if_never_interrupted(
    scene: Path, runs: dict[str, tuple[Path, Pipeline]], tmp_path: Path
) -> None:
    folders = [runs[background][0] for background in ("random", "last_sample")]
    whole = train(configure(scene, tmp_path / "whole", *folders), 0, 2 * STEPS)
    assert whole.stage.inputs == {f"teacher-{n}": fingerprint_of(one) for n, one in enumerate(folders, start=1)}
    assert whole.stage.first_step == 0 and whole.stage.settings["novel"]["share"] == 0.5
    assert whole.config.optimizers["fields"]["scheduler"].begin == 0
    rendered = whole.pipeline.datamanager.rendered
    assert rendered is not None and rendered.pixels[0].shape == (16, 16, 4)
    assert set(made_from(Run.at(whole.base_dir))) == {"teacher-1", "teacher-2"}

    begun = train(configure(scene, tmp_path / "parts", *folders), 0, STEPS)
    models = begun.base_dir / "nerfstudio_models"
    resumed = train(configure(scene, tmp_path / "parts", *folders, load_dir=models), STEPS, 2 * STEPS)
    for name, weight in whole.pipeline.model.state_dict().items():
        assert torch.equal(weight, resumed.pipeline.model.state_dict()[name]), name
    with pytest.raises(StageError, match="Cannot go on from .* it holds dac-finetune-360, teacher-1 "):
        configure(scene, tmp_path / "parts", folders[0], load_dir=models).sources()

    # A run of ours teaches, too, by its record alone.
    assert Stage.load(whole.base_dir).complete
    second = configure(scene, tmp_path / "whole", whole.base_dir, timestamp="again")
    again = train(second, 0, STEPS)
    assert again.stage.inputs == {"teacher-1": whole.stage.fingerprint}
    teachers = again.pipeline.finished_runs(second.teachers)
    camera = again.pipeline.datamanager.train_dataset.cameras[:1]
    ours = teachers.premultiplied(camera, torch.ones(1))
    own = whole.pipeline.eval().model.get_outputs_for_camera(camera)
    assert (ours[..., :3] + 1 - ours[..., 3:4] - own["rgb"]).abs().max() <= 1e-3


def test_a_teacher_of_test_views_is_refused(
    scene: Path, runs: dict[str, tuple[Path, Pipeline]], learner: tuple[Views, Cameras]
) -> None:
    views = learner[0]
    half = Views(views.names[:6], views.camera_to_worlds[:6])
    folder = runs["random"][0]
    with pytest.raises(StageError, match=r"was trained on 2 test photos of this scene \(train_6.png, train_7.png\)"):
        ensemble_of([folder], half, views.names[6:], torch.device("cpu"))


def turned(views: Views) -> tuple[Transform, Views]:
    rotation = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    transform = Transform(2.5, rotation, np.array([1.0, 2, 3]))
    poses = transform.apply(views.camera_to_worlds.numpy().astype(np.float64))
    return transform, Views(views.names, torch.from_numpy(poses).float())


def test_the_frame_is_found_from_the_photos_that_both_have(learner: tuple[Views, Cameras]) -> None:
    views = learner[0]
    transform, theirs = turned(views)
    shuffled = Views(["other.png", *theirs.names[4::-1]], theirs.camera_to_worlds[[7, 4, 3, 2, 1, 0]])
    found = transform_to(Path("run"), views, shuffled)
    assert found.scale == pytest.approx(2.5, rel=1e-5)
    np.testing.assert_allclose(found.rotation, transform.rotation, atol=1e-6)
    np.testing.assert_allclose(found.translation, transform.translation, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda theirs: Views(["a.png"] * 8, theirs.camera_to_worlds), "was trained on 0 of this scene's 8 training"),
        (lambda theirs: Views(theirs.names[:1], theirs.camera_to_worlds[:1]), "two of different places are needed"),
        (lambda theirs: Views(theirs.names, theirs.camera_to_worlds.roll(1, 0)), "the same names .* other cameras"),
    ],
    ids=["no photo in common", "one photo in common", "another scene"],
)
def test_a_run_of_another_scene_is_refused(
    change: Callable[[Views], Views], told: str, learner: tuple[Views, Cameras]
) -> None:
    with pytest.raises(StageError, match=told):
        transform_to(Path("run"), learner[0], change(turned(learner[0])[1]))


def test_a_run_is_named_by_its_folder_or_what_lies_in_it(
    runs: dict[str, tuple[Path, Pipeline]], tmp_path: Path
) -> None:
    folder = runs["random"][0]
    assert folder_of(folder / "config.yml") == folder_of(folder / "nerfstudio_models") == folder
    with pytest.raises(StageError, match="is not a finished run"):
        folder_of(tmp_path)
    with pytest.raises(StageError, match="There is no teacher at"):
        folder_of(folder / "misspelt")
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert fingerprint_of(moved) == fingerprint_of(folder)
    (moved / "nerfstudio_models" / "step-000000004.ckpt").write_bytes(b"other")
    assert fingerprint_of(moved) != fingerprint_of(folder)


def test_a_run_that_nerfstudio_cannot_open_is_said_so(
    runs: dict[str, tuple[Path, Pipeline]], learner: tuple[Views, Cameras], tmp_path: Path
) -> None:
    shutil.copytree(runs["random"][0], tmp_path / "run")
    (tmp_path / "run" / "nerfstudio_models" / "step-000000004.ckpt").write_bytes(b"damaged")
    with pytest.raises(StageError, match="nerfstudio cannot open the run in .*run"):
        ensemble_of([tmp_path / "run"], learner[0], [], torch.device("cpu"))


def test_a_painted_background_is_not_learned_where_photos_have_none(
    demo: Path, runs: dict[str, tuple[Path, Pipeline]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(demo, tmp_path / "demo")
    with Image.open(data / "train/r_0.png") as photo:  # a first photo may be opaque
        photo.convert("RGB").save(data / "train/r_0.png")
    config = small_config(methods.finetune, data, tmp_path, teachers=(runs["last_sample"][0],))
    monkeypatch.setattr("dac_nerfstudio.teachers.finished_runs.transform_to", lambda *of: turned)
    with pytest.raises(SystemExit, match="paints its own background, and the photos of this scene have none"):
        config.setup(local_rank=0, world_size=1).setup()
