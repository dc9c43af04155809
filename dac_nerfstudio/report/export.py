"""A scene's result as one file to give away: student, configuration, report, and how to use them elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.files import atomic_write, read_config
from dac_nerfstudio.report.runs import read_scene
from dac_nerfstudio.report.writing import write_report
from dac_nerfstudio.runs.layout import CONFIG, EVALUATION, PARTITION, RECORD, latest_checkpoint, report_folder

README = "README.txt"
STUDENT = "dac-finetune"


def export(scene_dir: Path, file: Path, run: Optional[str] = None) -> None:
    """Pack the fine-tuned student of a scene with its report, which is made anew.

    What unpacks is a folder ``outputs/<scene>`` as training leaves it, with the student as its only run.

    Args:
        file: the zip to write, as a whole or not at all.
        run: name of the runs; by default of those worked on last.

    Raises:
        StageError: there is no finished student, or there are no results.
    """
    if file.suffix != ".zip":
        raise StageError(f"{file} is no name of a zip file. Say where it goes: dac export {scene_dir} {file}.zip")
    scene = read_scene(scene_dir, run)
    student = scene.only(STUDENT)
    if student is None or not student.stage.complete:
        found = "no fine-tuned student" if student is None else "a fine-tuned student that is not finished"
        raise StageError(f"{scene_dir} holds {found} named {scene.name}. Make it: dac run --data …")
    write_report(scene_dir, scene.name)
    root = Path("outputs", student.stage.scene)
    place = root / student.folder.relative_to(scene_dir)
    config = student.folder / CONFIG
    data = read_config(config).get("data", "DATA")
    with atomic_write(file) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as packed:
        packed.writestr(str(root / README), readme(student.stage.scene, place, Path(str(data))))
        packed.write(scene_dir / PARTITION, root / PARTITION)
        for name in (RECORD, PARTITION, EVALUATION):
            if (student.folder / name).exists():
                packed.write(student.folder / name, place / name)
        if config.exists():
            packed.writestr(str(place / CONFIG), relocated(config.read_text("utf8")))
        checkpoint = latest_checkpoint(student.folder)
        # Weights do not compress.
        packed.write(checkpoint, place / checkpoint.relative_to(student.folder), ZIP_STORED)
        for path in sorted(path for path in report_folder(scene_dir).iterdir() if path.is_file()):
            packed.write(path, root / path.relative_to(scene_dir))


def relocated(config: str) -> str:
    """The text of a config.yml whose results lie in ``outputs/`` of whatever folder a command is typed in. It is read
    as text, for to load it is to run what it names."""
    path = r"(&\w+ )?!!python/object/apply:pathlib\.\w+\n(?:- .*\n)+"
    config = re.sub(rf"^output_dir: {path}", r"output_dir: \1!!python/object/apply:pathlib.PosixPath\n- outputs\n",
                    config, flags=re.MULTILINE)  # fmt: skip
    return re.sub(rf"^typed_in: {path}", "typed_in: null\n", config, flags=re.MULTILINE)


def readme(scene: str, place: Path, data: Path) -> str:
    """How to use what was packed.

    Args:
        place: the student's run folder, where it unpacks.
        data: where the photos lay at training, as it was typed.
    """
    where = str(data) if data.is_absolute() else f"the folder {data} beside outputs/"
    return f"""{scene}: a radiance field trained with dac-nerfstudio

outputs/{scene}/report/report.html shows how good it is; it opens in any browser and needs nothing else.

To use the model, install dac-nerfstudio beside nerfstudio, unpack this file into a folder and work in that folder.
The model is evaluated at the cameras of its photos, which are not in here.

  dac view outputs/{scene} --data FOLDER_OF_THE_PHOTOS

shows it in the browser, wherever the photos lie. It reads nothing but stage.json and weights: nothing in this file is
executed. nerfstudio's own commands load config.yml, which runs what it names; use them if you trust whoever gave you
this. They read the photos from {where}:

  ns-render interpolate --load-config {place / CONFIG} --output-path flight.mp4
  ns-eval --load-config {place / CONFIG}

If the photos lie elsewhere, put a link there, or write their place into config.yml, where "data" stands.
"""
