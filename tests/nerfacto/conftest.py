"""A tiny scene."""

from tiny_runs import demo  # noqa: F401
