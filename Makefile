# The few commands there are; `make help` lists them. Nothing is installed outside .venv, and nothing twice.

# The first that is new enough; only looked for when .venv is made.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
# -qq: pip's notes about itself are not ours; its errors are still shown.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq

.DEFAULT_GOAL := help
.PHONY: help run test format bench clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/installed-run ## start the server on 127.0.0.1:8080, with its own MongoDB and a demo feed
	@exec $(BIN)/python server.py --demo $(ARGS)

test: $(VENV)/installed-test ## format check, lint, types, and all tests with their coverage
	@$(BIN)/ruff format --check --quiet . || { echo "make format puts that right"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

format: $(VENV)/installed-test ## put the sources into the form that the test asks for
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

bench: $(VENV)/installed-run ## measure it (needs gcc)
	@command -v gcc >/dev/null || { echo "make bench needs gcc, which builds the load generator"; exit 1; }
	@$(BIN)/python -m tests.bench $(ARGS)

clean: ## remove what was installed, built and measured; data/ stays
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: newer than what they were made from means that nothing has to be installed.
$(VENV)/installed-run: setup.cfg pyproject.toml | $(VENV)/created
	@echo "installing into $(VENV), about a minute" >&2
	@$(PIP) install -e '.[embedded]'
	@touch $@

$(VENV)/installed-test: setup.cfg pyproject.toml | $(VENV)/created
	@echo "installing into $(VENV), about a minute" >&2
	@$(PIP) install -e '.[test]'
	@touch $@ $(VENV)/installed-run

$(VENV)/created:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tailcast needs Python 3.11 or newer; where it is under another name: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.platform != "linux" or sys.maxsize < 2**32)' \
	  || { echo "Tailcast needs a 64-bit Linux, this is $$(uname -sm)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "this Python comes without venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
