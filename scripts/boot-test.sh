#!/usr/bin/env bash
# Boots images in the lab and looks inside. Needs target/release/bramble and target/agent/ (scripts/test.sh makes them).
#   usage: scripts/boot-test.sh [cuts|sqlite|etcd|faults|reuse|pair-sqlite|pair-etcd|k3s ...]   (default: the first three)
#   cuts      two power cuts in the first boot; the next boot reaches Ready
#   sqlite    one control plane with each datastore; what lies in the guest; with sqlite also what a reset and a
#   etcd      flipped byte do
#   faults    a clock in 1970, a lease that differs, a full data partition: what the node says and does
#   reuse     a card that was used before: taken over cleanly; with --keep-data its data stays
#   k3s       k3s' units and files before a stand-in for k3s, which says so; the real one with BRAMBLE_K3S_FILE
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

ready() { # ready DATASTORE
  local store=$1
  printf '\n-- %s: from nothing to Ready\n' "$store"
  prepare "$store" lab-amd64 "$store"
  bramble lab down --destroy >/dev/null 2>&1 || true
  up "$store: the node is Ready" || return 0
  bramble kubeconfig
  check "node state" True "$(kubectl_in_lab get node n1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')"
  check "a second lab up changes nothing" 0 "$(bramble lab up --progress json 2>/dev/null | grep -c '"outcome":"done"' || true)"
  # The controllers make a namespace's service account a while after the node is Ready.
  kubectl_in_lab wait --for=create serviceaccount/default --timeout=600s >/dev/null || bad "the default service account"
  kubectl_in_lab run hello --image=bramble.home.arpa/probe:1 --image-pull-policy=Never --restart=Never -- echo hello >/dev/null
  kubectl_in_lab wait pod/hello --for=jsonpath='{.status.phase}'=Succeeded --timeout=180s >/dev/null 2>&1 || true
  check "a pod's log" hello "$(kubectl_in_lab logs hello 2>/dev/null)"

  local state rss
  state=$(guest systemctl is-system-running --wait || true)
  check "systemctl is-system-running" running "$state"
  [ "$state" = running ] || guest systemctl --failed --no-legend || true
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

trap labs_down EXIT
[ $# -gt 0 ] || set -- cuts sqlite etcd
for one in "$@"; do
  cd "$root"
  case $one in
    sqlite | etcd) ready "$one" ;;
    pair-sqlite | pair-etcd) pair "${one#pair-}" ;;
    cuts | faults | reuse | k3s) "$one" ;;
    *) echo "unknown test $one" >&2; exit 64 ;;
  esac
done
cd "$root"
finish boot
