# Two commands for newcomers: `make run` (the proxy on a simulated engine) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run demo install test test-compiled test-system check lock scenarios bench screenshot simulate-faults fuzz suites soak test-engines clean
.DEFAULT_GOAL := help

help:
	@echo "make run          the proxy on the embedded simulated engine"
	@echo "make demo         the same under a bounded load, with a live terminal view"
	@echo "make test         lint, types, tests (Python only)"
	@echo "make install      $(BIN)/penstock, compiled where a C compiler and Python's headers are, else plain Python"
	@echo "make test-compiled  the tests of what is compiled again, on what make install has made (needs a C compiler)"
	@echo "make test-system  tests that need Debian programs (fails where they are absent)"
	@echo "make screenshot   the status page's picture in docs/ (needs Chromium, takes ten minutes)"
	@echo "make scenarios    the limit and the queue against every known law, in virtual time; writes docs/control.md"
	@echo "make bench        data-path benchmark of what make install has made, beside nginx"
	@echo "make simulate-faults  seeded worlds of faults in virtual time, until SECONDS are over (default 600)"
	@echo "make fuzz         coverage-guided fuzzing of every reader, SECONDS each (default 60); installs atheris"
	@echo "make suites       schemathesis and httplint against the real process; installs them"
	@echo "make soak         load with aborts and dying engines for DURATION seconds (default 600)"
	@echo "make test-engines the proxy before real vLLM and transformers on CPU (5 GB, 10 minutes)"
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

BUILT_FROM := hatch_build.py pyproject.toml LICENSE $(shell find proxy config grafana -type f -not -path '*/__pycache__/*')

$(VENV)/.install: $(BUILT_FROM) | $(VENV)/.run
	@touch $@.begun
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall .
	@$(BIN)/penstock --version
	@$(BIN)/penstock --version | grep -q compiled || \
	  echo "not compiled: slower, but whole; PENSTOCK_COMPILE=1 $(BIN)/python -m pip wheel --no-deps . tells why"
	@mv $@.begun $@

install: $(VENV)/.install

run: $(VENV)/.run
	$(BIN)/python -m proxy serve

demo: $(VENV)/.run
	$(BIN)/python -m proxy demo

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -m "not system and not compiled"

# Safe path and append: `proxy` is the installed one, `tests` that of the checkout. Left out: what is about the source
# (`source`), and what would run the very lines again that `make test` has run, since nothing that it loads is compiled
# (`interpreted`: no list, tests/reach.py finds it by the imports of each file; tests/test_reach.py holds it to that).
test-compiled: export PENSTOCK_COMPILE = 1
test-compiled: $(VENV)/.test $(VENV)/.install
	PYTHONSAFEPATH=1 $(BIN)/python -m pytest --import-mode=append -m "not system and not source and not interpreted"

test-system: $(VENV)/.test
	$(BIN)/python -m pytest -m system

scenarios: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks.scenarios

bench: $(VENV)/.test $(VENV)/.install
	$(BIN)/python -m tests.benchmarks.data_path --penstock $(BIN)/penstock

SECONDS ?= 60
DURATION ?= 600
FUZZED := request answer body form tail head telemetry configuration
ENGINES ?= build/engines

simulate-faults: SECONDS = 600
simulate-faults: $(VENV)/.test
	$(BIN)/python -m tests.simulation --first $$(date +%s) --seeds 100000000 --seconds $(SECONDS)

build/%/venv/.ready: tests/%/requirements.lock requirements-dev.lock
	$(PYTHON) -m venv build/$*/venv
	build/$*/venv/bin/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	build/$*/venv/bin/python -m pip install --quiet --require-hashes -r tests/$*/requirements.lock
	@touch $@

fuzz: build/fuzz/venv/.ready
	for target in $(FUZZED); do build/fuzz/venv/bin/python -W ignore -m tests.fuzz $$target $(SECONDS) || exit 1; done

suites: build/suites/venv/.ready
	build/suites/venv/bin/python -m tests.suites

soak: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks.soak --duration $(DURATION)

test-engines: $(VENV)/.test
	sh tests/engines/install.sh $(ENGINES)
	PENSTOCK_TEST_ENGINES=$(ENGINES) $(BIN)/python -m pytest tests/engines/checks.py -s

screenshot: $(VENV)/.test
	$(BIN)/python -m tests.e2e.screenshot docs/status.png

lock:
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header -o requirements.lock
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
