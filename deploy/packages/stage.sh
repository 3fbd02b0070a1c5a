#!/usr/bin/env bash
# Lays out below a directory what a package installs, the same for every format.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
source_directory=$(cd -- "$here/../.." && pwd -P)
readonly here source_directory

if (($# != 3)); then
    echo 'usage: stage.sh PROGRAM DIRECTORY ZSH_COMPLETIONS' >&2
    exit 64
fi
program=$(cd -- "$(dirname -- "$1")" && pwd -P)/$(basename -- "$1")
root=$2
zsh_completions=$3

umask 022
mkdir -p -- "$root"
root=$(cd -- "$root" && pwd -P)
cd -- "$source_directory"

put() { install -D -m "$1" -- "$2" "$root/$3"; }

put 755 "$program" usr/bin/xksd
# A panic says its file and line without symbols, too.
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/xksd"

for unit in xksd.service xksd.socket xksd-ops.socket; do
    put 644 "deploy/systemd/$unit" "usr/lib/systemd/system/$unit"
done
put 644 deploy/systemd/xksd.sysusers usr/lib/sysusers.d/xksd.conf
put 644 deploy/packages/xksd.tmpfiles usr/lib/tmpfiles.d/xksd.conf
for drop_in in deploy/systemd/xksd.service.d/*.conf; do
    put 644 "$drop_in" "usr/share/doc/xksd/examples/xksd.service.d/${drop_in##*/}"
done

# Not xksd.toml: a template names no HSM of this machine, and an upgrade leaves the operator's file alone.
install -d -m 755 "$root/etc/xksd"
install -d -m 700 "$root/etc/xksd/credentials"
"$program" config template >"$root/etc/xksd/xksd.toml.example"

"$program" man "$root/usr/share/man/man1"
gzip -9n "$root"/usr/share/man/man1/*.1
complete_for() {
    mkdir -p -- "$root/$2"
    "$program" completions "$1" >"$root/$2/$3"
}
complete_for bash usr/share/bash-completion/completions xksd
complete_for zsh "$zsh_completions" _xksd
complete_for fish usr/share/fish/vendor_completions.d xksd.fish

documents=usr/share/doc/xksd
put 644 CHANGELOG.md "$documents/changelog"
put 644 SECURITY.md "$documents/SECURITY.md"
deploy/release/inventory.py sbom >"$root/$documents/sbom.cdx.json"
deploy/release/inventory.py licenses >"$root/$documents/third-party-licenses.txt"
gzip -9n "$root/$documents"/{changelog,third-party-licenses.txt}
