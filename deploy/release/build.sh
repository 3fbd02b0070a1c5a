#!/usr/bin/env bash
# Builds the program that is released, so that whoever builds the same commit with the same Rust and C
# compilers gets the same bytes, whatever the directories are called: docs/release.md. Prints where it is.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
source_directory=$(pwd -P)
target=${CARGO_TARGET_DIR:-$source_directory/target}
mkdir -p -- "$target"
target=$(cd -- "$target" && pwd -P)
crates=$(cd -- "${CARGO_HOME:-$HOME/.cargo}" && pwd -P)

# What stands in the program instead of this machine's directories. The most particular is the last,
# since that is the one that counts.
rust_flags=(
    "--remap-path-prefix=$source_directory=/usr/src/xksd"
    "--remap-path-prefix=$crates=/usr/src/cargo"
    "--remap-path-prefix=$target=/usr/src/target"
)
c_flags=()
for flag in "${rust_flags[@]}"; do
    c_flags+=("-ffile-prefix-map=${flag#--remap-path-prefix=}")
done

# Flags of the caller's would make it another program, without a word in the release about it.
unset RUSTFLAGS CXXFLAGS CPPFLAGS LDFLAGS
export CARGO_TARGET_DIR=$target CARGO_INCREMENTAL=0 LC_ALL=C TZ=UTC
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' "${rust_flags[@]}")
export CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%$'\x1f'} CFLAGS="${c_flags[*]}"
cargo build --release --locked --bin xksd >&2
printf '%s\n' "$target/release/xksd"
