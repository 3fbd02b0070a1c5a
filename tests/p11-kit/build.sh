#!/usr/bin/env bash
# Makes a directory with what stands in for an HSM across a network: SoftHSM2 behind `p11-kit server`,
# both of Debian 13, since Debian 12's p11-kit passes no AES-GCM on.
#
# What is in the directory afterwards:
#   root                 Debian 13, as debootstrap makes it
#   with-its-libraries   copies a program so that it runs with the libraries of that Debian
#   bin                  p11-kit's server and its helper, copied so
#   client.so            the module that asks the server
#   softhsm.so           the module that the server asks
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=tests/debian.sh
source "$here/../debian.sh"

prepare 'network HSM to test with' "${1:?usage: build.sh TARGET_DIR}"
bootstrap 'a Debian 13 with p11-kit and SoftHSM2' trixie patchelf,p11-kit,p11-kit-modules,softhsm2

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
