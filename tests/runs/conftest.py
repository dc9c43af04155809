"""Tiny models, runs, rays and a scene."""

from tiny_runs import demo, rays, save_run, tiny_model  # noqa: F401
