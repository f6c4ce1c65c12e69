#!/usr/bin/env bash
# Looks for every production secret of a project in all that its commands leave behind: repository, cache, journals,
# logs, events, releases, lab folders. The one place where they may lie is the image of a node that was asked for, and
# there they must be found, else the search finds nothing. The real `sops` opens the secrets file.
#   usage: scripts/secret-scan.sh [--no-lab]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD work=$PWD/build/secret-scan
. scripts/lib/tests.sh
trap labs_down EXIT
tools=${XDG_CACHE_HOME:-$HOME/.cache}/bramble/tools
sops_version=v3.13.3
sops=$(command -v sops || true)
if [ -z "$sops" ]; then
  sops=$tools/sops-$sops_version/sops
  if [ ! -x "$sops" ]; then
    echo "secret-scan.sh: building sops $sops_version from its Go module, once" >&2
    GOBIN=$tools/sops-$sops_version go install "github.com/getsops/sops/v3/cmd/sops@$sops_version"
  fi
fi
rm -rf "$work"
mkdir -p "$work/project" "$work/out"
cd "$work/project"
export SOPS_AGE_KEY_FILE=$work/age.key
cp "$root/examples/lab-amd64/bramble.yaml" .
git init -q .
logs=$work/out
bramble init >"$logs/init.log" 2>&1
bramble check >"$logs/check.log" 2>&1
bramble plan -o json >"$logs/plan.json" 2>&1
bramble --progress json build --node n1 >"$logs/events.json" 2>"$logs/build.log"
bramble plan >"$logs/plan.txt" 2>&1
if [ "${1:-}" != --no-lab ]; then
  bramble --progress json lab up --until runtime --timeout 900 >"$logs/lab-events.json" 2>"$logs/lab.log" || bad "lab up"
  bramble lab logs n1 >"$logs/console.log" 2>&1 || true
  bramble lab down >/dev/null 2>&1 || true
fi
git add -A
if "$sops" decrypt bramble.secrets.sops.yaml >"$work/clear.yaml"; then
  ok "the real sops ($("$sops" --version | head -n 1 | tr -s ' ' | cut -d' ' -f1,2)) decrypts the secrets file"
else
  bad "the real sops cannot decrypt the secrets file"
fi
chmod 600 "$work/clear.yaml"
status=0
python3 - "$work/clear.yaml" "$work/project" "$logs" "${XDG_CACHE_HOME:-$HOME/.cache}/bramble" <<'PY' || status=$?
import base64, mmap, os, re, sys

clear, project, logs, cache = sys.argv[1:]
text = open(clear).read()

# Needles: key lines of every private key, raw and as base64 inside kubeconfigs, and every long random word.
needles = set()
def pem(block):
    for body in re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", block, re.S):
        lines = [line for line in body.replace("\\n", "\n").split() if len(line) >= 40]
        # The first of several lines names the kind of key, with the same bytes in every key of that kind; an Ed25519
        # key is one line, and its end is its own.
        for line in lines[1:] or lines:
            needles.add(line[-40:].encode())
pem(text)
for word in set(re.findall(r"[A-Za-z0-9+/=]{200,}", text)):
    try:
        inner = base64.b64decode(word, validate=True)
    except Exception:
        continue
    if b"PRIVATE KEY" in inner:
        needles.add(word[80:140].encode())
        pem(inner.decode())
for key, word in re.findall(r"(?m)^\s*(signingKey|key|secret|token|password):\s*\"?([A-Za-z0-9+/=]{24,})\"?\s*$", text):
    needles.add(word.encode())
for word in re.findall(r"(?m)^\s*- ?([A-Za-z0-9+/=]{40,})\s*$", text):
    needles.add(word.encode())
print(f"   {len(needles)} needles")
if len(needles) < 10:
    sys.exit("too few secrets were found in the secrets file: the search would prove nothing")

def written(file):
    """The ranges of a file that are not holes: disks of machines are mostly holes."""
    at, size = 0, os.fstat(file.fileno()).st_size
    while at < size:
        try:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
        yield at, end
        at = end

found, searched = {}, 0
for top in (project, logs, cache):
    for folder, names, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path) or not os.path.getsize(path):
                continue
            if path.startswith(os.path.join(cache, "tools")) or path.startswith(os.path.join(cache, "go-build")):
                continue
            with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for start, end in written(f):
                    searched += end - start
                    for needle in needles:
                        # From a little before, for what goes over the edge.
                        if data.find(needle, max(0, start - len(needle)), end) >= 0:
                            found.setdefault(path, set()).add(needle)
image = os.path.join(project, "build", "n1.img")
hits = len(found.pop(image, []))
print(f"   searched {searched / 1e9:.1f} GB; in the image that was asked for: {hits} needles")
for path, which in found.items():
    print(f"   FOUND {len(which)} in {path}")
if not hits:
    sys.exit("the image of n1 has none of them: the search is broken")
sys.exit(1 if found else 0)
PY
rm -f "$work/clear.yaml"
check "secrets found outside the image of the node" 0 "$status"
check "the image's mode" 600 "$(stat -c %a build/n1.img)"
rm -f build/n1.img
cd "$root"
finish "secret scan"
