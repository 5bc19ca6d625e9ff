#!/usr/bin/env bash
# Installs what is missing on Debian or Ubuntu; anywhere else, or without the right to install, says exactly
# what is missing and exits 2.      usage: scripts/setup.sh run|test|lint|schemathesis
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/postgres.sh
. scripts/apt.sh
. scripts/prometheus.sh
purpose=${1:-run}

scripts/cargo --version >/dev/null

packages=() # without these nothing works
handy=()    # the README's things to try; installed along when we may, never a reason to stop
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# SQLite, zstd and ring compile C: a compiler without its headers does not count.
if ! printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | cc -x c -o "$tmp/c" - 2>/dev/null; then
  packages+=(gcc libc6-dev)
fi
postgres_bin >/dev/null || packages+=(postgresql)
command -v setpriv >/dev/null || packages+=(util-linux)
if [ "$purpose" = test ]; then
  for program in strace faketime sqlite3; do
    command -v "$program" >/dev/null || packages+=("$program")
  done
  # Debian keeps servers in /usr/sbin, which a user's PATH may not have.
  PATH="$PATH:/usr/sbin" command -v mosquitto >/dev/null || packages+=(mosquitto)
  PATH="$PATH:/usr/sbin" command -v nginx >/dev/null || packages+=(nginx-light)
  # A real mail server; it belongs to the distribution's own Python.
  /usr/bin/python3 -c 'import aiosmtpd' 2>/dev/null || packages+=(python3-aiosmtpd)
  # Judges our units; it need not be what starts this machine.
  command -v systemd-analyze >/dev/null || packages+=(systemd)
fi
# Debian's Python comes without what makes a place of its own for packages.
if [[ "$purpose" = @(test|schemathesis) ]] && ! python3.11 -c 'import venv, ensurepip' 2>/dev/null; then
  packages+=(python3-venv)
fi
if [[ "$purpose" = @(test|schemathesis) ]] && ! command -v openssl >/dev/null; then
  packages+=(openssl)
fi
# The server's package brings the client along.
if [ "$purpose" != run ] && ! command -v psql >/dev/null && postgres_bin >/dev/null; then
  packages+=(postgresql-client)
fi
for program in curl sqlite3; do
  command -v "$program" >/dev/null || [[ " ${packages[*]} " == *" $program "* ]] || handy+=("$program")
done
if [ "$purpose" = test ]; then prometheus_tools; fi
[ ${#packages[@]} -gt 0 ] || [ ${#handy[@]} -gt 0 ] || exit 0
may_install() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
if [ ${#packages[@]} = 0 ] && ! { command -v apt-get >/dev/null && may_install; }; then
  echo "Handy, but not needed: ${handy[*]}" >&2
  exit 0
fi
packages+=("${handy[@]}")

apt_install "${packages[@]}"
