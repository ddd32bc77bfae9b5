# `make demo` and `make test` do everything on a bare machine with Python 3.11+.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: install demo test check bench nano

.venv/installed: constraints.txt requirements.txt $(wildcard packages/*/pyproject.toml cli/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -r requirements.txt
	touch $@

install: .venv/installed  ## make .venv with the whole workspace in it

test: install  ## run the suite
	$(BIN)/pytest

check: install  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check
