#!/usr/bin/env bash
# The running cloud against its own OpenAPI document: all checks of schemathesis, with requests drawn from the document
# and in chains (stateful), as nobody, as a user, as an operator and as an admin, each with a gateway's key at hand.
#   usage: scripts/schemathesis.sh CASES SEED     (about so many drawn requests of each of them, beside what is
#                                                  tried of every endpoint anyhow)
# Schemathesis is installed once into .tools/, pinned by tests/schemathesis/requirements.txt. What is left out stands,
# with why, in tests/schemathesis/schemathesis.toml; what a schema cannot say, in hooks.py beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cases=${1:-2000} seed=${2:-7}
tool=$PWD/.tools/schemathesis config=$PWD/tests/schemathesis/schemathesis.toml
if ! cmp -s tests/schemathesis/requirements.txt "$tool/requirements.txt"; then
  rm -rf "$tool"
  python3.11 -m venv "$tool" || { echo "Needs Python 3.11 with venv, Debian's python3-venv: scripts/setup.sh schemathesis" >&2; exit 2; }
  "$tool/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
    --requirement tests/schemathesis/requirements.txt || {
    echo "schemathesis could not be installed, so the cloud was NOT held against its document: pip said why above." >&2
    exit 2
  }
  cp tests/schemathesis/requirements.txt "$tool/"
fi

place=$(mktemp -d)
# The embedded PostgreSQL does not run as root and must get through.
chmod 755 "$place"
cloud=$PWD/${CARGO_TARGET_DIR:-target}/debug/lumbung-cloud
[ -z "${CARGO_TARGET_DIR:-}" ] || cloud=$CARGO_TARGET_DIR/debug/lumbung-cloud
port=$("$tool/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
base=http://127.0.0.1:$port
export LUMBUNG_CLOUD__DATA_DIR=$place/data LUMBUNG_CLOUD__HTTP__LISTEN=127.0.0.1:$port
for kind in SIGN_IN REGISTER ENROL READ WRITE UPLOAD PICTURE EXPENSIVE REFUSED; do
  # What is tested here are the answers, not the limits.
  export "LUMBUNG_CLOUD__LIMITS__$kind=1000000/1m"
done
# Text messages go to telephones that tell hooks.py what was sent to them.
"$tool/bin/python" tests/schemathesis/telephones.py >"$place/telephones" 2>&1 &
pids=($!)
trap 'kill "${pids[@]}" 2>/dev/null || true; wait "${pids[@]}" 2>/dev/null || true; rm -rf "$place"' EXIT
for _ in $(seq 100); do
  [ -s "$place/telephones" ] && break
  sleep 0.1
done
TELEPHONES=http://127.0.0.1:$(<"$place/telephones")
export TELEPHONES LUMBUNG_CLOUD__SMS__URL=$TELEPHONES LUMBUNG_CLOUD__SMS__DAILY=1000000
"$cloud" serve >"$place/cloud.log" 2>&1 &
pid=$!
pids+=("$pid")
for _ in $(seq 300); do
  kill -0 "$pid" 2>/dev/null || { cat "$place/cloud.log" >&2; exit 1; }
  curl -sf "$base/readyz" >/dev/null && break
  sleep 0.2
done

# What tests/schemathesis/hooks.py names.
"$cloud" programme add MBG 'Makan Bergizi Gratis' >/dev/null 2>&1
"$cloud" site add DAPUR-1 --programme MBG --name 'Dapur Satu' --kind kitchen --time-zone Asia/Jakarta >/dev/null 2>&1
member() { "$tool/bin/python" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
account() { # NAME ROLE: its password goes to $place/NAME
  "$cloud" user add --email "$1@warga.example" --role "$2" --json 2>/dev/null | member password >"$place/$1"
}
account user user
account operator user
account admin admin
"$cloud" user grant operator@warga.example operator --programme MBG >/dev/null 2>&1
claim=$("$cloud" gateway add GW-1 --site DAPUR-1 --json 2>/dev/null | member claim)
GATEWAY_KEY=lbg_$("$tool/bin/python" -c 'import secrets; print(secrets.token_urlsafe(32))')
export GATEWAY_KEY HOOKS=$PWD/tests/schemathesis/hooks.py
printf '{"claim":"%s","key":"%s"}' "$claim" "$GATEWAY_KEY" |
  curl -sf "$base/api/gateways/enrol" -H 'content-type: application/json' --data @- >/dev/null
# With what it shows that a signing key is its own: a signature over its bearer key (lumbung_shared::signing).
base64url() { basenc --base64url --wrap=0 | tr -d =; }
openssl genpkey -algorithm ed25519 -out "$place/signing.pem"
printf 'lumbung possession 1\n%s' "$GATEWAY_KEY" >"$place/possession"
SIGNING_KEY=$(openssl pkey -in "$place/signing.pem" -pubout -outform DER | tail -c 32 | base64url)
PROOF=$(openssl pkeyutl -sign -rawin -inkey "$place/signing.pem" -in "$place/possession" | base64url)
export SIGNING_KEY PROOF
operations=$(curl -sf "$base/openapi.json" |
  "$tool/bin/python" -c 'import json, sys; print(sum(len(item) for item in json.load(sys.stdin)["paths"].values()))')

# Requests that build on each other's answers need more tries than there are ways to begin.
{ cat "$config"; printf '\n[phases.stateful.generation]\nmax-examples = %s\n' $((cases / 10 + 1)); } >"$place/somebody.toml"
# Who shows nothing at all.
sed '/^\[auth/,/^$/d' "$place/somebody.toml" >"$place/nobody.toml"
drawn=0 failed=()
cd "$place"
# The admin comes last, for an admin may shut the others' accounts.
for who in nobody user operator admin; do
  export EMAIL=$who@warga.example PASSWORD=
  [ "$who" = nobody ] || PASSWORD=$(<"$place/$who")
  [ "$who" = nobody ] && with=$place/nobody.toml || with=$place/somebody.toml
  began=$SECONDS
  "$tool/bin/schemathesis" --no-color --config-file "$with" run "$base/openapi.json" \
    --max-examples $((cases / operations + 1)) --seed "$seed" >"$place/$who.log" 2>&1 || failed+=("$who")
  of=$(sed -n 's/^ *\([0-9]*\) generated,.*/\1/p' "$place/$who.log")
  echo "schemathesis as $who: ${of:-no} requests in $((SECONDS - began)) s"
  drawn=$((drawn + ${of:-0}))
  case " ${failed[*]} " in *" $who "*) cat "$place/$who.log" ;; esac
done
# A run that could not draw is no proof.
if [ ${#failed[@]} = 0 ] && [ "$drawn" -lt 1000 ]; then failed+=("too few requests"); fi
if [ ${#failed[@]} -gt 0 ]; then
  echo "schemathesis: $drawn requests; FAILED: ${failed[*]} (above), seed $seed" >&2
  exit 1
fi
echo "schemathesis: $drawn requests, no failures, seed $seed"
