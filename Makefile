# Two commands for newcomers: `make run` (the proxy on a simulated engine) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run demo test test-system check lock bench screenshot clean
.DEFAULT_GOAL := help

help:
	@echo "make run          the proxy on the embedded simulated engine"
	@echo "make demo         the same under a bounded load, with a live terminal view"
	@echo "make test         lint, types, tests (Python only)"
	@echo "make test-system  tests that need Debian programs (fails where they are absent)"
	@echo "make screenshot   the status page's picture in docs/ (needs Chromium, takes ten minutes)"
	@echo "make bench        data-path benchmark beside nginx"
	@echo "make lock         refresh the pinned dependencies (needs uv)"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("penstock needs Python 3.11 or newer; call: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.test: requirements-dev.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@ $(VENV)/.run

run: $(VENV)/.run
	$(BIN)/python -m proxy serve

demo: $(VENV)/.run
	$(BIN)/python -m proxy demo

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -m "not system"

test-system: $(VENV)/.test
	$(BIN)/python -m pytest -m system

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks.data_path

screenshot: $(VENV)/.test
	$(BIN)/python -m tests.e2e.screenshot docs/status.png

lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -o requirements.lock
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
