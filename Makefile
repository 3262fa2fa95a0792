# `make demo` and `make test` are the two commands to know; `make help` lists the others.
PYTHON ?= python3
BIN := .venv/bin
SLOW := world or process or vllm or nemo or postgres or e2e

.DEFAULT_GOAL := help
.PHONY: help setup demo round-demo test unit train-env lint format bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

setup: .venv/.complete  ## make the bot's environment in .venv

.venv/.complete: pyproject.toml .ci/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Apprentice needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable . --group dev
	touch $@

round-demo: setup  ## a whole learning round with real vLLM and NeMo, and a poisoned one that is refused (20 to 40 minutes on two cores)
	$(BIN)/python -m tests.round_demo

demo: setup  ## a push, a review with a real model on this machine, votes: the whole bot before your eyes
	$(BIN)/python -m tests.demo

test: setup lint unit  ## everything: lint, unit tests, tests with processes and a real vLLM
	$(BIN)/pytest -m "($(SLOW)) and not vllm and not nemo" --numprocesses 3 --dist worksteal
	$(BIN)/pytest -m "vllm or nemo"

unit: setup  ## the fast tests; fails where they leave out a line or branch of the pure core
	$(BIN)/pytest -m "not ($(SLOW))" --numprocesses 3 --dist worksteal --cov --cov-report=
	$(BIN)/python -m tests.core_coverage

train-env: setup  ## make NVIDIA NeMo's environment, in which the student is fine-tuned (some 3 GB)
	$(BIN)/python -m trainer.tune.environment

lint: setup  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## let ruff format and fix what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup  ## print measured ratios (starts vLLM; takes minutes)
	$(BIN)/python -m tests.bench

clean:  ## remove what make made here (models and environments in ~/.cache/apprentice stay)
	rm -rf .venv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
