"""Frozen models that teach a student, and the views that they render."""
