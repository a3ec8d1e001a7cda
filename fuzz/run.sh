#!/usr/bin/env bash
# run.sh [SECONDS [TARGET]]: runs every fuzz target, or one, for so many seconds, two side by side. Needs the stable compiler
# and a C++ compiler, and nothing installed by cargo. Inputs that reach new code are kept in target/fuzz/corpus, where the
# next run goes on; what breaks an oracle is in target/fuzz/findings, and its path is shown. `run.sh build` only builds.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds="${1:-20}"
only="${2:-}"
built="$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz"
host="$(rustc -vV | sed -n 's/^host: //p')"

# What cargo-fuzz asks of the compiler, but for the sanitizer, which the stable one does not have; there is no unsafe code
# here that it could watch. With a target named, cargo does not apply it to build scripts and macros.
coverage=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)

main() {
    local targets passed=0 failed=0 name
    command -v c++ >/dev/null || fail 'a C++ compiler is missing (on Debian: apt-get install g++)'
    RUSTFLAGS="${coverage[*]}" cargo build --quiet --locked --manifest-path fuzz/Cargo.toml --target "$host" \
        --target-dir "$built" || fail 'the targets do not build'
    [[ "$seconds" != build ]] || return 0
    targets=$(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
    [[ -z "$only" ]] || targets=$(grep -x -- "$only" <<<"$targets") || fail "there is no target $only"
    mkdir -p "$built/findings" "$built/logs"
    export -f run
    export built host seconds
    xargs -P 2 -I '{}' bash -c 'run {}' <<<"$targets"
    for name in $targets; do
        if [[ "$(<"$built/logs/$name.result")" == passed ]]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    done
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [[ $failed -eq 0 ]]
}

# run TARGET: shows one line for it, or the end of what it said.
run() {
    local log="$built/logs/$1.log" result=failed
    mkdir -p "$built/corpus/$1"
    echo failed >"$built/logs/$1.result"
    if RUST_BACKTRACE=0 "$built/$host/debug/$1" -max_total_time="$seconds" -max_len=4096 -timeout=30 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="$built/findings/$1-" "$built/corpus/$1" "fuzz/corpus/$1" >"$log" 2>&1; then
        result=passed
        echo passed >"$built/logs/$1.result"
    fi
    printf '%s: %s, %s inputs\n' "$1" "$result" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    [[ $result == passed ]] || tail -n 30 "$log"
}

fail() {
    printf '%s: %s\n' "${BASH_SOURCE[0]##*/}" "$1" >&2
    exit 1
}

main
