#!/usr/bin/env bash
# Installs what is missing on Debian and Ubuntu; asks for root only if something is.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=softhsm-setup/talk.sh
source "$here/talk.sh"

usage() {
    cat <<'END'
usage: install-packages.sh --for run|test|lint

Installs the Debian packages that are missing for
  run   make run, setup.sh:  softhsm2, openssl, curl
  test  make test:           those, python3, python3-venv, python3-yaml, g++, opensc; and for real modules
                             libnss3, libnss3-tools, libclang-dev, libssl-dev, libsqlite3-dev,
                             pkg-config, debootstrap, systemd; and for packages
                             dpkg-dev, rpm, lintian, man-db, iproute2
  lint  make lint:           shellcheck
by apt-get, as root or through sudo. With nothing missing it does nothing and needs nothing.
END
}

# Each probe answers whether what the package is wanted for is there, whoever installed it.
has() { command -v "$1" >/dev/null; }
has_softhsm2() { has softhsm2-util && softhsm_module >/dev/null; }
has_yaml() { python3 -c 'import yaml' 2>/dev/null; }
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }
has_softokn() { compgen -G '/usr/lib*/libsoftokn3.so' || compgen -G '/usr/lib/*/libsoftokn3.so'; } >/dev/null
has_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang.so*' || compgen -G '/usr/lib*/libclang.so*'; } >/dev/null
# In /usr/sbin, which not everybody has in PATH.
has_debootstrap() { PATH=$PATH:/usr/sbin has debootstrap; }
has_header() { compgen -G "/usr/include/$1" || compgen -G "/usr/include/*/$1"; } >/dev/null
# shellcheck source=softhsm-setup/module.sh
source "$here/module.sh"

missing=()
want() {
    local package=$1
    shift
    "$@" || missing+=("$package")
}

want_for_run() {
    want softhsm2 has_softhsm2
    want openssl has openssl
    want curl has curl
}

want_for_test() {
    want_for_run
    want python3 has python3
    want python3-venv has_venv
    # The YAML of the documents is parsed.
    want python3-yaml has_yaml
    want g++ has g++
    want opensc has pkcs11-tool
    # NSS softokn, and what tests/kryoptic is built with.
    want libnss3 has_softokn
    want libnss3-tools has certutil
    want libclang-dev has_libclang
    want libssl-dev has_header openssl/ssl.h
    want libsqlite3-dev has_header sqlite3.h
    want pkg-config has pkg-config
    # An HSM across a network: tests/p11-kit.
    want debootstrap has_debootstrap
    # systemd-analyze, for the units below deploy/systemd.
    want systemd has systemd-analyze
    # What deploy/packages builds with, and what its packages are examined with.
    want dpkg-dev has dpkg-shlibdeps
    want rpm has rpmbuild
    want lintian has lintian
    want man-db has man
    want iproute2 has ip
}

case "$#:${1-}:${2-}" in
    2:--for:run) want_for_run ;;
    2:--for:test) want_for_test ;;
    2:--for:lint) want shellcheck has shellcheck ;;
    1:--help:) usage && exit 0 ;;
    *) usage >&2 && exit "$EXIT_USAGE" ;;
esac

((${#missing[@]})) || exit 0
names=${missing[*]}

has apt-get || fail "$EXIT_UNAVAILABLE" "missing: $names" \
    "these are the names of the Debian and Ubuntu packages; there is no apt-get here, so install them your way"

if ((EUID == 0)); then
    as_root=()
elif has sudo && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
elif has sudo && [[ -t 0 && -t 2 ]]; then
    as_root=(sudo)
else
    fail "$EXIT_UNAVAILABLE" "missing packages: $names" \
        "installing them needs root, and neither root nor sudo is at hand" \
        "have somebody run: apt-get install $names"
fi

say "installing packages: $names"
# A stale or partly unreachable index is no reason to stop: the installation says what it lacks.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2 ||
    say "apt-get update failed; trying with the index as it is"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q install -y --no-install-recommends "${missing[@]}" </dev/null >&2 ||
    fail "$EXIT_UNAVAILABLE" "apt-get could not install: $names" \
        "its own words are above; with the packages in place this step does nothing"
