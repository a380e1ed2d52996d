# One command for each job; `make help` lists them. Times are for 2 CPU cores and a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt
COMPAT_VERSIONS := 4.48.3 4.57.6
SLOW_JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev quickstart test test-slow test-long test-compat test-newest transformers-model check format bench count walks docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## make .venv: CPU torch by constraints.txt, the package in editable mode, what the quickstart needs (2 minutes)

setup-dev: $(VENV)/.ready-dev  ## add what tests and development need to .venv (3 minutes)

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(PIP) torch
	$(PIP) -e '.[quickstart]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps encodec hearvalidator xares basic-pitch torchcrepe pesto-pitch  # without torchaudio and TensorFlow
	touch $@

quickstart: setup  ## run the full pipeline on real scores, offline (10 minutes, and 2 for the setup)
	$(BIN)/mert-hf quickstart

test: setup-dev  ## run the fast tests: CPU, offline (6 minutes, and 3 for the setup)
	$(BIN)/python -m pytest -q -n 2 --max-worker-restart 0 -m "not slow and not gpu and not hub"

test-slow: setup-dev  ## run the slow tests: installation, kill and resume, long files, training runs (15 minutes)
	$(BIN)/python -m pytest -q -n $(SLOW_JOBS) --dist loadfile --max-worker-restart 0 -m "slow and not long and not gpu and not hub"

test-long: setup-dev  ## run what takes longest: an hour of audio, rendered music, compilers, 500 updates (15 minutes)
	$(BIN)/python -m pytest -q -n $(SLOW_JOBS) --dist loadfile --max-worker-restart 0 -m "long and not gpu and not hub"

test-compat: $(COMPAT_VERSIONS:%=test-compat-%)  ## run model, training and evaluation tests on older transformers

test-compat-%: setup-dev
	bash .ci/compat.sh $*

test-newest: test-compat-newest  ## report what the newest transformers, torch, datasets and huggingface_hub break (weekly; 10 minutes)

TRANSFORMERS := build/transformers

transformers-model: setup-dev  ## write MERT into the pinned transformers' sources; run their linter and tests there (5 minutes)
	rm -rf build/transformers* && mkdir -p $(TRANSFORMERS)
	$(BIN)/python -m pip download --quiet --no-deps --no-binary :all: -c constraints.txt -d build transformers
	tar -xzf build/transformers-*.tar.gz --strip-components 1 -C $(TRANSFORMERS)
	$(BIN)/python scripts/make_transformers_model.py $(TRANSFORMERS)
	$(BIN)/python scripts/check_transformers_model.py $(TRANSFORMERS)

check: setup-dev  ## check lint, format, model files, import directions and declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python scripts/lint_models.py

format: setup-dev  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev  ## measure speed and memory (prints ratios, asserts nothing)
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

count: setup  ## measure size and structure: lines, imports, arguments, cycles; `make count BEFORE=COMMIT` compares with a commit
	$(BIN)/python scripts/count_code.py $(BEFORE)

walks: setup-dev  ## count the files and functions that five common tasks enter at run time (2 minutes)
	$(BIN)/python scripts/trace_walks.py

docs: setup-dev  ## build the documentation to build/docs; a warning is an error
	$(PIP) -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:  ## remove the environment and build products
	rm -rf $(VENV) .venv-* build dist *.egg-info
