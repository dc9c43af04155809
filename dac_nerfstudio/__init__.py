"""Divide-and-conquer NeRF training as a nerfstudio plugin."""

__version__ = "0.1.0"
