"""What is the user's to mend: shown as a message, without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user can put right; the message says what was found, what was expected and what to type."""


class StageError(UserError):
    """A run folder, a flag or this machine is not what a stage needs."""


class DivergenceError(StageError):
    """A training came to losses or weights that are no finite numbers."""


class PartitionError(UserError):
    """The data, the settings or a partition file cannot be used."""


class PhotoError(PartitionError):
    """A photo is missing, damaged, or not what its camera says."""


class SplitError(PartitionError):
    """The data tell of no views for a split."""


class UnreadablePartition(PartitionError):
    """A partition file of another version, or something else altogether: there is nothing in it to go by."""


def in_a_line(error: Exception) -> str:
    """An error as a message; one of the operating system names the file that it is about."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename2 or error.filename}: {error.strerror}"
    return str(error)
