"""Commands of ``ns-train`` as the configurations that they come to."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import Sequence

import tyro
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

from dac_nerfstudio.errors import StageError
from dac_nerfstudio.launch.plan import Job
from dac_nerfstudio.training.trainer import DaCTrainerConfig
from dac_nerfstudio.training.validation import validate


def parse(arguments: Sequence[str]) -> DaCTrainerConfig:
    """The configuration that ``ns-train`` makes of its arguments."""
    return tyro.cli(AnnotatedBaseConfigUnion, args=list(arguments))


def check_flags(job: Job) -> None:
    """Make sure that ``ns-train`` takes a job's flags: a misspelt one of the last stage must not wait for its turn.

    Raises:
        StageError: ``ns-train`` does not take the flags, or their numbers are none to train with.
    """
    complaint = io.StringIO()
    try:
        with redirect_stdout(complaint), redirect_stderr(complaint):
            validate(parse(job.arguments))
    except SystemExit:
        lines = [line.strip("│ ") for line in complaint.getvalue().splitlines()]
        words = " ".join(line for line in lines if line and line[0] not in "╭╰─-").partition(" Available subcommands")[
            0
        ]
        raise StageError(f"ns-train {job.method} does not take these flags. {words}") from None


def with_data(config: DaCTrainerConfig) -> DaCTrainerConfig:
    """What ``ns-train`` does with --data before anything else."""
    config.pipeline.datamanager.data = config.data
    config.set_timestamp()
    return config
