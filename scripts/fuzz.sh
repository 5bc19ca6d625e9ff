#!/usr/bin/env bash
# The parsers that face the network, each under libFuzzer with the address sanitizer for so many seconds; what must hold
# stands in crates/shared/tests/invariants and, in both programs, in must_hold beside each parser.
#   usage: scripts/fuzz.sh SECONDS [TARGET…]
# Needs a nightly compiler that rustup has already; cargo-fuzz is built once into .tools/. What libFuzzer found on its
# way stays in fuzz/corpus/, what broke something in fuzz/artifacts/ (neither is committed; fuzz/seeds/ is).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
shift || true
cargo +nightly --version >/dev/null 2>&1 || {
  echo "Fuzzing needs a nightly compiler: rustup toolchain install nightly --profile minimal" >&2
  exit 2
}
tool=$PWD/.tools/cargo-fuzz
[ -x "$tool/bin/cargo-fuzz" ] || cargo install --quiet --locked --root "$tool" cargo-fuzz@0.13.2
export PATH=$tool/bin:$PATH
# Ours is in the fuzz crate's folder, whatever the workspace's is.
unset CARGO_TARGET_DIR
export SQLX_OFFLINE=true
# In SQLite's C, which comes with the gateway, the sanitizer takes one table for two of a name.
export ASAN_OPTIONS=detect_odr_violation=0
[ $# -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list)
for target in "${@:-${targets[@]}}"; do
  mkdir -p "fuzz/corpus/$target"
  echo "== $target, $seconds s"
  # Less than what a batch may be, so that more of them are tried.
  cargo +nightly fuzz run "$target" "fuzz/corpus/$target" $(ls -d "fuzz/seeds/$target" 2>/dev/null) -- \
    -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0
done
