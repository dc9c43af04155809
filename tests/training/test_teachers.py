"""Experts as teachers: found, verified, loaded and asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.model import KPlanesModel, KPlanesModelConfig, RegularizerWeights
from dac_nerfstudio.runs.layout import run_folder
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.teachers.ensemble import ExpertBank, without_the_least
from dac_nerfstudio.teachers.experts import (
    find_experts,
    load_expert,
    model_settings,
    read_checkpoint,
    rebuild_config,
    runs_of,
    same_shape,
)
from dac_nerfstudio.teachers.models import StudentModelConfig

TinyModel = Callable[..., KPlanesModel]
SaveRun = Callable[..., tuple[Path, Stage]]
Rays = Callable[..., RayBundle]

PARTITION, DATA = "0123456789abcdef", {"scale_factor": 1.0, "data": "views"}


# Settings


def test_model_settings_survive_json_and_rebuild_the_config() -> None:
    config = KPlanesModelConfig(
        near_plane=0.5,
        multiscale_res=(1, 3),
        linear_decoder=False,
        background_color="black",
        regularizers=RegularizerWeights(distortion=0.25, plane_tv=0.0),
    )
    settings = json.loads(json.dumps(model_settings(config)))
    rebuilt = rebuild_config(settings, Path("here"))
    assert rebuilt == config
    assert rebuilt.multiscale_res == (1, 3) and rebuilt.regularizers.distortion == 0.25
    assert model_settings(rebuilt) == settings


def test_weights_of_tiny_cuda_nn_are_of_another_shape() -> None:
    one, other = (model_settings(KPlanesModelConfig(implementation=name)) for name in ("torch", "tcnn"))
    assert same_shape(one, one) and not same_shape(one, other)


def test_of_any_number_of_experts_some_are_asked() -> None:
    assert without_the_least(torch.tensor([[0.9, 0.095, 0.005]])).tolist() == [
        pytest.approx([0.9045, 0.0955, 0], abs=1e-4)
    ]
    assert without_the_least(torch.full((1, 200), 1 / 200)).tolist() == [pytest.approx([1 / 200] * 200)]


def test_a_students_settings_are_those_of_the_plain_model() -> None:
    assert model_settings(StudentModelConfig()) == model_settings(KPlanesModelConfig())


@pytest.mark.parametrize(
    "change", [{"grid_base_resolutoin": 3}, {"regularizers": {"plane_vt": 1.0}}, {"regularizers": None}], ids=str
)
def test_settings_of_another_model_are_rejected(change: dict[str, Any]) -> None:
    settings = {**model_settings(KPlanesModelConfig()), **change}
    with pytest.raises(StageError, match="The model settings recorded in here are not those of a K-Planes model"):
        rebuild_config(settings, Path("here"))
    with pytest.raises(StageError, match="recorded in here"):
        rebuild_config({}, Path("here"))


# Finding


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def found(scene: Path, model: KPlanesModel, groups: int, named: list[Path] | None = None) -> list[tuple[Path, Stage]]:
    stage = Stage("dac-distill", "scene", {"data": DATA}, 42, 10, PARTITION, photos="these")
    return find_experts(scene, stage, groups, named or [], model.config)


def test_experts_come_in_the_order_of_the_groups(tiny_model: TinyModel, save_run: SaveRun, scene: Path) -> None:
    model = tiny_model()
    folders = {group: save_run(model, group)[0] for group in (2, 3, 1)}
    for named in ([], [folders[3], folders[1], folders[2]]):
        experts = found(scene, model, 3, named)
        assert [folder for folder, _ in experts] == [folders[1], folders[2], folders[3]]
        assert [stage.group for _, stage in experts] == [1, 2, 3]


def test_an_expert_may_be_named_by_what_lies_in_its_folder(
    tiny_model: TinyModel, save_run: SaveRun, scene: Path
) -> None:
    model = tiny_model()
    folder, _ = save_run(model, 1)
    checkpoint = folder / "nerfstudio_models" / "step-000000009.ckpt"
    for name in (folder, folder / "config.yml", folder / "nerfstudio_models", checkpoint):
        assert run_folder(name) == folder
        assert found(scene, model, 1, [name])[0][0] == folder


def test_the_latest_finished_expert_is_taken(tiny_model: TinyModel, save_run: SaveRun, scene: Path) -> None:
    model = tiny_model()
    old, new, broken = (save_run(model, 1, run, steps=steps)[0] for run, steps in (("b", 10), ("a", 10), ("c", 4)))
    for age, folder in enumerate((broken, new, old)):
        os.utime(folder / "stage.json", (1e9 - age, 1e9 - age))
    assert [folder for folder, _ in runs_of(scene, "dac-expert", 1)] == [broken, new, old]
    assert found(scene, model, 1)[0][0] == new
    # One that was made for another partition since does not hide it.
    stranger, _ = save_run(model, 1, "d", partition="fedcba9876543210")
    os.utime(stranger / "stage.json", (2e9, 2e9))
    assert found(scene, model, 1)[0][0] == new


def test_missing_experts_are_named_with_what_to_type(tiny_model: TinyModel, save_run: SaveRun, scene: Path) -> None:
    model = tiny_model()
    save_run(model, 1)
    save_run(model, 3, steps=4)
    with pytest.raises(StageError) as error:
        found(scene, model, 4)
    assert str(error.value).startswith(
        f"No usable expert of group 2, 3, 4 in {scene}; the partition has 4 groups."
    ) and str(error.value).endswith("Train it: ns-train dac-expert --group 2 --data …")


def test_a_named_list_that_lacks_a_group_says_so(tiny_model: TinyModel, save_run: SaveRun, scene: Path) -> None:
    model = tiny_model()
    first, _ = save_run(model, 1)
    save_run(model, 2)
    with pytest.raises(StageError, match="^No usable expert of group 2 among those named; the partition has 2 groups"):
        found(scene, model, 2, [first])


OTHER_PHOTOS = "The expert of group 1 in {folder} has seen other photos than those that the student is to learn."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 4}, "The expert of group 1 in {folder} stopped at step 4 of 10."),
        (
            {"partition": "fedcba9876543210"},
            "The expert of group 1 in {folder} was trained for partition fedcba9876543210; the current one is "
            "0123456789abcdef.",
        ),
        ({"method": "dac-baseline"}, "{folder} holds a dac-baseline, not an expert."),
        ({"photos": "others"}, OTHER_PHOTOS),
        ({"settings": {"data": {**DATA, "data": "others"}}}, OTHER_PHOTOS),
    ],
    ids=["unfinished", "partition", "method", "photos", "data"],
)
def test_a_named_run_that_cannot_teach_is_refused(
    tiny_model: TinyModel, save_run: SaveRun, scene: Path, changes: dict[str, Any], message: str
) -> None:
    model = tiny_model()
    folder, _ = save_run(model, 1, **changes)
    with pytest.raises(StageError) as error:
        found(scene, model, 1, [folder])
    assert str(error.value) == message.format(folder=folder)


def test_an_expert_of_another_partition_is_the_reason_given_for_the_missing_one(
    tiny_model: TinyModel, save_run: SaveRun, scene: Path
) -> None:
    model = tiny_model()
    save_run(model, 1, partition="fedcba9876543210")
    with pytest.raises(StageError, match=r"(?s)No usable expert of group 1 .*trained for partition fedcba9876543210;"):
        found(scene, model, 1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("near_plane", 0.5),
        ("far_plane", 7.0),
        ("scene_radius", 1.5),
        ("is_contracted", True),
        ("background_color", "white"),
    ],
)
def test_an_expert_that_sees_other_rays_is_refused(
    tiny_model: TinyModel, save_run: SaveRun, scene: Path, setting: str, value: Any
) -> None:
    folder, _ = save_run(tiny_model(**{setting: value}), 1)
    model = tiny_model()
    mine = getattr(model.config, setting)
    with pytest.raises(StageError, match=f"has {setting} {value}, the student {mine}: they would not see the same ray"):
        found(scene, model, 1, [folder])
    with pytest.raises(StageError, match=f"has {setting} {value}"):
        found(scene, model, 1)


def test_experts_may_be_of_another_size_than_the_student(tiny_model: TinyModel, save_run: SaveRun, scene: Path) -> None:
    folder, _ = save_run(tiny_model(grid_base_resolution=5, num_samples=7), 1)
    assert found(scene, tiny_model(), 1)[0][0] == folder


def test_several_experts_of_a_group_may_be_named_but_none_twice(
    tiny_model: TinyModel, save_run: SaveRun, scene: Path
) -> None:
    model = tiny_model()
    one, other, third = (save_run(model, group, run)[0] for group, run in ((1, "one"), (1, "other"), (2, "third")))
    named = [folder for folder, _ in found(scene, model, 2, [third, other, one])]
    assert named == [other, one, third]
    # If none are named, the latest of each group.
    assert len(found(scene, model, 2)) == 2
    with pytest.raises(StageError, match=f"{one} is named twice."):
        found(scene, model, 2, [one, third, one])


def test_a_folder_without_a_record_is_no_run(tiny_model: TinyModel, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=f"{tmp_path / 'nothing'} is not a run folder: neither it nor the two folders"):
        found(scene, tiny_model(), 1, [tmp_path / "nothing"])


# Loading


def test_an_expert_reloads_equal_frozen_and_in_evaluation(tiny_model: TinyModel, save_run: SaveRun, rays: Rays) -> None:
    model = tiny_model(seed=3).eval()
    folder, stage = save_run(model)
    loaded = load_expert(folder, Stage.load(folder), "cpu")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(rays(5))["rgb"], model(rays(5))["rgb"])


def test_the_furthest_checkpoint_is_loaded_also_one_of_a_multi_gpu_run(
    tiny_model: TinyModel, save_run: SaveRun
) -> None:
    folder, stage = save_run(tiny_model(seed=1))
    later = tiny_model(seed=2)
    state = {f"_model.module.{name}": value for name, value in later.state_dict().items()}
    content = {"step": 99, "pipeline": {**state, "datamanager.other": torch.zeros(1)}}
    torch.save(content, folder / "nerfstudio_models" / "step-000000099.ckpt")
    loaded = load_expert(folder, stage, "cpu").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in later.state_dict().items())


def test_a_checkpoint_of_another_model_is_named(tiny_model: TinyModel, save_run: SaveRun) -> None:
    folder, stage = save_run(tiny_model())
    stage.settings["model"]["grid_base_resolution"] = 5
    with pytest.raises(StageError, match=f"{folder}/nerf.*ckpt does not fit the model recorded in {folder}/stage.json"):
        load_expert(folder, stage, "cpu")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_named(tiny_model: TinyModel, save_run: SaveRun, share: float) -> None:
    folder, stage = save_run(tiny_model())
    path = folder / "nerfstudio_models" / "step-000000009.ckpt"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(StageError) as error:
        load_expert(folder, stage, "cpu")
    assert str(error.value).startswith(f"The checkpoint {path} is damaged or not one of nerfstudio's (")
    assert str(error.value).endswith("Delete it and train that stage again.")


class Trap:
    """What would run code when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_that_is_more_than_tensors_is_refused_unopened(tmp_path: Path) -> None:
    path, marker = tmp_path / "step-000000001.ckpt", tmp_path / "was-here"
    torch.save({"step": 1, "pipeline": {"_model.x": Trap(marker)}}, path)
    with pytest.raises(StageError, match=f"The checkpoint {path} is damaged"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [{"step": 1}, {"pipeline": {}}, [1, 2], 7, "text"], ids=str)
def test_a_file_that_torch_reads_but_is_no_checkpoint_is_named(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "step-000000001.ckpt"
    torch.save(content, path)
    with pytest.raises(StageError, match=f"The checkpoint {path} is damaged or not one of nerfstudio's"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"not a checkpoint\n", b"\x80\x02}q\x00.", b"\x00" * 64, b"PK\x03\x04"], ids=repr)
def test_a_file_that_torch_cannot_read_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "step-000000001.ckpt"
    path.write_bytes(content)
    with pytest.raises(StageError, match=f"The checkpoint {path} is damaged or not one of nerfstudio's"):
        read_checkpoint(path)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=f"The checkpoint {tmp_path / 'none.ckpt'} is"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_a_run_without_checkpoints_is_named(tiny_model: TinyModel, save_run: SaveRun) -> None:
    folder, stage = save_run(tiny_model())
    (folder / "nerfstudio_models" / "step-000000009.ckpt").unlink()
    with pytest.raises(StageError, match=f"{folder} has no checkpoint in nerfstudio_models/. Train it again."):
        load_expert(folder, stage, "cpu")


# Asking


@pytest.mark.parametrize("settings", [{}, {"is_contracted": True, "near_plane": 0.0}], ids=["bounded", "contracted"])
@pytest.mark.parametrize(
    "groups", [[1, 1, 3, 3, 3], [2, 2], [1, 2, 3], [1]], ids=lambda groups: "".join(map(str, groups))
)
def test_each_ray_is_answered_as_by_its_expert_alone(
    tiny_model: TinyModel, save_run: SaveRun, rays: Rays, groups: list[int], settings: dict[str, Any]
) -> None:
    models = [tiny_model(seed=seed, **settings).eval() for seed in (1, 2, 3)]
    bank = ExpertBank([[load_expert(*save_run(model, group), "cpu")] for group, model in enumerate(models, start=1)])
    near = settings.get("near_plane", 2.0)
    bundle = rays(len(groups), groups=groups, near=near)
    background = torch.tensor([0.2, 0.5, 0.9])
    answer = bank(bundle, background)
    assert len(answer.rgb) == len(groups)
    for ray, group in enumerate(groups):
        with torch.no_grad():
            alone = models[group - 1].render(bundle[ray : ray + 1], background)
        torch.testing.assert_close(answer.rgb[ray], alone.rgb[0])
        torch.testing.assert_close(answer.bins.edges[ray], alone.final.edges[0])
        torch.testing.assert_close(answer.colours[ray], alone.colours[0])
        torch.testing.assert_close(answer.alphas[ray], alone.final.alphas[0], rtol=1e-4, atol=1e-5)
        expected = alone.final.bins.positions(bundle[ray : ray + 1])[0]
        torch.testing.assert_close(answer.bins.positions(bundle)[ray], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(answer.bins.widths[ray], alone.final.bins.widths[0], rtol=1e-3, atol=1e-5)
    # The experts do disagree: a wrong route would have been seen.
    with torch.no_grad():
        answers = torch.stack([model.render(bundle, background).rgb for model in models])
    assert (answers[0] - answers[1]).abs().max() > 1e-2 and (answers[0] - answers[2]).abs().max() > 1e-2


def test_an_answer_carries_no_gradient_and_is_the_same_every_time(
    tiny_model: TinyModel, save_run: SaveRun, rays: Rays
) -> None:
    bank = ExpertBank([[load_expert(*save_run(tiny_model(seed=group), group), "cpu")] for group in (1, 2)])
    bundle, background = rays(4, groups=[1, 1, 2, 2]), torch.ones(3)
    first, again = bank(bundle, background), bank(bundle, background)
    for name in ("rgb", "alphas", "colours"):
        assert not getattr(first, name).requires_grad
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.bins.edges, again.bins.edges) and not first.bins.edges.requires_grad
    assert not any(expert.training for experts in bank.models for expert in experts)
    assert first.alphas.min() >= 0 and first.alphas.max() <= 1


def test_experts_of_different_size_answer_together(tiny_model: TinyModel, save_run: SaveRun, rays: Rays) -> None:
    models = [tiny_model(seed=1).eval(), tiny_model(seed=2, grid_base_resolution=7, grid_feature_dim=3).eval()]
    bank = ExpertBank([[load_expert(*save_run(model, group), "cpu")] for group, model in enumerate(models, start=1)])
    bundle = rays(4, groups=[1, 2, 2, 2])
    with torch.no_grad():
        expected = models[1].render(bundle[1:], torch.ones(3)).rgb
    torch.testing.assert_close(bank(bundle, torch.ones(3)).rgb[1:], expected)


def test_experts_of_one_group_share_its_rays(tiny_model: TinyModel, save_run: SaveRun, rays: Rays) -> None:
    models = [tiny_model(seed=seed).eval() for seed in (1, 2, 3)]
    experts = [load_expert(*save_run(model, group=1, run=str(number)), "cpu") for number, model in enumerate(models)]
    background, bundle = torch.ones(3), rays(8, groups=[1] * 5 + [2] * 3)
    answer = ExpertBank([experts[:2], experts[2:]])(bundle, background)
    with torch.no_grad():
        alone = [model.render(bundle, background).rgb for model in models]
    expected = torch.cat((alone[0][:2], alone[1][2:5], alone[2][5:]))
    torch.testing.assert_close(answer.rgb, expected)


def test_runs_of_groups_may_come_in_any_order(tiny_model: TinyModel, save_run: SaveRun, rays: Rays) -> None:
    models = [tiny_model(seed=seed).eval() for seed in (1, 2)]
    bank = ExpertBank([[load_expert(*save_run(model, group), "cpu")] for group, model in enumerate(models, start=1)])
    groups, background = [1, 1, 2, 1, 2, 2], torch.ones(3)
    answer = bank(rays(6, groups=groups), background)
    with torch.no_grad():
        alone = [model.render(rays(6), background).rgb for model in models]
    torch.testing.assert_close(answer.rgb, torch.stack([alone[group - 1][ray] for ray, group in enumerate(groups)]))


# In half precision


@pytest.mark.parametrize("linear_decoder", [True, False], ids=["explicit", "hybrid"])
def test_an_expert_in_half_precision_renders_pictures_and_answers(
    linear_decoder: bool, tiny_model: TinyModel, save_run: SaveRun, rays: Rays
) -> None:
    """Pictures too: experts are blended by what they render of validation views."""
    run = save_run(tiny_model(linear_decoder=linear_decoder))
    single, half = load_expert(*run, "cpu"), load_expert(*run, "cpu").halve()
    assert half.in_half and not single.in_half
    bundle, black = rays(64), torch.zeros(3)
    answers = [expert.answer(bundle, black).rgb.float() for expert in (half, single)]
    pictures = [expert(bundle)["rgb"].float() for expert in (half, single)]
    for ours, theirs in (answers, pictures):
        assert (ours - theirs).abs().max() < 0.01
