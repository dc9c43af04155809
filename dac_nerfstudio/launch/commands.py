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
    """The configuration that ``ns-train`` makes of its arguments, with its data in place."""
    config = tyro.cli(AnnotatedBaseConfigUnion, args=list(arguments))
    config.pipeline.datamanager.data = config.data
    config.set_timestamp()
    return config


def config_of(job: Job) -> DaCTrainerConfig:
    """The configuration of a job. A misspelt flag of the last stage must not wait for its turn: all are parsed first.

    Raises:
        StageError: ``ns-train`` does not take the flags, or their numbers are none to train with.
    """
    complaint = io.StringIO()
    try:
        with redirect_stdout(complaint), redirect_stderr(complaint):
            config = parse(job.arguments)
            validate(config)
            return config
    except SystemExit:
        lines = [line.strip("│ ") for line in complaint.getvalue().splitlines()]
        words = " ".join(line for line in lines if line and line[0] not in "╭╰─-")
        words = words.partition(" Available subcommands")[0]
        raise StageError(f"ns-train {job.method} does not take these flags. {words}") from None
