#!/usr/bin/env bash
# Campaign: the power fails at named moments of the first boot; the lab's disk loses a seeded part of what was not
# flushed; the next boot must reach Ready. Records a line for each in docs/reliability/first-boot-cuts.tsv.
#   usage: scripts/campaign/first-boot-cuts.sh [SEED [MARKER ...]]     (default: seed 1, every marker)
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD work=$PWD/build/campaign/first-boot-cuts
. scripts/lib/tests.sh
trap labs_down EXIT
seed=${1:-1}
[ $# -eq 0 ] || shift
if [ $# -eq 0 ]; then
  set -- data-marked mkfs-begun mkfs-done document-copied document-synced before-wipe wiped etc-rendered \
    switching-root 'stage: runtime'
fi
record=$root/docs/reliability/first-boot-cuts.tsv
[ -e "$record" ] || printf 'version\taccel\tmarker\twrites after\tseed\tkept\ttorn\tlost\tnext boot\tseconds\n' >"$record"
version=$(bramble --version | cut -d' ' -f2)
prepare cuts
for marker in "$@"; do
  # Every third cut falls on the marker itself, the others a few writes later.
  after=$((seed % 3 == 1 ? 0 : seed * 7 % 23))
  bramble lab down --destroy >/dev/null 2>&1 || true
  bramble lab up --no-wait >/dev/null
  if ! cut=$(bramble lab cut n1 --at "$marker" --after-writes "$after" --seed "$seed" 2>&1); then
    bad "$marker: no cut: $cut"
    continue
  fi
  numbers=$(sed -n 's/.* \([0-9]*\) kept, \([0-9]*\) torn, \([0-9]*\) lost.*/\1\t\2\t\3/p' <<<"$cut")
  began=$SECONDS
  if bramble lab up --timeout 1200 >"$work/last.log" 2>&1; then
    result=Ready
    ok "$marker + $after writes, seed $seed (kept, torn, lost: $numbers): Ready after $((SECONDS - began)) s"
  else
    result=failed
    bad "$marker + $after writes, seed $seed (kept, torn, lost: $numbers)"
    tail -n 3 "$work/last.log"
    bramble lab logs n1 | tail -n 20
  fi
  accel=$(bramble lab status | sed -n 's/^n1 .*(\([a-z]*\)).*/\1/p')
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' \
    "$version" "$accel" "$marker" "$after" "$seed" "$numbers" "$result" "$((SECONDS - began))" >>"$record"
  seed=$((seed + 1))
done
bramble lab down --destroy >/dev/null
finish "cuts in the first boot"
