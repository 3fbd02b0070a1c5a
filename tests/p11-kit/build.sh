#!/usr/bin/env bash
# Makes a directory with what stands in for an HSM across a network: SoftHSM2 behind `p11-kit server`,
# both of Debian 13, since Debian 12's p11-kit passes no AES-GCM on. It needs Debian's archive, and
# root or sudo without a password. Where that can't be done, says why; the tests then count what they
# did not run.
#
# What is in the directory afterwards:
#   root                 Debian 13, as debootstrap makes it
#   with-its-libraries   copies a program so that it runs with the libraries of that Debian
#   bin                  p11-kit's server and its helper, copied so
#   client.so            the module that asks the server
#   softhsm.so           the module that the server asks
set -euo pipefail

target=${1:?usage: build.sh TARGET_DIR}

# About a minute and a half; a machine that needs far longer goes without.
readonly PATIENCE=600
# debootstrap is there, which not everybody has in PATH.
PATH=$PATH:/usr/sbin:/sbin

if [[ -e $target/done ]]; then
    exit 0
fi

without() {
    echo "no network HSM to test with: $*" >&2
    exit 0
}

as_root=()
if ((EUID != 0)); then
    sudo -n true 2>/dev/null || without 'debootstrap wants root, or sudo without a password'
    as_root=(sudo -n)
fi
command -v debootstrap >/dev/null || without 'there is no debootstrap (package debootstrap)'

echo 'making a Debian 13 with p11-kit and SoftHSM2, once'
mkdir -p -- "$target"
target=$(cd -- "$target" && pwd -P)
# What an attempt that broke off has left.
"${as_root[@]}" rm -rf -- "${target:?}/root"
# The archive's signature is checked, so that plain HTTP, which needs no more packages, will do.
timeout "$PATIENCE" "${as_root[@]}" debootstrap --variant=minbase \
    --include=patchelf,p11-kit,p11-kit-modules,softhsm2 \
    trixie "$target/root" http://deb.debian.org/debian >"$target/log" 2>&1 ||
    without "debootstrap failed: $(tail -n 1 "$target/log")"

# The C library's loader and the directory of libraries, whatever the architecture.
loader=$(compgen -G "$target/root/usr/lib/*/ld-linux*.so.*" | head -n 1)
libraries=$(dirname -- "$loader")

cat >"$target/with-its-libraries" <<END
#!/bin/sh
# usage: with-its-libraries PROGRAM COPY
set -eu
cp -- "\$1" "\$2"
exec '$loader' --library-path '$libraries' '$target/root/usr/bin/patchelf' \\
    --set-interpreter '$loader' --force-rpath --set-rpath '$libraries' "\$2"
END
chmod +x "$target/with-its-libraries"

mkdir -p "$target/bin"
for name in server remote; do
    "$target/with-its-libraries" "$target/root/usr/libexec/p11-kit/p11-kit-$name" \
        "$target/bin/p11-kit-$name"
done
ln -sf "$libraries/pkcs11/p11-kit-client.so" "$target/client.so"
ln -sf "$target/root/usr/lib/softhsm/libsofthsm2.so" "$target/softhsm.so"
touch "$target/done"
