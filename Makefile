# JACO: everything that people and CI run. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
NODES ?= 1
ROUNDS ?= 200
BIN := target/debug
TESTS := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo "nextest run --no-fail-fast" || echo "test --no-fail-fast")

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install the Debian packages that demo, tests and lab need
	@packaging/install-deps.sh bed

.PHONY: build
build: ## Build jaco, jacod and jaco-lab
	@$(CARGO) build --quiet -p jaco-bin -p jaco-testkit

.PHONY: demo
demo: deps build ## Bring up a cluster and fetch a page through it (NODES=3 for three hosts)
	@packaging/demo.sh up $(NODES)

.PHONY: demo-stop
demo-stop: build ## Remove what `make demo` made
	@packaging/demo.sh down

.PHONY: lab
lab: deps build ## Bring up a three-host lab to play with; `jaco-lab down` removes it
	@$(BIN)/jaco-lab up --hosts 3 --cluster

.PHONY: test
test: deps ## Run every check and test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	$(CARGO) build -p jaco-bin -p jaco-testkit
	$(CARGO) $(TESTS) --workspace
	$(CARGO) test --doc --workspace --quiet

.PHONY: bench
bench: ## Run the benches of the core
	$(CARGO) bench -p jaco-benches --bench core

.PHONY: soak
soak: deps build ## Kill random daemons under a stream of applies (ROUNDS=200)
	@$(BIN)/jaco-lab soak kills --rounds $(ROUNDS)
