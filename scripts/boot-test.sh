#!/usr/bin/env bash
# Boots images in the lab and looks inside: one control plane with each datastore, then two power cuts in the first
# boot. Needs target/release/bramble and target/agent/amd64 (scripts/test.sh makes them).
#   usage: scripts/boot-test.sh [sqlite|etcd|cuts|pair-sqlite|pair-etcd|k3s ...]     (default: the first three)
# k3s boots a stand-in for k3s that checks what k3s would want; with BRAMBLE_K3S_FILE=k3s' release file for amd64 also
# the real one (BRAMBLE_K3S_IMAGES=its air-gap archive, so that its own pods start without a network).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
PATH=$root/target/release:$PATH
passed=0 failed=0 skipped=0
work=$root/build/boot-test

ok() { passed=$((passed + 1)); printf '   ok    %s\n' "$*"; }
bad() { failed=$((failed + 1)); printf '   FAIL  %s\n' "$*"; }
check() { # check WHAT EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then ok "$1: $3"; else bad "$1: expected '$2', got '$3'"; fi
}
finish() {
  printf '\nboot: %d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  [ "$failed" = 0 ]
}

prepare() { # prepare NAME DATASTORE: a project of its own with ssh allowed
  mkdir -p "$work/$1"
  cd "$work/$1"
  [ -e key ] || ssh-keygen -q -t ed25519 -N '' -C test -f key
  sed -e "s/datastore: .*/datastore: $2/" "$root/examples/lab-amd64/bramble.yaml" >bramble.yaml
  grep -q "datastore: $2" bramble.yaml
  python3 - "$(cat key.pub)" <<'PY'
import sys
text = open("bramble.yaml").read()
ssh = f'    ssh: {{ authorizedKeys: ["{sys.argv[1]}"] }}\n'
if "  os:\n" in text:
    text = text.replace("  os:\n", "  os:\n" + ssh, 1)
else:
    text = text.replace("  nodes:\n", "  os:\n" + ssh + "  nodes:\n", 1)
open("bramble.yaml", "w").write(text)
PY
  bramble check
}

guest() { bramble lab ssh n1 -- "$@"; }

ready() { # ready DATASTORE
  local store=$1
  printf '\n-- %s: from nothing to Ready\n' "$store"
  prepare "$store" "$store"
  bramble lab down --destroy >/dev/null 2>&1 || true
  if ! bramble lab up --timeout 900; then
    bad "$store: lab up"
    bramble lab logs n1 | tail -n 60 || true
    bramble lab down >/dev/null 2>&1 || true
    return
  fi
  ok "$store: the node is Ready"
  bramble kubeconfig
  local kubectl="bramble lab kubectl --"
  check "node state" True "$($kubectl get node n1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')"
  check "a second lab up changes nothing" 0 "$(bramble lab up --progress json 2>/dev/null | grep -c '"outcome":"done"' || true)"
  # The controllers make a namespace's service account a while after the node is Ready.
  $kubectl wait --for=create serviceaccount/default --timeout=180s >/dev/null || bad "the default service account"
  $kubectl run hello --image=bramble.home.arpa/probe:1 --image-pull-policy=Never --restart=Never -- echo hello >/dev/null
  $kubectl wait pod/hello --for=jsonpath='{.status.phase}'=Succeeded --timeout=180s >/dev/null 2>&1 || true
  check "a pod's log" hello "$($kubectl logs hello 2>/dev/null)"

  local state
  state=$(guest systemctl is-system-running --wait || true)
  check "systemctl is-system-running" running "$state"
  [ "$state" = running ] || guest systemctl --failed --no-legend || true
  check "the root is read-only" ro "$(guest findmnt -no OPTIONS / | tr , '\n' | grep -x ro || true)"
  check "the root is erofs" erofs "$(guest findmnt -no FSTYPE / || true)"
  check "dpkg --audit is silent" "" "$(guest dpkg --audit || echo failed)"
  local rss
  rss=$(guest 'grep VmRSS /proc/$(systemctl show -p MainPID --value bramble-agent)/status' | awk '{print $2}')
  if [ -n "$rss" ] && [ "$rss" -le 8192 ]; then ok "the agent's resident memory: $rss KiB"; else bad "the agent's resident memory: '$rss' KiB, at most 8192"; fi
  if [ "$store" = sqlite ]; then
    guest 'echo kept > /var/mnt/mark; echo lost > /etc/mark; sync' || true
    bramble lab kill n1
    bramble lab up --timeout 900 >/dev/null 2>&1 || bad "Ready again after a reset"
    check "data survives a reboot" kept "$(guest cat /var/mnt/mark || true)"
    check "nothing else does" gone "$(guest 'test -e /etc/mark && echo there || echo gone')"
  fi
  bramble lab down
}

pair() { # pair DATASTORE: a control plane and a worker; a pod on the worker reaches a service on the control plane
  local store=$1
  printf '\n-- a control plane and a worker, %s\n' "$store"
  mkdir -p "$work/pair-$store"
  cd "$work/pair-$store"
  sed -e "s/datastore: .*/datastore: $store/" "$root/examples/lab-pair/bramble.yaml" >bramble.yaml
  bramble lab down --destroy >/dev/null 2>&1 || true
  if ! bramble lab up --timeout 1500; then bad "pair, $store: lab up"; bramble lab down >/dev/null 2>&1 || true; return; fi
  ok "$store: both nodes are Ready"
  local kubectl="bramble lab kubectl --"
  check "the worker's label" shelf "$($kubectl get node n2 -o 'jsonpath={.metadata.labels.tier}')"
  check "the worker's taint" dedicated=media:NoSchedule \
    "$($kubectl get node n2 -o 'jsonpath={.spec.taints[0].key}={.spec.taints[0].value}:{.spec.taints[0].effect}')"
  $kubectl wait --for=create serviceaccount/default --timeout=180s >/dev/null || bad "the default service account"
  $kubectl apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: web } }
spec:
  nodeName: n1
  tolerations: [{ operator: Exists }]
  containers: [{ name: web, image: "bramble.home.arpa/probe:1", imagePullPolicy: Never, args: [serve] }]
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
YAML
  $kubectl wait pod/web --for=condition=Ready --timeout=300s >/dev/null 2>&1 || true
  $kubectl -n kube-system rollout status deploy/coredns --timeout=300s >/dev/null 2>&1 || true
  $kubectl apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: Pod
metadata: { name: client }
spec:
  nodeName: n2
  restartPolicy: Never
  tolerations: [{ operator: Exists }]
  containers:
    - { name: client, image: "bramble.home.arpa/probe:1", imagePullPolicy: Never, args: [get, "http://web.default.svc.cluster.local/", "3"] }
YAML
  $kubectl wait pod/client --for=jsonpath='{.status.phase}'=Succeeded --timeout=300s >/dev/null 2>&1 || true
  $kubectl get nodes -o wide
  $kubectl get pods -A -o wide
  local said
  said=$($kubectl logs client 2>/dev/null | tail -n 1)
  case $said in *"web saw"*) ok "by name, across nodes: $said" ;; *) bad "the worker's pod heard: '$said'" ;; esac
  bramble lab down
}

cuts() {
  printf '\n-- power cuts in the first boot\n'
  prepare cuts sqlite
  local marker seed=1
  for marker in mkfs-begun before-wipe; do
    bramble lab down --destroy >/dev/null 2>&1 || true
    bramble lab up --no-wait >/dev/null
    if ! bramble lab cut n1 --at "bramble-mark: $marker" --seed $seed; then bad "cut at $marker"; continue; fi
    if bramble lab up --until document --timeout 300 >/dev/null; then
      ok "after a cut at $marker (seed $seed) the next boot goes on"
    else
      bad "after a cut at $marker (seed $seed)"
      bramble lab logs n1 | tail -n 20
    fi
    seed=$((seed + 1))
  done
  bramble lab down --destroy >/dev/null
}

k3s_project() { # k3s_project NAME FILE VERSION: a server and an agent, from a release file
  mkdir -p "$work/$1"
  cd "$work/$1"
  [ -e key ] || ssh-keygen -q -t ed25519 -N '' -C test -f key
  [ "$2" -ef k3s ] || cp "$2" k3s
  local images=""
  if [ -n "${4:-}" ]; then cp "$4" k3s-airgap-images-amd64.tar.zst; images=", images: [k3s-airgap-images-amd64.tar.zst]"; fi
  cat >bramble.yaml <<YAML
apiVersion: bramble.home.arpa/v1alpha1
kind: Cluster
metadata: { name: k3s-test }
spec:
  kubernetes:
    distribution: k3s
    version: $3
    source: { path: k3s }
    datastore: sqlite
    ingress: none
    k3s: { embeddedRegistry: true$images }
  network:
    subnet: 192.168.1.0/24
    gateway: 192.168.1.1
    dns: [192.168.1.1]
    ntp: [192.168.1.1]
  os: { ssh: { authorizedKeys: ["$(cat key.pub)"] } }
  board: uefi-amd64
  nodes:
    - { name: n1, role: control-plane, address: 192.168.1.11 }
    - { name: n2, role: worker, address: 192.168.1.12, labels: { tier: shelf }, taints: ["dedicated=media:NoSchedule"] }
YAML
  bramble check
}

on() { bramble lab ssh "$1" -- "${*:2}"; } # on NODE COMMAND...

stand_in() { # stand_in NODE UNIT START: what the stand-in has said in this boot
  local node=$1 unit=$2 said
  # sshd is up a while after the network.
  for _ in $(seq 60); do on "$node" true 2>/dev/null && break; sleep 2; done
  check "$node: $unit" active "$(on "$node" "timeout 300 sh -c 'until systemctl is-active -q $unit; do sleep 1; done'; systemctl is-active $unit" || true)"
  said=$(on "$node" "journalctl -b -o cat -u $unit" || true)
  grep 'k3s stand-in: FAIL' <<<"$said" | sort -u || true
  check "$node: checks of the stand-in that failed" 0 "$(grep -c 'k3s stand-in: FAIL' <<<"$said" || true)"
  grep -m1 'k3s stand-in: all checks passed' <<<"$said" || bad "$node: the stand-in did not pass all checks"
  local passed_checks
  passed_checks=$(grep -c 'k3s stand-in: ok' <<<"$said" || true)
  if [ "$passed_checks" -ge 50 ]; then ok "$node: $passed_checks checks of the stand-in passed"; else bad "$node: only $passed_checks checks of the stand-in"; fi
  check "$node: start number" "start number $3" "$(grep -o 'start number [0-9]*' <<<"$said" | tail -n 1)"
  check "$node: systemctl is-system-running" running "$(on "$node" systemctl is-system-running --wait || true)"
}

k3s() {
  local version=v1.36.4+k3s1
  printf '\n-- k3s: a stand-in checks what k3s wants of its machine\n'
  mkdir -p "$work/k3s"
  bash fixtures/k3s/make.sh "$work/k3s/k3s" amd64 "$version"
  k3s_project k3s "$work/k3s/k3s" "$version"
  bramble lab down --destroy >/dev/null 2>&1 || true
  if bramble lab up --until network --timeout 900; then
    stand_in n1 k3s-server 1
    stand_in n2 k3s-agent 1
    bramble lab kill n1
    if bramble lab up --until network --timeout 900 >/dev/null 2>&1; then
      stand_in n1 k3s-server 2
      check "the list of imported images outlives a reset" 1 \
        "$(on n1 'journalctl -b -o cat -u k3s-server' | grep -c 'ok    .cache.json: kept from the start before' || true)"
    else
      bad "k3s: up again after a reset"
    fi
  else
    bad "k3s: lab up"
    bramble lab logs n1 | tail -n 40 || true
  fi
  bramble lab down >/dev/null 2>&1 || true

  cd "$root"
  printf '\n-- k3s: the real one\n'
  if [ -z "${BRAMBLE_K3S_FILE:-}" ]; then
    skipped=$((skipped + 1))
    echo "   skip  BRAMBLE_K3S_FILE names no release file of k3s. Load k3s from its project's release page, then:"
    echo "         BRAMBLE_K3S_FILE=/path/to/k3s BRAMBLE_K3S_IMAGES=/path/to/k3s-airgap-images-amd64.tar.zst scripts/boot-test.sh k3s"
    return
  fi
  chmod +x "$BRAMBLE_K3S_FILE" 2>/dev/null || true
  version=$("$BRAMBLE_K3S_FILE" --version | sed -n 's/^k3s version \(v[^ ]*\).*/\1/p')
  k3s_project k3s-real "$BRAMBLE_K3S_FILE" "$version" "${BRAMBLE_K3S_IMAGES:-}"
  bramble lab down --destroy >/dev/null 2>&1 || true
  if ! bramble lab up --timeout 1800; then
    bad "k3s $version: lab up"
    on n1 journalctl -b -o cat -u k3s-server | tail -n 60 || true
    bramble lab down >/dev/null 2>&1 || true
    return
  fi
  ok "k3s $version: both nodes are Ready"
  local kubectl="bramble lab kubectl --"
  $kubectl get nodes -o wide
  check "the agent's label" shelf "$($kubectl get node n2 -o 'jsonpath={.metadata.labels.tier}')"
  check "the agent's taint" dedicated=media:NoSchedule \
    "$($kubectl get node n2 -o 'jsonpath={.spec.taints[0].key}={.spec.taints[0].value}:{.spec.taints[0].effect}')"
  check "Secrets are encrypted" 1 "$(on n1 k3s secrets-encrypt status | grep -c 'Encryption Status: Enabled' || true)"
  if [ -n "${BRAMBLE_K3S_IMAGES:-}" ]; then
    $kubectl -n kube-system rollout status deploy/coredns --timeout=600s >/dev/null && ok "CoreDNS is up" || bad "CoreDNS"
  else
    skipped=$((skipped + 1))
    echo "   skip  BRAMBLE_K3S_IMAGES names no archive of images: k3s' own pods are not looked at"
  fi
  bramble lab kill n1
  bramble lab up --timeout 1800 >/dev/null 2>&1 && ok "Ready again after a reset" || bad "Ready again after a reset"
  bramble lab down
}

trap 'cd "$root"; for d in "$work"/*/; do [ -d "$d/.bramble/lab" ] && bramble -f "$d/bramble.yaml" lab down >/dev/null 2>&1; done; true' EXIT
[ $# -gt 0 ] || set -- sqlite etcd cuts
for one in "$@"; do
  cd "$root"
  case $one in
    sqlite | etcd) ready "$one" ;;
    pair-sqlite | pair-etcd) pair "${one#pair-}" ;;
    cuts) cuts ;;
    k3s) k3s ;;
    *) echo "unknown test $one" >&2; exit 64 ;;
  esac
done
cd "$root"
finish
