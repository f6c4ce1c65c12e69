#!/usr/bin/env bash
# Boots images in the lab and looks inside. Needs target/release/bramble and target/agent/ (scripts/test.sh makes them).
#   usage: scripts/boot-test.sh [cuts|sqlite|update|etcd|faults|reuse|upgrade|upgrade-all|pair-sqlite|pair-etcd|k3s ...]
#          (default: the first three)
#   cuts      two power cuts in the first boot; the next boot reaches Ready
#   sqlite    one control plane with this datastore; what lies in the guest; with sqlite also what a reset and a
#   etcd      flipped byte do
#   faults    a clock in 1970, a lease that differs, a full data partition: what the node says and does
#   reuse     a card that was used before: taken over cleanly; with --keep-data its data stays
#   k3s       k3s' units and files before a stand-in for k3s, which says so; the real one with BRAMBLE_K3S_FILE
#   update    with etcd: a release is published; the machine fetches, tries and keeps it, and pods run
#   upgrade   the same, then one whose kernel panics: it is given up;
#             upgrade-all: also one whose kubelet, and one whose agent is dead (an hour)
#   pair-*    a control plane and a worker, and a worker that comes later
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD work=$PWD/build/boot-test
. scripts/lib/tests.sh
. scripts/lib/k3s.sh

up() { # up WHAT [ARGUMENT...]: brings the lab up, or shows why not
  local what=$1
  shift
  if bramble lab up --timeout 1500 "$@"; then ok "$what"; return 0; fi
  bad "$what"
  for node in $(bramble lab status -o name); do bramble lab logs "$node" | tail -n 40; done
  bramble lab down >/dev/null 2>&1 || true
  return 1
}

# A pod runs and is heard, and no unit has failed.
healthy() {
  # The controllers make a namespace's service account a while after the node is Ready.
  kubectl_in_lab wait --for=create serviceaccount/default --timeout=600s >/dev/null || bad "the default service account"
  kubectl_in_lab run hello --image=bramble.home.arpa/probe:1 --image-pull-policy=Never --restart=Never -- echo hello >/dev/null
  kubectl_in_lab wait pod/hello --for=jsonpath='{.status.phase}'=Succeeded --timeout=180s >/dev/null 2>&1 || true
  check "a pod's log" hello "$(kubectl_in_lab logs hello 2>/dev/null)"
  local state
  state=$(guest systemctl is-system-running --wait || true)
  check "systemctl is-system-running" running "$state"
  [ "$state" = running ] || guest systemctl --failed --no-legend || true
}

ready() { # ready DATASTORE
  local store=$1
  printf '\n-- %s: from nothing to Ready\n' "$store"
  prepare "$store" lab-amd64 "$store"
  bramble lab down --destroy >/dev/null 2>&1 || true
  up "$store: the node is Ready" || return 0
  bramble kubeconfig
  check "node state" True "$(kubectl_in_lab get node n1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')"
  check "a second lab up changes nothing" 0 "$(bramble lab up --progress json 2>/dev/null | grep -c '"outcome":"done"' || true)"
  healthy
  local rss
  check "failed units" 0 "$(guest systemctl --failed --no-legend | grep -c . || true)"
  check "the root is read-only" ro "$(guest findmnt -no OPTIONS / | tr , '\n' | grep -x ro || true)"
  check "the root is erofs" erofs "$(guest findmnt -no FSTYPE / || true)"
  check "dpkg --audit is silent" "" "$(guest dpkg --audit || echo failed)"
  rss=$(guest 'grep VmRSS /proc/$(systemctl show -p MainPID --value bramble-agent)/status' | awk '{print $2}')
  if [ -n "$rss" ] && [ "$rss" -le 8192 ]; then ok "the agent's resident memory: $rss KiB"; else bad "the agent's resident memory: '$rss' KiB, at most 8192"; fi
  if [ "$store" = sqlite ]; then
    guest 'echo kept > /var/mnt/mark; echo lost > /etc/mark; sync' || true
    bramble lab kill n1
    bramble lab up --timeout 1500 >/dev/null 2>&1 || bad "Ready again after a reset"
    check "data survives a reboot" kept "$(guest cat /var/mnt/mark || true)"
    check "nothing else does" gone "$(guest 'test -e /etc/mark && echo there || echo gone')"
    flipped
  fi
  bramble lab down
}

# The kernel must not go on with a block that does not fit the signed hash.
flipped() {
  guest 'at=$((100000 * 4096 + 5)) disk=/dev/disk/by-partlabel/bramble-root-a
    byte=$(dd if=$disk bs=1 skip=$at count=1 2>/dev/null | od -An -tu1)
    printf "\\$(printf %o $((byte ^ 1)))" | dd of=$disk bs=1 seek=$at conv=notrunc,fsync 2>/dev/null; sync
    timeout 20 dd if=/dev/mapper/bramble-root of=/dev/null bs=4096 skip=100000 count=1 iflag=direct' >/dev/null 2>&1 || true
  local try
  for try in $(seq 20); do
    if bramble lab logs n1 | grep -aq 'verity_handle_err\|dm-verity device corrupted'; then
      ok "a flipped byte of the root stops the machine (seen after $try s)"
      return
    fi
    sleep 1
  done
  bad "a flipped byte of the root went unnoticed"
}

faults() {
  printf '\n-- a clock in 1970, a lease that differs, a full data partition\n'
  prepare faults lab-amd64
  sed -i 's/^      address: .*/&\n      addressing: dhcp/' bramble.yaml
  bramble check
  bramble lab down --destroy >/dev/null 2>&1 || true
  # The clock: nothing tells the time; it starts at the document's, so that certificates are valid, and says so.
  up "Ready with a clock in 1970 and no time server" --clock 0 --no-time || return 0
  local now
  now=$(guest date +%s)
  if [ "$now" -gt $(($(date +%s) - 86400)) ]; then ok "the clock began at what the machine knew: $(date -ud "@$now" +%F)"; else bad "the clock says $now"; fi
  # Full: said once, the node stays up, and it is over when there is room again.
  guest 'fallocate -l $(($(df --output=avail -B1 /var/mnt | tail -n 1) - 50000000)) /var/mnt/filler'
  local try
  for try in $(seq 30); do
    bramble lab logs n1 | grep -aq 'data partition is .* full' && break
    sleep 4
  done
  check "a full data partition is said" 1 "$(bramble lab logs n1 | grep -ac 'warning: the data partition is .* full' || true)"
  check "and the node stays Ready" True "$(kubectl_in_lab get node n1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')"
  guest rm /var/mnt/filler
  for try in $(seq 30); do
    bramble lab logs n1 | grep -aq 'over: the data partition' && break
    sleep 4
  done
  check "and over when there is room" 1 "$(bramble lab logs n1 | grep -ac 'over: the data partition' || true)"
  bramble lab down
  # The lease: the machine says which address it got and which was stated, and is not reached under the stated one.
  bramble lab up --no-wait --lease n1=192.168.1.77 >/dev/null
  for try in $(seq 60); do
    bramble lab logs n1 | grep -aq 'got 192.168.1.77, stated 192.168.1.11' && break
    sleep 2
  done
  check "a lease that differs is said" 1 "$(bramble lab logs n1 | grep -ac 'warning: the network got 192.168.1.77, stated 192.168.1.11' || true)"
  bramble lab down
}

reuse() {
  printf '\n-- a card that was used before\n'
  prepare reuse
  bramble lab down --destroy >/dev/null 2>&1 || true
  up "Ready on a fresh card" || return 0
  guest 'echo old > /var/mnt/mark; sync'
  local key before
  key=$(guest cat /etc/ssh/ssh_host_ed25519_key.pub)
  before=$(guest cat /etc/machine-id)
  if bramble lab flash n1 >/dev/null 2>&1; then bad "a disk was written under a running machine"; else ok "a running machine's disk is not written"; fi
  bramble lab down
  bramble lab flash n1 --keep-data
  up "Ready after flashing with --keep-data" || return 0
  check "its data is there" old "$(guest cat /var/mnt/mark || true)"
  bramble lab logs n1 | grep -a 'taken over' || true
  bramble lab down
  bramble lab flash n1
  up "Ready after flashing" || return 0
  check "the old data is gone" gone "$(guest 'test -e /var/mnt/mark && echo there || echo gone')"
  check "the same host key" "$key" "$(guest cat /etc/ssh/ssh_host_ed25519_key.pub)"
  check "the same machine id" "$before" "$(guest cat /etc/machine-id)"
  bramble lab down
}

pair() { # pair DATASTORE: a control plane and a worker; a pod on the worker reaches a service on the control plane
  local store=$1
  printf '\n-- a control plane and a worker, %s\n' "$store"
  mkdir -p "$work/pair-$store"
  cd "$work/pair-$store"
  sed -e "s/datastore: .*/datastore: $store/" "$root/examples/lab-pair/bramble.yaml" >bramble.yaml
  bramble lab down --destroy >/dev/null 2>&1 || true
  up "$store: both nodes are Ready" || return 0
  check "the worker's label" shelf "$(kubectl_in_lab get node n2 -o 'jsonpath={.metadata.labels.tier}')"
  check "the worker's taint" dedicated=media:NoSchedule \
    "$(kubectl_in_lab get node n2 -o 'jsonpath={.spec.taints[0].key}={.spec.taints[0].value}:{.spec.taints[0].effect}')"
  kubectl_in_lab wait --for=create serviceaccount/default --timeout=600s >/dev/null || bad "the default service account"
  kubectl_in_lab apply -f - >/dev/null <<'YAML'
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
  kubectl_in_lab wait pod/web --for=condition=Ready --timeout=300s >/dev/null 2>&1 || true
  kubectl_in_lab -n kube-system rollout status deploy/coredns --timeout=300s >/dev/null 2>&1 || true
  kubectl_in_lab apply -f - >/dev/null <<'YAML'
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
  kubectl_in_lab wait pod/client --for=jsonpath='{.status.phase}'=Succeeded --timeout=300s >/dev/null 2>&1 || true
  kubectl_in_lab get nodes -o wide
  kubectl_in_lab get pods -A -o wide
  local said
  said=$(kubectl_in_lab logs client 2>/dev/null | tail -n 1)
  case $said in *"web saw"*) ok "by name, across nodes: $said" ;; *) bad "the worker's pod heard: '$said'" ;; esac
  if [ "$store" = sqlite ]; then
    # One more line in the file, one more machine; the others run on as they are.
    local boots
    boots=$(kubectl_in_lab get nodes n1 n2 -o 'jsonpath={.items[*].status.nodeInfo.bootID}')
    bramble add node n3 --role worker --board uefi-amd64 --address 192.168.1.13
    up "a worker added to the file is Ready" || return 0
    check "the others were not touched" "$boots" "$(kubectl_in_lab get nodes n1 n2 -o 'jsonpath={.items[*].status.nodeInfo.bootID}')"
    kubectl_in_lab get nodes -o wide
  fi
  bramble lab down
}

cuts() {
  printf '\n-- power cuts in the first boot\n'
  prepare cuts
  local cut marker seed=1
  for cut in mkfs-begun:2 document-synced:0; do
    marker=${cut%:*}
    bramble lab down --destroy >/dev/null 2>&1 || true
    bramble lab up --no-wait >/dev/null
    if ! bramble lab cut n1 --at "bramble-mark: $marker" --after-writes "${cut#*:}" --seed $seed; then bad "cut at $marker"; continue; fi
    up "after a cut at $marker + ${cut#*:} writes (seed $seed) the next boot reaches Ready" || true
    seed=$((seed + 1))
  done
  bramble lab down --destroy >/dev/null
}

# boots: how often the machine has started since it was powered on first
boots() { bramble lab logs n1 | grep -ac 'bramble-stage: initramfs' || true; }

# runs: the release that the machine runs, and its slot
runs() {
  guest bramble-node status 2>/dev/null \
    | python3 -c 'import json, sys; boot = json.load(sys.stdin)["boot"]; print(boot["release"], boot["slot"])' || true
}

# said TEXT SECONDS: waits until the console has it
said() {
  local try
  for try in $(seq "$2"); do
    bramble lab logs n1 | grep -aq "$1" && return 0
    sleep 1
  done
  return 1
}

# publish RELEASE [KERNEL-ARGUMENT...]: another release than before, by a word on its kernel's command line
publish() {
  local version=$1 words="bramble.test=$1" word
  shift
  for word in "$@"; do words="$words, $word"; done
  sed -i "s|^    kernelArgs: .*|    kernelArgs: [$words]|" bramble.yaml
  bramble lab release >release-$version.log 2>&1 || { cat release-$version.log; bad "release $version is published"; return 1; }
  grep -o 'from [0-9]*: .* on the wire' release-$version.log | head -n 1 || true
}

upgrade() { # upgrade [good|all]
  printf '\n-- a release that is published%s\n' "$([ "${1:-}" = good ] || echo ', and bad ones')"
  prepare upgrade lab-amd64 etcd
  sed -i 's|^  os:|  os:\n    updates: { source: "https://updates.home.arpa/" }\n    kernelArgs: [bramble.test=1]|' bramble.yaml
  bramble check
  bramble lab down --destroy >/dev/null 2>&1 || true
  rm -rf .bramble/lab/public
  mkdir -p .bramble/lab/public
  bramble serve .bramble/lab/public --listen 127.0.0.1:0 >serve.log 2>&1 &
  server=$!
  local port
  port=$(for try in $(seq 50); do sed -n 's|.*http://127.0.0.1:\([0-9]*\)/.*|\1|p' serve.log; sleep 0.1; done | head -n 1)
  up "release 1 is Ready" --updates "$port" || return 0
  check "release 1 runs" "1 a" "$(runs)"
  publish 1 || return 0
  # A package more: root, tree and kernel image change.
  sed -i 's|^    kernelArgs:|    packages: [tree]\n    kernelArgs:|' bramble.yaml
  publish 2 || return 0
  if said 'release 2 is kept in slot b' 1500; then ok "release 2 was fetched, tried and kept with no hand on it"; else bad "release 2 is kept"; fi
  bramble lab logs n1 | grep -a 'update:' | tail -n 12 || true
  check "what runs" "2 b" "$(runs)"
  check "its new program is there" /usr/bin/tree "$(guest command -v tree || true)"
  check "and the node is Ready" True "$(kubectl_in_lab get node n1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')"
  healthy
  if [ "${1:-}" = good ]; then
    kill "$server" 2>/dev/null || true
    bramble lab down
    return
  fi

  # Its kernel finds no first program, and panics. Tried twice, then never again.
  local before
  before=$(boots)
  publish 3 rdinit=/nowhere root=/dev/nowhere || return 0
  if said 'release 3 is not kept: no-word.*tries: 2' 1500; then ok "release 3, whose kernel panics, is tried twice and given up"; else bad "release 3 is given up"; fi
  bramble lab logs n1 | grep -a 'update:' | tail -n 12 || true
  check "starts of release 2 between them (those of release 3 do not come so far)" 2 $(($(boots) - before))
  check "what runs" "2 b" "$(runs)"
  if [ "${1:-}" = all ]; then
    # Its kubelet never starts.
    publish 4 systemd.mask=kubelet.service || return 0
    if said 'release 4 is not kept: unhealthy' 2400; then ok "release 4, whose kubelet is dead, goes back"; else bad "release 4 goes back"; fi
    check "what runs" "2 b" "$(runs)"
    # Its agent never starts; what pid 1 left behind ends the trial.
    publish 5 systemd.mask=bramble-agent.service || return 0
    if said 'release 5 is not kept: no-word.*tries: 2' 4000; then ok "release 5, whose agent is dead, is ended by its guard"; else bad "release 5 is ended by its guard"; fi
    check "what runs" "2 b" "$(runs)"
  fi
  bramble lab logs n1 | grep -a 'update:' | tail -n 40 || true
  kill "$server" 2>/dev/null || true
  bramble lab down
}

server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; labs_down' EXIT
[ $# -gt 0 ] || set -- cuts sqlite update
for one in "$@"; do
  cd "$root"
  case $one in
    sqlite | etcd) ready "$one" ;;
    pair-sqlite | pair-etcd) pair "${one#pair-}" ;;
    cuts | faults | reuse | k3s | upgrade) "$one" ;;
    update) upgrade good ;;
    upgrade-all) upgrade all ;;
    *) echo "unknown test $one" >&2; exit 64 ;;
  esac
done
cd "$root"
finish boot
