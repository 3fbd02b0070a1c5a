#!/usr/bin/env bash
# What the image with SoftHSM2 begins with:
#   serve            sets up what is not there yet, and serves
#   setup [NAME...]  sets up, with a state directory for each of these instances, and ends
#   bench, conformance [OPTION...]   send signed requests to https://localhost:8443
#   anything else    is a command of xksd's
set -euo pipefail

directory=/srv/xks

set_up() {
    /usr/share/xksd/softhsm-setup/setup.sh "$directory" --listen 0.0.0.0:8443 --ops-listen 0.0.0.0:9443
}

# state NAME: an instance that counts from zero, once.
state() {
    local state=$directory/state-$1
    [[ ! -e $state/encryption-counts ]] || return 0
    mkdir -p -- "$state"
    XKSD_STATE__DIRECTORY=$state xksd state init
}

case ${1-serve} in
    serve)
        set_up
        exec xksd "${@:-serve}"
        ;;
    setup)
        set_up
        for name in "${@:2}"; do state "$name"; done
        ;;
    bench | conformance)
        # shellcheck source=/dev/null
        source "$directory/client.env"
        # shellcheck disable=SC2086 # SECURE is an option and its value
        exec xksd "$1" "$SCHEME$XKS_PROXY_HOST/$URI_PREFIX" $SECURE "${@:2}"
        ;;
    *) exec xksd "$@" ;;
esac
