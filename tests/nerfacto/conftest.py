"""A tiny scene."""

from __future__ import annotations

from tiny_runs import demo  # noqa: F401
