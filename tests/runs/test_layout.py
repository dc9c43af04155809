"""The layout of a folder of results: what is put somewhere is found there."""

from pathlib import Path

import pytest

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.runs.layout import RECORD, checkpoints, latest_checkpoint, run_dir, run_dirs, run_folder, scene_name


def recorded(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / RECORD).touch()
    return folder


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("data/lego", "lego"),
        ("data/scan_0.5m", "scan_0.5m"),
        ("data/scan_0.8m/transforms.json", "scan_0.8m"),
        ("data/../data/.hidden", ".hidden"),
    ],
)
def test_a_scene_is_called_as_the_folder_of_its_data_whole(data: str, name: str) -> None:
    assert scene_name(Path(data)) == name


def test_a_scene_that_is_the_current_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "room.v2").mkdir()
    monkeypatch.chdir(tmp_path / "room.v2")
    assert scene_name(Path(".")) == "room.v2"


def test_runs_are_found_where_they_are_put(tmp_path: Path) -> None:
    experts = [recorded(run_dir(tmp_path, "dac-expert", "quick-seed1", group)) for group in (1, 2)]
    other = recorded(run_dir(tmp_path, "dac-expert", "quick-seed2", 1))
    baseline = recorded(run_dir(tmp_path, "dac-baseline", "run [1]"))
    run_dir(tmp_path, "dac-baseline", "without-a-record").mkdir()
    assert experts[1] == tmp_path / "dac-expert" / "group-2" / "quick-seed1"
    assert run_dirs(tmp_path, "dac-expert") == [experts[0], other, experts[1]]
    assert run_dirs(tmp_path, "dac-expert", 2) == [experts[1]]
    assert run_dirs(tmp_path, "dac-baseline") == [baseline]
    assert run_dirs(tmp_path, "dac-distill") == []


def test_the_checkpoint_that_got_furthest_is_the_latest(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run")
    with pytest.raises(StageError, match="has no checkpoint in nerfstudio_models/. Train it again."):
        latest_checkpoint(folder)
    (folder / "nerfstudio_models").mkdir()
    (folder / "nerfstudio_models" / "other.ckpt").touch()
    for step in (999, 29999, 2000):
        (folder / "nerfstudio_models" / f"step-{step:09d}.ckpt").touch()
    assert [path.stem for path in checkpoints(folder)] == ["step-000000999", "step-000002000", "step-000029999"]
    assert latest_checkpoint(folder) == checkpoints(folder)[-1]
    assert run_folder(latest_checkpoint(folder)) == folder
