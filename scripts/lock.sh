#!/bin/sh
# Writes the hashed locks from pyproject.toml, for Python 3.11 and newer at once. Run by `make lock`.
# Extra arguments go to uv, e.g. `sh scripts/lock.sh --upgrade`.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv

compile() {
    target=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --custom-compile-command "make lock" \
        --output-file "$target" "$@"
}

compile requirements.txt pyproject.toml "$@"
compile requirements-dev.txt pyproject.toml --group dev --constraints requirements.txt "$@"
compile requirements-build.txt --group build --constraints requirements-dev.txt "$@"
compile requirements-deploy.txt --group deploy "$@"
compile deploy/requirements.txt pyproject.toml --all-extras --constraints requirements-dev.txt "$@"
compile requirements-node.txt --group node "$@"
compile benchmarks/engines/requirements.txt benchmarks/engines/requirements.in "$@"
