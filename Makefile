# `make demo` and `make test` are all that a fresh machine needs; both make everything that they need first.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# mkfs.ext4 and its like live where an ordinary user's PATH does not reach.
export PATH := $(PATH):/usr/sbin:/sbin

BIN := .venv/bin
PYTHON := $(BIN)/python
# More arguments for pytest, as in: make test PYTEST_ARGS="-k layers"
PYTEST_ARGS ?=

.PHONY: help setup demo test check simulate bench bench-quick torture soak fuzz audit lock clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv with the locked packages and this project in it
	@scripts/make-venv

demo: setup ## a throwaway swarm on this machine, with your own disk: make demo IMAGE=disk.qcow2
	@scripts/system-packages demo
	@$(BIN)/entice demo $(if $(IMAGE),--image "$(IMAGE)")

test: setup ## everything that has to hold: lint, types, all tests, coverage
	@scripts/system-packages test
	@scripts/run-tests $(PYTEST_ARGS)

check: setup ## before each commit: lint, types, and the tests of the protocol, the core and the tree
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(PYTHON) -m pytest -q tests/core tests/wire tests/project -m "not slow and not hundreds" -n auto $(PYTEST_ARGS)

simulate: setup ## ten thousand random swarms under random faults: about an hour on two cores
	@$(PYTHON) -m simnet fuzz --seeds $(or $(SEEDS),10000)

bench: setup ## our figures beside those of casync, nginx and curl
	@scripts/system-packages bench
	@scripts/bench-packages
	@$(PYTHON) -m bench $(BENCH_ARGS)

bench-quick: setup ## the main figures in two minutes, beside those on record
	@scripts/system-packages ratios
	@$(PYTHON) -m bench --quick

torture: setup ## power cuts, failing calls and kills by the thousand: nothing may be lost
	@scripts/system-packages test
	@$(PYTHON) -m tests.torture all

soak: setup ## twenty daemons under orders, evictions, churn and faults for an hour (MINUTES=10)
	@$(PYTHON) -m tests.torture soak --minutes $(or $(MINUTES),60)

fuzz: setup ## ten million inputs for each parser, by atheris: hours (RUNS=100000, TARGET=root)
	@scripts/fuzz $(TARGET) --runs $(or $(RUNS),10000000)

audit: ## ask for known weaknesses of each locked package (needs the network)
	@scripts/audit

lock: setup ## write requirements*.lock anew from pyproject.toml
	@scripts/make-locks

clean: ## remove caches and what was built
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov
	find enticed protocol simnet tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	rm -rf .venv
