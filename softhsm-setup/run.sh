#!/usr/bin/env bash
# `make run`: from a fresh clone to a daemon that has answered signed requests; see README.md here.
set -euo pipefail
shopt -s inherit_errexit

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=softhsm-setup/talk.sh
source "$here/talk.sh"
# shellcheck source=softhsm-setup/binary.sh
source "$here/binary.sh"
# shellcheck source=softhsm-setup/round-trip.sh
source "$here/round-trip.sh"

usage() {
    cat <<'END'
usage: run.sh [--once] [DIR] [options of setup.sh]

Installs the packages that are missing, builds xksd, runs setup.sh for DIR (dev in the repository
unless named), starts the daemon, sends it signed requests with curl, shows what came back and
serves until Ctrl-C. With --once it ends after the requests; any failure is a non-zero exit code.
END
}

once=0 dir='' options=()
while (($#)); do
    case $1 in
        --help) usage && exit 0 ;;
        --once) once=1 ;;
        --plain-http) options+=("$1") ;;
        --*=*) usage >&2 && exit "$EXIT_USAGE" ;;
        --*)
            options+=("${@:1:2}")
            # An option without its value is setup.sh's to refuse.
            (($# < 2)) || shift
            ;;
        *)
            [[ -z $dir ]] || fail "$EXIT_USAGE" "one directory is enough: \`$1\` is the second"
            dir=$1
            ;;
    esac
    shift
done
dir=$(realpath -m -- "${dir:-$here/../dev}")

# --- everything in place ------------------------------------------------------------------------

refuse_root_in_foreign_tree "$dir"
"$here/install-packages.sh" --for run
XKSD=$(find_xksd)
export XKSD
"$here/setup.sh" "$dir" "${options[@]}"
# shellcheck source=/dev/null
source "$dir/client.env"

# The addresses of this run, as setup.sh wrote them: the server's, then the operator's.
mapfile -t listens < <(sed -n 's/^listen = "\(.*\)"$/\1/p' "$dir/xksd.toml")

# reachable ADDRESS: whether something on this machine accepts connections there.
reachable() {
    local host=${1%:*} port=${1##*:}
    host=${host#[} host=${host%]}
    case $host in 0.0.0.0) host=127.0.0.1 ;; ::) host=::1 ;; esac
    (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null
}

# refuse_taken ADDRESS VARIABLE OPTION
refuse_taken() {
    local who=''
    reachable "$1" || return 0
    ! command -v ss >/dev/null || who=$(ss -Hltnp "sport = :${1##*:}" 2>/dev/null | sed -n 's/.*users:((\([^)]*\)).*/\1/p')
    fail "$EXIT_UNAVAILABLE" "$1 is taken${who:+ by $who}" \
        'another make run, perhaps: end it, or choose another port' "make run $2=127.0.0.1:PORT, or $3 127.0.0.1:PORT"
}
refuse_taken "${listens[0]}" LISTEN --listen
refuse_taken "${listens[1]}" OPS_LISTEN --ops-listen

# --- the daemon ---------------------------------------------------------------------------------

log=$dir/xksd.log
# Load balancers would need the default delay of the drain; somebody at a terminal would not.
export XKSD_SERVER__DRAIN__DELAY=${XKSD_SERVER__DRAIN__DELAY-0s}
umask 077
# In a session of its own: Ctrl-C reaches this script, which passes it on once.
setsid "$XKSD" serve --config "$dir/xksd.toml" </dev/null >"$log" 2>&1 &
daemon=$!
alive() { kill -0 "$daemon" 2>/dev/null; }

# Whatever ends this script ends the daemon.
follower=''
clean_up() {
    ! alive || kill -KILL "$daemon"
    [[ -z $follower ]] || kill "$follower" 2>/dev/null || true
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# daemon_failed ERROR: shows its log and ends the script.
daemon_failed() {
    say "--- $log"
    tail -n 40 -- "$log" >&2
    say '---'
    fail "$EXIT_SOFTWARE" "$1" "the whole log is $log"
}

ready() { curl -q -sf -o /dev/null --noproxy '*' --max-time 2 "http://${listens[1]}/readyz"; }
patience=$((SECONDS + 30))
until ready; do
    alive || daemon_failed 'the daemon ended before it was ready'
    ((SECONDS < patience)) || daemon_failed 'the daemon was not ready within 30 seconds'
    sleep 0.1
done

round_trip || daemon_failed 'the round trip failed: see above'

# --- what KMS is given --------------------------------------------------------------------------

uri_path="/${URI_PREFIX:+$URI_PREFIX/}kms/xks/v1"
cat <<END

The file that the AWS KMS console takes (Create external key store, Upload configuration file),
$dir/kms-console.json:

$(<"$dir/kms-console.json")

Or by command, once this endpoint stands on port 443 of a public name, with a certificate from a
public CA:

aws kms create-custom-key-store \\
    --custom-key-store-name demo \\
    --custom-key-store-type EXTERNAL_KEY_STORE \\
    --xks-proxy-connectivity PUBLIC_ENDPOINT \\
    --xks-proxy-uri-endpoint https://YOUR-FQDN \\
    --xks-proxy-uri-path $uri_path \\
    --xks-proxy-authentication-credential file://$dir/aws-credential.json \\
    --region $REGION

(Version 1 of the AWS CLI would fetch that https:// address rather than pass it on, unless told
before: aws configure set cli_follow_urlparam false)

END

# --- until it is told to stop -------------------------------------------------------------------

# Waits for the daemon through any number of signals; sets status to its exit status.
wait_for_daemon() {
    while :; do
        status=0
        wait "$daemon" || status=$?
        alive || break
    done
    # Where a signal ended the wait just as the daemon ended, its status is still to be had.
    local again=0
    wait "$daemon" 2>/dev/null || again=$?
    ((again == 127)) || status=$again
}

if ((once)); then
    kill -TERM "$daemon"
    patience=$((SECONDS + 30))
    while alive; do
        ((SECONDS < patience)) || daemon_failed 'the daemon did not end within 30 seconds of SIGTERM'
        sleep 0.1
    done
    wait_for_daemon
    ((status == 0)) || daemon_failed "the daemon ended with status $status after SIGTERM, not 0"
    say 'xksd answered as it should, and ended on SIGTERM with status 0'
    exit 0
fi

signals=0
stop() {
    signals=$((signals + 1))
    if ((signals == 1)); then
        say 'stopping: requests in flight are answered first; Ctrl-C again to kill'
        kill -TERM "$daemon" 2>/dev/null || true
    else
        kill -KILL "$daemon" 2>/dev/null || true
    fi
}
trap stop INT TERM HUP

say "serving on ${SCHEME:-http://}$XKS_PROXY_HOST until Ctrl-C; for a client of your own: . $dir/client.env"
say "the log, which is $log too:"
setsid tail -n +1 -f --pid="$daemon" -- "$log" >&2 &
follower=$!

wait_for_daemon
((status == 0)) || daemon_failed "the daemon ended with status $status"
