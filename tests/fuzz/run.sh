#!/usr/bin/env bash
# A run of every fuzz target, on the stable toolchain: run.sh [SECONDS PER TARGET] [TARGET...]
#
# Coverage comes from LLVM's own pass, asked for by stable flags; no sanitizer, so no nightly.
# A crash leaves its input under tests/fuzz/artifacts/ and fails the run.
set -euo pipefail

cd "$(dirname "$0")"
seconds=${1:-20}
shift || true
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=(path authorization request object pipeline)

host=$(rustc -vV | sed -n 's/^host: //p')
flags='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
flags+=' -Cllvm-args=-sanitizer-coverage-inline-8bit-counters'
flags+=' -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares'
flags+=' --cfg fuzzing -Ccodegen-units=1'
target_dir=${CARGO_TARGET_DIR:-../../target}/fuzz

# With --target the flags reach the targets and their libraries, not build scripts.
RUSTFLAGS=$flags cargo build --release --locked --offline --target "$host" --target-dir "$target_dir"

mkdir -p artifacts
for target in "${targets[@]}"; do
    corpus=$target_dir/corpus/$target
    mkdir -p "$corpus"
    echo "fuzz: $target for $seconds s"
    if ! "$target_dir/$host/release/$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -max_len=8192 -artifact_prefix="artifacts/$target-" \
        -print_final_stats=1 "$corpus" "seeds/$target" >"$target_dir/$target.log" 2>&1; then
        tail -n 40 "$target_dir/$target.log"
        echo "fuzz: $target failed" >&2
        exit 1
    fi
    grep -E 'number_of_executed_units|new_units_added' "$target_dir/$target.log"
done
