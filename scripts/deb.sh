#!/usr/bin/env bash
# Packs a program that is built already: scripts/deb.sh PROGRAM PROFILE OUTPUT [TARGET]
# Uses cargo-deb from PATH in the pinned version, else builds that into .tools/ once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=$1 profile=$2 output=$3 target=${4:-}
version=3.8.0
export PATH="$PWD/.tools/bin:$PATH"
if [ "$(cargo-deb --version 2>/dev/null)" != "cargo-deb $version" ]; then
  echo "Building cargo-deb $version into .tools/ (once, a few minutes)"
  CARGO_TARGET_DIR="$PWD/.tools/build" scripts/cargo install --quiet --locked --debug "cargo-deb@$version" --root .tools
  rm -rf .tools/build
fi
scripts/cargo deb --quiet --no-build --no-strip --package "$program" --profile "$profile" --output "$output" ${target:+--target "$target"}
