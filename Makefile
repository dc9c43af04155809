# Everything runs in .venv, made on first use. PYTHON is any CPython from 3.10 to 3.12.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types
demo: .venv/installed
	$(BIN)/dac demo

test: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
