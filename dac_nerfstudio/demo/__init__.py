"""Scenes that the project generates itself."""

from dac_nerfstudio.demo.scene import CAMERA_ANGLE_X, CAMERA_DISTANCE, INTRICATE_AZIMUTH_DEG, make_demo_scene

__all__ = ["CAMERA_ANGLE_X", "CAMERA_DISTANCE", "INTRICATE_AZIMUTH_DEG", "make_demo_scene"]
