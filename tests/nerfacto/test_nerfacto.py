"""nerfacto by our data manager and trainer: it learns, resumes exactly, is opened from its record, and teaches."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import SMALL, small_config

from dac_nerfstudio import methods
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.proposals import UpdateSchedule
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.nerfacto.hash_grid import HashGrid
from dac_nerfstudio.nerfacto.model import Nerfacto
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.reopen import recorded_config, reopen
from dac_nerfstudio.runs.store import Run
from dac_nerfstudio.training.trainer import DaCTrainer

Train = Callable[..., DaCTrainer]
PROPOSALS = {"hidden_dim": 8, "log2_hashmap_size": 8, "num_levels": 2, "max_res": 16, "use_linear": False}
GRIDS = {
    "num_levels": 2, "max_res": 32, "log2_hashmap_size": 8, "hidden_dim": 16, "hidden_dim_color": 16,
    "num_proposal_iterations": 1, "num_nerf_samples_per_ray": 8, "num_proposal_samples_per_ray": (12,),
    "proposal_warmup": 4, "proposal_net_args_list": [PROPOSALS],
}  # fmt: skip
"""Settings of a small nerfacto."""


@pytest.fixture
def train(demo: Path, tmp_path: Path) -> Train:
    """Trains a registered method on the demo's views for some steps; a dict sets fields of its configuration."""

    def make(method: Any, steps: int = 4, stop: int | None = None, **settings: Any) -> DaCTrainer:
        shape = GRIDS if isinstance(method.config.pipeline.model, methods.NerfactoConfig) else SMALL
        settings = {"experiment_name": "scene", "max_num_iterations": steps, "steps_per_save": 1000, **settings}
        config = small_config(method, demo, tmp_path / "outputs", shape, **settings)
        for group in config.optimizers.values():
            group["scheduler"].warmup_steps = 0
        torch.manual_seed(config.machine.seed)
        trainer: DaCTrainer = config.setup()
        trainer.setup()
        for step in range(trainer._start_step, stop or steps):
            trainer.train_iteration(step)
        trainer.save_checkpoint(step)
        return trainer

    return make


def weights(trainer: DaCTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.pipeline.model.state_dict().items()}


def test_methods_are_named_by_their_model() -> None:
    for suffix in ("", "-360"):
        for stage in ("baseline", "expert", "finetune"):
            name = f"dac-{stage}-nerfacto{suffix}"
            parsed = MethodName.parse(name)
            assert parsed == (stage, suffix, "-nerfacto") and str(parsed) == name
            assert getattr(methods, f"{stage}_nerfacto{suffix.replace('-', '_')}").config.method_name == name
    assert str(MethodName.parse("dac-expert-nerfacto-360").beside("baseline")) == "dac-baseline-nerfacto-360"


def test_it_learns_and_its_parts_are_ours(train: Train) -> None:
    trainer = train(methods.baseline_nerfacto, steps=60)
    model: Any = trainer.pipeline.model
    assert isinstance(model, Nerfacto) and all(isinstance(grid, HashGrid) for grid in model.grids)
    assert len(model.grids) == 2 and not model.collider.reset_near_plane
    before = train(methods.baseline_nerfacto, steps=1, timestamp="before").latest[1]["psnr"]
    assert trainer.latest[1]["psnr"] > before + 3, "in dB"
    decay = sum(0.1 * grid.num_levels * grid.hash_table.square().mean() for grid in model.grids)
    trainer.pipeline.train()
    _, losses, _ = trainer.pipeline.get_train_loss_dict(0)
    torch.testing.assert_close(losses["hash_decay_loss"], decay)


def test_proposals_learn_on_the_steps_on_which_those_of_k_planes_do(train: Train) -> None:
    model: Any = train(methods.baseline_nerfacto, steps=1).pipeline.model
    schedule, learned = UpdateSchedule(4, 5), []
    for step in range(40):
        model.begin_step(step)
        sampler = model.proposal_sampler
        learned.append(sampler._steps_since_update > sampler.update_sched(sampler._step) or sampler._step < 10)
    assert learned == [schedule.due(step) for step in range(40)] and not all(learned)


def test_a_resumed_run_is_the_undisturbed_one(train: Train) -> None:
    whole = weights(train(methods.baseline_nerfacto, steps=30))
    half = train(methods.baseline_nerfacto, steps=30, stop=17, timestamp="half")
    resumed = train(methods.baseline_nerfacto, steps=30, timestamp="half", load_dir=half.checkpoint_dir)
    for name, value in weights(resumed).items():
        assert torch.equal(value, whole[name]), name


def test_a_record_opens_it_and_backgrounds_are_white_in_evaluation(train: Train, demo: Path) -> None:
    trainer = train(methods.baseline_nerfacto, steps=20)
    pipeline = reopen(recorded_config(trainer.base_dir, demo, "cpu"), trainer.base_dir)
    camera = trainer.pipeline.datamanager.train_dataset.cameras[:1]
    trainer.pipeline.eval()
    expected = trainer.pipeline.model.get_outputs_for_camera(camera)["rgb"]
    torch.testing.assert_close(pipeline.model.get_outputs_for_camera(camera)["rgb"], expected)
    empty = torch.zeros(2, 2, 4)
    assert (pipeline.model.true_colour({}, {"image": empty}) == 1).all()
    assert not any("lpips" in name for name in trainer.pipeline.state_dict())


def test_an_expert_sees_its_group(train: Train) -> None:
    expert = train(methods.expert_nerfacto, group=2)
    assert expert.base_dir.parent.name == "group-2" and expert.stage.group == 2
    views = expert.pipeline.datamanager.partition.membership[1]
    drawn, _ = expert.pipeline.datamanager.train_pixel_sampler.draw(0)
    assert all(views[int(view)] > 0 for view in drawn)


def test_kinds_teach_each_other(train: Train, demo: Path) -> None:
    planes, grids = train(methods.baseline), train(methods.baseline_nerfacto)
    for method in (methods.finetune, methods.finetune_nerfacto):
        student = train(method, teachers=(planes.base_dir, grids.base_dir))
        manager = student.pipeline.datamanager
        assert manager.rendered_share == 0.5 and len(manager.rendered.pixels) > 0
        record = Stage.load(student.base_dir)
        fingerprints = [Run.at(teacher.base_dir).record.fingerprint for teacher in (planes, grids)]
        assert list(record.inputs.values()) == fingerprints
    with pytest.raises(SystemExit, match="learns from finished runs alone. Name them: --teachers"):
        train(methods.finetune_nerfacto, teachers=())


def test_settings_of_another_model_are_refused(train: Train, demo: Path) -> None:
    trainer = train(methods.baseline_nerfacto, steps=1)
    record = Stage.load(trainer.base_dir)
    record.settings["model"] = {"grid_base_resolution": 8}
    record.save(trainer.base_dir)
    with pytest.raises(StageError, match="not those of a nerfacto model"):
        recorded_config(trainer.base_dir, demo, "cpu")


def test_teachers_without_new_cameras_are_refused(train: Train) -> None:
    teacher = train(methods.baseline_nerfacto, steps=1)
    settings = copy.deepcopy(methods.finetune.config.pipeline)
    settings.novel_share = 0.0
    with pytest.raises(SystemExit, match="Finished runs teach at new cameras alone"):
        train(methods.finetune, teachers=(teacher.base_dir,), pipeline=settings)
