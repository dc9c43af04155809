"""The viewer's layers: experts and baseline beside the student, rendered when looked at, missed without a crash."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from tiny_runs import SaveRun, TinyModel
from torch import Tensor

from dac_nerfstudio.kplanes.model import KPlanesModel
from dac_nerfstudio.runs.record import Stage
from dac_nerfstudio.runs.store import Run
from dac_nerfstudio.teachers.ensemble import Ensemble
from dac_nerfstudio.viewer.layers import HINT, LayersPanel, teachers_of

CAMERA = Cameras(
    torch.eye(4)[None, :3] + torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]]), 8.0, 8.0, 3.0, 2.0, 6, 4
)
SHARES = (0.25, 0.75)
"""How much the experts count at any camera."""


def blend(poses: Tensor, inverse_temperature: float) -> Tensor:
    return torch.tensor([[0.0, 1.0] if inverse_temperature == float("inf") else SHARES]).expand(len(poses), -1)


class Scene:
    """A student with two experts and a baseline, their run folders, and the viewer on it."""

    def __init__(self, tiny_model: TinyModel, save_run: SaveRun, experts: bool, baseline: bool) -> None:
        self.models = {name: tiny_model(seed=seed).eval() for seed, name in enumerate(NAMES)}
        self.student, inputs = self.models["student"], {}
        self.folders: dict[str, Path] = {}
        for group in (1, 2) if experts else ():
            folder, record = save_run(self.models[f"expert {group}"], group)
            self.folders[f"expert {group}"], inputs[f"expert-{group}"] = folder, record.fingerprint
        if baseline:
            self.folders["baseline"], _ = save_run(self.models["baseline"], None, method="dac-baseline")
        self.distilled, distilled = save_run(self.student, None, method="dac-distill", inputs=inputs)
        made_from = {"student": distilled.fingerprint}
        self.folder, self.stage = save_run(self.student, None, method="dac-finetune", inputs=made_from)
        self.said = SimpleNamespace(content="")
        gui = SimpleNamespace(add_folder=lambda _: nullcontext(), add_markdown=self.add_markdown)
        self.panel = SimpleNamespace(output_render="not set", split=False, split_output_render="not set")
        self.viewer = SimpleNamespace(
            viser_server=SimpleNamespace(gui=gui),
            log_filename=self.folder / "viewer.txt",
            trainer=None,
            pipeline=SimpleNamespace(model=self.student),
            control_panel=self.panel,
            get_model=lambda: self.student,
        )
        self.rendered: list[KPlanesModel] = []

    def add_markdown(self, content: str) -> Any:
        self.said.content = content
        return self.said

    def open(self, partition: Any = "a partition") -> None:
        manager: Any = SimpleNamespace(partition=partition, blend=blend)
        LayersPanel(manager, lambda: 4.0)._setup(self.viewer)

    def look(self, left: str, right: str | None = None) -> dict[str, Tensor]:
        self.panel.output_render, self.panel.split = left, right is not None
        self.panel.split_output_render = right or "not set"
        return self.viewer.get_model().get_outputs_for_camera(CAMERA)

    def of(self, name: str) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.models[name].get_outputs_for_camera(CAMERA)


NAMES = ("student", "expert 1", "expert 2", "baseline")


@pytest.fixture
def scene(tiny_model: TinyModel, save_run: SaveRun) -> Callable[..., Scene]:
    return lambda experts=True, baseline=True: Scene(tiny_model, save_run, experts, baseline)


def test_each_layer_shows_what_its_name_says(scene: Callable[..., Scene]) -> None:
    s = scene()
    s.open()
    outputs = s.look("not set")
    assert list(outputs)[:5] == list(s.of("student"))
    assert list(outputs)[5:] == [
        "expert 1", "expert 2", "disagreement", "student - experts", "experts, routed", "experts", "student - baseline",
        "baseline",
    ]  # fmt: skip
    student, one, two, baseline = (s.of(name) for name in NAMES)
    mixed = Ensemble([s.models["expert 1"], s.models["expert 2"]], (1, 2), blend).get_outputs_for_camera(CAMERA)
    expected = {
        "rgb": student["rgb"],
        "expert 1": one["rgb"],
        "expert 2": two["rgb"],
        "baseline": baseline["rgb"],
        "experts": mixed["rgb"],
        "experts, routed": two["rgb"],
        "disagreement": mixed["disagreement"],
        "student - experts": (student["rgb"] - mixed["rgb"]).abs().mean(dim=-1, keepdim=True),
        "student - baseline": (student["rgb"] - baseline["rgb"]).abs().mean(dim=-1, keepdim=True),
    }
    for name, picture in expected.items():
        shown = s.look(name)
        torch.testing.assert_close(shown[name], picture)
        assert list(shown) == list(outputs)
        assert {key: value.shape for key, value in shown.items()} == {k: v.shape for k, v in outputs.items()}
    assert (one["rgb"] - two["rgb"]).abs().max() > 0.05 and s.said.content == HINT


def test_only_what_is_looked_at_is_loaded_and_rendered(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    s, rendered = scene(), []
    s.open()
    whole = KPlanesModel.get_outputs_for_camera

    def counted(model: KPlanesModel, *args: Any) -> Any:
        rendered.append(model)
        return whole(model, *args)

    monkeypatch.setattr(KPlanesModel, "get_outputs_for_camera", counted)
    model = s.viewer.get_model()

    def models(left: str, right: str | None = None) -> set[str]:
        rendered.clear()
        s.look(left, right)
        names = {id(one): name for name, one in model.loaded.items()}
        assert len(rendered) == len(set(map(id, rendered))), "each at most once"
        return {names[id(one)] for one in rendered}

    assert models("not set") == {"student"} and set(model.loaded) == {"student"}
    assert models("expert 1") == {"expert 1"} and set(model.loaded) == {"student", "expert 1"}
    assert models("experts, routed") == {"expert 2"}
    assert models("experts", "disagreement") == {"expert 1", "expert 2"}
    assert models("baseline", "student - experts") == {"student", "expert 1", "expert 2", "baseline"}
    assert models("depth") == {"student"}


def test_both_sides_of_a_wipe_are_there_and_the_left_one_hides(scene: Callable[..., Scene]) -> None:
    s = scene()
    s.open()
    shown = s.look("baseline", "expert 1")
    torch.testing.assert_close(shown["baseline"], s.of("baseline")["rgb"])
    torch.testing.assert_close(shown["expert 1"], s.of("expert 1")["rgb"])
    torch.testing.assert_close(shown["depth"], s.of("baseline")["depth"])
    shown = s.look("expert 1", "depth")
    torch.testing.assert_close(shown["depth"], s.of("student")["depth"])


def test_what_else_the_viewer_asks_of_a_model_is_the_students(scene: Callable[..., Scene]) -> None:
    s = scene()
    s.open()
    model = s.viewer.get_model()
    assert model is not s.student and model.device == s.student.device
    model.train()
    assert s.student.training and model.training
    model.eval()
    assert not s.student.training


def test_files_that_vanish_are_told_of_and_the_student_is_shown(scene: Callable[..., Scene], tmp_path: Path) -> None:
    s = scene()
    s.open()
    s.look("not set")
    s.look("expert 1")
    for name in ("expert 1", "expert 2"):
        shutil.move(s.folders[name] / "nerfstudio_models", tmp_path / name)
    torch.testing.assert_close(s.look("expert 1")["expert 1"], s.of("expert 1")["rgb"])  # it is in memory
    for name in ("expert 2", "experts", "student - experts"):
        shown = s.look(name)
        assert s.said.content.startswith("**Not shown:** `")
        assert f"{s.folders['expert 2']} has no checkpoint" in s.said.content
        stand_in = "depth" if name == "student - experts" else "rgb"
        assert torch.equal(shown[name], shown[stand_in])
    s.look("rgb")
    assert s.said.content == HINT
    shutil.move(tmp_path / "expert 2", s.folders["expert 2"] / "nerfstudio_models")
    torch.testing.assert_close(s.look("expert 2")["expert 2"], s.of("expert 2")["rgb"])
    assert s.said.content == HINT


def test_a_student_alone_is_shown_as_it_is(scene: Callable[..., Scene]) -> None:
    s = scene(experts=False, baseline=False)
    s.open()
    assert list(s.look("not set")) == list(s.of("student"))
    assert s.said.content == "This student's experts and baseline are not here."


def test_without_all_experts_or_without_groups_those_that_are_there_are_shown_alone(
    scene: Callable[..., Scene],
) -> None:
    s = scene(baseline=False)
    s.open(partition=None)
    assert list(s.look("not set"))[5:] == ["expert 1", "expert 2"]
    shutil.rmtree(s.folders["expert 1"])
    s.open()
    assert list(s.look("not set"))[5:] == ["expert 2"] and s.said.content == f"{HINT} Not where they were: expert 1."


def test_finished_runs_that_taught_a_student_are_layers(
    scene: Callable[..., Scene], tiny_model: TinyModel, save_run: SaveRun
) -> None:
    s = scene(experts=False)
    other = tiny_model(seed=9).eval()
    folder, record = save_run(other, None, run="other", method="dac-baseline", seed=9)
    inputs = {"teacher-1": record.fingerprint, "teacher-2": Stage.load(s.folders["baseline"]).fingerprint}
    s.folder, s.stage = save_run(s.student, None, run="taught", method="dac-finetune", inputs=inputs)
    s.viewer.log_filename = s.folder / "viewer.txt"
    folders = "".join(f"- !!python/object/apply:pathlib.PosixPath [{one}]\n" for one in (folder, s.folders["baseline"]))
    (s.folder / "config.yml").write_text(f"teachers: !!python/tuple\n{folders}")
    s.open(partition=None)
    assert list(s.look("not set"))[5:] == [
        "teacher 1", "teacher 2", "disagreement", "student - teachers", "teachers", "student - baseline", "baseline",
    ]  # fmt: skip
    with torch.no_grad():
        one, two = other.get_outputs_for_camera(CAMERA)["rgb"], s.of("baseline")["rgb"]
    torch.testing.assert_close(s.look("teachers")["teachers"], (one + two) / 2)
    torch.testing.assert_close(s.look("teacher 1")["teacher 1"], one)
    # One that nerfstudio alone can open has no record.
    (folder / "stage.json").unlink()
    s.open()
    assert list(s.look("not set"))[5:] == ["teacher 2", "student - baseline", "baseline"]
    assert s.said.content.endswith("of other photos or of another project's method: teacher 1.")


def test_other_methods_and_folders_without_a_record_have_no_layers(scene: Callable[..., Scene]) -> None:
    s = scene()
    for folder in (s.folders["expert 1"], s.folder.parent):
        s.viewer.log_filename = folder / "viewer.txt"
        s.open()
        assert s.viewer.get_model() is s.student and s.said.content == ""


def test_a_student_in_training_has_layers_before_its_first_checkpoint(scene: Callable[..., Scene]) -> None:
    s = scene()
    (s.folder / "stage.json").unlink()
    s.viewer.trainer = SimpleNamespace(stage=s.stage)
    s.open()
    assert "experts" in s.look("not set")


def test_teachers_are_found_where_the_configuration_has_them_and_by_what_they_are(
    scene: Callable[..., Scene], tiny_model: TinyModel, save_run: SaveRun, tmp_path: Path
) -> None:
    s = scene()
    found = teachers_of(Run(s.folder, s.stage))
    assert {name: run and run[0] for name, run in found.items()} == {
        "expert-1": s.folders["expert 1"], "expert-2": s.folders["expert 2"]
    }  # fmt: skip
    elsewhere = tmp_path / "elsewhere" / "expert"
    shutil.move(s.folders["expert 1"], elsewhere)
    assert teachers_of(Run(s.folder, s.stage))["expert-1"] is None
    # Another one in its place is no teacher.
    save_run(tiny_model(seed=9), 1, seed=43)
    assert teachers_of(Run(s.folder, s.stage))["expert-1"] is None
    path = f"!!python/object/apply:pathlib.PosixPath [{elsewhere}]"
    (s.distilled / "config.yml").write_text(f"experts: !!python/tuple\n- {path}\n")
    run = teachers_of(Run(s.folder, s.stage))["expert-1"]
    assert run is not None and run[0] == elsewhere
    # The distilled student, too, may lie elsewhere.
    shutil.move(s.distilled, tmp_path / "elsewhere" / "student")
    assert teachers_of(Run(s.folder, s.stage)) == {}
    student = f"!!python/object/apply:pathlib.PosixPath [{tmp_path / 'elsewhere' / 'student'}]"
    (s.folder / "config.yml").write_text(f"student: {student}\n")
    run = teachers_of(Run(s.folder, s.stage))["expert-1"]
    assert run is not None and run[0] == elsewhere


def test_the_baseline_of_the_students_name_is_preferred(
    scene: Callable[..., Scene], tiny_model: TinyModel, save_run: SaveRun
) -> None:
    s = scene(experts=False)
    save_run(tiny_model(seed=9), None, run="later", method="dac-baseline")
    save_run(tiny_model(seed=9), None, run="unfinished", method="dac-baseline", steps=5)
    s.open()
    torch.testing.assert_close(s.look("baseline")["baseline"], s.of("baseline")["rgb"])
