#!/usr/bin/env bash
# Makes a minimal Debian 12, with systemd and SoftHSM2 and nothing else, to install packages in.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=tests/debian.sh
source "$here/../debian.sh"

prepare 'Debian to install packages in' "${1:?usage: root.sh TARGET_DIR}"
bootstrap 'a Debian 12 to install packages in' bookworm systemd,softhsm2
"${as_root[@]}" rm -rf -- "$target/root/var/cache/apt" "$target/root/var/lib/apt/lists"
touch "$target/done"
