#!/usr/bin/env bash
# Licences, banned crates and sources of all dependencies (deny.toml); known vulnerabilities where the
# advisory database can be reached. Uses cargo-deny from PATH, else builds one into .tools/ once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.20.2
export PATH="$PWD/.tools/bin:$PATH"
if ! command -v cargo-deny >/dev/null; then
  echo "Building cargo-deny $version into .tools/ (once, a few minutes)"
  # Unoptimised builds in a third of the time and checks our lock file in seconds all the same.
  CARGO_TARGET_DIR="$PWD/.tools/build" scripts/cargo install --quiet --locked --debug "cargo-deny@$version" --root .tools
  rm -rf .tools/build
fi
scripts/cargo deny check --hide-inclusion-graph bans licenses sources
if timeout 120 scripts/cargo deny fetch db >/dev/null 2>&1; then
  scripts/cargo deny check --hide-inclusion-graph advisories
else
  echo "advisories: the advisory database cannot be reached from here, so known vulnerabilities were NOT checked"
fi
