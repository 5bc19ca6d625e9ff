# shellcheck shell=bash
# Sourced: installing packages on Debian and Ubuntu, where we may.

# apt_install PACKAGE…: installs them, or says what is missing and exits 2.
apt_install() {
  local as_root=() log
  if ! command -v apt-get >/dev/null; then
    echo "Missing here (named as Debian names the packages): $*" >&2
    echo "Install what your system calls them, then run this again." >&2
    exit 2
  fi
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      echo "Missing: $*. Installing needs root; let root run this once, then make again:" >&2
      echo "  apt-get update && apt-get install -y --no-install-recommends $*" >&2
      exit 2
    fi
    as_root=(sudo -n)
  fi
  echo "Installing: $*"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get -qq update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq \
    -o Dpkg::Use-Pty=0 install -y --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    echo "Installing failed (above). By hand: apt-get update && apt-get install -y --no-install-recommends $*" >&2
    exit 2
  fi
  rm -f "$log"
}
