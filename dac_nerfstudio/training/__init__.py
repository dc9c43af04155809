"""Experts, the student, and how nerfstudio trains them."""
