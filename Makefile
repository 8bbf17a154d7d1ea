# JACO: everything that people and CI run. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
NODES ?= 1
ROUNDS ?= 200
SEEDS ?= 20000
INPUTS ?= 10000000
BIN := target/debug
RELEASE := target/release
BENCH := $(RELEASE)/jaco-bench
TESTS := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo "nextest run --no-fail-fast" || echo "test --no-fail-fast")

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install the Debian packages that demo, tests and lab need
	@packaging/install-deps.sh bed

.PHONY: build
build: ## Build jaco, jacod and jaco-lab
	@$(CARGO) build --quiet --workspace --bins

# One set of packages for all that is measured: another one would be built anew.
.PHONY: release
release: ## Build jaco, jacod and what measures them
	@$(CARGO) build --quiet --release -p jaco-bin -p jaco-benches -p jaco-testkit

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
	$(CARGO) build --workspace
	$(CARGO) $(TESTS) --workspace
	$(CARGO) test --doc --workspace --quiet

.PHONY: advisories
advisories: ## Look for known holes in dependencies (needs cargo-deny and the network)
	@cargo-deny --version >/dev/null 2>&1 || { echo "install cargo-deny first: cargo install cargo-deny"; exit 1; }
	cargo-deny check advisories

.PHONY: bench
bench: ## Run the benches of the core
	$(CARGO) bench -p jaco-benches --bench core

.PHONY: soak
soak: deps build ## Kill random daemons under a stream of applies (ROUNDS=200)
	@$(BIN)/jaco-lab soak kills --rounds $(ROUNDS)

.PHONY: soak-leader-kills
soak-leader-kills: deps build ## Kill the leader in each step of a rollout (ROUNDS=30)
	@$(BIN)/jaco-lab soak leader-kills \
		--rounds $(if $(filter file,$(origin ROUNDS)),30,$(ROUNDS))

.PHONY: soak-partition
soak-partition: deps build ## Cut a host off and mend the cut (ROUNDS=5)
	@$(BIN)/jaco-lab soak partitions \
		--rounds $(if $(filter file,$(origin ROUNDS)),5,$(ROUNDS))

.PHONY: soak-churn
soak-churn: deps build ## Have replicas come and go, look for what stays (ROUNDS=200)
	@$(BIN)/jaco-lab soak churn --rounds $(ROUNDS)

.PHONY: soak-pressure
soak-pressure: deps release ## Load one node for real until a replica is moved (15 min)
	@$(RELEASE)/jaco-lab soak pressure

.PHONY: soak-pool
soak-pool: deps build ## Have all 253 addresses of a network in use at once
	@$(CARGO) test -p jaco-bin --test bed_pools -- --ignored

.PHONY: bench-apply
bench-apply: deps release ## Time from apply to running containers, beside Docker Swarm
	@JACO_BIN_DIR=$(CURDIR)/$(RELEASE) $(BENCH) apply

.PHONY: bench-failover
bench-failover: deps release ## Loss of the leader and of a host, beside Docker Swarm (ROUNDS=10)
	@JACO_BENCH_ROUNDS=$(if $(filter file,$(origin ROUNDS)),10,$(ROUNDS)) \
		JACO_BIN_DIR=$(CURDIR)/$(RELEASE) $(BENCH) failover

.PHONY: soak-rollout
soak-rollout: deps release ## Updates, scaling, drains, leader kills under load (ROUNDS=10)
	@JACO_SOAK_ROUNDS=$(if $(filter file,$(origin ROUNDS)),10,$(ROUNDS)) \
		JACO_BIN_DIR=$(CURDIR)/$(RELEASE) $(BENCH) soak-rollout

.PHONY: bench-ingress
bench-ingress: release ## The ingress beside nginx, HAProxy and Caddy, one worker each
	@packaging/install-deps.sh bench
	@$(BENCH) ingress

.PHONY: soak-ingress
soak-ingress: release ## Changes, tunnels, large bodies, idle and hostile clients (ROUNDS=1000 changes)
	@packaging/install-deps.sh wrk nginx-light libnginx-mod-stream haproxy caddy
	@ulimit -n $$(ulimit -Hn) && \
		JACO_SOAK_ROUNDS=$(if $(filter file,$(origin ROUNDS)),1000,$(ROUNDS)) \
		$(BENCH) soak-ingress

.PHONY: conformance
conformance: build ## The requests of a public corpus through the ingress, byte by byte
	@packaging/install-deps.sh python3-pip
	@$(BIN)/jaco-bench conformance

.PHONY: fuzz
fuzz: ## Outside bytes of the ingress, the mesh and CAs (INPUTS=10000000 each)
	@JACO_FUZZ=$(INPUTS) $(CARGO) test --quiet --release -p jaco-adapters --lib fuzz:: -- --nocapture

.PHONY: bench-dns
bench-dns: release ## Names of our own beside dnsmasq, one worker each
	@packaging/install-deps.sh bench
	@$(BENCH) dns

.PHONY: bench-mesh
bench-mesh: deps release ## TCP over the encrypted mesh beside the bare link
	@JACO_BIN_DIR=$(CURDIR)/$(RELEASE) $(BENCH) mesh

.PHONY: parity
parity: deps build ## Compare containers with those of docker-compose, key by key
	@packaging/install-deps.sh parity
	@$(BIN)/jaco-bench parity

.PHONY: soak-sim
soak-sim: release ## Simulate clusters under faults (SEEDS=20000)
	@$(RELEASE)/jaco-sim --seeds $(SEEDS)

.PHONY: soak-props
soak-props: ## Ask every property of the core with other inputs (SEEDS=200)
	@$(CARGO) test --quiet --release -p jaco-core --tests --no-run
	@for seed in $$(seq $(if $(filter file,$(origin SEEDS)),200,$(SEEDS))); do \
		PROPTEST_RNG_SEED=$$seed $(CARGO) test --quiet --release -p jaco-core --tests \
			>target/soak-props.log 2>&1 || { \
			cat target/soak-props.log; echo "seed $$seed fails"; exit 1; }; \
	done; echo "every property held with each of $$seed seeds"
