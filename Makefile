# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := watkins_ml tests experiments benchmarks docs

.PHONY: setup demo test test-fast test-system faults bench lint typecheck format clean

setup: $(VENV)/.ready  ## build .venv from pyproject.toml with the versions of constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "watkins_ml needs Python 3.11 or newer; call make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup  ## the whole job on a small generated ocean
	$(BIN)/watkins demo

test: setup  ## the test suite, offline and in parallel
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-fast: setup  ## the tests without trainings, servers and commands of their own, under 90 seconds
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow and not faults and not system"

test-system: setup  ## the whole system: browser, notebooks, the service, torchrun, pip, the compiler, earlier versions
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m system

faults: setup  ## kill trainings and servers at every moment, and compare with undisturbed runs (twenty minutes)
	$(BIN)/python -m pytest -n auto --dist load -m faults

bench: setup  ## all benchmarks and one table of them (over an hour); BENCH="--shared DIR --peers PYTHON --run RUN" adds more
	$(BIN)/python benchmarks/bench.py $(BENCH)

lint: setup  ## linter, formatter (which changes nothing here) and type checker
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

typecheck: setup
	$(BIN)/mypy

format: setup  ## format, and fix what the linter can fix
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf demo runs mlflow data
