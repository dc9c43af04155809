"""The whole pipeline: what there is to do, and doing it."""
