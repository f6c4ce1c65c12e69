#!/usr/bin/env bash
# What Talos' own code says of our configs and of our calls: builds the judges and the pretended machines (Go, around
# Talos' machinery 1.13 and 1.14) and runs the conformance tests with them. Judges are kept in the cache; a second run builds nothing.
#   usage: scripts/conformance.sh [--judges-only | --fakes-only] [ARGUMENTS OF THE TESTS]
# Exit 0: everything was judged and passed, with the counts printed. Exit 2: nothing was judged, because there is no Go
# and nothing is in the cache. Anything else: something failed.
set -euo pipefail
cd "$(dirname "$0")/.."

# The compiler that the project's other Go programs are built with; a Go tool from 1.21 on fetches it by itself.
toolchain=$(sed -n 's/^pub(super) const TOOLCHAIN: &str = "\(.*\)";/\1/p' crates/bramble-kube/src/programs/go.rs)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bramble/conformance

place() { # place PROGRAM: the directory of its builds, by what they are made from
  local sources=tests/conformance/$1
  echo "$cache/$( (echo "$toolchain"; cat "$sources"/*.go "$sources"/*.mod "$sources"/*.sum) | sha256sum | cut -c1-16)"
}
judges=$(place talos-judge)
fakes=$(place talos-fake)

build() { # build DIRECTORY PROGRAM RELEASE FLAGS...
  local directory=$1 program=$2 name=$2-$3; shift 3
  [ -x "$directory/$name" ] && return
  if ! command -v go >/dev/null; then
    echo "conformance: nothing was judged: no Go to build the judges with (scripts/setup.sh says how to get it)" >&2
    exit 2
  fi
  mkdir -p "$directory"
  echo "building $name (minutes, once)" >&2
  (cd "tests/conformance/$program" &&
    GOTOOLCHAIN=$toolchain CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$directory/$name.new" "$@" .)
  mv "$directory/$name.new" "$directory/$name"
}

for program in talos-judge talos-fake; do
  build "$(place $program)" $program 1.14
  build "$(place $program)" $program 1.13 -tags talos113 -modfile=go113.mod
done
if [ "${1:-}" = --judges-only ]; then
  echo "$judges"
  exit 0
fi
if [ "${1:-}" = --fakes-only ]; then
  echo "$fakes"
  exit 0
fi
export BRAMBLE_JUDGES=$judges BRAMBLE_TALOS_FAKES=$fakes
cargo test --quiet -p bramble-talos --test conformance --test machine -- --ignored --nocapture "$@"
cargo test --quiet -p bramble --test apply -- --ignored --nocapture "$@"
