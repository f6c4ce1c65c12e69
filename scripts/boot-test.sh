#!/usr/bin/env bash
# Boots images in the lab and looks inside. Needs target/release/bramble and target/agent/ (scripts/test.sh makes them).
#   usage: scripts/boot-test.sh [cuts|sqlite|update|etcd|faults|reuse|replaced|roles|drained|applied|upgrade|upgrade-all|
#          pair-sqlite|pair-etcd|k3s ...]
#          (default: the first three)
#   cuts      two power cuts in the first boot; the next boot reaches Ready
#   sqlite    one control plane with this datastore; what lies in the guest; with sqlite also what a reset and a
#   etcd      flipped byte do
#   faults    a clock in 1970, a lease that differs, a full data partition: what the node says and does
#   reuse     a card that was used before: taken over cleanly; with --keep-data its data stays
#   replaced  a worker's card is lost: another card is the same node; the old one, put back, is refused
#   drained   a worker that takes a release moves its pods to the other node first
#   applied   three machines: what plan shows, apply does, one machine at a time, under a service that is asked meanwhile
#   roles     a management machine with kubectl and node exporter; iSCSI and NFS between real machines
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
  check "iscsid and rpcbind are off unless used" "inactive inactive" "$(guest 'systemctl is-active iscsid rpcbind | xargs' || true)"
  check "the machine answers by itself" n1 "$(bramble node --lab status -o name)"
  check "and says that it is ready" ready "$(bramble node --lab status -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["stage"])')"
  if [ "$(bramble node --lab logs n1 --unit kubelet --lines 5 | grep -c .)" -ge 5 ]; then ok "and hands out its journal"; else bad "no journal over the node API"; fi
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

replaced() {
  printf '\n-- a card that was replaced\n'
  prepare replaced lab-pair
  bramble lab down --destroy >/dev/null 2>&1 || true
  up "both nodes are Ready" || return 0
  local key machine initiator
  key=$(on n2 cat /etc/ssh/ssh_host_ed25519_key.pub)
  machine=$(on n2 cat /etc/machine-id)
  initiator=$(on n2 cat /etc/iscsi/initiatorname.iscsi)
  check "the cluster knows the card" 1 "$(kubectl_in_lab get node n2 -o 'jsonpath={.metadata.annotations.bramble\.home\.arpa/card}')"
  # Its power goes, and the card is never seen again; here it is put aside.
  bramble lab kill n2
  rm -rf old && mkdir old && cp -a .bramble/lab/machines/n2 old/machine && cp -a .bramble/lab/bases/n2 old/base
  bramble lab flash n2
  up "n2 is Ready on another card, and nobody touched the cluster" || return 0
  check "the same host key" "$key" "$(on n2 cat /etc/ssh/ssh_host_ed25519_key.pub)"
  check "the same machine id" "$machine" "$(on n2 cat /etc/machine-id)"
  check "the same initiator" "$initiator" "$(on n2 cat /etc/iscsi/initiatorname.iscsi)"
  check "the cluster knows the other card" 2 "$(kubectl_in_lab get node n2 -o 'jsonpath={.metadata.annotations.bramble\.home\.arpa/card}')"
  bramble lab kill n2
  rm -rf .bramble/lab/machines/n2 .bramble/lab/bases/n2
  mv old/machine .bramble/lab/machines/n2 && mv old/base .bramble/lab/bases/n2
  bramble lab up --no-wait >/dev/null
  local try
  for try in $(seq 300); do
    bramble lab logs n2 | grep -aq 'this card of n2 was replaced' && break
    sleep 2
  done
  bramble lab logs n2 | grep -a 'replaced' || true
  check "the old card says that it was replaced" 1 "$(bramble lab logs n2 | grep -ac 'this card of n2 was replaced' || true)"
  check "and starts no kubelet" inactive "$(on n2 systemctl is-active kubelet || true)"
  bramble lab down
}

# A file server's packages are the test's own business: their scripts are accepted for what is done by hand below.
roles() {
  printf '\n-- a management machine, and network storage\n'
  prepare roles
  sed -i 's|^  os:|  os:\n    packages: [tgt, nfs-kernel-server]\n    acceptScripts:\n'"$(
    for script in libibverbs1:fd4d2a4ecf9315262dc827a6e6b423aaaa43f534907cee8c839bd4fa0e49f6e2 \
      libreadline8t64:7605fb2a57f0b970cb119574e8251c7341a88617d68589c6c03c39d95f82b2ed \
      nfs-kernel-server:f4aa1766c20dcee63201578d29b05a4866550d9bb5ce8382a9f038e4fbba8327 \
      nfs-kernel-server:5019d386305191729441ae670409964618b33fd8318ebd5ee7e2c75283762e2f \
      readline-common:a47488f9aaae773e7cf8edc2cf450c888c1d958801c7a62e12bc897d5037b598 \
      tgt:2aabb647ba7433594110948b45124b541ec4b2987b581733dfa9301f5f7c2ded; do
      printf '      - { package: %s, sha256: %s, as: none }\\n' "${script%:*}" "${script#*:}"
    done)"'|' bramble.yaml
  bramble add node m1 --role management --board uefi-amd64 --address 192.168.1.20
  bramble check
  bramble lab down --destroy >/dev/null 2>&1 || true
  up "the node and the management machine are Ready" || return 0
  check "kubectl on the management machine" n1 "$(on m1 kubectl get nodes -o name | cut -d/ -f2 || true)"
  check "which is no node and runs no kubelet" inactive "$(on m1 systemctl is-active kubelet || true)"
  check "its node exporter answers the node" 1 \
    "$(guest "exec 3<>/dev/tcp/192.168.1.20/9100; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; grep -ac '^node_uname_info.*nodename=\"m1\"' <&3" || true)"
  check "which does not run where nobody asked" inactive "$(guest systemctl is-active prometheus-node-exporter || true)"
  check "m1: failed units" "" "$(on m1 systemctl --failed --no-legend || true)"

  on m1 'systemctl start tgt; truncate -s 64M /var/mnt/disk.img
    tgtadm --lld iscsi --op new --mode target --tid 1 -T iqn.2026-01.arpa.home:disk
    tgtadm --lld iscsi --op new --mode logicalunit --tid 1 --lun 1 -b /var/mnt/disk.img
    tgtadm --lld iscsi --op bind --mode target --tid 1 -I ALL' || true
  guest 'iscsiadm -m discovery -t sendtargets -p 192.168.1.20 && iscsiadm -m node -T iqn.2026-01.arpa.home:disk --login' || true
  check "the target knows the node by its initiator" 1 \
    "$(on m1 tgtadm --lld iscsi --op show --mode target | grep -c 'Initiator: iqn.2026-01.arpa.home.bramble:.*\.n1' || true)"
  check "what is written to the disk over iSCSI is there" over-iscsi \
    "$(guest 'disk=/dev/disk/by-path/*-iscsi-iqn.2026-01.arpa.home:disk-lun-1; udevadm settle; mkfs.ext4 -q $disk &&
      mkdir -p /var/mnt/iscsi && mount $disk /var/mnt/iscsi && echo over-iscsi >/var/mnt/iscsi/word && umount /var/mnt/iscsi &&
      mount $disk /var/mnt/iscsi && cat /var/mnt/iscsi/word; umount /var/mnt/iscsi; iscsiadm -m node --logout >/dev/null' || true)"

  on m1 'mkdir -p /var/mnt/share && echo over-nfs >/var/mnt/share/word && systemctl start nfs-server &&
    exportfs -i -o rw,no_root_squash,no_subtree_check 192.168.1.0/24:/var/mnt/share' || true
  check "what the share holds is there over NFS" over-nfs \
    "$(guest 'mkdir -p /var/mnt/nfs && mount -t nfs4 192.168.1.20:/var/mnt/share /var/mnt/nfs && cat /var/mnt/nfs/word; umount /var/mnt/nfs' || true)"
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

# runs: the release that the machine runs, and its slot; after a restart sshd is there later than the console
runs() {
  local try status
  for try in $(seq 60); do
    status=$(guest bramble-node status 2>/dev/null) && break
    sleep 2
  done
  python3 -c 'import json, sys; boot = json.load(sys.stdin)["boot"]; print(boot["release"], boot["slot"])' <<<"$status" || true
}

# said TEXT SECONDS: waits until the console has it
said() { said_by n1 "$@"; }
said_by() { # said_by NODE TEXT SECONDS
  local try
  for try in $(seq "$3"); do
    bramble lab logs "$1" | grep -aq "$2" && return 0
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

# offer: serves the lab's releases, none at first, and sets `server` and `port`
offer() {
  rm -rf .bramble/lab/public
  mkdir -p .bramble/lab/public
  bramble serve .bramble/lab/public --listen 127.0.0.1:0 >serve.log 2>&1 &
  server=$!
  port=$(for try in $(seq 50); do sed -n 's|.*http://127.0.0.1:\([0-9]*\)/.*|\1|p' serve.log; sleep 0.1; done | head -n 1)
}

upgrade() { # upgrade [good|all]
  printf '\n-- a release that is published%s\n' "$([ "${1:-}" = good ] || echo ', and bad ones')"
  prepare upgrade lab-amd64 etcd
  sed -i 's|^  os:|  os:\n    updates: { source: "https://updates.home.arpa/" }\n    kernelArgs: [bramble.test=1]|' bramble.yaml
  bramble check
  bramble lab down --destroy >/dev/null 2>&1 || true
  offer
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

drained() {
  printf '\n-- a worker moves its pods away before it updates itself\n'
  prepare drained lab-pair
  # The worker alone looks for releases, and takes every pod.
  sed -i 's|^      taints: .*|      os: { updates: { source: "https://updates.home.arpa/", drainTimeout: 5m } }|' bramble.yaml
  sed -i 's|^  os:|  os:\n    kernelArgs: [bramble.test=1]|' bramble.yaml
  bramble check
  bramble lab down --destroy >/dev/null 2>&1 || true
  offer
  up "both nodes are Ready" --updates "$port" || return 0
  publish 1 || return 0
  kubectl_in_lab wait --for=create serviceaccount/default --timeout=600s >/dev/null || bad "the default service account"
  kubectl_in_lab cordon n1 >/dev/null
  kubectl_in_lab apply -f - >/dev/null <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers: [{ name: web, image: "bramble.home.arpa/probe:1", imagePullPolicy: Never, args: [serve] }]
YAML
  kubectl_in_lab rollout status deployment/web --timeout=300s || bad "the pods run on the worker"
  check "where the pods are" "n2 n2" "$(kubectl_in_lab get pods -l app=web --field-selector status.phase=Running -o 'jsonpath={.items[*].spec.nodeName}')"
  kubectl_in_lab uncordon n1 >/dev/null
  publish 2 || return 0
  if said_by n2 'restarting into release 2' 1500; then ok "release 2 is loaded, and n2 restarts"; else bad "n2 restarts into release 2"; fi
  kubectl_in_lab rollout status deployment/web --timeout=300s || true
  check "where the pods are now" "n1 n1" "$(kubectl_in_lab get pods -l app=web --field-selector status.phase=Running -o 'jsonpath={.items[*].spec.nodeName}')"
  check "all pods were moved away" 0 "$(bramble lab logs n2 | grep -ac 'not all pods were moved away' || true)"
  if said_by n2 'release 2 is kept in slot b' 1500; then ok "release 2 is kept"; else bad "release 2 is kept"; fi
  local try
  for try in $(seq 60); do
    [ "$(kubectl_in_lab get node n2 -o 'jsonpath={.spec.unschedulable}')" = "" ] && break
    sleep 5
  done
  check "and n2 takes pods again" "" "$(kubectl_in_lab get node n2 -o 'jsonpath={.spec.unschedulable}')"
  kill "$server" 2>/dev/null || true
  bramble lab down
}

# steps: the names of the steps of the lab's plan, sorted
steps() { bramble plan --lab -o name "$@" 2>/dev/null | sort | xargs; }

applied() {
  printf '\n-- plan, apply, status: three machines, a label, a release\n'
  prepare applied lab-pair
  # A window that does not open while this runs: no machine takes a release by itself.
  local window
  window=$(date -ud '+11 hours' +%H:00)-$(date -ud '+12 hours' +%H:00)
  sed -i "s|^  os:|  os:\n    kernelArgs: [bramble.test=1]\n    updates: { source: \"https://updates.home.arpa/\", window: \"$window\", drainTimeout: 5m }|" bramble.yaml
  sed -i '/^      taints: /d' bramble.yaml
  printf '    - name: n3\n      role: worker\n      board: uefi-amd64\n      address: 192.168.1.13\n' >>bramble.yaml
  bramble check
  bramble lab down --destroy >/dev/null 2>&1 || true
  check "from nothing every machine waits for its card" "n1 n2 n3" \
    "$(bramble plan --lab -o json | python3 -c 'import json, sys; print(*[h["node"] for h in json.load(sys.stdin)["held"]])')"
  offer
  up "three nodes are Ready" --updates "$port" || return 0
  publish 1 || return 0
  bramble status --lab
  check "nothing differs" "" "$(steps)"
  check "and nothing waits" "" "$(bramble plan --lab -o json | python3 -c 'import json, sys; print(*[h["node"] for h in json.load(sys.stdin)["held"]])')"

  # A service that somebody asks twice a second, from the control plane.
  kubectl_in_lab wait --for=create serviceaccount/default --timeout=600s >/dev/null || bad "the default service account"
  kubectl_in_lab apply -f - >/dev/null <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      topologySpreadConstraints:
        - { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: { matchLabels: { app: web } } }
      containers:
        - { name: web, image: "bramble.home.arpa/probe:1", imagePullPolicy: Never, args: [serve] }
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: { name: web }
spec: { minAvailable: 1, selector: { matchLabels: { app: web } } }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
YAML
  kubectl_in_lab rollout status deployment/web --timeout=300s || bad "the service runs"
  local address
  address=$(kubectl_in_lab get service web -o 'jsonpath={.spec.clusterIP}')
  guest "cat >/var/mnt/ask && (setsid bash /var/mnt/ask $address >/var/mnt/asked 2>/dev/null </dev/null &)" <<'SH'
while :; do
  if (exec 3<>/dev/tcp/$1/80 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && timeout 5 head -c 8 <&3 | grep -q HTTP); then echo ok; else echo lost; fi
  sleep 0.5
done
SH

  sed -i 's|^      labels: { tier: shelf }|      labels: { tier: rack }|; s|^    kernelArgs:|    packages: [tree]\n    kernelArgs:|' bramble.yaml
  publish 2 || return 0
  check "the plan" "relabel/n2 relabel/n3 upgrade-os/n1/release-2 upgrade-os/n2/release-2 upgrade-os/n3/release-2" "$(steps --now)"
  check "without --now it keeps the window" "relabel/n2 relabel/n3" "$(steps)"
  bramble why --lab n2
  if bramble apply --lab --now --yes; then ok "apply ends well"; else bad "apply"; fi
  check "what runs" "2 2 2" "$(bramble node --lab status -o json | python3 -c 'import json, sys; print(*[n["release"] for n in json.load(sys.stdin)])')"
  check "labels" "rack rack" "$(kubectl_in_lab get nodes n2 n3 -o 'jsonpath={.items[*].metadata.labels.tier}')"
  check "pods may go everywhere" "" "$(kubectl_in_lab get nodes -o 'jsonpath={.items[*].spec.unschedulable}')"
  check "the second plan" "" "$(steps --now)"
  check "the lease is given back" "" "$(kubectl_in_lab -n kube-system get lease bramble-rollout --ignore-not-found -o name)"
  # A pod that is sent away ends at once, so some are lost; on an emulated machine more.
  local asked lost
  asked=$(guest 'grep -c . /var/mnt/asked' || true)
  lost=$(guest 'grep -c lost /var/mnt/asked' || true)
  if [ "${asked:-0}" -gt 50 ] && [ "${lost:-999}" -le $((asked / 20)) ]; then
    ok "requests while the workers restarted: $asked, lost: $lost"
  else
    bad "requests while the workers restarted: '$asked', lost: '$lost'"
  fi
  bramble status --lab
  kill "$server" 2>/dev/null || true
  bramble lab down
}

server= port=
trap 'kill $server 2>/dev/null || true; labs_down' EXIT
[ $# -gt 0 ] || set -- cuts sqlite update
for one in "$@"; do
  cd "$root"
  case $one in
    sqlite | etcd) ready "$one" ;;
    pair-sqlite | pair-etcd) pair "${one#pair-}" ;;
    cuts | faults | reuse | replaced | roles | drained | applied | k3s | upgrade) "$one" ;;
    update) upgrade good ;;
    upgrade-all) upgrade all ;;
    *) echo "unknown test $one" >&2; exit 64 ;;
  esac
done
cd "$root"
finish boot
