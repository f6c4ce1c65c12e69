#!/usr/bin/env bash
# What Talos' own code says of our configs: builds the judges (Go, around Talos' machinery 1.13 and 1.14) and runs the
# conformance tests with them. Judges are kept in the cache; a second run builds nothing.
#   usage: scripts/conformance.sh [--judges-only] [ARGUMENTS OF THE TEST]
# Exit 0: everything was judged and passed, with the counts printed. Exit 2: nothing was judged, because there is no Go
# and nothing is in the cache. Anything else: something failed.
set -euo pipefail
cd "$(dirname "$0")/.."

# The compiler that the project's other Go programs are built with; a Go tool from 1.21 on fetches it by itself.
toolchain=$(sed -n 's/^pub(super) const TOOLCHAIN: &str = "\(.*\)";/\1/p' crates/bramble-kube/src/programs/go.rs)
sources=tests/conformance/talos-judge
key=$( (echo "$toolchain"; cat "$sources"/*.go "$sources"/*.mod "$sources"/*.sum) | sha256sum | cut -c1-16)
judges=${XDG_CACHE_HOME:-$HOME/.cache}/bramble/conformance/$key

build() { # build NAME FLAGS...
  local name=$1; shift
  [ -x "$judges/$name" ] && return
  echo "building $name (minutes, once)" >&2
  (cd "$sources" && GOTOOLCHAIN=$toolchain CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$judges/$name.new" "$@" .)
  mv "$judges/$name.new" "$judges/$name"
}

if [ ! -x "$judges/talos-judge-1.13" ] || [ ! -x "$judges/talos-judge-1.14" ]; then
  if ! command -v go >/dev/null; then
    echo "conformance: nothing was judged: no Go to build the judges with (scripts/setup.sh says how to get it)" >&2
    exit 2
  fi
  mkdir -p "$judges"
  build talos-judge-1.14
  build talos-judge-1.13 -tags talos113 -modfile=go113.mod
fi
if [ "${1:-}" = --judges-only ]; then
  echo "$judges"
  exit 0
fi
BRAMBLE_JUDGES=$judges cargo test --quiet -p bramble-talos --test conformance -- --ignored --nocapture "$@"
