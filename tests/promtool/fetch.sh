#!/usr/bin/env bash
# Fetches promtool, which checks /metrics and the PromQL of the documents, out of Debian's package
# prometheus. The package itself is not installed: that would start a Prometheus on this machine.
# Where it can't be fetched, says why; the tests then count what they did not run.
set -euo pipefail

target=${1:?usage: fetch.sh TARGET_DIR}

if [[ -x $target/promtool ]] || command -v promtool >/dev/null; then
    exit 0
fi

without() {
    echo "no promtool to test with: $*" >&2
    exit 0
}

for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null ||
        without "there is no $tool: this is neither Debian nor Ubuntu; have promtool in PATH"
done
mkdir -p -- "$target"
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
# apt fetches as a user of its own, if it can.
chmod 755 "$work"
(cd -- "$work" && apt-get -q download prometheus) >"$target/log" 2>&1 ||
    without "apt-get download failed: $(tail -n 1 "$target/log")"
dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/promtool
mv -- "$work/usr/bin/promtool" "$target/promtool"
