#!/bin/bash
# A control plane and a worker from the files that this crate makes, each in network and mount namespaces of this host:
#   two-nodes.sh up PROGRAMS etcd|sqlite host-gw|vxlan [expired]    starts both, the worker five seconds after the
#     control plane; with "expired" the worker's first client certificate has run out before it ever started
#   two-nodes.sh check                                    both Ready, a pod of n2 reaches a service on n1 by name, ...
#   two-nodes.sh kc ARGS...                               kubectl as administrator
#   two-nodes.sh down
# Needs root, runc, nft and the namespaces of a real kernel; PROGRAMS is a directory of programs or the tool's cache.
# The units are the real ones, run by forty lines that stand in for systemd (restart, order and sandboxing are the
# virtual machine's test). Changed for this host alone: cgroup v1, no right to lower an OOM score, closed sysctls.
set -u
R=${REHEARSAL:-/tmp/bramble-rehearsal}
SELF=$(readlink -f "$0")
REHEARSE=${REHEARSE:-$(dirname "$SELF")/../../../target/debug/examples/rehearse}
NODES="n1 n2"
ip4() { echo "10.77.0.1${1#n}"; }
kc() { nsenter --net=/run/netns/br-n1 "$R/image/usr/bin/kube" kubectl --kubeconfig "$R/kubeconfig" "$@"; }
controllers="cpu cpuacct cpuset memory devices freezer blkio pids systemd"

# Runs one unit in the way systemd would, as far as a test needs it.
unit() {
  local name=$1 file=/usr/lib/systemd/system/$1 key value type=simple start= restart=no
  while IFS='=' read -r key value; do
    case $key in
      Type) type=$value ;;
      Restart) restart=$value ;;
      ExecStart) start=$value ;;
      RuntimeDirectory) mkdir -p -m 0700 "/run/$value" ;;
      EnvironmentFile)
        local env=${value#-}
        [ -e "$env" ] && while IFS='=' read -r k v; do [ -n "$k" ] && export "$k=$v"; done < <(sed ':a;/\\$/{N;s/\\\n//;ba}' "$env") ;;
    esac
  done < "$file"
  # $ARGS is split at blanks, as systemd does.
  local code
  while :; do
    eval "set -- ${start/\$ARGS/\$ARGS}"
    "$@" >> "$R/log/$node/${name%.service}" 2>&1 &
    echo $! > "$R/pids/$node.$name"
    wait $!; code=$?
    echo "$(date +%s.%N) $node $name ended $code" >> "$R/times"
    [ -e "$R/stop" ] && return
    [ "$restart" = always ] || { [ "$restart" = on-failure ] && [ $code != 0 ]; } || return
    sleep 1
  done
}

case ${1:-} in
up)
  [ -e "$R" ] && { echo "$R exists: run down first" >&2; exit 1; }
  mkdir -p "$R/pids" "$R/log"; "$REHEARSE" "$R" "${@:2}" || exit 1
  ip netns add br-sw; ip -n br-sw link add br0 type bridge; ip -n br-sw addr add 10.77.0.1/24 dev br0; ip -n br-sw link set br0 up
  for n in $NODES; do
    ip netns add br-$n; ip -n br-sw link add $n type veth peer name eth0 netns br-$n; ip -n br-sw link set $n master br0 up
    ip -n br-$n link set lo up; ip -n br-$n addr add $(ip4 $n)/24 dev eth0; ip -n br-$n link set eth0 up; ip -n br-$n route add default via 10.77.0.1
    ip netns exec br-$n sysctl -qw net.ipv4.ip_forward=1
    for c in $controllers; do mkdir -p /sys/fs/cgroup/$c/bramble/$n; done
    for f in bramble bramble/$n; do for v in cpus mems; do cat /sys/fs/cgroup/cpuset/cpuset.$v > /sys/fs/cgroup/cpuset/$f/cpuset.$v; done; done
    # What this host needs otherwise than a Bramble machine.
    e=$R/$n/etc
    sed -i 's/SystemdCgroup = true/SystemdCgroup = false/; s/^\[plugins."io.containerd.cri.v1.runtime".cni\]/[plugins."io.containerd.cri.v1.runtime"]\nrestrict_oom_score_adj = true\n\n&/' $e/containerd/config.toml
    sed -i 's/"cgroupDriver": "systemd"/"cgroupDriver": "cgroupfs", "cgroupRoot": "\/bramble\/'$n'", "failCgroupV1": false, "failSwapOn": false/; s/"nodefs.available": "10%"/"nodefs.available": "1%"/; s/"imagefs.available": "10%"/"imagefs.available": "1%"/' $e/kubernetes/kubelet.json
    sed -i 's/"mode": "nftables"/"mode": "nftables", "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}/' $e/kubernetes/kube-proxy.json
    mkdir -p $R/log/$n $R/var/$n $R/up/$n $R/work/$n
  done
  date +%s.%N > "$R/t0"
  for n in $NODES; do
    nsenter --net=/run/netns/br-$n unshare -m --propagation private setsid bash "$SELF" inner $n > "$R/log/$n/inner" 2>&1 &
    sleep 5
  done ;;
inner)
  node=$2
  mount --make-rshared /
  mount -t tmpfs t /run; mkdir -p /run/netns /run/lock /run/bramble-etc/up /run/bramble-etc/work
  # The root image's part above this host's /usr, the rendered /etc above its /etc, state of its own below /var.
  mount -t overlay o -o "lowerdir=$R/image/usr:/usr" /usr
  mount -t overlay o -o "lowerdir=$R/$node/etc:/etc,upperdir=/run/bramble-etc/up,workdir=/run/bramble-etc/work" /etc
  for d in lib/containerd lib/kubelet lib/etcd lib/kine lib/cni log/pods log/containers log/kubernetes; do
    mkdir -p "$R/var/$node/$d" "/var/$d"; mount --bind "$R/var/$node/$d" "/var/$d"
  done
  mkdir -p /var/lib/cni/bin /var/lib/kubelet/volume-plugins
  export PATH=/usr/sbin:/usr/bin:/sbin:/bin
  # In the order that After= gives: what is a oneshot is waited for.
  for u in containerd bramble-podnat bramble-images bramble-images-rest etcd kine kube-apiserver kube-controller-manager kube-scheduler flanneld kubelet kube-proxy bramble-register-node bramble-manifests; do
    [ -L /etc/systemd/system/multi-user.target.wants/$u.service ] || continue
    if grep -q '^Type=oneshot' /usr/lib/systemd/system/$u.service; then
      case $u in bramble-images*) until ctr version >/dev/null 2>&1; do sleep .2; done ;; esac
      ( unit $u.service )
    else
      ( unit $u.service ) &
    fi
  done
  while [ ! -e "$R/stop" ]; do sleep .5; done
  for p in "$R"/pids/$node.*; do kill "$(cat "$p")" 2>/dev/null; done; sleep 2
  for p in "$R"/pids/$node.*; do kill -9 "$(cat "$p")" 2>/dev/null; done
  for p in $(find /sys/fs/cgroup/pids/bramble/$node -name cgroup.procs -exec cat {} + 2>/dev/null); do kill -9 "$p" 2>/dev/null; done ;;
kc) shift; kc "$@" ;;
check)
  t0=$(cat "$R/t0"); since() { printf '%6.1f s  %s\n' "$(echo "$(date +%s.%N) - $t0" | bc)" "$*"; }
  fail() { since "FAILED: $*"; exit 1; }
  within() { local end=$((SECONDS + $1)); shift; until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep .5; done; }
  within 90 kc get --raw /readyz || fail "no API"; since "API ready"
  for n in $NODES; do within 90 kc wait --for=condition=Ready node/$n --timeout=1s || fail "$n not Ready"; since "$n Ready"; done
  within 90 kc -n kube-system rollout status deploy/coredns --timeout=1s || fail "no DNS"; since "CoreDNS available"
  kc get nodes -o wide --show-labels
  [ "$(kc get nodes -o jsonpath='{.items[*].spec.podCIDR}')" = "10.42.1.0/24 10.42.2.0/24" ] || fail "pod ranges"
  kc get node n1 -o jsonpath='{.metadata.labels}' | grep -q node-role.kubernetes.io/control-plane || fail "no role label"
  kc get node n1 -o jsonpath='{.spec.taints[*].key}' | grep -q node-role.kubernetes.io/control-plane || fail "no taint"
  kc apply -f - >/dev/null <<'Y'
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: n1
  tolerations: [{operator: Exists}]
  containers: [{name: w, image: "bramble.home.arpa/probe:1", imagePullPolicy: Never, args: [serve]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: n2
  restartPolicy: OnFailure
  containers: [{name: c, image: "bramble.home.arpa/probe:1", imagePullPolicy: Never, args: [get, "http://web.default.svc.cluster.local/", "3"]}]
Y
  within 90 kc wait --for=jsonpath='{.status.phase}'=Succeeded pod/client --timeout=1s || { kc get pods -A -o wide; kc logs client; fail "the client pod"; }
  since "a pod of n2 reached a service on n1 by name"
  kc logs client
  kc exec web -- /probe echo "exec works" || fail "exec"
  # Pod Security: a privileged pod is refused in the default namespace.
  kc run bad --image=x --privileged 2>&1 | grep -q 'violates PodSecurity' || fail "a privileged pod was taken"
  # Encryption at rest: the value is nowhere in the datastore's files.
  kc create secret generic known --from-literal=v=FindMeInTheDatastore >/dev/null
  grep -rqa FindMeInTheDatastore "$R/var/n1/lib/etcd" "$R/var/n1/lib/kine" && fail "a Secret lies in the clear"
  # The kubelets' identities: renewed, and good for nothing but their own node.
  dir=$R/var/n2/lib/kubelet/pki/$(printf %032x 2)
  within 30 test -L "$dir/kubelet-client-current.pem" || fail "n2's certificate was not renewed"
  pem=$dir/$(basename "$(readlink "$dir/kubelet-client-current.pem")")
  n2() { nsenter --net=/run/netns/br-n2 "$R/image/usr/bin/kube" kubectl --server https://10.77.0.11:6443 --certificate-authority "$R/n2/etc/kubernetes/pki/serving-ca.crt" --client-certificate "$1" --client-key "$1" "${@:2}"; }
  n2 "$pem" get node n2 >/dev/null || fail "n2 may not read itself"
  n2 "$pem" patch node n1 --type merge -p '{"metadata":{"labels":{"x":"y"}}}' 2>&1 | grep -q -i forbidden || fail "n2 changed n1"
  n2 "$pem" label node n2 node-role.kubernetes.io/control-plane= 2>&1 | grep -q -i forbidden || fail "n2 named its role"
  r() { nsenter --net=/run/netns/br-n2 "$R/image/usr/bin/kube" kubectl --kubeconfig "$R/n2/etc/kubernetes/kubelet-renewal.conf" "$@"; }
  r get node n2 2>&1 | grep -q -i forbidden || fail "the renewal credential may read a node"
  grep -q '"verb":"create"' "$R/var/n1/log/kubernetes/audit.log" || fail "no audit log"
  grep -q FindMe "$R/var/n1/log/kubernetes/audit.log" && fail "a Secret in the audit log"
  kc get csr
  since "all checks passed" ;;
down)
  touch "$R/stop"; sleep 5
  for n in $NODES sw; do for p in $(ip netns pids br-$n 2>/dev/null); do kill -9 "$p" 2>/dev/null; done; sleep .3; ip netns del br-$n; done
  for c in $controllers; do find /sys/fs/cgroup/$c/bramble -depth -type d -exec rmdir {} + 2>/dev/null; done
  rm -rf "$R" ;;
*) sed -n '2,10p' "$SELF"; exit 64 ;;
esac
