# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup demo test faults bench lint clean

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

faults: setup  ## kill trainings and servers at every moment, and compare with undisturbed runs (twenty minutes)
	$(BIN)/python -m pytest -n auto --dist load -m faults

bench: setup  ## all benchmarks and one table of them (over an hour); BENCH="--shared DIR --peers PYTHON --run RUN" adds more
	$(BIN)/python benchmarks/bench.py $(BENCH)

lint: setup
	$(BIN)/ruff check watkins_ml tests experiments benchmarks docs

clean:
	rm -rf demo runs mlflow data
