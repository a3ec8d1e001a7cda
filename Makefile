# What a contributor runs. `make test` needs nothing but cargo, node and npm: it installs the rest.

.PHONY: test check setup clients

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
