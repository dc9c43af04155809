"""The experts that a student learns from: found, and refused in words."""

import os
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import SaveRun, TinyModel

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.naming import MethodName
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.settings import model_settings
from dac_nerfstudio.runs.store import Run, find
from dac_nerfstudio.training.sources import find_experts

PARTITION, DATA = "0123456789abcdef", {"scale_factor": 1.0, "data": "views"}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def found(scene: Path, model: KPlanesModel, groups: int, named: list[Path] | None = None) -> list[Run]:
    settings = {"data": DATA, "model": model_settings(model.config)}
    stage = Stage("dac-distill", "scene", settings, 42, 10, PARTITION, photos="these")
    return find_experts(scene, stage, groups, named or [])


def test_experts_come_in_the_order_of_the_groups(tiny_model: TinyModel, save_run: SaveRun, scene: Path) -> None:
    model = tiny_model()
    folders = {group: save_run(model, group)[0] for group in (2, 3, 1)}
    for named in ([], [folders[3], folders[1], folders[2]]):
        experts = found(scene, model, 3, named)
        assert [folder for folder, _ in experts] == [folders[1], folders[2], folders[3]]
        assert [stage.group for _, stage in experts] == [1, 2, 3]


def test_the_latest_finished_expert_is_taken(tiny_model: TinyModel, save_run: SaveRun, scene: Path) -> None:
    model = tiny_model()
    old, new, broken = (save_run(model, 1, run, steps=steps)[0] for run, steps in (("b", 10), ("a", 10), ("c", 4)))
    for age, folder in enumerate((broken, new, old)):
        os.utime(folder / "stage.json", (1e9 - age, 1e9 - age))
    assert [folder for folder, _ in find(scene, MethodName("expert"), 1)] == [broken, new, old]
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


OTHER_PHOTOS = "The expert of group 1 in {folder} has seen other photos than those of this dac-distill."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 4}, "The expert of group 1 in {folder} stopped at step 4 of 10."),
        (
            {"partition": "fedcba9876543210"},
            "The expert of group 1 in {folder} was trained for partition fedcba9876543210; the current one is "
            "0123456789abcdef.",
        ),
        ({"method": "dac-baseline"}, "{folder} holds a dac-baseline; expected a dac-expert."),
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
    with pytest.raises(StageError, match=f"has {setting} {value}, this dac-distill {mine}. Give both the same"):
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
