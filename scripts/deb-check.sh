#!/usr/bin/env bash
# Installs a package in a fresh Debian 12, looks at what it did, removes and purges it. Needs root and debootstrap.
# usage: scripts/deb-check.sh lumbung-gateway_*_amd64.deb
set -euo pipefail
package=$(readlink -f "${1:?the package to try}")
if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
  echo "The package is NOT checked: this needs root and debootstrap" >&2
  exit 2
fi
root=$(mktemp -d /tmp/lumbung-deb.XXXXXX)
# Other users live in there.
chmod 755 "$root"
running=
finish() {
  [ -z "$running" ] || kill "$running" 2>/dev/null || true
  umount -l "$root/proc" 2>/dev/null || true
  rm -rf --one-file-system "$root"
}
trap finish EXIT
trap 'exit 130' INT TERM

uri=$(grep -rhoE '^(URIs: |deb )[^#]*' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | grep -oE 'https?://\S+/debian/?( |$)' | head -n 1 || true)
echo "A fresh Debian 12 in $root"
debootstrap --variant=minbase --include=systemd bookworm "$root" "${uri:-http://deb.debian.org/debian}" >"$root.log" 2>&1 || {
  tail "$root.log" >&2
  exit 1
}
rm -f "$root.log"
mount -t proc proc "$root/proc"
cp "$package" "$root/tmp/package.deb"
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
same() { # WHAT EXPECTED FOUND
  [ "$2" = "$3" ] || fail "$1: expected $2, found $3"
  echo "ok: $1: $3"
}
name=$(dpkg-deb -f "$package" Package)
dir=/var/lib/$name

inside dpkg -i /tmp/package.deb
[ "$(inside "$name" --version)" = "$name $(dpkg-deb -f "$package" Version | sed 's/-.*//')" ] || fail "--version"
same "the state directory" "lumbung:lumbung 700" "$(inside stat -c '%U:%G %a' "$dir")"
same "the configuration" "root:root 644" "$(inside stat -c '%U:%G %a' "/etc/lumbung/${name#lumbung-}.toml")"
[ "$name" != lumbung-cloud ] || same "the folder of secrets" "root:lumbung 750" "$(inside stat -c '%U:%G %a' /etc/lumbung/credentials)"
same "the user's shell" "/usr/sbin/nologin" "$(inside getent passwd lumbung | cut -d: -f7)"
same "the unit starts with the machine" enabled "$(inside systemctl is-enabled "$name")"
inside systemd-analyze verify --man=no "/lib/systemd/system/$name.service" || fail "the unit"
inside "$name" --config "/etc/lumbung/${name#lumbung-}.toml" config >/dev/null || fail "config"

if [ "$name" = lumbung-gateway ]; then
  for group in dialout spi i2c gpio; do inside getent group "$group" >/dev/null || fail "there is no group $group"; done
  echo "ok: the groups of the buses"
  port=5999
  run_gateway() {
    (exec chroot "$root" env -i PATH=/usr/bin LUMBUNG_GATEWAY__HTTP__LISTEN=127.0.0.1:$port setpriv --reuid=lumbung --regid=lumbung \
      --clear-groups "$name" --config /etc/lumbung/gateway.toml run 2>"$root/tmp/log") &
    running=$!
    for _ in $(seq 100); do
      ! curl -fsS http://127.0.0.1:$port/livez >/dev/null 2>&1 || return 0
      sleep 0.2
    done
    fail "it does not answer: $(cat "$root/tmp/log")"
  }
  stop_gateway() {
    kill -TERM "$running"
    wait "$running" || fail "it did not stop in order: $(cat "$root/tmp/log")"
    running=
  }
  run_gateway
  curl -fsS -X POST http://127.0.0.1:$port/api/log_scan -H 'Content-Type: application/json' \
    -d '{"nfc_tag_id":"NFC_TAG_ALPHA","status_scan":"makanan_keluar"}' >/dev/null || fail "no scan is taken"
  stop_gateway
  echo "ok: it runs as its user and keeps a scan"
  inside dpkg --purge "$name" 2>&1 | tee "$root/tmp/said"
  grep -q "NOT deleted: 1 records" "$root/tmp/said" || fail "a purge with an unsent scan does not say so"
  [ -e "$root$dir/local_gateway.db" ] || fail "a purge deleted an unsent scan"
  echo "ok: a purge leaves what was never sent"
  rm -rf "${root:?}$dir"
  inside dpkg -i /tmp/package.deb >/dev/null
  run_gateway
  stop_gateway
fi

inside dpkg --purge "$name"
[ ! -e "$root$dir" ] || fail "$dir is still there"
[ ! -e "$root/etc/lumbung" ] || fail "/etc/lumbung is still there"
left=$(find "$root/usr" "$root/lib" "$root/etc" -name "*$name*" | grep -v deb-systemd || true)
same "files left behind" "" "$left"
echo "$name: installs, runs, and goes without a trace"
