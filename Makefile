# The commands of this repository. `make demo` and `make test` do all of their own set-up, the Rust toolchain aside.

CARGO ?= cargo
# Partition timeout of the demo; everything else is scaled from it. TIMEOUT=5m runs the defaults.
TIMEOUT ?= 12s
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

SHELL := /bin/bash

.PHONY: help build demo up test fuzz mutants verify fix bench

help: ## Show this help
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build all binaries (dev profile)
	$(CARGO) build --workspace --bins --lib --locked

demo: build ## Lose a region and get it back, live, on loopback (TIMEOUT=12s by default; TIMEOUT=5m for the real one)
	target/debug/regent-demo run --partition-timeout $(TIMEOUT)

up: build ## Start the same deployment in the foreground, to try things by hand; ^C ends it
	target/debug/regent-demo up --partition-timeout $(TIMEOUT)

test: build ## Run all tests: unit, golden, model, real processes with real PostgreSQL
ifeq ($(NEXTEST),yes)
	@mkdir -p target
	@set -o pipefail; $(CARGO) nextest run --workspace --locked 2>&1 | tee target/test.log
	@if grep -q 'BROKEN PROMISE' target/test.log; then echo 'an attempt broke a promise: see target/test.log'; exit 1; fi
else
	$(CARGO) test --workspace --locked --no-fail-fast -- --test-threads=2
endif

fuzz: ## Simulate 10,000 deployments in virtual time (release build; docs/simulation.md)
	$(CARGO) run --release --locked -p regent-sim --bin fuzz -- --seeds 10000

mutants: ## See that each bug made on purpose is still caught by the simulation (some minutes)
	$(CARGO) test --locked -p regent-sim --features mutants --test mutants -- --nocapture

verify: ## Check format, lints and dependencies; never writes to the tree
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if $(CARGO) tree --workspace --locked -i aws-lc-sys >/dev/null 2>&1; then \
	  echo "aws-lc-sys is in the tree: two crypto providers make the TLS server panic at start"; exit 1; fi
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check; else echo "cargo-deny is not installed: skipped"; fi

fix: ## Format and apply lint fixes
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: ## Run the benchmarks (release build; takes a while, see docs/benchmarks.md)
	$(CARGO) build --release --workspace --bins --locked
	target/release/regent-bench all
