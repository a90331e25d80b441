# Each target sets up all it needs: a virtual environment in .venv, made again when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 3

.PHONY: demo test lint format soak year bench bench-bounds bench-peers bench-quick docs clean

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("replicad needs Python 3.11 or newer, found " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m bench.demo

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(STAMP)
	REPLICAD_SOAK=1 $(BIN)/python -m pytest -m soak -n 0 -v -s --timeout 7200

year: $(STAMP)
	$(BIN)/python -m tests.simulate.year --output docs/year.md

bench: bench-bounds bench-peers

bench-bounds: $(STAMP)
	$(BIN)/python -m bench.bounds
	$(BIN)/python -m bench.handover planned idle

$(VENV)/.bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

bench-peers: $(VENV)/.bench
	$(BIN)/python -m bench.peers $(SCENARIOS)

bench-quick: $(STAMP)
	$(BIN)/python -m bench.peers --quick

docs: $(STAMP)
	$(BIN)/python -m replicad.cli.reference

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
