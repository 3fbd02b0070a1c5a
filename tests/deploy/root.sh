#!/usr/bin/env bash
# Makes a minimal Debian 12, with systemd and SoftHSM2 and nothing else, to install packages in. It needs
# Debian's archive, and root or sudo without a password. Where that can't be done, says why; the tests
# then count what they did not run.
set -euo pipefail

target=${1:?usage: root.sh TARGET_DIR}

# About a minute; a machine that needs far longer goes without.
readonly PATIENCE=600
# debootstrap is there, which not everybody has in PATH.
PATH=$PATH:/usr/sbin:/sbin

if [[ -e $target/done ]]; then
    exit 0
fi

without() {
    echo "no Debian to install packages in: $*" >&2
    exit 0
}

as_root=()
if ((EUID != 0)); then
    sudo -n true 2>/dev/null || without 'debootstrap wants root, or sudo without a password'
    as_root=(sudo -n)
fi
command -v debootstrap >/dev/null || without 'there is no debootstrap (package debootstrap)'

echo 'making a Debian 12 to install packages in, once'
mkdir -p -- "$target"
target=$(cd -- "$target" && pwd -P)
# What an attempt that broke off has left.
"${as_root[@]}" rm -rf -- "${target:?}/root"
# The archive's signature is checked, so that plain HTTP, which needs no more packages, will do.
timeout "$PATIENCE" "${as_root[@]}" debootstrap --variant=minbase --include=systemd,softhsm2 \
    bookworm "$target/root" http://deb.debian.org/debian >"$target/log" 2>&1 ||
    without "debootstrap failed: $(tail -n 1 "$target/log")"
"${as_root[@]}" rm -rf -- "$target/root/var/cache/apt" "$target/root/var/lib/apt/lists"
touch "$target/done"
