# Byline. `make run` starts a whole exchange; `make test` tests it against real servers.
#
#   make run                                             until Ctrl-C
#   make run ARGS="--seconds 30 --json summary.json"     bounded; exit 0 only if every check held
#   make test [T=tests/unit]                             the whole suite, or a part of it
#   make faults SEEDS=10000 KILLS=100                    faults by the thousand; card: build/faults, or OUT=docs; make fuzz RUNS=N
#   make mutants                                         bugs planted in copies of the sources: each must be caught
#   make full                                            what is too much for every run: storms, crowds, outages at full size
#   make check                                           lint, types, tests: what CI runs; make lint, make types alone
#   make build                                           set-up and compiling alone; make clean removes .venv, build, .data
#   make move-builder                                    the Move compiler (needs Node 20 and npm): into build/move
#   make peers                                           other engines, for python -m bench engine: into build/peers
#
# Needs Python 3.11-3.13, a C compiler and make. Everything else goes into .venv in this folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
T ?= tests
SOURCES := $(shell find engine gateway persistence marketdata settlement bench -name '*.pyx' -o -name '*.pxd' -o -name '*.h' 2>/dev/null)

SEEDS ?= 1000
KILLS ?= 20
FIRST ?= 0
OUT ?= build/faults
RUNS ?= 1000000

.PHONY: run test faults mutants fuzz full check lint types build move-builder peers clean help
.DEFAULT_GOAL := help

help:
	@sed -n '3,14s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

$(VENV)/.installed: pyproject.toml requirements/embedded.txt requirements/pip.txt
	@echo "byline: first set-up in $(VENV) (a minute or two, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements/pip.txt
	@$(BIN)/python requirements/install.py
	@touch $@

$(VENV)/.built: $(VENV)/.installed setup.py $(SOURCES)
	@echo "byline: compiling, in two passes: Cython to C, C to extensions (several minutes, once)"
	@$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

build: $(VENV)/.built

run: build
	@$(BIN)/byline up $(ARGS)

test: build
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(T)

faults: build
	@$(BIN)/python -m tests.faults --seeds $(SEEDS) --kills $(KILLS) --first $(FIRST) --out $(OUT) $(ARGS)

mutants: build
	@TEST_MUTANTS=1 $(BIN)/python -m pytest tests/simulation/test_planted.py tests/simulation/test_mutants.py \
		tests/faults/test_kills_planted.py

fuzz: build
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install -q --disable-pip-version-check 'atheris>=3,<4'
	@$(BIN)/python -m pytest tests/fuzz/test_guide.py
	@$(BIN)/python -m tests.fuzz --runs $(RUNS) $(ARGS)

full: build
	@TEST_STORM=5000 TEST_READERS=1000 TEST_OUTAGE_BATCHES=360 TEST_DATABASE_OUTAGE_S=600 $(BIN)/python -m pytest \
		tests/faults/test_reconnect_storm.py tests/faults/test_fan_out_killed.py tests/integration/test_settlement_faults.py \
		tests/integration/test_exchange.py::test_f50_trading_goes_on_without_database_and_chain_and_both_catch_up

lint: build
	@$(BIN)/ruff check .

types: build
	@$(BIN)/mypy

check: lint types test

move-builder:
	@mkdir -p build/move
	@cp settlement/move/tools/package.json settlement/move/tools/package-lock.json build/move/
	@cd build/move && npm ci --silent --no-audit --no-fund --no-update-notifier --fetch-retries=1

peers: build
	@$(BIN)/python -m bench.book_peers

clean:
	rm -rf build .venv .data
	find engine gateway persistence marketdata settlement bench -name '*.so' -delete
