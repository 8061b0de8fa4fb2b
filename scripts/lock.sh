#!/bin/sh
# Writes the two hashed locks anew. No index address is kept, so that a mirror works as well as the original.
set -eu
cd "$(dirname "$0")/.."
compile() { uv pip compile pyproject.toml --all-extras --generate-hashes --universal --python-version 3.11 \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet "$@"; }
compile --output-file requirements.lock
compile --group dev --output-file requirements-dev.lock
