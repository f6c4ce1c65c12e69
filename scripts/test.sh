#!/usr/bin/env bash
# Everything that must hold, the quick things first: format, layers, lints, tests of every crate, generated files,
# then machines that boot. The first failure ends it.
#   usage: scripts/test.sh [--no-boot]
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=$PWD/target # where these scripts look for what is built
began=$SECONDS
say() { printf '\n== %s  (%d s)\n' "$*" $((SECONDS - began)); }

say "what this computer needs"
bash scripts/setup.sh test

say "format"
cargo fmt --all --check

say "layers"
cargo xtask check-layers

say "lints"
cargo clippy --quiet --workspace --all-targets -- -D warnings

say "tests of every crate"
cargo test --quiet --workspace

say "generated files"
cargo xtask generate --check

if [ "${1:-}" = --no-boot ]; then
  echo "boot tests: skipped, --no-boot was given"
  exit 0
fi

say "the tool and the agent"
bash scripts/agent.sh amd64
cargo build --release --quiet --package bramble

say "what a build may do and must give"
bash scripts/build-test.sh amd64

say "machines that boot"
bash scripts/boot-test.sh cuts sqlite update
say "all passed"
