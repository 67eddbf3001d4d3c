# `make quickstart` shows EdgeViT at work, `make check` is what a change must pass. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

# In the folder above a checkout that is called edgevit, Python takes that folder for the package unless a .pth file
# names the checkout, too.
PTH := import os, pathlib, sysconfig; \
    pathlib.Path(sysconfig.get_path("purelib"), "edgevit-checkout.pth").write_text(os.getcwd() + "\n")

# The full Fashion-MNIST where it is on this machine already, else the sample that comes with EdgeViT.
FIND_DATA := from edgevit.data.fashion_mnist import available; print("fashion-mnist" + "-sample" * (not available()))
DATA ?= $(shell $(BIN)/python -c '$(FIND_DATA)')

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-triton triton test-web test-hosts test-mobile test-pythons test-arm64 test-old-engines old-engines fuzz lint check bench constraints clean

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | awk -F'\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

quickstart: $(VENV)/.installed  ## install, then take the built-in model to verified INT8 and show the table
	$(BIN)/edgevit pipeline fashion-micro --data $(DATA) --threads 1 -o quickstart.edgevit --overwrite

# Each process of pytest has a core: more threads of torch's would only wait for one another. What Python compiled is
# kept, whatever the shell says: the tests start some hundred processes.
test: $(VENV)/.installed-dev  ## run the tests
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

# Triton's server, as a wheel brings it, asks for an older NumPy than EdgeViT is tested with.
TRITON ?= $(VENV)/triton
test-triton: $(VENV)/.installed-dev triton  ## run what needs Triton's server, on one of its own
	EDGEVIT_TRITON=$(TRITON) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/tritonserver

triton: $(TRITON)/.installed

# Ray brings 500 MB that nothing else needs.
RAY ?= $(VENV)/ray
test-ray: $(VENV)/.installed-dev $(RAY)/.installed  ## run the deployment for Ray Serve on two nodes
	EDGEVIT_RAY=$(RAY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/export/test_ray.py

# Debian's Chromium is fetched where it is not there: without it the tests of the page skip.
SUDO ?= $(if $(filter 0,$(shell id -u)),,sudo)
test-web: $(VENV)/.installed-dev  ## run the tests of Node and of pages in Chromium, which apt brings
	command -v chromium > /dev/null || $(SUDO) apt-get install -y --no-install-recommends chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/export/test_web.py tests/export/test_page.py \
	    tests/report/test_in_chromium.py

# Of OpenSSH's server, without which the tests of hosts skip, they start one of their own, on loopback.
test-hosts: $(VENV)/.installed-dev  ## run the tests of measuring over SSH, on a server that apt brings
	PATH="$$PATH:/usr/sbin" command -v sshd > /dev/null || $(SUDO) apt-get install -y --no-install-recommends openssh-server openssh-client
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/hosts -n auto

# The converters of phones' engines take 1.2 GB, and lie beside what all else needs.
test-mobile: $(VENV)/.installed-mobile  ## install the tools of phones' engines, and test the hand-over with them
	OMP_NUM_THREADS=1 PYTHONPATH=$(abspath $(VENV)/mobile) $(BIN)/python -m pytest tests/mobile -n auto

# Pythons from 3.10 to 3.14 that are on this machine, pyenv's too; EDGES=--ends takes the oldest and the newest.
test-pythons: $(VENV)/.installed-dev  ## run the tests of what a device has on other Pythons of this machine
	$(BIN)/python scripts/check_pythons.py --folder $(VENV)/pythons $(EDGES)

# Each file names the first version of its engine; these are those versions, and the ones before.
ENGINES ?= $(VENV)/engines
test-old-engines: $(VENV)/.installed-dev old-engines  ## run files on the oldest engines that they name
	EDGEVIT_ENGINES=$(abspath $(ENGINES)) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/backends/test_oldest_engines.py

old-engines: $(ENGINES)/.installed

# 400 MB, downloaded once; Debian or one like it. The C library's part takes g++-aarch64-linux-gnu, too.
ARM64 ?= $(or $(EDGEVIT_CACHE),$(HOME)/.cache/edgevit)/arm64
test-arm64: $(VENV)/.installed-dev  ## run bundles and the C library as ARM64 does, in an emulation of it
	$(BIN)/python scripts/check_arm64.py --prepare --root $(ARM64)
	EDGEVIT_ARM64_ROOT=$(ARM64) $(BIN)/python -m pytest \
	    tests/backends/test_arm64_emulated.py tests/export/test_cpp_arm64.py tests/hosts/test_emulated.py

CASES ?= 7000
fuzz: $(VENV)/.installed-dev  ## read CASES damaged files of each kind
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -n auto --dist load --fuzz-cases $(CASES) --timeout 0

lint: $(VENV)/.installed-dev  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint export/docker/*.Dockerfile

check: lint test  ## what a change must pass: lint and test

bench: $(VENV)/.installed  ## measure the figures of README.md again
	$(BIN)/python benchmarks/first_light.py

constraints: $(VENV)/.installed-dev  ## write constraints.txt again from what is installed
	sed -n '/^#/p' constraints.txt > constraints.txt.new
	$(BIN)/python -m pip freeze --all --exclude-editable \
	    | sed '/^pip==/d; s/+[a-z0-9]*$$//; s/$$/ ; python_version >= "3.11"/' >> constraints.txt.new
	mv constraints.txt.new constraints.txt

clean:  ## remove what the other targets made, the virtual environment too
	rm -rf $(VENV) build dist quickstart.edgevit edgevit.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Each stamp is older than what it depends on when an install must happen again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "error: EdgeViT needs Python 3.10 or later, and $(PYTHON) is not" >&2; \
	    echo "  try: make PYTHON=python3.11" >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	    echo "error: $(PYTHON) cannot make virtual environments" >&2; \
	    echo "  try: sudo apt install python3-venv" >&2; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --upgrade pip
	@touch $@

$(TRITON)/.installed: tests/requirements-triton.txt | $(VENV)/.created
	@echo "Installing Triton's server into $(TRITON); this takes half a minute."
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/python -m pip install -qq --disable-pip-version-check -r tests/requirements-triton.txt
	@touch $@

$(RAY)/.installed: tests/requirements-ray.txt | $(VENV)/.created
	@echo "Installing Ray Serve into $(RAY); this takes a minute."
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install -qq --disable-pip-version-check -r tests/requirements-ray.txt
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "Installing EdgeViT and what it needs into $(VENV); this takes a minute or two."
	$(PIP_INSTALL) -c constraints.txt -e '.[all]'
	@$(BIN)/python -c '$(PTH)'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt tests/requirements-nodeps.txt | $(VENV)/.created
	@echo "Installing EdgeViT and what its tests need into $(VENV); this takes two or three minutes."
	$(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@$(BIN)/python -c '$(PTH)'
	$(PIP_INSTALL) -c constraints.txt --no-deps -r tests/requirements-nodeps.txt
	@touch $@ $(VENV)/.installed

MOBILE := $(wildcard export/mobile/*.txt)
$(VENV)/.installed-mobile: $(MOBILE) $(VENV)/.installed-dev
	@echo "Installing LiteRT's, ExecuTorch's, ncnn's and Core ML's tools into $(VENV)/mobile; this takes half a minute."
	rm -rf $(VENV)/mobile
	$(PIP_INSTALL) -c constraints.txt --no-deps --target $(VENV)/mobile $(MOBILE:%=-r %)
	@touch $@

$(ENGINES)/.installed: scripts/check_engine_versions.py | $(VENV)/.created
	@echo "Installing old versions of onnxruntime and OpenVINO into $(ENGINES); this takes half a minute."
	mkdir -p $(ENGINES)
	$(BIN)/python scripts/check_engine_versions.py --oldest $(ENGINES)
	@touch $@
