# shellcheck shell=bash
# What the scripts of this directory say and refuse, in one voice. Sourced, never run.
#
# Like xksd itself: an `error:` line, then `hint:` lines, all on stderr, and an exit code that
# tells a wrong command line (64) from a fault of the machine (69, 70) and of the set-up (78).

# shellcheck disable=SC2034 # for those who source this
readonly EXIT_USAGE=64 EXIT_UNAVAILABLE=69 EXIT_SOFTWARE=70 EXIT_CONFIG=78

say() { printf '%s\n' "$*" >&2; }

# fail CODE ERROR [HINT...]: ends the script.
fail() {
    local code=$1 error=$2 hint
    shift 2
    say "error: $error"
    for hint in "$@"; do say "hint: $hint"; done
    exit "$code"
}

# Ends the script when root works in a tree that somebody else owns: what it left there could
# neither be changed nor removed by the owner. Takes the path that is about to be written to.
refuse_root_in_foreign_tree() {
    local path=$1 owner
    ((EUID == 0)) || return 0
    while [[ ! -e $path ]]; do path=$(dirname -- "$path"); done
    owner=$(stat -c %u -- "$path")
    ((owner == 0)) || fail "$EXIT_CONFIG" "running as root, but \`$path\` belongs to $(stat -c %U -- "$path")" \
        "run this as that user; only the installation of packages asks for root, by itself" \
        "or choose a directory of root's"
}
