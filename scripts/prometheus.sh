# shellcheck shell=bash
# Sourced: Prometheus and promtool for the tests. Debian's package is unpacked into .tools/ and not installed: that would
# start a service on people's machines.

# Makes sure they are on PATH or in .tools/prometheus/, else says that the tests of deploy/prometheus will be left out.
prometheus_tools() {
  local arch dir=.tools/prometheus
  if command -v promtool >/dev/null && command -v prometheus >/dev/null; then return 0; fi
  [ ! -x "$dir/usr/bin/promtool" ] || return 0
  if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    local tmp
    tmp=$(mktemp -d)
    chmod 755 "$tmp"
    arch=$(dpkg --print-architecture)
    if { (cd "$tmp" && apt-get -qq download "prometheus:$arch") ||
      { [ "$(id -u)" = 0 ] && apt-get -qq update && (cd "$tmp" && apt-get -qq download "prometheus:$arch"); }; } \
      >/dev/null 2>&1; then
      rm -rf "$dir" && mkdir -p "$dir" && dpkg-deb -x "$tmp"/prometheus_*.deb "$dir"
    fi
    rm -rf "$tmp"
  fi
  [ -x "$dir/usr/bin/promtool" ] ||
    echo "Prometheus is not here (Debian's package prometheus): alert rules and dashboards will NOT be checked" >&2
}
