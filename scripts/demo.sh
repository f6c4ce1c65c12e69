#!/usr/bin/env bash
# The main job, from a clean checkout to a pod's log line: builds the tool and the agent, builds the image of
# examples/lab-amd64, boots it in QEMU and shows the node and a pod.
#   usage: scripts/demo.sh [EXAMPLE]     (default: lab-amd64; lab-pair is a control plane and a worker)
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=$PWD/target # where these scripts look for what is built
example=${1:-lab-amd64}
began=$SECONDS
say() { printf '\n== %s  (%d s)\n' "$*" $((SECONDS - began)); }

say "what this computer needs"
bash scripts/setup.sh demo

say "the tool and the agent"
archs=amd64
grep -qE '^[^#]*board: *(uefi-arm64|pi[345])' "examples/$example/bramble.yaml" && archs=arm64
bash scripts/agent.sh "$archs"
cargo build --release --quiet --package bramble
PATH=$PWD/target/release:$PATH

work=build/demo/$example
mkdir -p "$work"
cp "examples/$example/bramble.yaml" "$work/"
cd "$work"

say "bramble check"
bramble check

say "bramble lab up"
bramble lab up

say "the cluster"
bramble kubeconfig
bramble lab kubectl get nodes -o wide

say "a pod"
bramble lab kubectl -- wait --for=create serviceaccount/default --timeout=600s >/dev/null
bramble lab kubectl -- delete pod hello --ignore-not-found --wait=true >/dev/null
bramble lab kubectl -- run hello --image=bramble.home.arpa/probe:1 --image-pull-policy=Never --restart=Never \
  -- echo "a pod says hello from bramble"
bramble lab kubectl -- wait pod/hello --for=jsonpath='{.status.phase}'=Succeeded --timeout=180s >/dev/null
bramble lab kubectl logs hello

say "done; 'bramble -f $work/bramble.yaml lab down' ends it"
[ -n "${KEEP_LAB:-}" ] || bramble lab down
