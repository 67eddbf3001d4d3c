# `make quickstart` shows EdgeViT at work, `make check` is what a change must pass. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EDGEVIT := $(BIN)/edgevit

# Versions that were tested together. They are for Python 3.11 and later; an older one takes the newest that serve it.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The full Fashion-MNIST where it is on the machine already, else the sample that comes with EdgeViT.
FULL_DATA := $(firstword $(wildcard /usr/share/datasets/fashion-mnist $(HOME)/.cache/edgevit/fashion-mnist))
DATA ?= $(if $(FULL_DATA),fashion-mnist,fashion-mnist-sample)

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint check bench constraints clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{ printf "  %-12s %s\n", $$1, $$2 }'

quickstart: $(VENV)/.installed  ## install, then take the built-in model to verified INT8 and show the table
	$(EDGEVIT) pipeline fashion-micro --data $(DATA) -o quickstart.edgevit --overwrite

test: $(VENV)/.installed-dev  ## run the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## what a change must pass

bench: $(VENV)/.installed-dev  ## time the built-in model on this machine
	$(EDGEVIT) pipeline fashion-micro --data $(DATA) -o benchmarks/results/bench.edgevit --overwrite
	$(EDGEVIT) benchmark benchmarks/results/bench.edgevit

constraints: $(VENV)/.installed-dev  ## write constraints.txt anew from what is installed
	$(BIN)/python tools/constraints.py > constraints.txt.new
	mv constraints.txt.new constraints.txt

clean:  ## remove what the other targets made, the virtual environment too
	rm -rf $(VENV) build dist quickstart.edgevit *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "error: EdgeViT needs Python 3.10 or later; $(PYTHON) is older"; \
	      echo "  try: make PYTHON=python3.11"; exit 3; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "error: $(PYTHON) cannot make virtual environments"; \
	      echo "  try: sudo apt install python3-venv"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade pip

# The stamps make an install happen again when what it is made from has changed.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt tests/requirements-nodeps.txt | $(BIN)/python
	$(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	$(PIP_INSTALL) --no-deps -r tests/requirements-nodeps.txt
	@touch $@ $(VENV)/.installed
