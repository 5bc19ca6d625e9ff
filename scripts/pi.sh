#!/usr/bin/env bash
# Builds the gateway for Raspberry Pis, then packs it: target/packages/lumbung-gateway_*_{arm64,armhf}.deb
#   scripts/pi.sh [--no-deb] [aarch64] [armv7]      both when none is named
# aarch64 is for the 64-bit Raspberry Pi OS (Pi 3 and newer, Zero 2), armv7 for the 32-bit one (Pi 2 and newer).
#
# Ways to get there, the first that can be had; PI_ROUTE=cross|rustup|debian insists on one:
#   cross    cargo-cross with docker or podman, set up by cross.toml
#   rustup   this machine's Rust with the target's standard library, and Debian's cross compiler
#   debian   the same with the Rust that Debian builds for browsers, unpacked into .tools/ (amd64 Debian 12)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/apt.sh

deb=yes
targets=()
for argument in "$@"; do
  case $argument in
  --no-deb) deb= ;;
  aarch64) targets+=(aarch64-unknown-linux-gnu) ;;
  armv7) targets+=(armv7-unknown-linux-gnueabihf) ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
  esac
done
[ ${#targets[@]} -gt 0 ] || targets=(aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf)
out=${CARGO_TARGET_DIR:-target}

gnu_name() { # what GCC and Debian's cross packages call a target
  case $1 in
  aarch64-*) echo aarch64-linux-gnu ;;
  armv7-*) echo arm-linux-gnueabihf ;;
  esac
}
debian_name() {
  case $1 in
  aarch64-*) echo arm64 ;;
  armv7-*) echo armhf ;;
  esac
}

has_cross() {
  command -v cross >/dev/null && { docker info || podman info; } >/dev/null 2>&1
}

has_rustup_targets() {
  local target
  for target in "${targets[@]}"; do
    [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ] && continue
    command -v rustup >/dev/null || return 1
    echo "Fetching Rust's standard library for $target"
    timeout 600 rustup target add "$target" >"$out/packages/rustup.log" 2>&1 || return 1
  done
}

# SQLite, zstd and ring compile C for the Pi.
need_cross_compilers() {
  local target packages=()
  for target in "${targets[@]}"; do
    command -v "$(gnu_name "$target")-gcc" >/dev/null ||
      packages+=("gcc-$(gnu_name "$target")" "libc6-dev-$(debian_name "$target")-cross")
  done
  [ ${#packages[@]} = 0 ] || apt_install "${packages[@]}"
}

# The Rust of Debian's security archive comes with the standard library of every architecture. Its packages
# are only unpacked, through an apt of their own: the machine's package lists and architectures stay as they are.
debian_rust() {
  local root=$PWD/.tools/pi-rust apt list=() target package
  command -v apt-get >/dev/null && [ "$(dpkg --print-architecture)" = amd64 ] || {
    echo "The Debian route needs an amd64 Debian" >&2
    return 1
  }
  mkdir -p "$root"/apt/{etc,state/lists/partial,cache/archives/partial} "$root/debs"
  # _apt, apt's downloading user, does not come in here.
  cat >"$root/apt/apt.conf" <<CONF
APT::Architectures { "amd64"; "arm64"; "armhf"; };
APT::Sandbox::User "root";
Dir::State "$root/apt/state";
Dir::State::status "/dev/null";
Dir::Cache "$root/apt/cache";
CONF
  export APT_CONFIG=$root/apt/apt.conf
  [ -n "$(ls "$root/apt/state/lists/"*Packages* 2>/dev/null)" ] || apt-get -qq update
  while read -r package; do list+=("$package"); done < <(
    apt-cache depends --no-recommends --no-suggests rustc-web:amd64 | sed -n 's/.*Depends: \(lib\(std-rust-web\|llvm\)[^:]*\).*/\1:amd64/p' | sort -u
  )
  list+=(rustc-web:amd64)
  for target in "${targets[@]}"; do list+=("libstd-rust-web-dev:$(debian_name "$target")"); done
  if [ "$(cat "$root/unpacked" 2>/dev/null)" != "${list[*]}" ]; then
    echo "Fetching ${list[*]} into .tools/pi-rust"
    (cd "$root/debs" && apt-get -qq download "${list[@]}")
    for package in "$root"/debs/*.deb; do dpkg-deb -x "$package" "$root/root"; done
    rm -f "$root"/debs/*.deb
    echo "${list[*]}" >"$root/unpacked"
  fi
  unset APT_CONFIG
  cat >"$root/rustc" <<RUSTC
#!/bin/sh
LD_LIBRARY_PATH=$root/root/usr/lib:$root/root/usr/lib/x86_64-linux-gnu exec $root/root/usr/bin/rustc --sysroot $root/root/usr "\$@"
RUSTC
  chmod +x "$root/rustc"
  "$root/rustc" --version
  export RUSTC=$root/rustc
}

mkdir -p "$out/packages"
route=${PI_ROUTE:-}
if [ -z "$route" ]; then
  if has_cross; then
    route=cross
  elif has_rustup_targets; then
    route=rustup
  else
    echo "Neither cross (with docker or podman) nor rustup's targets can be had here:"
    [ ! -s "$out/packages/rustup.log" ] || tail -n 2 "$out/packages/rustup.log"
    route=debian
  fi
fi
echo "Building for the Pi by way of $route"
case $route in
cross)
  export CROSS_CONFIG=cross.toml
  cargo=cross
  ;;
rustup)
  has_rustup_targets || {
    echo "rustup has not all of: ${targets[*]} (rustup target add …)" >&2
    exit 2
  }
  need_cross_compilers
  cargo=scripts/cargo
  ;;
debian)
  need_cross_compilers
  debian_rust
  cargo=scripts/cargo
  # Another compiler's work is not mixed with this one's.
  export CARGO_TARGET_DIR=$out/pi-debian
  ;;
*)
  echo "PI_ROUTE=$route is none of cross, rustup and debian" >&2
  exit 2
  ;;
esac

for target in "${targets[@]}"; do
  gnu=$(gnu_name "$target")
  under=${target//-/_}
  if [ "$route" != cross ]; then
    export "CARGO_TARGET_${under^^}_LINKER=$gnu-gcc" "CC_$under=$gnu-gcc"
  fi
  "$cargo" build --locked --profile pi --target "$target" -p lumbung-gateway
  program=${CARGO_TARGET_DIR:-target}/$target/pi/lumbung-gateway
  place=$out/packages/$(debian_name "$target")
  install -D "$program" "$place/lumbung-gateway"
  glibc=$(grep -aoE 'GLIBC_2\.[0-9]+' "$place/lumbung-gateway" | sort -Vu | tail -n 1)
  echo "$place/lumbung-gateway: $(stat -c %s "$place/lumbung-gateway" | numfmt --to=si)B, needs ${glibc/_/ } or newer"
  [ -z "$deb" ] || scripts/deb.sh lumbung-gateway pi "$out/packages/" "$target"
done
