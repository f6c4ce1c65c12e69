#!/usr/bin/env bash
# Gives the installed rustc the std of a musl target, as `rustup target add` would, from source and without rustup.
# usage: cross-std.sh TARGET SYSROOT LIBRARY_DIR    (LIBRARY_DIR: rust's `library/` of exactly this rustc's version)
set -euo pipefail

target=$1 sysroot=$2 library=$3
to=$sysroot/lib/rustlib/$target/lib
[ -e "$to/.done" ] && exit 0

# The sysroot manifest is built, not a crate of our own that depends on std: only that workspace's profile makes
# panic_abort with the panic strategy that a later `panic = "abort"` looks for.
export RUSTC=$sysroot/bin/rustc RUSTC_BOOTSTRAP=1 __CARGO_DEFAULT_LIB_METADATA=bramble
export RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes" CARGO_PROFILE_RELEASE_DEBUG=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$sysroot/bin/cargo" build --quiet --locked --release --manifest-path "$library/sysroot/Cargo.toml" \
    --target "$target" --features panic-unwind,backtrace --target-dir "$work"

mkdir -p "$to/self-contained"
cp "$work/$target/release/deps/"*.rlib "$to/"
rm -f "$to"/libsysroot-*.rlib
# rustc names these start files on the linker's command line; cargo-zigbuild drops the names and uses zig's own, but
# rustc wants the files to be there.
for object in crt1 crti crtn crtbegin crtend rcrt1 Scrt1 crtbeginS crtendS; do
    : >"$to/self-contained/$object.o"
done
touch "$to/.done"
