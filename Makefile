# One command for each chore. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
# One more than the processors of a small machine: tests wait about as long as they compute.
PROCESSES ?= 3

.DEFAULT_GOAL := test

# Empty is unset: the tests start many processes, and each would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help:  ## List the chores
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: install  ## Run the main job against the built-in sandbox: 1,000 readers, three channels
	@$(BIN)/distributor demo

.PHONY: install
install:  ## Make .venv/ from the lock (quick when nothing changed)
	@$(PYTHON) scripts/bootstrap.py

.PHONY: dev
dev:  ## The same, with what the tests need
	@$(PYTHON) scripts/bootstrap.py --dev

.PHONY: test
test: dev lint types contracts  ## Everything that must hold: lint, types, import contracts, tests
	@$(BIN)/pytest --numprocesses $(PROCESSES) --dist worksteal

.PHONY: lint
lint: dev  ## ruff: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

.PHONY: types
types: dev  ## mypy --strict over code, tests and bench
	@$(BIN)/mypy --no-error-summary distributor tests scripts bench

.PHONY: contracts
contracts: dev  ## import contracts: who may know whom
	@$(BIN)/lint-imports > .import-contracts.log 2>&1 || { cat .import-contracts.log; exit 1; }
	@rm -f .import-contracts.log

.PHONY: bench
bench: dev  ## Our rate beside its peers' (others: python -m bench full, latency, pace, telegram, ours)
	@$(BIN)/python -m bench quick

.PHONY: chaos
chaos: dev  ## Kill, freeze and cut off workers and servers while a sink counts (all: python -m tests.chaos --full)
	@$(BIN)/python -m tests.chaos

.PHONY: fuzz
fuzz: dev  ## Random Markdown through every renderer and its independent checks: 10,000 documents
	@FUZZ_DOCUMENTS=10000 $(BIN)/pytest tests/test_fuzz.py --timeout 7200

.PHONY: format
format: dev  ## Put the code into the house format
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .

.PHONY: lock
lock:  ## Write requirements*.lock anew (needs uv)
	@scripts/lock.sh

.PHONY: build
build: dev  ## Build the wheel into dist/
	@$(BIN)/hatchling build -t wheel

.PHONY: clean
clean:  ## Remove what can be made again
	rm -rf .venv .demo .bench dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
