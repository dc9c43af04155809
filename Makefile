# Everything runs in .venv, made on first use. PYTHON is any CPython from 3.10 to 3.12.
PYTHON ?= python3
BIN := .venv/bin
# What was tested. Of these versions many want Python 3.11; 3.10 gets the newest that pyproject.toml allows.
PINS = $(shell $(PYTHON) -c 'import sys; print("--constraint constraints.txt" * (sys.version_info >= (3, 11)))')

.PHONY: demo test test-faults coverage lint types docs release-check
demo: .venv/installed
	$(BIN)/dac demo

# The tests of the commands share their runs and take half of the time. All others run beside them.
test: .venv/installed
	@$(BIN)/python -m pytest tests/cli > .venv/commands.log 2>&1 & commands=$$!; \
	trap "kill $$commands 2>/dev/null" EXIT; \
	$(BIN)/python -m pytest $(filter-out tests/cli/ tests/faults/,$(wildcard tests/*/ tests/test_*.py)); others=$$?; \
	wait $$commands; status=$$?; cat .venv/commands.log; exit $$((others || status))

# Fuzzers and faults, which take minutes: FUZZ_SECONDS=600 make test-faults
test-faults: .venv/installed
	$(BIN)/python -m pytest tests/faults -s

# How much of the package the tests run, in all processes that they start.
coverage: .venv/installed
	rm -f .coverage .coverage.*
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.coverage $(MAKE) test
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --sort=cover

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

# The site, in site/: a broken link or a page that is in no menu is an error.
docs: .venv/installed
	$(BIN)/mkdocs build --strict

# What is published stands alone: built, looked over, installed where the sources are not, and run there: every stage of
# the demo's recipe, for a few steps on a small scene.
SMALL := "scene", size=40, train=16, val=4, test=4
release-check:
	rm -rf dist .release
	$(PYTHON) -m venv .release/tools
	.release/tools/bin/pip install --quiet build twine
	.release/tools/bin/python -m build
	.release/tools/bin/twine check --strict dist/*
	$(PYTHON) -m venv .release/fresh
	.release/fresh/bin/pip install --quiet $(PINS) dist/*.whl
	printf '[all]\nmax-num-iterations = 60\n' > .release/short.toml
	cd .release && fresh/bin/dac check
	cd .release && fresh/bin/python -c 'from dac_nerfstudio.demo import make_demo_scene as make; make($(SMALL))'
	cd .release && fresh/bin/dac run --data scene --preset demo --config short.toml

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(PINS) --editable '.[dev,docs]'
	touch $@
