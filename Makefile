# Every target does its own set-up: `make test` and `make demo` work on a fresh machine with
# Python 3.11 or newer. uv is used when it is there, else pip.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 3
TESTS = -m pytest -n $(JOBS) --dist loadgroup -m "not live and not house and not chaos"

# Some images switch it off; every process would then compile what it imports.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types pytest house chaos bench bench-rest format wheel docs clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP)  ## Create .venv with everything needed

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		{ test -x $(BIN)/python || uv venv -q --python "$(PYTHON)" $(VENV); } && \
		uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt --group dev -e '.[postgresql]'; \
	else \
		{ test -x $(BIN)/pip || "$(PYTHON)" -m venv $(VENV); } && \
		$(BIN)/python -m pip install -q --upgrade 'pip>=25.1' && \
		$(BIN)/python -m pip install -q -c constraints.txt --group dev -e '.[postgresql]'; \
	fi
	@touch $@

demo: $(STAMP)  ## Start everything, make three pictures, check them (STABLEQUEUE_DEMO_KEEP=1 keeps it running)
	$(BIN)/python -m stablequeue.demo

test: $(STAMP)  ## Everything that must pass: lint, types, layers, tests (COVERAGE=1 measures and judges it)
	@$(MAKE) --no-print-directory -j2 lint types pytest

check: lint types

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	@$(BIN)/codespell $(shell git ls-files '*.py' '*.md' '*.toml' '*.yaml' '*.yml' 2>/dev/null)

types: $(STAMP)
	$(BIN)/pyright

pytest: $(STAMP)
ifeq ($(COVERAGE),1)
	$(BIN)/coverage erase
	$(BIN)/coverage run $(TESTS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered --sort=cover
else
	$(BIN)/python $(TESTS)
endif

house: $(STAMP)  ## Kill and cancel in a whole installation (minutes; wants a quiet machine)
	$(BIN)/python -m pytest -m house

chaos: $(STAMP)  ## Kill everything at moments of a seed, printed (SEED=n repeats one); 2 minutes
	$(BIN)/python -m pytest -s -m chaos tests/chaos

bench: $(STAMP)  ## Measure the queue beside Prefect's worker; print it and write it to docs/benchmarks.md
	$(BIN)/python -m benchmarks.run

bench-rest: $(STAMP)  ## The same for starting, commands, storing and search
	$(BIN)/python -m benchmarks.run --rest

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## Write docs/reference/cli.md anew
	$(BIN)/python -m stablequeue.cli.reference docs/reference/cli.md

wheel: $(STAMP)  ## Build the wheel into dist/
	$(BIN)/python -m pip --version >/dev/null 2>&1 && $(BIN)/python -m pip wheel -q --no-deps -w dist . \
		|| uv build -q --wheel -o dist .

clean:
	rm -rf $(VENV) dist build .coverage .coverage.* .pytest_cache .hypothesis .ruff_cache
