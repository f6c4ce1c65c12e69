# Sourced by the scripts that boot machines: counts what passed, makes projects.
# Expects $root (the repository) and $work (a directory of this script's own).
PATH=${BRAMBLE_BIN:-$root/target/release}:$PATH
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); printf '   ok    %s\n' "$*"; }
bad() { failed=$((failed + 1)); printf '   FAIL  %s\n' "$*"; }
skip() { skipped=$((skipped + 1)); printf '   SKIP  %s\n' "$*"; }
check() { # check WHAT EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then ok "$1: $3"; else bad "$1: expected '$2', got '$3'"; fi
}
finish() { # finish NAME
  printf '\n%s: %d passed, %d failed, %d skipped\n' "$1" "$passed" "$failed" "$skipped"
  [ "$failed" = 0 ]
}

# prepare NAME [EXAMPLE [DATASTORE]]: a project of its own, with ssh allowed, as the present directory
prepare() {
  local name=$1 example=${2:-lab-amd64} store=${3:-sqlite}
  mkdir -p "$work/$name"
  cd "$work/$name"
  [ -e key ] || ssh-keygen -q -t ed25519 -N '' -C test -f key
  sed -e "s/datastore: .*/datastore: $store/" "$root/examples/$example/bramble.yaml" >bramble.yaml
  grep -q "datastore: $store" bramble.yaml
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

on() { local node=$1; shift; bramble lab ssh "$node" -- "$@"; } # on NODE COMMAND...
guest() { on n1 "$@"; }
kubectl_in_lab() { bramble lab kubectl -- "$@"; }

# Switches off whatever a script leaves on, also when it is interrupted.
labs_down() {
  local directory
  cd "$root"
  for directory in "$work"/*/; do
    [ -d "$directory/.bramble/lab" ] && bramble -f "$directory/bramble.yaml" lab down >/dev/null 2>&1
  done
  true
}
