#!/usr/bin/env bash
# A whole Raspberry Pi 3, emulated: Debian's arm64 kernel, a temperature sensor on I2C, and the Pi's own gateway
# (target/packages/arm64, from `make pi`) that enrols at a cloud on this machine and reports to it until it is ended.
#   scripts/pi-emulated.sh CLOUD_PORT CLAIM QMP_SOCKET      (`make pi-emulated` does that for you)
# Through the socket QEMU is told how warm it is.
# What it needs (QEMU 10, a kernel, busybox: 170 MB) is unpacked into .tools/pi-emulated/, nothing is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
port=$1 claim=$2 qmp=$3
tools=$PWD/.tools/pi-emulated
program=$PWD/${CARGO_TARGET_DIR:-target}/packages/arm64/lumbung-gateway
libraries=/usr/aarch64-linux-gnu/lib
[ -x "$program" ] && [ -d "$libraries" ] || {
  echo "First: make pi" >&2
  exit 2
}

# Packages of Debian 12 and its backports, by an apt of its own, which the machine's does not notice.
fetch() {
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg kernel package
  rm -rf "$tools"
  mkdir -p "$tools"/apt/{state/lists/partial,cache/archives/partial} "$tools"/{qemu,pi,debs}
  printf 'deb [signed-by=%s] http://deb.debian.org/debian %s main\n' $keys bookworm $keys bookworm-backports >"$tools/apt/sources"
  cat >"$tools/apt/conf" <<CONF
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Dir::State "$tools/apt/state";
Dir::State::status "/dev/null";
Dir::Cache "$tools/apt/cache";
Dir::Etc::sourcelist "$tools/apt/sources";
Dir::Etc::sourceparts "-";
CONF
  export APT_CONFIG=$tools/apt/conf
  echo "Fetching QEMU and a kernel into .tools/pi-emulated"
  apt-get -qq update
  apt-get -qq install -y --download-only --no-install-recommends -t bookworm-backports \
    qemu-system-arm cpio >"$tools/log"
  for package in "$tools"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$tools/qemu"; done
  kernel=$(apt-cache show linux-image-arm64:arm64 | sed -n 's/^Depends: \(linux-image-6\.12[^ ,]*\).*/\1/p' | head -n 1)
  (cd "$tools/debs" && apt-get -qq download "$kernel:arm64" busybox-static:arm64)
  for package in "$tools"/debs/*.deb; do dpkg-deb -x "$package" "$tools/pi"; done
  rm -rf "$tools"/debs "$tools"/apt
  unset APT_CONFIG
  touch "$tools/whole"
}
[ -e "$tools/whole" ] || fetch

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,lib,modules,etc/lumbung}
cp "$tools/pi/bin/busybox" "$program" "$root/bin/"
cp -L "$libraries"/{ld-linux-aarch64.so.1,libc.so.6,libm.so.6,libgcc_s.so.1} "$root/lib/"

# A module after those it needs, unpacked, in the order in which the Pi loads them.
count=100
load() {
  local file
  file=$(find "$tools/pi/lib/modules" -name "${1//[-_]/[-_]}.ko.xz")
  [ -n "$file" ] && ! ls "$root/modules"/*-"$1.ko" >/dev/null 2>&1 || return 0
  xz -dc "$file" >"$work/$1.ko"
  local needed
  for needed in $(tr '\0' '\n' <"$work/$1.ko" | sed -n 's/^depends=//p' | tr ',' ' '); do load "$needed"; done
  count=$((count + 1))
  mv "$work/$1.ko" "$root/modules/$count-$1.ko"
}
for module in i2c-dev i2c-bcm2835 phy-generic dwc2 cdc_ether rndis_host; do load "$module"; done

cat >"$root/etc/lumbung/gateway.toml" <<CONF
data_dir = "/tmp/gateway"
[[sensor]]
name = "kulkas-1"
kind = "tmp105"
address = "i2c:/dev/i2c-1@0x48"
every = "2s"
CONF
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin LD_LIBRARY_PATH=/lib
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mkdir /tmp/gateway
for module in /modules/*; do insmod \$module; done
ip link set lo up
for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  device=\$(ls /sys/class/net | grep -v lo | head -n 1)
  [ -n "\$device" ] && [ -e /dev/i2c-1 ] && break
  sleep 1
done
ip link set \$device up; ip addr add 10.0.2.15/24 dev \$device; ip route add default via 10.0.2.2
echo "PI: \$(uname -r), i2c: \$(echo /dev/i2c-*), net: \$device"
gateway="lumbung-gateway --config /etc/lumbung/gateway.toml --lang en"
for attempt in 1 2 3 4 5; do \$gateway enrol --cloud http://10.0.2.2:$port --claim $claim && break; sleep 1; done
\$gateway run
echo "PI: the gateway has ended"
poweroff -f
INIT
chmod +x "$root/init"
# Debian's own loader and libraries, so that these run on any amd64 machine.
debian() {
  exec setpriv --pdeathsig KILL "$tools/qemu/lib64/ld-linux-x86-64.so.2" --library-path "$tools/qemu/usr/lib/x86_64-linux-gnu:$tools/qemu/lib/x86_64-linux-gnu" \
    "$tools/qemu/$1" "${@:2}"
}
(cd "$root" && find . | (debian bin/cpio -o -H newc --quiet)) | gzip -1 >"$work/initramfs"
# It ends with this script, however that ends.
debian usr/bin/qemu-system-aarch64 -M raspi3b -L "$tools/qemu/usr/share/qemu" -nographic -monitor none -no-reboot \
  -kernel "$tools"/pi/boot/vmlinuz-* -initrd "$work/initramfs" \
  -dtb "$(find "$tools/pi/usr/lib" -name bcm2837-rpi-3-b.dtb)" -append "console=ttyS1,115200 panic=-1 quiet" \
  -serial null -serial stdio -qmp "unix:$qmp,server=on,wait=off" \
  -device tmp105,bus=i2c-bus.1,address=0x48,id=kulkas \
  -netdev user,id=net -device usb-net,netdev=net </dev/null &
qemu=$!
trap 'kill $qemu 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 143' INT TERM
wait $qemu
