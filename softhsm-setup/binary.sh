# shellcheck shell=bash
# Which xksd the scripts use. Sourced, never run. Expects fail(), refuse_root_in_foreign_tree().

# Prints an absolute path: $XKSD, or the release build of the repository this file lies in (built
# first where cargo is there: a moment's work when nothing changed), or the xksd on PATH.
find_xksd() {
    local repository binary
    if [[ -n ${XKSD-} ]]; then
        [[ -f $XKSD && -x $XKSD ]] || fail "$EXIT_UNAVAILABLE" "XKSD names \`$XKSD\`, which is no program"
        realpath -s -- "$XKSD"
        return 0
    fi
    repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
    if [[ -f $repository/Cargo.toml ]] && grep -q '^name = "xksd"$' "$repository/Cargo.toml"; then
        binary=$(realpath -ms -- "${CARGO_TARGET_DIR:-$repository/target}/release/xksd")
        if command -v cargo >/dev/null; then
            refuse_root_in_foreign_tree "$repository"
            cargo build --release --locked --bin xksd --manifest-path "$repository/Cargo.toml" >&2 ||
                fail "$EXIT_SOFTWARE" 'the release build failed' 'what cargo said is above'
        fi
        if [[ -x $binary ]]; then
            printf '%s\n' "$binary"
            return 0
        fi
    fi
    command -v xksd || fail "$EXIT_UNAVAILABLE" 'no xksd found' \
        'name one: XKSD=/path/to/xksd' 'or have cargo on PATH: https://rustup.rs'
}
