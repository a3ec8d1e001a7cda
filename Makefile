# What a contributor runs. `make test` needs nothing but cargo, node and npm: it installs the rest.

.PHONY: test check setup clients fuzz bench bench-micro

# Every test, with everything they need.
test:
	@tests/run.sh

# Formatting and lints.
check:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings

# What the tests need and the machine lacks.
setup:
	@tests/setup.sh

# Only the client libraries, against the binary as it is built now.
clients: setup
	cargo build --locked
	npm --prefix tests/clients test --silent
	tests/clients/.venv/bin/python -m pytest tests/clients

# Every fuzz target, two side by side: make fuzz SECONDS=7200 for a day's worth, ONLY=frames for one of them.
SECONDS ?= 20
fuzz:
	@fuzz/run.sh $(SECONDS) $(ONLY)

# Fanfare beside the floor that the kernel sets, as ratios: ROUNDS=3 ONLY=fanout make bench, GROWTH=1 make bench.
ROUNDS ?= 5
bench:
	cargo build --release --locked --bin fanfare --example floor
	cargo bench --locked --bench ratios -- --rounds $(ROUNDS) $(if $(ONLY),--only "$(ONLY)") $(if $(GROWTH),--growth)

# The steps of a message's life, each by itself: ONLY=registry make bench-micro.
bench-micro:
	cargo bench --locked --bench micro -- $(if $(ONLY),"$(ONLY)")
