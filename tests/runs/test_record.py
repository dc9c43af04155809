"""The record of a run folder."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import read_json, write_json
from dac_nerfstudio.runs.layout import run_folder
from dac_nerfstudio.runs.record import Stage, differences, versions


@pytest.fixture
def stage() -> Stage:
    return Stage(
        method="dac-distill",
        scene="lego",
        settings={"model": {"near_plane": 2.0, "multiscale_res": [1, 2, 4]}, "rays": 4096},
        seed=42,
        total_steps=100,
        partition="0123456789abcdef",
        inputs={"expert-1": "aa", "expert-2": "bb"},
        steps=40,
        seconds=12.5,
        parameters=1000,
        versions={"torch": "2.0"},
    )


def test_a_record_reloads_equal(stage: Stage, tmp_path: Path) -> None:
    for written in (stage, replace(stage, group=3, partition=None, steps=100, scene="Bäume …")):
        written.save(tmp_path)
        loaded = Stage.load(tmp_path)
        assert loaded == written and loaded.fingerprint == written.fingerprint


def test_the_file_tells_other_programs_whether_the_run_is_complete(stage: Stage, tmp_path: Path) -> None:
    stage.save(tmp_path / "made" / "on the way")
    content = json.loads((tmp_path / "made" / "on the way" / "stage.json").read_text())
    assert content["complete"] is False and content["fingerprint"] == stage.fingerprint
    assert content["inputs"] == {"expert-1": "aa", "expert-2": "bb"}


@pytest.mark.parametrize(("steps", "complete"), [(0, False), (99, False), (100, True), (101, True)])
def test_a_run_is_complete_at_its_total_of_steps(stage: Stage, steps: int, complete: bool) -> None:
    assert replace(stage, steps=steps).complete is complete


@pytest.mark.parametrize(
    "change",
    [
        {"method": "dac-baseline"},
        {"settings": {"rays": 4096}},
        {"settings": {"model": {"near_plane": 2.5, "multiscale_res": [1, 2, 4]}, "rays": 4096}},
        {"seed": 43},
        {"total_steps": 101},
        {"group": 1},
        {"inputs": {"expert-1": "aa", "expert-2": "cc"}},
        {"inputs": {"expert-1": "aa", "expert-2": "bb", "partition": "0123456789abcdef"}},
    ],
    ids=str,
)
def test_the_fingerprint_depends_on_what_decides_the_result(stage: Stage, change: dict[str, Any]) -> None:
    assert replace(stage, **change).fingerprint != stage.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 100},
        {"seconds": 1.0},
        {"parameters": 5},
        {"versions": {"torch": "2.9"}},
        {"scene": "another name"},
        # What was current; where the result depends on it, it is among the inputs.
        {"partition": None},
    ],
    ids=str,
)
def test_the_fingerprint_does_not_depend_on_the_course_of_a_run(stage: Stage, change: dict[str, Any]) -> None:
    assert replace(stage, **change).fingerprint == stage.fingerprint


def test_the_fingerprint_does_not_depend_on_the_order_of_settings(stage: Stage) -> None:
    assert replace(stage, settings=dict(reversed(stage.settings.items()))).fingerprint == stage.fingerprint
    # Of this very record on every machine.
    assert len(stage.fingerprint) == 16 and int(stage.fingerprint, 16) >= 0


def test_a_folder_without_a_record_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(StageError) as error:
        Stage.load(tmp_path)
    assert str(error.value) == f"{tmp_path} has no stage.json: it is not a run folder of this project."


BROKEN, NO_RECORD = "cannot be read .*Delete the run folder and train", "is no record of a run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, BROKEN) for text in ("", "{", '{"method": "dac-expert"', "\x00\xff")),
        *((text, NO_RECORD) for text in ("[]", "[1]", '"text"', "7", "null")),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "stage.json").write_text(text, "latin1")
    with pytest.raises(StageError, match=f"{tmp_path}/stage.json {message}"):
        Stage.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", 3),
        ("scene", None),
        ("settings", []),
        ("seed", "42"),
        ("total_steps", 1.5),
        ("partition", 5),
        ("group", "1"),
        ("inputs", None),
        ("steps", None),
        ("seconds", "long"),
        ("parameters", [1]),
        ("versions", "2.0"),
        ("photos", 7),
        ("checkpoint", []),
        ("first_step", None),
        ("processor_seconds", "1"),
        ("peak_memory", 5),
    ],
)
def test_fields_of_a_wrong_type_are_named(stage: Stage, tmp_path: Path, name: str, value: Any) -> None:
    stage.save(tmp_path)
    content = json.loads((tmp_path / "stage.json").read_text())
    (tmp_path / "stage.json").write_text(json.dumps({**content, name: value}))
    with pytest.raises(StageError, match=f"stage.json lacks or mistypes {name}. Delete the run folder"):
        Stage.load(tmp_path)


def test_missing_fields_are_named_and_unknown_ones_passed_over(stage: Stage, tmp_path: Path) -> None:
    stage.save(tmp_path)
    content = json.loads((tmp_path / "stage.json").read_text())
    (tmp_path / "stage.json").write_text(json.dumps({**content, "of_a_later_version": 1}))
    assert Stage.load(tmp_path) == stage
    del content["method"], content["steps"]
    (tmp_path / "stage.json").write_text(json.dumps(content))
    with pytest.raises(StageError, match="lacks or mistypes method, steps"):
        Stage.load(tmp_path)


def test_a_run_folder_may_be_named_by_what_it_holds(stage: Stage, tmp_path: Path) -> None:
    stage.save(tmp_path / "run")
    for part in (".", "config.yml", "nerfstudio_models", "nerfstudio_models/step-000000039.ckpt"):
        assert run_folder(tmp_path / "run" / part) == tmp_path / "run"
    with pytest.raises(StageError, match=f"{tmp_path} is not a run folder"):
        run_folder(tmp_path)


def test_peak_memory_is_the_most_of_all_pieces_of_a_run(stage: Stage, tmp_path: Path) -> None:
    resumed = replace(stage, peak_memory={"process": 10**15, "gpu": 7})
    resumed.save(tmp_path)
    assert Stage.load(tmp_path).peak_memory == {"process": 10**15, "gpu": 7}
    replace(stage, peak_memory={"process": 1}).save(tmp_path)
    assert Stage.load(tmp_path).peak_memory["process"] > 10**6


def test_versions_name_what_a_result_depends_on() -> None:
    assert set(versions()) == {"dac-nerfstudio", "nerfstudio", "torch", "numpy"}
    assert all(version[0].isdigit() for version in versions().values())


def test_json_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "made" / "file.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1} and path.read_text().endswith("}\n")
    write_json(path, {"a": 2})
    assert [file.name for file in path.parent.iterdir()] == ["file.json"]
    # Fails after it has begun to write.
    with pytest.raises(TypeError):
        write_json(path, {"a": 3, "b": object()})
    assert json.loads(path.read_text()) == {"a": 2}


def test_differences_are_settings_then_inputs_without_the_length_of_schedules() -> None:
    def stage(rays: int, steps: int, **inputs: str) -> Stage:
        settings = {"model": {"size": 4, "layers": [1, 2]}, "rays": rays, "scheduler": {"max_steps": steps}}
        return Stage("dac-finetune", "demo", settings, seed=1, total_steps=steps, inputs=inputs)

    assert differences(stage(64, 10), stage(64, 10)) == []
    assert differences(stage(64, 10, alpha="a"), stage(32, 20, alpha="b")) == [
        ("rays", 64, 32), ("steps", 10, 20), ("alpha", "a", "b"),
    ]  # fmt: skip
    changed = stage(64, 10)
    changed.settings["model"]["layers"] = [1]
    del changed.settings["rays"]
    assert differences(stage(64, 10), changed) == [("model.layers", [1, 2], [1]), ("rays", 64, None)]


# What a record marks


def test_a_record_marks_its_checkpoint(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "step-000000007.ckpt"
    path.write_bytes(b"weights")
    stage.mark(path, 8)
    assert stage.steps == 8 and stage.checkpoint == {"name": path.name, "size": 7, "crc32": f"{crc32(b'weights'):08x}"}
    stage.save(tmp_path)
    assert Stage.load(tmp_path).checkpoint == stage.checkpoint and not stage.damage(path)
    path.write_bytes(b"weighty")
    assert stage.damage(path) == "holds other bytes than were written"
    path.write_bytes(b"we")
    assert stage.damage(path) == "has 2 bytes of 7"
    path.unlink()
    assert stage.damage(path) == "is gone"


def test_what_takes_a_files_place_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replaced"), replace(*paths)))
    write_json(tmp_path / "a.json", [1])
    assert done == ["file", "replaced", "folder"] and read_json(tmp_path / "a.json") == [1]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_read_as_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None and read_json(tmp_path / "b.json") is None
