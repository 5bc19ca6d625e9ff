#!/usr/bin/env bash
# The checked queries' cache (.sqlx/), which lets a build do without a database.
#   scripts/sqlx.sh prepare   make it anew from the migrations and the code
#   scripts/sqlx.sh check     fail when it is not what prepare would make
# sqlx-cli is not needed: with SQLX_OFFLINE_DIR set, the query macros themselves write what they learnt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=${1:-}
case $mode in
prepare | check) exec scripts/with-postgres.sh scripts/sqlx.sh "inside-$mode" ;;
inside-prepare | inside-check) mode=${mode#inside-} ;;
*)
  sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac

psql=(psql -X -q -d "$DATABASE_URL" -v ON_ERROR_STOP=1)
for migration in crates/cloud/migrations/*.sql; do
  transaction=(--single-transaction)
  [ "$(head -n 1 "$migration")" != '-- no-transaction' ] || transaction=()
  PGOPTIONS='-c client_min_messages=warning' "${psql[@]}" "${transaction[@]}" -f "$migration"
done
major=$("${psql[@]}" -At -c "select current_setting('server_version_num')::int / 10000")

fresh=$(mktemp -d)
touched=
# The macros run only when the crate is compiled, so it is made to look changed, and its time is put back
# (unless somebody edited it meanwhile) so that ordinary builds stay fresh.
source=crates/cloud/src/lib.rs
finish() {
  [ -z "$touched" ] || [ "$(stat -c %Y "$source")" != "$touched" ] || touch -c -r "$fresh/time" "$source"
  rm -rf "$fresh"
}
trap finish EXIT
trap 'exit 130' INT TERM
mkdir "$fresh/sqlx"
touch -r "$source" "$fresh/time"
touch -c "$source"
touched=$(stat -c %Y "$source")
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh/sqlx" scripts/cargo check --quiet -p lumbung-cloud --all-targets
# What CI has. Another version may judge some columns' nullability differently.
reference=15

count=$(find "$fresh/sqlx" -name 'query-*.json' | wc -l)
if [ "$mode" = prepare ]; then
  mkdir -p .sqlx
  find .sqlx -name 'query-*.json' -delete
  find "$fresh/sqlx" -name 'query-*.json' -exec cp -t .sqlx {} +
  echo ".sqlx: $count checked queries, made with PostgreSQL $major"
  [ "$major" = "$reference" ] || echo "CI compares with PostgreSQL $reference: look at the difference before you commit" >&2
  exit 0
fi
if [ "$major" = "$reference" ]; then
  same() { diff -rq .sqlx "$fresh/sqlx"; }
else
  echo "PostgreSQL $major here, $reference in CI: only the set of queries is compared"
  same() { diff <(cd .sqlx && ls query-*.json) <(cd "$fresh/sqlx" && ls query-*.json); }
fi
if ! same; then
  echo ".sqlx is out of date (above): run \`make sqlx\` and commit it" >&2
  exit 1
fi
echo ".sqlx is up to date: $count checked queries"
