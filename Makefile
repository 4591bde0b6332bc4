# Everything a newcomer, a maintainer or CI runs. `make` alone lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Options for pytest, such as: make test PYTEST="-k wire"
PYTEST ?=
# Options for bench-engine and bench-fleet, such as: make bench-engine BENCH="--engines floor,swarm"
BENCH ?=
# Options for soak, such as: make soak SOAK="--minutes 5 --json figures.json"
SOAK ?=

.PHONY: help run test prove test-deploy bench bench-engine bench-fleet soak lint format docs lock setup setup-dev clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## Set up, then report on this checkout with the workflow repo-report
	@$(BIN)/swarm agent register --all
	@$(BIN)/swarm workflow register --all
	@$(BIN)/swarm run repo-report '{"path": "."}'

test: setup-dev lint ## Everything that must pass: linters, types, layers and all tests
	SWARM_TEST_WHEEL=1 $(BIN)/python -m pytest -n 3 --dist worksteal $(PYTEST)

prove: setup-dev ## The tests with their full counts (slow), as a claim's evidence
	@sh scripts/prove.sh $(BIN)/python $(PYTEST)

test-deploy: setup-dev ## The deployment files with what checks them (linters, schemas, the chart rendered)
	@$(BIN)/python scripts/deployment_tools.py
	$(BIN)/python -m pytest tests/deploy $(PYTEST)

bench: setup ## Measure this machine: engine and sandbox, per step and per second
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/sandbox.py

bench-engine: setup ## Compare the engine with DBOS, LangGraph and Prefect (BENCH="--json FILE")
	$(BIN)/python benchmarks/engine.py --peers "$$($(BIN)/python scripts/benchmark_peers.py)" $(BENCH)

bench-fleet: setup-dev ## Compare fleets on one PostgreSQL: Swarm, DBOS, Procrastinate
	$(BIN)/python benchmarks/fleet.py --peers "$$($(BIN)/python scripts/benchmark_peers.py)" $(BENCH)

soak: setup-dev ## Half an hour at 70 % of a fleet's capacity: does it stay as it is?
	$(BIN)/python benchmarks/soak.py $(SOAK)

lint: setup-dev ## Formatting, lint, strict types and the import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-dev ## Format the code and apply the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## Write docs/reference and deploy/seccomp.json anew from the code
	$(BIN)/python scripts/generate_reference.py
	$(BIN)/python scripts/generate_deployment.py

lock: setup-dev ## Write the hashed locks anew from pyproject.toml (UV="--upgrade" for newer)
	sh scripts/lock.sh $(UV)

setup:
	@sh scripts/setup.sh run

setup-dev:
	@sh scripts/setup.sh test
	@$(BIN)/python scripts/system_packages.py

clean: ## Remove the environment and everything generated; the home (~/.swarm) is kept
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
