# Sourced by boot-test.sh: a server and an agent of k3s. A stand-in for k3s checks what k3s would want of its machine;
# with BRAMBLE_K3S_FILE=k3s' release file for amd64 the real one is booted too (BRAMBLE_K3S_IMAGES=its air-gap archive,
# so that its own pods start without a network).

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

stand_in() { # stand_in NODE UNIT START: what the stand-in has said in this boot
  local node=$1 unit=$2 said
  # sshd is up a while after the network.
  for _ in $(seq 60); do on "$node" true 2>/dev/null && break; sleep 2; done
  check "$node: $unit" active "$(on "$node" "timeout 300 sh -c 'until systemctl is-active -q $unit; do sleep 1; done'; systemctl is-active $unit" || true)"
  # Of its last start in this boot: k3s too is started again while the network comes up.
  said=$(on "$node" "journalctl -b -o cat -u $unit" | awk '/ arguments: /{ said = "" } { said = said $0 "\n" } END { printf "%s", said }' || true)
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
    skip "BRAMBLE_K3S_FILE names no release file of k3s. Load k3s from its project's release page, then:"
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
    skip "BRAMBLE_K3S_IMAGES names no archive of images: k3s' own pods are not looked at"
  fi
  bramble lab kill n1
  bramble lab up --timeout 1800 >/dev/null 2>&1 && ok "Ready again after a reset" || bad "Ready again after a reset"
  bramble lab down
}
