"""Cameras to picture."""

from cameras import random_transform, ring  # noqa: F401 (fixtures)
