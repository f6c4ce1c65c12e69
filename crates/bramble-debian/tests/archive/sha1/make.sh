#!/usr/bin/env bash
# Makes what rPGP will not: a key whose bindings, and a text whose signature, are made with SHA-1; and an RSA key that
# is too short. Needs GnuPG 2.2 or 2.4. The results are committed; run again only to change them.
set -euo pipefail
cd "$(dirname "$0")"
export GNUPGHOME; GNUPGHOME=$(mktemp -d); trap 'gpgconf --kill all; rm -rf "$GNUPGHOME"' EXIT
text=$'Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 31 Jan 2026 00:00:00 UTC\nSHA256:'
run() { gpg --batch --quiet --yes --pinentry-mode loopback --passphrase '' --faked-system-time "$@"; }
make() { # name, certification digest, text digest, algorithm
  run 20260101T000000! --cert-digest-algo "$2" --quick-generate-key "$1" "$4" sign never
  run 20260131T000000! --export "$1" > "$1.gpg"
  run 20260131T000000! --local-user "$1" --digest-algo "$3" --clear-sign <<< "$text" > "$1.InRelease"
}
make bound-by-sha1 SHA1 SHA256 rsa2048
make signed-by-sha1 SHA256 SHA1 rsa2048
make short-key SHA256 SHA256 rsa1024
