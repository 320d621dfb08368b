# Two commands for newcomers:  make run   and   make test
# Everything is installed into .venv; nothing outside this folder is touched.

# The first of these that runs and is new enough; name another with  make PYTHON=…
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$name; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

.PHONY: run test check lint format types docs matrix bench bench-service upgrade clean libp2p anvil

run: $(VENV)/.run ## set up and run the demonstration; make run ARGS=--once ends by itself
	@$(BIN)/handclasp demo $(ARGS)

test: $(VENV)/.test libp2p anvil ## set up and run the tests; make test ARGS='-k invitation'
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: $(VENV)/.check lint types docs test ## everything that has to hold before a commit

lint: $(VENV)/.check
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports

format: $(VENV)/.check
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

types: $(VENV)/.check
	@$(BIN)/mypy
	@$(BIN)/pyright

docs: $(VENV)/.check ## build the documentation into docs/_build; every warning is an error
	@$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

matrix: $(VENV)/.test ## every protocol over every discovery and every transport, as a table
	@$(BIN)/python -m pytest tests/matrix --table -q $(ARGS)

bench: $(VENV)/.test libp2p ## print the figures as ratios and write benchmarks/results/
	@$(BIN)/python -m benchmarks.startup
	@$(BIN)/python -m benchmarks.pairing $(ARGS)
	@$(BIN)/python -m benchmarks.stream $(ARGS)
	@$(BIN)/python -m benchmarks.memory

bench-service: $(VENV)/.test ## the service beside socket.io and PeerServer, which need npm
	@npm ci --prefix benchmarks/relays --ignore-scripts --no-audit --no-fund --silent
	@$(BIN)/python -m benchmarks.service $(ARGS)

# --- setting up ---

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "handclasp needs Python 3.11 or newer; on Debian: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) (once, about half a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install 'pip>=25.1'

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@$(PIP) install --constraint constraints.txt --editable '.[fast]'
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo "installing what the tests need …"
	@$(PIP) install --constraint constraints.txt --group test
	@$(PIP) install --constraint constraints.txt --only-binary wrtc --editable '.[fast,native]' \
	  || echo "there is no wheel of wrtc for this machine: the tests of the native engine will skip"
	@touch $@

$(VENV)/.check: $(VENV)/.test
	@echo "installing linters and type checkers …"
	@$(PIP) install --constraint constraints.txt --group check --group docs
	@touch $@

# py-libp2p has an environment of its own: its typing stubs and pinned versions would disturb ours.
# One of its parts is built from source. Where that cannot be, the tests that compare with it say that they skip.
libp2p: $(BIN)/python
	@test -e .venv-libp2p/.ready || { \
	  if echo '#include <gmp.h>' | $${CC:-cc} -E - >/dev/null 2>&1; then \
	    echo "installing py-libp2p, to compare with …"; \
	    $(PYTHON) -m venv .venv-libp2p \
	      && .venv-libp2p/bin/python -m pip --disable-pip-version-check --quiet install 'libp2p==0.8.1' 'aiortc==1.16.0' 'aioice==0.13.0' \
	      && touch .venv-libp2p/.ready \
	      || echo "py-libp2p could not be installed; the tests that compare with it will skip"; \
	  else \
	    echo "no C compiler or no gmp.h: the tests that compare with py-libp2p will skip (Debian: apt-get install gcc python3-dev libgmp-dev)"; \
	  fi; }

# An Ethereum node, for the tests of contract accounts. Its npm package brings the program, and runs nothing when it is installed.
anvil:
	@test tests/accounts/node_modules/.ready -nt tests/accounts/package-lock.json || { \
	  if command -v npm >/dev/null; then \
	    echo "installing anvil, an Ethereum node …"; \
	    npm ci --prefix tests/accounts --ignore-scripts --no-audit --no-fund --silent \
	      && touch tests/accounts/node_modules/.ready \
	      || echo "anvil could not be installed; the tests that ask an Ethereum node will skip"; \
	  else \
	    echo "no npm: the tests that ask an Ethereum node will skip (Debian: apt-get install npm)"; \
	  fi; }

upgrade: ## the newest versions that pip agrees to, into constraints.txt; run the tests afterwards
	@rm -rf build/upgrade && $(PYTHON) -m venv build/upgrade
	@build/upgrade/bin/python -m pip --quiet install 'pip>=25.1'
	@build/upgrade/bin/python -m pip --quiet install --editable '.[fast,native]' --group dev
	@{ echo "# The versions that the tests passed with; 'make' installs these. Regenerate: make upgrade"; \
	  build/upgrade/bin/python -m pip freeze --exclude-editable; } > constraints.txt

clean:
	rm -rf $(VENV) .venv-libp2p tests/accounts/node_modules build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
