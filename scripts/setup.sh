#!/usr/bin/env bash
# Installs what this repository needs on Debian or Ubuntu: a C compiler, QEMU, Go and Rust.
# Asks before it installs, unless it runs as root or in CI. Does nothing when nothing is missing.
#   usage: scripts/setup.sh [demo|test]
set -euo pipefail
purpose=${1:-demo}

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need cc gcc
need curl curl
need python3 python3
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
need qemu-system-x86_64 qemu-system-x86
need qemu-img qemu-utils
need xz xz-utils
need ssh openssh-client
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
if [ "$purpose" = test ]; then
  # Machines of the Pi and arm64 tests.
  need qemu-system-aarch64 qemu-system-arm
  # Judges of what we write: other people's readers of our formats.
  need mkfs.erofs erofs-utils
  need veritysetup cryptsetup-bin
  need fsck.vfat dosfstools
  need mcopy mtools
  need sgdisk gdisk
  need sfdisk fdisk
  need mkfs.ext4 e2fsprogs
  need depmod kmod
  need strace strace
  need faketime faketime
fi
if ! command -v cargo >/dev/null 2>&1; then missing+=(rustup); fi
if ! command -v go >/dev/null 2>&1; then missing+=(golang-go); fi

# Compiled tests, Kubernetes' build, images and disks of machines: a full disk would show as something else, an hour in.
room=$(df --output=avail -B1G . | tail -n 1)
if [ "$purpose" = test ] && [ "$room" -lt 20 ]; then
  echo "setup: $room GB are free here, the tests need 20" >&2
  exit 1
fi

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: please install: ${missing[*]} (this script knows apt only)" >&2
    exit 1
  fi
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    as_root=(sudo)
    if [ -z "${CI:-}" ]; then
      read -r -p "setup: install ${missing[*]} with apt? [y/N] " answer
      [ "$answer" = y ] || [ "$answer" = Y ] || { echo "setup: nothing installed" >&2; exit 1; }
    fi
  fi
  echo "setup: installing ${missing[*]}"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -q && DEBIAN_FRONTEND=noninteractive "${as_root[@]}" \
    apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    exit 1
  fi
  rm -f "$log"
fi

# rustup installs the version that rust-toolchain.toml names at the first use of cargo; Go, from 1.21 on, fetches the
# compiler that the programs are built with by itself.
cargo --version >/dev/null || { echo "setup: no usable cargo; run 'rustup toolchain install'" >&2; exit 1; }
go version >/dev/null
