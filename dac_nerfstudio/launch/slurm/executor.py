"""Does plans on a Slurm cluster: divides the views here, submits all other stages, and follows them."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from typing import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.local import run_plans
from dac_nerfstudio.launch.plan import Plan
from dac_nerfstudio.launch.slurm.follow import follow
from dac_nerfstudio.launch.slurm.options import DEFAULTS, SlurmOptions, parameters
from dac_nerfstudio.launch.slurm.queue import Submitted, refuse_queued
from dac_nerfstudio.launch.slurm.submit import submit
from dac_nerfstudio.messages import literally, say
from dac_nerfstudio.runs.layout import slurm_folder


def check_executor(executor: str, options: SlurmOptions, devices: str) -> None:
    """Make sure, before anything is done, that there is what the executor takes.

    Args:
        executor: `local` or `slurm`.
        options: the options --slurm.….
        devices: the option --devices.

    Raises:
        StageError: something is missing or wrong; the message says what.
    """
    if executor == "local":
        if options != DEFAULTS:
            raise StageError("The options --slurm.… are for --executor slurm, which was not asked for.")
        return
    if devices != "auto":
        raise StageError("--devices is about this machine. On the cluster: --slurm.gpus 1, or 0 to train on the CPU.")
    if find_spec("submitit") is None:
        raise StageError(
            "--executor slurm needs submitit, which is not installed: pip install 'submitit>=1.5,<2', or in a clone of "
            "this repository: pip install '.[slurm]'"
        )
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        raise StageError(
            f"--executor slurm finds no {missing[0]} on PATH. Run it on a login node of the cluster (Debian: apt-get "
            "install slurm-client), or leave out --executor slurm to run on this machine."
        )
    parameters(options)


def run_on_slurm(plans: Sequence[Plan], options: SlurmOptions, wait: bool, console: Console) -> bool:
    """Divide the views here, submit all other stages, and follow them if asked to; whether all that was done succeeded.

    The flags of all stages are checked and the views divided at once: that takes seconds, and what is wrong with either
    is found before anything is queued.

    Args:
        plans: one per scene.
        options: what to ask Slurm for.
        wait: follow the jobs until all have ended.
        console: where jobs and their progress are printed.

    Raises:
        StageError: a scene is being worked on, or Slurm refuses the jobs.
    """
    for plan in plans:
        refuse_queued(plan.scene_dir)
    if not run_plans(plans, ("cpu",), console, kinds=("split",)):
        return False
    submitted = submit(plans, options)
    for one in submitted:
        _explain(one, console)
    if not wait or not any(one.jobs for one in submitted):
        return True
    try:
        return follow(submitted, console)
    except KeyboardInterrupt:
        numbers = " ".join(number for one in submitted for number in one.ids)
        console.print(f"The jobs go on. To cancel them: scancel {numbers}", highlight=False, soft_wrap=True)
        sys.exit(130)


def _explain(submitted: Submitted, console: Console) -> None:
    if not submitted.jobs:
        return
    scene_dir = submitted.plan.scene_dir
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (scene_dir.name, "job"):
        table.add_column(literally(column), no_wrap=True)
    for name, number in submitted.jobs.items():
        table.add_row(name, number)
    console.print(table)
    for title, text in {
        "Look": f"squeue --jobs {','.join(submitted.ids)}",
        "Cancel": f"scancel {' '.join(submitted.ids)}",
        "Logs": f"{scene_dir / 'logs'}/<stage>.log; what Slurm says: {slurm_folder(scene_dir)}/<job>_0_log.out",
        "Results": f"{scene_dir / 'report' / 'results.json'}, once the last job is done",
    }.items():
        say(console, f"{title + ':':9}{text}")
