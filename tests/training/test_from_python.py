"""Every method trains from Python, as notebooks call nerfstudio's: no command has saved a configuration before."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image
from tiny_training import small_config

from dac_nerfstudio import methods
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.partition import Partition
from dac_nerfstudio.runs.layout import PARTITION, latest_checkpoint
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.training import trainer as trainer_module
from dac_nerfstudio.training.datamanager import DaCDataManager
from dac_nerfstudio.training.ensemble import EnsembleModel
from dac_nerfstudio.training.trainer import DaCTrainer, DaCTrainerConfig, DistillTrainerConfig

STEPS = 4
Configure = Callable[..., DaCTrainerConfig]


@pytest.fixture
def configure(demo: Path, tmp_path: Path) -> Configure:
    """Makes a method's registered configuration, but small, on the demo scene; keyword arguments are settings."""

    def make(method: str, **settings: Any) -> DaCTrainerConfig:
        settings = {"max_num_iterations": STEPS, **settings}
        config: DaCTrainerConfig = small_config(getattr(methods, method), demo, tmp_path / "outputs", **settings)
        return config

    return make


def trained(config: DaCTrainerConfig) -> DaCTrainer:
    """Trains in a loop of its own, as a notebook does, and saves."""
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    for step in range(STEPS):
        loss, losses, _ = trainer.train_iteration(step)
        assert torch.isfinite(loss) and torch.isclose(loss, torch.stack([*losses.values()]).sum())
    trainer.save_checkpoint(STEPS - 1)
    record, path = Stage.load(trainer.base_dir), latest_checkpoint(trainer.base_dir)
    assert record.checkpoint["name"] == path.name and not record.damage(path)
    return trainer


def test_what_was_begun_without_a_scaler_goes_on_with_one(configure: Configure) -> None:
    """As on a GPU: where there is no CUDA nerfstudio's scaler of gradients is none, and an empty state is saved."""
    begun = trained(configure("baseline"))
    assert torch.load(latest_checkpoint(begun.base_dir), weights_only=True)["scalers"] == {}
    config = configure("baseline", load_dir=begun.base_dir)
    trainer = config.setup(local_rank=0, world_size=1)
    scaler = trainer.grad_scaler = torch.amp.GradScaler("cpu")
    trainer.setup()
    assert trainer._start_step == STEPS and trainer.grad_scaler is scaler and scaler.is_enabled()


def weights(trainer: DaCTrainer) -> dict[str, torch.Tensor]:
    return trainer.pipeline.model.state_dict()


def assert_stages_follow_one_another(configure: Configure, suffix: str) -> None:
    """Trains all methods for a kind of scene, each from what went before it."""
    trained(configure(f"baseline{suffix}"))
    experts = [trained(configure(f"expert{suffix}", group=group)) for group in (1, 2)]
    with pytest.raises(StageError, match="it holds .*, group 2, .* This run is .*, group 1, "):
        configure(f"expert{suffix}", group=1, load_dir=experts[1].checkpoint_dir).sources()
    student = trained(configure(f"distill{suffix}"))
    assert isinstance(student.config, DistillTrainerConfig)
    assert student.config.experts == tuple(expert.base_dir for expert in experts)
    assert configure(f"distill{suffix}").experts == ()
    tuned = trained(configure(f"finetune{suffix}"))
    assert tuned.stage.inputs == {"student": student.stage.fingerprint}
    # Its schedules go on where the student's ended.
    assert (tuned.stage.first_step, tuned.pipeline.model.step) == (STEPS, 2 * STEPS - 1)
    config = configure(f"finetune{suffix}", timestamp="taught")
    config.pipeline.novel_share = 0.25
    taught = trained(config)
    assert set(taught.stage.inputs) == {"student", "partition", "expert-1", "expert-2"}
    rendered = taught.pipeline.datamanager.rendered
    assert rendered is not None and len(rendered.pixels) == 1
    ensemble = trained(configure(f"ensemble{suffix}"))

    for group, expert in enumerate(experts, start=1):
        # Drew its own group's photos, and stands in the ensemble.
        assert expert.stage.group == group
        drawn = expert.pipeline.datamanager.next_train(0)[1]["indices"][:, 0].unique().tolist()
        names = [expert.pipeline.datamanager.train_names[view] for view in drawn]
        partition = Partition.load(expert.base_dir / PARTITION)
        assert set(names) <= set(partition.members(group))
        assert isinstance(ensemble.pipeline.model, EnsembleModel)
        for name, value in ensemble.pipeline.model.experts[group - 1].state_dict().items():
            assert torch.equal(value, weights(expert)[name])
    for trainer in (*experts, student, tuned, taught, ensemble):
        assert Stage.load(trainer.base_dir).complete and (trainer.base_dir / "config.yml").exists()


def test_every_method_trains_step_by_step(configure: Configure, demo: Path, tmp_path: Path) -> None:
    assert_stages_follow_one_another(configure, "")
    # Divided as `dac split` would have done it from the files.
    partition = Partition.load(tmp_path / "outputs" / demo.name / PARTITION)
    assert partition.views.names == read_views(demo).names and partition.settings["strategy"] == "azimuth"


def test_ns_train_resolves_once_and_says_what_is_wrong_before_it_shows_the_configuration(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    resolve, calls = trainer_module.resolve, []
    monkeypatch.setattr(trainer_module, "resolve", lambda config: calls.append(config) or resolve(config))
    config = configure("baseline")
    # In the order in which ns-train calls them.
    config.print_to_terminal()
    assert not config.scene_dir.exists(), "showing writes nothing"
    config.save_config()
    assert [path.name for path in config.scene_dir.rglob("*") if path.is_file()] == ["config.yml"]
    trained(config)
    assert len(calls) == 1 and (config.scene_dir / PARTITION).exists()
    shown = capfd.readouterr().out
    assert "TrainerConfig(" in shown and "scene_radius=None" not in shown

    models = config.get_base_dir() / "nerfstudio_models"
    with pytest.raises(SystemExit, match="no group was named. Add --group K, K from 1 to 2."):
        configure("expert").print_to_terminal()
    with pytest.raises(SystemExit, match="it holds dac-baseline. This run is dac-expert, group 1"):
        configure("expert", group=1, load_dir=models).print_to_terminal()
    assert "TrainerConfig(" not in capfd.readouterr().out


def test_results_are_found_from_other_folders_and_where_they_were_moved(
    configure: Configure, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nerfstudio.utils.eval_utils import eval_setup

    home, elsewhere, moved = (tmp_path / name for name in ("home", "elsewhere", "moved"))
    shutil.copytree(demo, home / "data" / "demo")
    elsewhere.mkdir()
    monkeypatch.chdir(home)
    config = configure("baseline", output_dir=Path("outputs"), data=Path("data", "demo"))
    config.pipeline.datamanager.data = config.data
    run = trained(config).base_dir

    def opened(path: Path) -> tuple[Path, Path, int]:
        _, pipeline, checkpoint, _ = eval_setup(path / "config.yml")
        manager = pipeline.datamanager
        assert manager.partition is not None and manager.partition.num_groups == 2
        return checkpoint.resolve(), manager.config.data.resolve(), len(manager.eval_names)

    checkpoint, photos, views = opened(run)
    assert (checkpoint.parents[1], photos) == (home / run, home / "data" / "demo")
    monkeypatch.chdir(elsewhere)
    assert opened(home / run) == (checkpoint, photos, views)
    shutil.copytree(home, moved)
    monkeypatch.chdir(moved)
    # A copy is its own: what it was copied from may be there or gone.
    assert opened(run) == (moved / checkpoint.relative_to(home), moved / "data" / "demo", views)


@pytest.mark.parametrize("method", ["baseline", "distill"])
def test_steps_of_a_loop_of_ones_own_are_those_of_nerfstudios(configure: Configure, method: str) -> None:
    if method == "distill":
        for group in (1, 2):
            trained(configure("expert", group=group))
    torch.manual_seed(0)
    own = trained(configure(method))
    torch.manual_seed(0)
    other = configure(method, timestamp="other").setup(local_rank=0, world_size=1)
    other.setup()
    other.train()
    assert own.stage.fingerprint == other.stage.fingerprint
    if method == "distill":
        # They teach for as long as the student trains.
        assert own.pipeline.model.teach is not None and other.pipeline.model.teach is None
    for name, value in weights(own).items():
        assert torch.equal(value, weights(other)[name]), name


def test_settings_that_changed_since_the_record_was_made_make_another(configure: Configure) -> None:
    config = configure("baseline")
    first = config.setup(local_rank=0, world_size=1).stage
    assert config.sources() is config.sources() and config.sources().record == first
    config.machine.seed, config.max_num_iterations = 7, 9
    again = config.setup(local_rank=0, world_size=1).stage
    assert (again.seed, again.total_steps) == (7, 9) and again.fingerprint != first.fingerprint
    optimizers = config.sources().config.optimizers
    assert {group["scheduler"].max_steps for group in optimizers.values()} == {9}


@pytest.fixture
def in_memory(demo: Path, configure: Configure) -> Configure:
    """As `configure`, with cameras and photos that are in memory alone."""
    parser = BlenderDataParserConfig(data=demo, alpha_color=None).setup()
    scene = {split: parser.get_dataparser_outputs(split) for split in ("train", "val", "test")}
    photos = {path.name: np.asarray(Image.open(path)) for s in scene.values() for path in s.image_filenames}

    class MemoryParser(DataParser):
        def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
            names = [Path("memory", path.name) for path in scene[split].image_filenames]
            return dataclasses.replace(scene[split], image_filenames=names)

    class MemoryDataset(InputDataset):
        def get_numpy_image(self, image_idx: int) -> np.ndarray:
            return photos[self.image_filenames[image_idx].name]

    class MemoryManager(DaCDataManager):
        dataset_type = MemoryDataset

    def make(method: str, **settings: Any) -> DaCTrainerConfig:
        config = configure(method, experiment_name="memory", **settings)
        config.pipeline.datamanager._target = MemoryManager
        config.pipeline.datamanager.data = Path("nowhere")
        config.pipeline.datamanager.dataparser = DataParserConfig(_target=MemoryParser, data=Path("nowhere"))
        return config

    return make


def test_every_method_for_real_scenes_trains_on_data_in_memory(in_memory: Configure, tmp_path: Path) -> None:
    assert_stages_follow_one_another(in_memory, "_360")
    partition = Partition.load(tmp_path / "outputs" / "memory" / PARTITION)
    assert partition.num_groups == 2 and partition.views.names == tuple(f"memory/r_{view}.png" for view in range(8))
