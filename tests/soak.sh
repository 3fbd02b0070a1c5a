#!/usr/bin/env bash
# Runs the long forms of tests/reliability in a release build, and prints the table that stands in
# docs/reliability.md, with what it was made from. `make soak` is the way to call it.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

commit=$(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')
[[ -z $(git status --porcelain 2>/dev/null) ]] || commit+=', with changes'
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
# The tests load the shim's library and run the daemon, which `cargo test` need not build.
cargo build --quiet --release --workspace --locked --offline
# Fifty races of three, which give no figures: they go well, or the rest is not worth a table.
[[ -n ${SOAK_ONLY:-} ]] || cargo test --quiet --release --locked --offline --test keys -- \
    --ignored --exact race::of_three_that_race_fifty_times_one_wins_each_time >&2
# Three instances in containers, one of which is lost: a table of its own.
instances() {
    cargo test --quiet --release --locked --offline --test deploy -- --ignored --exact compose::figures --nocapture
}
echo "$(date -u +%F), commit $commit, $(nproc) processors (${cpu:-unknown})"
echo
if [[ ${SOAK_ONLY:-} == instances ]]; then
    instances
    exit
fi
cargo test --quiet --release --locked --offline --test reliability -- \
    --ignored --exact soak::soak --nocapture
[[ -n ${SOAK_ONLY:-} ]] || instances
