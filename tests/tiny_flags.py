"""Rows of a file for `dac run --config` that make a stage a matter of seconds."""

TINY_FLAGS = """
pipeline.datamanager.train-num-rays-per-batch = 64
pipeline.model.grid-base-resolution = 16
pipeline.model.grid-feature-dim = 8
pipeline.model.linear-decoder-layers = 1
pipeline.model.proposal-resolutions = 32
pipeline.model.num-proposal-samples = 24
pipeline.model.num-samples = 12
"""
