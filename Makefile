.DEFAULT_GOAL := help
.PHONY: help demo test model soak load bench bench-quick bench-placement lint fmt doc package

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 18

demo: server ## a cluster that loses a worker and loses nothing, on a private server (30 s)
	cargo run --release --quiet --example demo

test: server ## all tests, against real servers that they start themselves
	cargo test --all-targets --features tls-rustls-ring
	cargo test --doc --features tls-rustls-ring

model: ## the model of the protocol, checked to its full bounds, and broken on purpose (minutes, no server)
	@cargo test --release --quiet --test model -- --full

SECONDS ?= 60
SEED ?= 1
soak: server ## real processes, random faults, and a checker of what was seen; another one: make soak SECONDS=600 SEED=2
	@cargo test --quiet --test soak -- --seconds $(SECONDS) --seed $(SEED)

WORKERS ?= 1000
JOBS ?= 100000
load: server ## a thousand workers and a hundred thousand jobs on one server, which come and go: make load SECONDS=60
	@cargo test --quiet --release --test load -- --seconds $(SECONDS) --workers $(WORKERS) --jobs $(JOBS)

BENCHED = $(or $(CARGO_TARGET_DIR),target)/bench/summary.json

bench: server ## every figure against its floor, on private servers (20 min); some alone: make bench ROWS="takeover pause"
	@$(if $(ROWS),,rm -f $(BENCHED))
	$(if $(ROWS),,cargo bench --quiet --bench client_cost)
	cargo bench --quiet --bench bench -- $(ROWS)

bench-quick: server ## the same, roughly, within a minute
	@rm -f $(BENCHED)
	cargo bench --quiet --bench client_cost -- --quick
	cargo bench --quiet --bench bench -- --quick

bench-placement: server ## 50,000 jobs on ten workers that come, die and leave
	cargo bench --quiet --bench placement

lint: ## formatting and clippy
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --features tls-rustls-ring -- -D warnings

fmt: ## format
	cargo fmt

doc: ## the documentation, in target/doc/assemblage
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

package: ## what would be published, built from the package
	cargo package --locked

.PHONY: server
server:
	@scripts/ensure-server
