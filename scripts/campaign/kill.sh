#!/usr/bin/env bash
# Campaign: `build` and `lab up` killed with SIGKILL at ten points each; the next run must go on to the same end.
# Records a line for each in docs/reliability/kill.tsv.
#   usage: scripts/campaign/kill.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD work=$PWD/build/campaign/kill
. scripts/lib/tests.sh
trap labs_down EXIT
record=$root/docs/reliability/kill.tsv
[ -e "$record" ] || printf 'version\tcommand\tkilled after (s)\tits last finished step\tnext run\n' >"$record"
version=$(bramble --version | cut -d' ' -f2)
export SOPS_AGE_KEY_FILE=$work/age.key
mkdir -p "$work"

# killed SECONDS COMMAND...: kills the command after so long; prints the last step it finished
killed() {
  local after=$1 pid
  shift
  "$@" >"$work/killed.log" 2>&1 &
  pid=$!
  sleep "$after"
  if kill -9 $pid 2>/dev/null; then
    wait $pid 2>/dev/null || true
    sed -n 's/^ [✓=] \([^ ]*\).*/\1/p' "$work/killed.log" | tail -n 1 | grep . || echo "none"
  else
    wait $pid && echo "all: it had ended" || echo "none: it had failed"
  fi
}

printf '\n-- build\n'
prepare build >/dev/null
bramble init >/dev/null
rm -rf build
bramble build --node n1 >/dev/null 2>&1
# The document carries the hour of its issue, so that only the release can be compared.
sum() { (cd build && find . -type f ! -name '*.img.bmap' ! -name 'n1.img' ! -name .lock -print0 | sort -z | xargs -0 sha256sum | sha256sum); }
expected=$(sum)
for after in 0.1 0.3 0.5 0.8 1.0 1.3 1.6 2.0 2.5 3.0; do
  rm -rf build
  had=$(killed "$after" bramble build --node n1)
  if bramble build --node n1 >"$work/next.log" 2>&1 && [ "$(sum)" = "$expected" ] && [ -s build/n1.img ] \
    && [ -z "$(find build -name '*.partial' -o -name '*.new')" ]; then
    result="the same bytes"
    ok "build killed after $after s ($had): the next run gives the same release"
  else
    result=failed
    bad "build killed after $after s ($had)"
    tail -n 5 "$work/next.log"
  fi
  printf '%s\tbuild\t%s\t%s\t%s\n' "$version" "$after" "$had" "$result" >>"$record"
done

printf '\n-- lab up\n'
prepare lab >/dev/null
for after in 0.2 0.6 1.0 1.5 2.0 2.5 3.5 5 8 30; do
  bramble lab down --destroy >/dev/null 2>&1 || true
  had=$(killed "$after" bramble lab up)
  # The last one all the way, the others until the machine has its document.
  until=document
  [ "$after" != 30 ] || until=ready
  if bramble lab up --until $until --timeout 1200 >"$work/next.log" 2>&1; then
    result=$until
    ok "lab up killed after $after s ($had): the next run reaches $until"
  else
    result=failed
    bad "lab up killed after $after s ($had)"
    tail -n 5 "$work/next.log"
  fi
  printf '%s\tlab up\t%s\t%s\t%s\n' "$version" "$after" "$had" "$result" >>"$record"
done
bramble lab down --destroy >/dev/null
finish "killed commands"
