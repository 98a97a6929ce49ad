# Two commands set everything up: `make quickstart` and `make test`. Both make `.venv` where it is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TESTED := $(VENV)/.ready-for-tests
MUTATED := $(VENV)/.ready-for-mutants
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS   ?=

.PHONY: quickstart test test-fast check format mutants clean

# The options are accelerate's defaults, which it lists before it starts where they are left out.
quickstart: $(READY)
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		toolkit/train.py recipes/edit.yaml $(ARGS)

# OMP_NUM_THREADS: one thread for each test process; more would fight over the cores.
# Three processes on two cores: many tests wait, for Ray, servers and kills. A file goes to one of them whole, so that what its
# tests share is made once, in the order of tests/conftest.py.
PYTEST = OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: check
	$(PYTEST) $(ARGS)

# What a developer runs all the time.
test-fast: check
	$(PYTEST) -m 'not slow' $(ARGS)

# By hand, before a change of the kernel is merged: an hour on two idle cores. ARGS="views --all" for a part.
mutants: $(MUTATED)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m tests.mutants $(ARGS)

check: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(TESTED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch by its exact version and before everything else: left to the others it would come as the newest build,
# with gigabytes of CUDA libraries.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable .
	touch $(READY)

$(TESTED): $(READY)
	$(PIP) --editable '.[dev,serve,attribution,qlora,ray]'
	touch $(TESTED)

$(MUTATED): $(TESTED)
	$(PIP) --editable '.[mutants]'
	touch $(MUTATED)

clean:
	rm -rf $(VENV) outputs hub build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
