#!/usr/bin/env bash
# Builds kryoptic as a PKCS#11 module, for the tests that want a token which is not SoftHSM2.
# Where that can't be done, says why; the tests then count what they did not run.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
target=${1:?usage: build.sh TARGET_DIR}
module=$target/debug/libkryoptic_module.so

# About a minute of two processors; a machine that needs far longer goes without.
readonly PATIENCE=600

if [[ -e $module && $module -nt $here/Cargo.lock && $module -nt $here/src/lib.rs ]]; then
    exit 0
fi
echo "building kryoptic, once"
if ! timeout "$PATIENCE" cargo build --quiet --locked --manifest-path "$here/Cargo.toml" --target-dir "$target"; then
    rm -f -- "$module"
    echo "kryoptic was not built: it wants a network, libclang, OpenSSL's and SQLite's headers" >&2
fi
