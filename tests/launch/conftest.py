"""Tiny scenes."""

from cameras import ring  # noqa: F401
from scene_folders import nerfstudio_folder, real  # noqa: F401
from tiny_runs import demo  # noqa: F401
