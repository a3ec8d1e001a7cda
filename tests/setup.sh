#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: system packages where apt is at hand, and the client libraries
# in tests/clients. What is there already is left alone, so running it again costs a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

main() {
    need cargo 'see https://rustup.rs'
    need node 'install Node.js 20 or later, with npm'
    need npm 'install Node.js 20 or later, with npm'
    system_packages
    node_packages
    python_packages
}

need() {
    command -v "$1" >/dev/null || fail "$1 is missing: $2"
}

fail() {
    printf '%s: %s\n' "${BASH_SOURCE[0]##*/}" "$1" >&2
    exit 1
}

# A browser for the browser tests, Python with what `python3 -m venv` is made of, which Debian ships separately, a C++
# compiler for the fuzzer, Redis with its sentinel for the tests of many nodes, nginx to stand in front of servers, and PHP
# and Ruby with Rack for their ideas of parameters. The tests start all of these by themselves.
system_packages() {
    local missing=()
    [[ -x "${CHROMIUM:-/usr/bin/chromium}" ]] || missing+=(chromium)
    [[ -x clients/.venv/bin/python ]] || python3 -c 'import ensurepip, venv' 2>/dev/null ||
        missing+=(python3 python3-venv)
    command -v c++ >/dev/null || missing+=(g++)
    command -v redis-server >/dev/null && command -v redis-cli >/dev/null || missing+=(redis-server)
    command -v redis-sentinel >/dev/null || missing+=(redis-sentinel)
    # It may be where only root looks for commands.
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v nginx >/dev/null || missing+=(nginx-light)
    command -v php >/dev/null || missing+=(php-cli)
    ruby -e 'require "rack"' 2>/dev/null || missing+=(ruby ruby-rack)
    [[ ${#missing[@]} -gt 0 ]] || return 0
    local remedy="apt-get install ${missing[*]}"
    command -v apt-get >/dev/null || fail "missing: ${missing[*]} (on Debian: $remedy)"
    [[ $EUID -eq 0 ]] || fail "missing: ${missing[*]}; run as root: $remedy"
    export DEBIAN_FRONTEND=noninteractive
    start_no_services
    # The package lists may be absent or older than the archive.
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return 0
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Debian starts a server when it installs one. The tests want the programs alone: a Redis of this machine on its usual port
# is none of their business. Until this script ends, a policy forbids it, unless the machine has a policy of its own.
start_no_services() {
    local policy=/usr/sbin/policy-rc.d
    [[ ! -e "$policy" ]] || return 0
    trap "rm -f $policy" EXIT
    # 101: the action is forbidden.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
}

# `npm ci` removes everything first, so it runs only when the lock file has changed since.
node_packages() {
    unchanged clients/node_modules/.installed clients/package-lock.json clients/.npmrc && return 0
    (cd clients && npm ci --no-audit --no-fund --loglevel=error)
    remember clients/node_modules/.installed clients/package-lock.json clients/.npmrc
}

python_packages() {
    unchanged clients/.venv/.installed clients/requirements.txt && return 0
    rm -rf clients/.venv
    python3 -m venv clients/.venv
    clients/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        --requirement clients/requirements.txt
    remember clients/.venv/.installed clients/requirements.txt
}

# unchanged STAMP FILE…: whether these files are as they were when STAMP was written.
unchanged() {
    [[ -f "$1" ]] && sha256sum "${@:2}" | cmp -s - "$1"
}

remember() {
    sha256sum "${@:2}" >"$1"
}

main "$@"
