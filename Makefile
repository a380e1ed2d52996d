# One obvious command for each job; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPAT_VERSIONS := 4.48.3 4.57.6

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-slow test-compat check format bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## make .venv: CPU torch by constraints.txt, the package in editable mode, all that tests and quickstart need

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

quickstart: setup  ## the whole story on real scores, offline, in minutes
	$(BIN)/mert-hf quickstart

test: setup  ## the fast tests: CPU, offline
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not gpu and not hub"

test-slow: setup  ## the slow proofs: kill and resume, long files, training runs
	$(BIN)/python -m pytest -q -m "slow"

test-compat: $(COMPAT_VERSIONS:%=test-compat-%) test-compat-newest  ## model tests on every supported transformers

test-compat-newest: setup
	$(BIN)/python -m pytest -q tests/modeling

test-compat-%:
	bash .ci/compat.sh $*

check: setup  ## lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## measure speed and memory (prints ratios, asserts nothing)
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

docs: setup  ## build the documentation to build/docs; a warning is an error
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:  ## remove the environment and build products
	rm -rf $(VENV) .venv-* build dist *.egg-info
