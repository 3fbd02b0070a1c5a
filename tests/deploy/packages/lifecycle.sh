#!/usr/bin/env bash
# Runs in a Debian of its own, as root: installs the package, starts what it installed, upgrades, removes
# and purges it. Where systemd runs, systemd starts it; else this does what the unit says.
# usage: lifecycle.sh PACKAGE NEWER_PACKAGE
set -euo pipefail

package=$1
newer=$2
work=$(mktemp -d)
has_systemd() { [[ -d /run/systemd/system ]]; }

fail() {
    echo "lifecycle.sh: $*" >&2
    [[ ! -s $work/log ]] || cat "$work/log" >&2
    ! has_systemd || journalctl --unit xksd --no-pager >&2
    exit 1
}

# expect WHAT WANTED FOUND
expect() { [[ $2 == "$3" ]] || fail "$1 should be '$2' and is '$3'"; }

# ask PORT PATH: the status of the answer, or what became of the connection instead.
ask() {
    local line=
    if ! { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null; then
        echo refused
        return
    fi
    # What is written to a connection that is closed already is a signal otherwise.
    { (trap '' PIPE && printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3) && read -r -t 10 line <&3; } 2>/dev/null ||
        line=closed
    exec 3>&-
    echo "${line%$'\r'}"
}

await_ready() {
    for _ in {1..300}; do
        [[ $(ask 9443 /readyz) != *' 200 '* ]] || return 0
        sleep 0.1
    done
    fail 'xksd is not ready within half a minute'
}

daemon=
start() {
    if has_systemd; then
        systemctl start xksd.service || fail 'systemd does not start it'
        return
    fi
    local unit=/usr/lib/systemd/system/xksd.service command
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    # RuntimeDirectory= of the unit.
    install -d -m 750 -o xksd -g xksd /run/xksd
    # shellcheck disable=SC2086 # It is a command line.
    (cd /var/lib/xksd && exec setpriv --reuid=xksd --regid=xksd --init-groups --no-new-privs \
        --bounding-set=-all --reset-env env STATE_DIRECTORY=/var/lib/xksd LOGS_DIRECTORY=/var/log/xksd \
        RUNTIME_DIRECTORY=/run/xksd $command) >"$work/log" 2>&1 &
    daemon=$!
}

running() { if has_systemd; then systemctl show --property MainPID --value xksd; else echo "$daemon"; fi; }

dpkg --install "$package" >"$work/install"
grep -q '^xksd is installed and not started' "$work/install" || fail 'it does not say what is next'
for directory in /etc/xksd:755:root /etc/xksd/credentials:700:root /var/lib/xksd:700:xksd /var/log/xksd:750:xksd; do
    IFS=: read -r path mode owner <<<"$directory"
    expect "$path" "$mode $owner $owner" "$(stat --format '%a %U %G' "$path")"
done
expect 'the shell of xksd' /usr/sbin/nologin "$(getent passwd xksd | cut -d : -f 7)"
expect 'conffiles' ' /etc/xksd/xksd.toml.example' "$(dpkg-query --show --showformat '${Conffiles}' xksd | sed -n 's/ [0-9a-f]*$//p')"
[[ ! -e /etc/xksd/xksd.toml ]] || fail 'it has a configuration'
for unit in xksd.service xksd.socket xksd-ops.socket; do
    expect "$unit" disabled "$(systemctl is-enabled "$unit" || true)"
done
if has_systemd; then
    # Not a daemon that fails for ever.
    ! systemctl start xksd.service 2>/dev/null || fail 'it starts without a configuration'
    expect 'xksd without a configuration' inactive "$(systemctl is-active xksd || true)"
fi

# What docs/packages.md and docs/systemd.md have an operator do.
usermod --append --groups softhsm xksd
setpriv --reuid=xksd --regid=xksd --init-groups \
    softhsm2-util --init-token --free --label hsm --pin 1234567 --so-pin 12345678 >/dev/null
install -m 600 -o xksd -g xksd /dev/stdin /etc/xksd/hsm-pin <<<1234567
install -m 600 -o xksd -g xksd /dev/stdin /etc/xksd/demo.secret <<<CANARYcanary0123456789012345678901234567890
cat >/etc/xksd/xksd.toml <<'CONFIGURATION'
version = 1
[server]
listen = "127.0.0.1:8443"
insecure_plain_http_on_loopback = true
drain.delay = "0s"
[ops]
listen = "127.0.0.1:9443"
[tokens.hsm]
module = "/usr/lib/softhsm/libsofthsm2.so"
label = "hsm"
pin = { file = "/etc/xksd/hsm-pin" }
[keystores.demo]
prefix = "demo"
regions = ["us-east-1"]
tokens = ["hsm"]
keys = ["*"]
authorization.mode = "off"
[[keystores.demo.credentials]]
access_key_id = "ABCDEFGHIJKLMNOPQRST"
secret = { file = "/etc/xksd/demo.secret" }
CONFIGURATION
if has_systemd; then
    drop_ins=/etc/systemd/system/xksd.service.d
    install -D -m 644 /usr/share/doc/xksd/examples/xksd.service.d/softhsm.conf -t "$drop_ins"
    mkdir /etc/systemd/system/xksd.socket.d
    printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:8443\n' >/etc/systemd/system/xksd.socket.d/address.conf
    systemctl daemon-reload
    systemctl enable --quiet --now xksd.socket xksd-ops.socket
fi
start
await_ready

before=$(running)
: >"$work/answers"
while [[ ! -e $work/enough ]]; do ask 9443 /livez; done >>"$work/answers" &
asking=$!
dpkg --install "$newer" >"$work/upgrade"
touch "$work/enough"
wait "$asking"
# A daemon that leaves closes a connection that it has taken and that has sent nothing yet. The client
# asks for one thing at a time, so that this can meet it once.
closed=$(grep --count '^closed$' "$work/answers" || true)
((closed <= 1)) || fail "$closed connections were closed during the upgrade"
expect 'answers during the upgrade' 'HTTP/1.0 200 OK' "$(grep --invert-match '^closed$' "$work/answers" | sort --unique)"
if has_systemd; then
    [[ $(running) != "$before" ]] || fail 'the upgrade has not restarted it'
else
    kill "$before"
    wait "$before" || fail "it ended with status $?"
    start
fi
await_ready
printf '%d requests answered during the upgrade\n' "$(wc -l <"$work/answers")"

dpkg --remove xksd >"$work/remove"
if has_systemd; then
    expect 'what is active after the removal' 'inactive inactive inactive' \
        "$(systemctl is-active xksd.service xksd.socket xksd-ops.socket | tr '\n' ' ' | sed 's/ $//')"
else
    kill "$daemon"
    wait "$daemon" || fail "it ended with status $?"
fi
for kept in /etc/xksd/xksd.toml /etc/xksd/xksd.toml.example /var/lib/xksd/encryption-counts; do
    [[ -e $kept ]] || fail "the removal has removed $kept"
done
[[ ! -e /usr/bin/xksd ]] || fail 'the removal has left the program'

dpkg --purge xksd >"$work/purge"
[[ ! -e /etc/xksd ]] || fail 'the purge has left the configuration'
[[ -e /var/lib/xksd/encryption-counts ]] || fail 'the purge has removed what cannot be made again'
grep -q '^xksd: /var/lib/xksd is kept' "$work/purge" || fail 'the purge does not say what it has kept'
[[ ! -e /var/log/xksd ]] || fail 'the purge has left a directory without anything in it'
[[ -z $(find /etc/systemd/system -lname '*xksd*') ]] || fail 'the purge has left what enabled the units'
rm -rf -- "$work"
