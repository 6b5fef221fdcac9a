# Every target does all its own set-up: a virtual environment in .venv, filled once with what the main job needs, and once more
# with the tools of development where a target needs them.
PYTHON ?= python3
# The default is a fixed release; TORCH='torch==2.13.0 --index-url ...' or another version takes another build.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
# Packages that only `make test-services` needs; apart, so that nothing else comes to rest on them.
SERVICES := $(VENV)/services

.PHONY: install demo test test-services test-all lint types check bench docs fuzz clean

install: $(READY)

$(READY): pyproject.toml setup.py constraints.txt Makefile $(wildcard src/ecgfounder/engines/_*.[ch] src/ecgfounder/readers/philips/_*.c)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ecgfounder needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >> $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable .
	touch $(READY)

$(TOOLS): $(READY)
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev]'
	touch $(TOOLS)

demo: $(READY)
	$(BIN)/ecgfounder demo demo

test: $(TOOLS)
	$(PYTEST) -m 'not slow and not services'

test-services: $(SERVICES)/.ready
	PYTHONPATH=$(SERVICES) $(PYTEST) -m 'services and not slow'

$(SERVICES)/.ready: $(TOOLS)
	rm -rf $(SERVICES)
	$(BIN)/python -m pip install --quiet --no-deps --target $(SERVICES) 'triton==3.9.0; platform_system == "Linux"'
	touch $(SERVICES)/.ready

test-all: $(SERVICES)/.ready
	PYTHONPATH=$(SERVICES) $(PYTEST)

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TOOLS)
	$(BIN)/mypy

check: lint types test

bench: $(TOOLS)
	$(BIN)/python -m benchmarks

# Needs no network: fonts and scripts are the site's own.
docs: $(TOOLS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

fuzz: $(TOOLS)
	$(BIN)/python tests/fuzz.py --count 28000

clean:
	rm -rf $(VENV) demo site build dist
