#!/usr/bin/env bash
# Runs a command with DATABASE_URL pointing at a throw-away PostgreSQL (private socket, no TCP, nothing kept).
# usage: scripts/with-postgres.sh COMMAND [ARGUMENT…]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/postgres.sh"
bin=$(postgres_bin) || { echo "PostgreSQL's server programs are missing: scripts/setup.sh lint" >&2; exit 2; }

# /tmp and not TMPDIR: socket paths are short, and another user must be able to pass through.
work=$(mktemp -d /tmp/lumbung-pg.XXXXXX)
server=
finish() {
  if [ -n "$server" ]; then
    kill -INT "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

as=()
if [ "$(id -u)" = 0 ]; then # PostgreSQL refuses root
  user=postgres
  id -u "$user" >/dev/null 2>&1 || user=nobody
  chown "$user" "$work"
  as=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups)
fi
run() { (cd / && exec "${as[@]}" "$@"); }
run "$bin/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$work.log" 2>&1 || {
  cat "$work.log" >&2
  rm -f "$work.log"
  exit 1
}
# No function here: $! must be the server itself.
(cd / && exec "${as[@]}" "$bin/postgres" -D "$work/data" -k "$work" -c listen_addresses= -c fsync=off) >"$work.log" 2>&1 &
server=$!
psql=(psql -X -q -h "$work" -p 5432 -U postgres -v ON_ERROR_STOP=1)
until "${psql[@]}" -d postgres -c 'create database lumbung' 2>/dev/null; do
  if ! kill -0 "$server" 2>/dev/null; then
    cat "$work.log" >&2
    rm -f "$work.log"
    exit 1
  fi
  sleep 0.1
done
rm -f "$work.log"
DATABASE_URL="postgres://postgres@localhost:5432/lumbung?host=${work//\//%2F}" "$@"
