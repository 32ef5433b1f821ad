# make demo   the whole main job on this machine, no account needed
# make test   everything that is checked: lint, types, tests
# make test-image  of that: the container image and the Debian package, built and tried
# make test-pythons  wheel and source on Python 3.11, 3.12 and 3.13, where they are here
# make test-pythons-short  of that: the wheel, and the tests of the main job
# make deb    the Debian package, in dist/ (docs/install.md)
# make test-group  relays that share a PostgreSQL, killed, frozen, cut off: more of it than `make test` has time for (6 minutes)
# make bench  speed and size beside Postfix, in a few minutes: ends with the missed targets; make bench-long: the rest (docs/performance.md)
# make audit  known vulnerabilities of the libraries in use (asks the internet)
# make fuzz   coverage-guided fuzzing, FUZZ_SECONDS for each target
PYTHON ?= python3
BIN := .venv/bin
# tests wait more than they compute: a few at once, also on two cores
WORKERS ?= 3
PIP := $(BIN)/pip --disable-pip-version-check -q
READY := .venv/.ready
# mail servers start as root: their tests run apart where we are not
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -n env PYTHONDONTWRITEBYTECODE=1)
SOURCES := $(wildcard relay tests benchmarks deploy)

FUZZ_SECONDS ?= 600

# built as root, and apart: an image in the making takes the time that others are measured by
IMAGE_TESTS = $(SUDO) $(BIN)/pytest -p no:cacheprovider tests/image

.PHONY: setup demo deb dist test test-image test-pythons test-pythons-short test-group tools lint types audit fuzz bench bench-long clean
.NOTPARALLEL:

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("relay needs Python 3.11 or newer, not " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/apt python3-venv
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(PIP) install -e '.[test,keyring]'
	@touch $@

demo: setup
	@$(BIN)/relay demo

deb:
	deploy/debian/build dist

test: setup tools lint types
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --ignore=tests/image $(if $(SUDO),--ignore=tests/interop)
	$(if $(SUDO),$(SUDO) $(BIN)/pytest -p no:cacheprovider tests/interop)
	$(IMAGE_TESTS)

test-image: setup tools
	$(IMAGE_TESTS)

# wheel and source on every Python that is here; and, but for the one that `make test` uses, what meets the most of Python's own parts
PYTHONS_TESTS ?= tests/accept tests/config tests/tokens tests/rewrite tests/spool/test_sqlite.py tests/cli tests/workers tests/service \
  tests/journeys/test_graph.py tests/journeys/test_helper.py tests/journeys/test_reload.py
# mail in and out, by processes of its own too: in two minutes
PYTHONS_SHORT := tests/accept/test_journey.py tests/spool/test_sqlite.py tests/workers tests/journeys/test_helper.py \
  tests/service/test_activation.py

test-pythons: setup dist
	for python in $$(.ci/pythons); do .ci/try-python $$python $(PYTHONS_TESTS) || exit 1; done

test-pythons-short: setup dist
	for python in $$(.ci/pythons); do .ci/try-python --short $$python $(PYTHONS_SHORT) || exit 1; done

dist: setup
	rm -rf dist/relay-*
	$(BIN)/python tests/packaging/build.py dist

test-group: setup tools
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(wildcard tests/group/test_*.py tests/group/long_*.py)

# the mail programs that the journeys are sent with, and the browser; on a build server (CI=true) a missing one ends the run here,
# elsewhere its own test fails and names it
tools:
	@.ci/tools || test "$${CI:-}" != true

lint: setup
	$(BIN)/ruff check --quiet $(SOURCES)
	$(BIN)/ruff format --check --quiet $(SOURCES)

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

bench-long: setup
	$(BIN)/python -m benchmarks --long

# in a folder of its own: neither tool is a dependency of anything
audit: setup
	@test -x .tools/audit/bin/pip-audit || { $(PYTHON) -m venv .tools/audit && .tools/audit/bin/pip -q install pip-audit; }
	$(PIP) freeze --exclude-editable > .tools/audit/installed.txt
	.tools/audit/bin/pip-audit --requirement .tools/audit/installed.txt --no-deps --disable-pip --strict

fuzz: setup
	$(PIP) install atheris
	mkdir -p .tools/fuzz
	for target in message commands; do \
	  PYTHONPATH=. $(BIN)/python tests/fuzz/atheris_$$target.py -max_total_time=$(FUZZ_SECONDS) -max_len=8192 \
	    -artifact_prefix=.tools/fuzz/ || exit 1; \
	done

clean:
	$(SUDO) rm -rf .tools/base
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
