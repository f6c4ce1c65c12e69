#!/usr/bin/env bash
# What a build is allowed to do and must give: it runs as a user without any right, executes nothing of what it
# downloaded, and gives the same bytes in another directory, for another user, at another time, in another locale and
# on another number of cores. Needs root (to become somebody else), strace and faketime.
#   usage: scripts/build-test.sh [amd64|arm64]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD work=$PWD/build/build-test
. scripts/lib/tests.sh
arch=${1:-amd64}
if [ "$(id -u)" != 0 ]; then skip "not root: nobody else can be tried"; finish build; exit; fi
for program in strace faketime setpriv; do
  command -v $program >/dev/null || { skip "$program is not installed (scripts/setup.sh test)"; finish build; exit; }
done
example=lab-$arch
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bramble
stranger=65534

# A place that the stranger may enter, with a project whose name is awkward, and a cache and a tool of its own.
place=$(mktemp -d /var/tmp/bramble.XXXXXX)
trap 'rm -rf "$place"' EXIT
chmod 755 "$place"
mkdir -p "$place/tool" "$place/somebody's home/cache" "$work"
cp "$(command -v bramble)" "$place/tool/bramble"
cp "$root/target/agent/$arch/bramble-node" "$place/tool/bramble-node-$arch"

# The first build: root, here, now, one core; on a fresh machine Kubernetes is compiled before, on all cores.
rm -rf "$work/first"
mkdir -p "$work/first"
cp "examples/$example/bramble.yaml" "$work/first/"
export SOPS_AGE_KEY_FILE=$work/first/age.key
(cd "$work/first" && bramble init >/dev/null && bramble fetch && TZ=UTC LC_ALL=C taskset -c 0 bramble build >/dev/null 2>&1)

# What the first build loaded and compiled; the stranger has no compiler.
for part in debs lists unpacked programs; do
  [ ! -e "$cache/$part" ] || cp -r --reflink=auto "$cache/$part" "$place/somebody's home/cache/"
done

# The second: a stranger, elsewhere, two years later, another locale and zone, all cores.
other="$place/somebody's home/a prøject"
mkdir -p "$other"
cp "$work/first"/{bramble.yaml,bramble.lock,bramble.secrets.sops.yaml,.sops.yaml,age.key} "$other/"
chown -R $stranger:$stranger "$place/somebody's home"
as_stranger() {
  env -i PATH=/usr/bin:/bin HOME="$place/somebody's home" SOPS_AGE_KEY_FILE="$other/age.key" \
    TZ=Pacific/Auckland LC_ALL=de_DE.UTF-8 LANG=de_DE.UTF-8 BRAMBLE_CACHE_DIR="$place/somebody's home/cache" \
    setpriv --reuid=$stranger --regid=$stranger --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
}
cd "$other"
if as_stranger faketime -f '+730d' "$place/tool/bramble" build >"$work/second.log" 2>&1; then
  ok "a user without rights builds a release"
else
  bad "a user without rights cannot build"
  tail -n 5 "$work/second.log"
fi
for file in $(cd "$work/first/build" && find . -type f ! -name .lock | sort); do
  if cmp -s "$work/first/build/$file" "build/$file"; then
    ok "equal to the byte: $file ($(stat -c %s "build/$file") bytes)"
  else
    bad "differs: $file"
  fi
done

# The third: every program that is executed.
rm -rf build
as_stranger strace -f -qq -e trace=execve,execveat -e signal=none -o "$other/executed.txt" "$place/tool/bramble" build >/dev/null 2>&1 \
  || bad "the build under strace"
programs=$(sed -n 's/.*execve\(at\)\?("\([^"]*\)".* = 0$/\2/p' executed.txt | sort -u)
printf '   every program it executed:\n%s\n' "$(sed 's/^/     /' <<<"$programs")"
check "programs executed beside bramble itself" 0 "$(grep -vc "^$place/tool/bramble$" <<<"$programs" || true)"
cd "$root"
finish build
