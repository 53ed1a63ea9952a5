# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone with Python 3.11 or newer.

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-quick lint docs mutants

# Idle OpenMP threads that spin make a busy machine many times slower.
export OMP_WAIT_POLICY = PASSIVE

BIN := .venv/bin
JOBS ?= 3  # processes that share the tests; each works with one thread, and waits for others a third of its time
REQUIREMENTS := pyproject.toml constraints.txt
FIND_PYTHON := for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

help:
	@echo 'make demo     the whole loop on the built-in world, into ./trueup-demo (a new folder each time)'
	@echo 'make test     the test suite'
	@echo 'make check    the slow promises (up to two hours; goes on where it stopped)'
	@echo 'make bench    trueup beside TRL, every row (up to two hours; goes on where it stopped)'
	@echo 'make bench-quick  the same on a small shape, once (15 minutes at most)'
	@echo 'make lint     ruff and mypy'
	@echo 'make docs     write docs/commands.md and docs/settings.md anew'
	@echo 'make mutants  break the code in small ways and see whether the tests notice'

demo: .venv/.ready-demo
	@$(BIN)/trueup demo

test: .venv/.ready
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: .venv/.ready
	@$(BIN)/python scripts/check.py $(ARGS)

bench: .venv/.ready
	@$(BIN)/python -m benchmarks speed --write-docs $(ARGS)

bench-quick: .venv/.ready
	@$(BIN)/python -m benchmarks speed --quick $(ARGS)

lint: .venv/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: .venv/.ready
	@$(BIN)/python scripts/make_docs.py

mutants: .venv/.ready
	@$(BIN)/python tests/mutants.py $(ARGS)

.venv/bin/python:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo 'error: trueup needs Python 3.11 or newer with its venv module, and none was found' >&2; \
		echo 'hint: install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)' >&2; \
		exit 1; \
	fi; \
	echo "making .venv with $$($$python --version)" >&2; \
	"$$python" -m venv .venv

# The demo needs no test tools, so that a first look downloads less; `web` lets people label what it leaves.
.venv/.ready-demo: $(REQUIREMENTS) | .venv/bin/python
	@echo 'installing trueup into .venv (once; most of it is PyTorch)' >&2
	@$(INSTALL) -e '.[lora,web]'
	@touch $@

.venv/.ready: $(REQUIREMENTS) | .venv/bin/python
	@echo 'installing trueup and its test tools into .venv (once; most of it is PyTorch)' >&2
	@$(INSTALL) -e '.[dev]'
	@touch $@ .venv/.ready-demo
