"""Cameras round a scene, and the folders that tests read them from."""

from cameras import random_transform, ring  # noqa: F401 (fixtures)
from scene_folders import blender, blender_folder, colmap_folder, colmap_model, nerfstudio_folder, real  # noqa: F401
