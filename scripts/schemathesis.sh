#!/usr/bin/env bash
# The running cloud against its own OpenAPI document, with drawn requests: as nobody, then as an admin.
#   usage: scripts/schemathesis.sh CASES SEED     (about so many fuzzed requests in each of the two runs)
# Schemathesis is installed once into .tools/, pinned by tests/schemathesis/requirements.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cases=${1:-2000} seed=${2:-7}
tool=.tools/schemathesis
if ! cmp -s tests/schemathesis/requirements.txt "$tool/requirements.txt"; then
  rm -rf "$tool"
  python3.11 -m venv "$tool" || { echo "Needs Python 3.11 with venv, Debian's python3-venv: scripts/setup.sh schemathesis" >&2; exit 2; }
  "$tool/bin/pip" install --quiet --require-hashes --requirement tests/schemathesis/requirements.txt
  cp tests/schemathesis/requirements.txt "$tool/"
fi

place=$(mktemp -d)
# The embedded PostgreSQL does not run as root and must get through.
chmod 755 "$place"
cloud=${CARGO_TARGET_DIR:-target}/debug/lumbung-cloud
port=$("$tool/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
base=http://127.0.0.1:$port
export LUMBUNG_CLOUD__DATA_DIR=$place/data LUMBUNG_CLOUD__HTTP__LISTEN=127.0.0.1:$port
for kind in SIGN_IN REGISTER ENROL READ WRITE UPLOAD EXPENSIVE REFUSED; do
  # What is tested here are the answers, not the limits.
  export "LUMBUNG_CLOUD__LIMITS__$kind=1000000/1m"
done
"$cloud" serve >"$place/cloud.log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; rm -rf "$place"' EXIT
for _ in $(seq 300); do
  kill -0 "$pid" 2>/dev/null || { cat "$place/cloud.log" >&2; exit 1; }
  curl -sf "$base/readyz" >/dev/null && break
  sleep 0.2
done
password=$("$cloud" user add --email admin@example.com --role admin --json 2>/dev/null |
  "$tool/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["password"])')
token=$(printf '{"email":"admin@example.com","password":"%s"}' "$password" |
  curl -sf "$base/api/auth/login" -H 'content-type: application/json' --data @- |
  "$tool/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["token"])')
operations=$(curl -sf "$base/openapi.json" |
  "$tool/bin/python" -c 'import json, sys; print(sum(len(item) for item in json.load(sys.stdin)["paths"].values()))')

# Not checked: positive_data_acceptance, because rules such as "a password is not one of the most used" or "an id
# of yours" cannot be said in a schema; negative_data_rejection, because JSON arrays are read as an object's members in
# order, and members that nobody knows are passed over. Left out: /api/live, an answer without an end.
run() {
  "$tool/bin/schemathesis" run "$base/openapi.json" --checks all \
    --exclude-checks positive_data_acceptance,negative_data_rejection --exclude-path /api/live \
    --max-examples $((cases / operations + 1)) --seed "$seed" --no-shrink --continue-on-failure \
    --request-timeout 20 --generation-database none --warnings off "$@"
}
# Who shows nothing: /dev/outbox tells strangers that it is not there, which the contract's stories hold it to.
run --exclude-path /dev/outbox
# Who may read all. What would end this very session or change its password is left to the stories.
run --header "Authorization: Bearer $token" --exclude-path /dev/outbox --exclude-path /api/auth/logout \
  --exclude-path '/api/auth/sessions/{id}' --exclude-path /api/auth/change-password
