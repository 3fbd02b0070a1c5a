#!/bin/sh
# What the image adds to its base: run by the Dockerfile in its first stage, where there may be no bash.
# Everything in there has the same bytes, modes and times whenever it is made from the same source.
set -eu
umask 022

root=${1:?usage: files.sh DIR}
documents=$root/usr/share/doc/xksd

mkdir -p "$root/usr/bin" "$root/etc/xksd" "$root/var/lib" "$documents"
# Its user's; a volume that is mounted there for the first time takes owner and mode from here.
install -d -m 700 -o 65532 -g 65532 "$root/var/lib/xksd"

if [ -n "${PREBUILT-}" ]; then
    install -m 755 -- "$PREBUILT" "$root/usr/bin/xksd"
else
    cargo build --release --locked --bin xksd
    install -m 755 "${CARGO_TARGET_DIR:-target}/release/xksd" "$root/usr/bin/xksd"
fi

install -m 644 LICENSE "$documents/copyright"
if [ -n "${SBOM-}" ]; then
    install -m 644 -- "$SBOM" "$documents/sbom.cdx.json"
else
    deploy/container/sbom.sh Cargo.lock >"$documents/sbom.cdx.json"
fi

find "$root" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
