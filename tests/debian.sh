# shellcheck shell=bash
# What the scripts have in common that make a Debian for the tests. Sourced, never run.
#
# They want Debian's archive, and root or sudo without a password. Where that can't be done they say why
# and end well; the tests then count what they did not run. What is made is made once: the file `done` in
# its directory says that all of it is there.

# debootstrap is there, which not everybody has in PATH.
PATH=$PATH:/usr/sbin:/sbin

# prepare LACK TARGET_DIR: ends the script if that is made already or can't be; LACK is what there is none of
# then. Afterwards "${as_root[@]}" before a command runs it as root.
prepare() {
    lack=$1 target=$2
    [[ ! -e $target/done ]] || exit 0
    as_root=()
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || without 'making it wants root, or sudo without a password'
        as_root=(sudo -n)
    fi
}

# without REASON: ends the script, and says so.
without() {
    echo "no $lack: $1" >&2
    exit 0
}

# begin WHAT: says what is made, and makes room for it: $target, from here on without links and absolute.
begin() {
    echo "making $1, once"
    mkdir -p -- "$target"
    target=$(cd -- "$target" && pwd -P)
    # What an attempt that broke off has left.
    "${as_root[@]}" rm -rf -- "${target:?}/root"
}

# bootstrap WHAT SUITE PACKAGES: begins, and makes a minimal Debian with these packages, divided by commas,
# in $target/root.
bootstrap() {
    command -v debootstrap >/dev/null || without 'there is no debootstrap (package debootstrap)'
    begin "$1"
    # About a minute and a half; a machine that needs far longer goes without. The archive's signature is
    # checked, so that plain HTTP, which needs no more packages, will do.
    timeout 600 "${as_root[@]}" debootstrap --variant=minbase --include="$3" \
        "$2" "$target/root" http://deb.debian.org/debian >"$target/log" 2>&1 ||
        without "debootstrap failed: $(tail -n 1 "$target/log")"
}
