"""What ``dac run`` asks Slurm for, and how it is put to submitit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple, Union

from dac_nerfstudio.errors import StageError

WARNING = 90
"""Seconds before a job's time is up at which it is asked to save."""
LEAST_MINUTES = 5
"""No shorter time limits: Slurm warns up to a minute too early, and a stage takes time to start."""
MOST_TIMES = 30
"""How often a stage whose time is up goes on in the time of another job."""
MOST_RESTARTS = 3
"""A stage whose process was killed is tried again unless its job was restarted this often."""


@dataclass(frozen=True)
class SlurmOptions:
    """What to request from Slurm for each stage."""

    partition: Optional[str] = None
    """Partition to submit to; by default the cluster's own choice."""
    account: Optional[str] = None
    """Account to charge; by default yours."""
    time: str = "04:00:00"
    """Time limit of a stage, as Slurm writes it. A training that takes longer is queued again and goes on."""
    gpus: int = 1
    """GPUs to request for each stage, which uses one; 0 trains on the CPU."""
    cpus: int = 4
    """CPU cores of a stage."""
    mem: Optional[str] = None
    """Main memory of a stage, such as 16G; by default the cluster's."""
    setup: Tuple[str, ...] = ()
    """Shell commands before a stage starts, such as "module load cuda"."""
    extra: Tuple[str, ...] = ()
    """Further options of sbatch, such as qos=high constraint=a100."""


DEFAULTS = SlurmOptions()


RESTART = f"""\
code=$?
# Of a task of an array, SLURM_JOB_ID may be that of the array, and so mean all of its tasks.
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
job=${{job:-$SLURM_JOB_ID}}
# A process that was killed (128 + signal) goes on from its last checkpoint, unless Slurm itself has ended the job.
if [ $code -gt 128 ] && [ $code -lt 160 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_RESTARTS} ] \\
    && [ "$(squeue --noheader --jobs "$job" --format %T)" = RUNNING ]; then
    echo "Killed by signal $((code - 128)): started again."
    scontrol requeue "$job"
fi
exit $code"""
"""Ends the script of every job."""


def parameters(options: SlurmOptions) -> Dict[str, Any]:
    """Options as submitit takes them.

    Raises:
        StageError: they are not of the form that they have to be.
    """
    if options.gpus < 0 or options.cpus < 1:
        raise StageError(f"--slurm.gpus {options.gpus} --slurm.cpus {options.cpus}: expected 0 or more, and 1 or more.")
    further: Dict[str, Union[str, bool]] = {"requeue": True, "kill-on-invalid-dep": "yes"}
    for text in options.extra:
        name, is_there, value = text.lstrip("-").partition("=")
        further[name] = value if is_there else True
    return {
        "time": minutes(options.time),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": options.cpus,
        **({"gpus_per_node": options.gpus} if options.gpus else {}),
        **{name: value for name in ("partition", "account", "mem") if (value := getattr(options, name)) is not None},
        "setup": list(options.setup),
        "teardown": RESTART.splitlines(),
        # Since Slurm 22.05, a step no longer takes this over from its job.
        "srun_args": [f"--cpus-per-task={options.cpus}"],
        "stderr_to_stdout": True,
        "signal_delay_s": WARNING,
        "wckey": None,  # submitit's own would be refused where such keys are checked
        "additional_parameters": further,
    }


def minutes(text: str) -> int:
    """A time limit as Slurm writes it, in minutes, rounded up.

    Raises:
        StageError: it is none, or too short.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is not None:
        days, *parts = (int(part) if part else None for part in match.groups())
        first, second, third = (part or 0 for part in parts)
        if days is not None:
            seconds = ((days * 24 + first) * 60 + second) * 60 + third
        else:
            seconds = (first * 60 + second) * 60 + third if parts[2] is not None else first * 60 + second
        if seconds >= 60 * LEAST_MINUTES:
            return -(-seconds // 60)
    raise StageError(
        f"--slurm.time {text}: expected at least {LEAST_MINUTES} minutes, as minutes, hours:minutes:seconds or "
        "days-hours:minutes:seconds."
    )
