# `make demo` and `make test` set up a virtual environment in .venv if it does not exist.
PYTHON ?= python3
# The default is a fixed release; for another build or version, set TORCH='torch==2.13.0 --index-url ...'.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal
READY := $(VENV)/.ready
# Packages for `make test-services` only, in a separate folder so that nothing else can depend on them.
SERVICES := $(VENV)/services

.PHONY: install demo test test-services test-all lint types check bench docs fuzz clean

install: $(READY)

$(READY): pyproject.toml constraints.txt Makefile $(wildcard src/ecgfounder/engines/_*.[ch] src/ecgfounder/readers/philips/_*.c)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ecgfounder needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >> $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/ecgfounder demo demo

test: $(READY)
	$(PYTEST) -m 'not slow and not services'

test-services: $(SERVICES)/.ready
	PYTHONPATH=$(SERVICES) $(PYTEST) -m 'services and not slow'

$(SERVICES)/.ready: $(READY)
	rm -rf $(SERVICES)
	$(BIN)/python -m pip install --quiet --no-deps --target $(SERVICES) 'triton==3.9.0; platform_system == "Linux"'
	touch $(SERVICES)/.ready

test-all: $(SERVICES)/.ready
	PYTHONPATH=$(SERVICES) $(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test

bench: $(READY)
	$(BIN)/python -m benchmarks

# Needs no internet access: the site includes its fonts and scripts.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

fuzz: $(READY)
	$(BIN)/python -m tests.harness.fuzz --count 28000

clean:
	rm -rf $(VENV) demo site build dist
