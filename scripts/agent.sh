#!/usr/bin/env bash
# Builds the agent, static, for the machines: target/agent/ARCH/bramble-node.
# usage: agent.sh [amd64|arm64|all]        (default: all)
#
# Needs cargo by rustup or otherwise, Python 3 and zstd; installs the rest below ~/.cache/bramble/tools:
# zig as linker and C compiler for both architectures, and the std of the musl targets.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=$PWD/target # where these scripts look for what is built

zig_version=0.17.0 zigbuild_version=0.24.0 rust_version=1.95.0
tools=${XDG_CACHE_HOME:-$HOME/.cache}/bramble/tools
venv=$tools/zig-$zig_version-$zigbuild_version

die() {
    echo "agent.sh: $1" >&2
    [ $# -lt 2 ] || echo "  try: $2" >&2
    exit 1
}

case ${1:-all} in
amd64 | arm64) archs=$1 ;;
all) archs="amd64 arm64" ;;
*) die "unknown architecture '$1'" "scripts/agent.sh [amd64|arm64|all]" ;;
esac
command -v cargo >/dev/null || die "cargo is not installed" "https://rustup.rs, then run this again"

# Two builds at once must not both install; the lock also makes the second one find everything ready.
mkdir -p "$tools"
exec 9>"$tools/agent.lock"
flock 9

# Debian's Python comes without venv; root (a CI machine) just gets it.
need_package() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1" >/dev/null \
            || die "cannot install $1" "apt-get update && apt-get install $1"
    else
        die "$1 is not installed" "sudo apt-get install $1"
    fi
}

if [ ! -e "$venv/.done" ]; then
    echo "agent.sh: installing zig $zig_version (80 MB, once)" >&2
    command -v python3 >/dev/null || need_package python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_package python3-venv
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "ziglang==$zig_version" "cargo-zigbuild==$zigbuild_version"
    touch "$venv/.done"
fi

# rustup where it works; else the std is built from the source that lies in the repository.
ensure_std() {
    local target=$1 sysroot library
    sysroot=$(rustc --print sysroot)
    compgen -G "$sysroot/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null && return 0
    if command -v rustup >/dev/null && timeout 180 rustup --quiet target add "$target" >/dev/null 2>&1; then
        return 0
    fi
    [ "$(rustc --version | cut -d' ' -f2)" = "$rust_version" ] \
        || die "no std for $target, and its source here is for rustc $rust_version" "rustup target add $target"
    echo "agent.sh: building std for $target (70 CPU seconds, once)" >&2
    command -v zstd >/dev/null || need_package zstd
    library=$(mktemp -d)
    tar --zstd -xf "dist/toolchain/rust-std-source-$rust_version.tar.zst" -C "$library"
    scripts/cross-std.sh "$target" "$sysroot" "$library/library"
    rm -rf "$library"
}

export ZIG_GLOBAL_CACHE_DIR=$tools/zig-cache
export PATH=$venv/bin:$PATH
for arch in $archs; do
    case $arch in
    amd64) target=x86_64-unknown-linux-musl ;;
    arm64) target=aarch64-unknown-linux-musl ;;
    esac
    ensure_std "$target"
    cargo zigbuild --quiet --locked --profile agent --package bramble-node --target "$target"
    # A file whose bytes did not change keeps its time, so that whoever packs it sees nothing new.
    mkdir -p "target/agent/$arch"
    built=target/$target/agent/bramble-node place=target/agent/$arch/bramble-node
    cmp -s "$built" "$place" || { cp "$built" "$place.new" && mv "$place.new" "$place"; }
done
