"""The layout of a scene's folder of results. What lies where is known here and nowhere else.

outputs/<scene>/
    partition.json                      the current partition; all of them in partitions/<fingerprint>.json
    partition.png, partition.html       to look at, and to turn and click
    <method>/<run>/                     a run, such as dac-baseline/quick-seed42
    <method>/group-<k>/<run>/           a run of an expert
        stage.json                      its record, see `dac_nerfstudio.runs.record`
        config.yml                      nerfstudio's record, for nerfstudio's commands alone
        nerfstudio_models/              checkpoints; nerfstudio parses every file name in it
        partition.json                  a copy of the partition that it was trained for
        evaluation.json, test/          scores of the test views; photo and rendering of each, side by side
    <run>.toml                          the file of flags that runs were made with, if there was one
    slurm-jobs.json                     jobs that are on a cluster
    photos.json                         digests of the photos, so that these are read once
    report/                             report.html, results.json, results.md, video.mp4
    pictures/                           animations, strips and the experts' mosaic of dac render
    logs/                               what each stage printed; in slurm/, what Slurm has to say
"""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

from dac_nerfstudio.errors import StageError

PARTITION = "partition.json"
PARTITIONS = "partitions"
PARTITION_PICTURE = "partition.png"
PARTITION_PAGE = "partition.html"
PHOTOS = "photos.json"
SLURM_JOBS = "slurm-jobs.json"
RECORD = "stage.json"
CONFIG = "config.yml"
CHECKPOINTS = "nerfstudio_models"
EVALUATION = "evaluation.json"
PAIRS = "test"


def scene_name(data: Path) -> str:
    """What a scene's folder of results is called by default: as the folder of its data, whole. ``scan_0.5m`` and
    ``scan_0.8m`` are two scenes."""
    return (data.parent if data.suffix == ".json" else data).resolve().name


def run_dir(scene_dir: Path, method: str, run: str, group: Optional[int] = None) -> Path:
    """Folder of a run; of an expert in that of its group, counted from 1."""
    folder = scene_dir / method
    return (folder if group is None else folder / group_folder(group)) / run


def group_folder(group: Optional[int]) -> str:
    """Name of the folder that holds the experts of a group."""
    return f"group-{group}"


def flags_path(scene_dir: Path, run: str) -> Path:
    """The file of flags that runs of a name were made with, if there was one."""
    return scene_dir / f"{run}.toml"


def run_dirs(scene_dir: Path, method: str, group: Optional[int] = None) -> List[Path]:
    """Folders of a method's runs that have a record, sorted by path; of all groups if none is given."""
    folders = [scene_dir / method, *sorted((scene_dir / method).glob("group-*"))]
    if group is not None:
        folders = [scene_dir / method / group_folder(group)]
    return sorted(record.parent for folder in folders for record in folder.glob(f"*/{RECORD}"))


def run_folder(path: Path) -> Path:
    """The run folder that a user meant by naming it, its config.yml, its models' folder or a checkpoint.

    Raises:
        StageError: it is none of them.
    """
    for candidate in (path, *path.parents[:2]):
        if (candidate / RECORD).exists():
            return candidate
    raise StageError(f"{path} is not a run folder: neither it nor the two folders above hold a {RECORD}.")


def checkpoints(run_dir: Path) -> List[Path]:
    """The checkpoints of a run, in the order of their steps."""
    found = (run_dir / CHECKPOINTS).glob("step-*.ckpt")
    return sorted(path for path in found if path.stem.removeprefix("step-").isdecimal())


def step_of(checkpoint: Path) -> int:
    """Number of the last step that is in a checkpoint, from 0."""
    return int(checkpoint.stem.removeprefix("step-"))


def latest_checkpoint(run_dir: Path) -> Path:
    """The checkpoint of a run that got furthest.

    Raises:
        StageError: there is none.
    """
    found = checkpoints(run_dir)
    if not found:
        raise StageError(f"{run_dir} has no checkpoint in {CHECKPOINTS}/. Train it again.")
    return found[-1]


def log_path(scene_dir: Path, job: str) -> Path:
    """File that takes what a job prints, wherever it runs."""
    return scene_dir / "logs" / f"{job.replace(' ', '-')}.log"


def slurm_folder(scene_dir: Path) -> Path:
    """Scripts, pickles and Slurm's own words on each job."""
    return scene_dir / "logs" / "slurm"


def report_folder(scene_dir: Path) -> Path:
    """Page, table and figures of a scene."""
    return scene_dir / "report"


def video_path(scene_dir: Path) -> Path:
    """The flight that is rendered with the student."""
    return report_folder(scene_dir) / "video.mp4"


def pictures_folder(scene_dir: Path) -> Path:
    """Animations, strips and the experts' mosaic, made to be shown."""
    return scene_dir / "pictures"


def is_scored(scene_dir: Path) -> bool:
    """Whether any run of a scene has scores."""
    return any(scene_dir.rglob(EVALUATION))
