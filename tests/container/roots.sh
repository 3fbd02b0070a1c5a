#!/usr/bin/env bash
# Makes two root file systems for container images, where no registry is: the tests import them. They
# are made from the Debian 13 of tests/p11-kit/build.sh, so that needs to have run, where there is a
# container engine.
#
# What is in the directory afterwards:
#   debian.tar  Debian 13 with SoftHSM2, openssl, HAProxy and Prometheus
#   small.tar   the C library, libgcc and CA certificates of that, and little else: no shell
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=tests/debian.sh
source "$here/../debian.sh"

prepare 'images to test containers with' "${1:?usage: roots.sh TARGET_DIR NETWORK_HSM_DIR}"
debian=${2:?usage: roots.sh TARGET_DIR NETWORK_HSM_DIR}/root
docker info >/dev/null 2>&1 || without 'no docker engine answers here'
[[ -d $debian/usr/bin ]] || without "there is no Debian in $debian"

begin 'root file systems for container images'
root=$target/root
"${as_root[@]}" cp -a -- "$debian" "$root"
# No package starts anything in there, nor on this machine.
printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$root/usr/sbin/policy-rc.d" >/dev/null
"${as_root[@]}" chmod 755 "$root/usr/sbin/policy-rc.d"
# Under a minute; a machine that needs far longer goes without.
timeout 300 "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" sh -ec '
    apt-get -q update
    apt-get -q install -y --no-install-recommends ca-certificates curl openssl haproxy prometheus
    apt-get clean
    rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/*
' >"$target/log" 2>&1 || without "apt-get failed: $(tail -n 1 "$target/log")"

# What a program in C or Rust needs, and a library of a vendor mostly: the files of these packages.
small() {
    local packages=(base-files libc6 libgcc-s1 libstdc++6)
    "${as_root[@]}" chroot "$root" dpkg-query --listfiles "${packages[@]}" |
        grep -v -e '^/\.$' -e '^/usr/share/' -e '^/etc/update-motd' -e '/gconv' -e '^package diverts' |
        sort -u |
        while read -r path; do [[ ! -e $root$path && ! -L $root$path ]] || echo ".$path"; done
    echo ./etc/ssl/certs/ca-certificates.crt
    echo ./etc/ld.so.cache
}
small >"$target/small.list"
"${as_root[@]}" tar -C "$root" --no-recursion -cf "$target/small.tar" -T "$target/small.list"
"${as_root[@]}" tar -C "$root" -cf "$target/debian.tar" .
"${as_root[@]}" rm -rf -- "$root"
touch "$target/done"
