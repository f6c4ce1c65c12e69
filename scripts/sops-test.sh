#!/usr/bin/env bash
# The real `sops` and ours on the same files, both ways: random documents with comments, every type, and every rule of
# partial encryption. Builds sops from its Go module where there is none.
#   usage: scripts/sops-test.sh [DOCUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
version=v3.13.3
tools=${XDG_CACHE_HOME:-$HOME/.cache}/bramble/tools
BRAMBLE_SOPS=${BRAMBLE_SOPS:-$(command -v sops || true)}
if [ -z "$BRAMBLE_SOPS" ]; then
  BRAMBLE_SOPS=$tools/sops-$version/sops
  if [ ! -x "$BRAMBLE_SOPS" ]; then
    echo "sops-test.sh: building sops $version from its Go module, once" >&2
    GOBIN=$tools/sops-$version go install "github.com/getsops/sops/v3/cmd/sops@$version"
  fi
fi
export BRAMBLE_SOPS BRAMBLE_SOPS_DOCUMENTS=${1:-500}
cargo test -q -p bramble-secrets --test real_sops -- --ignored
