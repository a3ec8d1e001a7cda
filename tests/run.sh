#!/usr/bin/env bash
# Runs every test: the Rust ones and the client libraries for JavaScript and for Python against the built server; those
# of one server once more with two nodes of a cluster in its place; and each fuzz target for 20 seconds.
# All of them run even if one fails. The end shows what each runner said last; the exit code is 0 only if all passed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target="${CARGO_TARGET_DIR:-target}"
logs="$target/test-logs"
failed=()
times=()

main() {
    mkdir -p "$logs"
    tests/setup.sh || exit 1
    cargo build --locked --bins --tests || exit 1
    : "${FANFARE_BIN:=$(realpath "$target")/debug/fanfare}"
    export FANFARE_BIN
    built=$SECONDS

    run rust cargo test --locked --no-fail-fast
    # Takes minutes on a new machine, on which the tests that follow leave much of the processors idle.
    nice -n 19 fuzz/run.sh build >"$logs/fuzz-build.log" 2>&1 &
    run two-nodes env FANFARE_IT_CLUSTER=1 cargo test --locked --test it
    run node npm --prefix tests/clients test --silent
    run two-nodes-node npm --prefix tests/clients run test:two-nodes --silent
    run python tests/clients/.venv/bin/python -m pytest tests/clients
    wait
    run fuzz fuzz/run.sh 20

    summary
    [[ ${#failed[@]} -eq 0 ]]
}

# run NAME COMMAND…: runs it, shows its output and keeps it for the summary, and how long it took.
run() {
    local start=$SECONDS
    printf '\n== %s\n' "$1"
    "${@:2}" 2>&1 | tee "$logs/$1.log"
    [[ ${PIPESTATUS[0]} -eq 0 ]] || failed+=("$1")
    times+=("$1 $((SECONDS - start)) s")
}

summary() {
    printf '\n== what the runners said last\n'
    grep -h '^test result:' "$logs/rust.log" "$logs/two-nodes.log"
    grep -h -E '^ℹ (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) ' "$logs/node.log" "$logs/two-nodes-node.log"
    tail -n 1 "$logs/python.log"
    tail -n 1 "$logs/fuzz.log"
    printf 'built in %s s; ' "$built"
    printf '%s; ' "${times[@]}"
    printf 'all in %s s\n' "$SECONDS"
    if [[ ${#failed[@]} -gt 0 ]]; then
        printf 'FAILED: %s\n' "${failed[*]}"
    else
        printf 'all passed\n'
    fi
}

main
