"""A zip of a scene: it unpacks as a folder of results with the student in it, which is found from wherever that is."""

from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
from run_folders import RUN, Maker, gather

from dac_nerfstudio.cli import main
from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import read_config
from dac_nerfstudio.report.export import export

PATH = "!!python/object/apply:pathlib.PosixPath"
CONFIG = (
    "!!python/object:dac_nerfstudio.training.trainer.DaCTrainerConfig\n"
    f"data: &id001 {PATH}\n- data\n- lego\n"
    f"output_dir: {PATH}\n- /\n- home\n- somebody\n- outputs\n"
    f"pipeline:\n  data: *id001\ntyped_in: {PATH}\n- /\n- home\n- somebody\nvis: tensorboard\n"
)


@pytest.fixture
def made(maker: Callable) -> Maker:
    scene = maker().everything()
    student = scene.run_dir("dac-finetune")
    (student / "nerfstudio_models").mkdir()
    (student / "nerfstudio_models" / "step-000000009.ckpt").write_bytes(b"weights")
    (student / "config.yml").write_text(CONFIG)
    return scene


def test_it_unpacks_as_a_folder_of_results(made: Maker, tmp_path: Path) -> None:
    export(made.folder, tmp_path / "lego.zip")
    with ZipFile(tmp_path / "lego.zip") as packed:
        packed.extractall(tmp_path / "there")
    there = tmp_path / "there" / "outputs" / "lego"
    student = Path("dac-finetune", RUN)
    for name in ("stage.json", "evaluation.json", "nerfstudio_models/step-000000009.ckpt"):
        assert (there / student / name).read_bytes() == (made.folder / student / name).read_bytes()
    assert (there / "report" / "report.html").read_bytes() == (made.folder / "report" / "report.html").read_bytes()
    assert list(gather(there).methods) == ["dac-finetune"]
    config = read_config(there / student / "config.yml")
    assert (config["data"], config["output_dir"], config["typed_in"]) == ("data/lego", "outputs", None)
    assert config["pipeline"]["data"] == "data/lego" and config["vis"] == "tensorboard"
    text = (there / "README.txt").read_text()
    assert f"ns-eval --load-config outputs/lego/dac-finetune/{RUN}/config.yml" in text
    assert "They read the photos from the folder data/lego beside outputs/:" in text


def test_what_cannot_be_packed_is_said_and_nothing_is_written(made: Maker, maker: Callable, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"lego is no name of a zip file. Say where it goes: dac export .*lego\.zip"):
        export(made.folder, tmp_path / "lego")
    other = maker("other").only("dac-baseline")
    with pytest.raises(StageError, match=f"other holds no fine-tuned student named {RUN}. Make it: dac run"):
        export(other.folder, tmp_path / "other.zip")
    assert not list(tmp_path.glob("*.zip"))


def test_a_folder_in_the_place_of_the_zip_is_named(
    made: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lego.zip").mkdir()
    monkeypatch.setattr("sys.argv", ["dac", "export", str(made.folder), str(tmp_path / "lego.zip")])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == f"Error: {tmp_path / 'lego.zip'}: Is a directory\n"
