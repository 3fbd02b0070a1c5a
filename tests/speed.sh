#!/usr/bin/env bash
# Measures the figures of docs/performance.md, "All figures at once", each beside its floor or bound in the
# same run, and prints them as a table. `make speed` is the way to call it. Timings decide nothing here:
# the exit code tells only whether everything could be measured and every answer was good.
#
#   SPEED_ONLY=cpu,start    these parts only: slow cpu connections memory start policies audit kryoptic
#   SPEED_LONG=1            long runs, 10,000 idle connections, ten million requests
#   SPEED_JSON=FILE         where the figures go as JSON, else speed.json in the target directory
set -euo pipefail
export LC_ALL=C
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
json=${SPEED_JSON:-$target/speed.json}
if [[ -n ${SPEED_LONG:-} ]]; then
    seconds=30 idle=10000 requests=10000000 starts=15
else
    seconds=4 idle=2000 requests=100000 starts=5
fi
parts=${SPEED_ONLY:-slow,cpu,connections,memory,start,policies,audit,kryoptic}
all=' slow cpu connections memory start policies audit kryoptic '
for part in ${parts//,/ }; do
    [[ $all == *" $part "* ]] || { echo "error: SPEED_ONLY: no part \`$part\`; there are:$all" >&2 && exit 64; }
done

# built NAME: the executable of a bench target.
built() {
    cargo build --quiet --release --locked --offline --bench "$1" --message-format=json |
        python3 -c 'import json, sys
for line in sys.stdin:
    said = json.loads(line)
    if said.get("target", {}).get("name") == sys.argv[1]: print(said["executable"])' "$1"
}
bare_calls=$(built bare_calls)
bare_echo=$(built bare_echo)
# Last: with a bench cargo builds a daemon with what the tests want of its dependencies, in the same place.
cargo build --quiet --release --locked --offline -p pkcs11-shim
cargo build --quiet --release --locked --offline --bin xksd
xksd=$(realpath -- "$target/release/xksd")

dir=$(mktemp -d)
results=$dir/results
started=()
stop_all() { for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done; }
trap 'stop_all; rm -rf -- "$dir"' EXIT
trap 'exit 130' INT TERM

helper() { python3 tests/speed.py "$@"; }
# calc EXPRESSION: in Python.
calc() { python3 -c "from statistics import median; print(round(float($1), 3))"; }
record() { helper record "$results" "$part" "$@"; }
fail() { echo "error: $1" >&2 && exit 1; }
not_run() {
    echo "NOT RUN: $1" >&2
    [[ -z ${NOT_RUN_FILE:-} ]] || echo "$1" >>"$NOT_RUN_FILE"
}

read -r port ops_port second_port second_ops_port < <(helper ports 4)
XKSD=$xksd softhsm-setup/setup.sh "$dir" --listen "127.0.0.1:$port" --ops-listen "127.0.0.1:$ops_port" >&2
# shellcheck source=/dev/null
source "$dir/client.env"
# shellcheck source=softhsm-setup/module.sh
source softhsm-setup/module.sh
softhsm=$(softhsm_module)
trust=(--cacert "$dir/tls/ca.pem")
url=https://localhost:$port/demo
second_url=https://localhost:$second_port/demo

# What is on in every figure: the audit log, and with it a state that counts encryptions. Deadlines and
# zeroizing cannot be turned off.
export XKSD_LOG__LEVEL=warn XKSD_SERVER__DRAIN__DELAY=0s XKSD_SERVER__DRAIN__TIMEOUT=1s
audited=(XKSD_AUDIT__DIRECTORY="$dir/audit")
# Another daemon beside the first, with the same token.
beside=(XKSD_SERVER__LISTEN="127.0.0.1:$second_port" XKSD_OPS__LISTEN="127.0.0.1:$second_ops_port"
    XKSD_STATE__DIRECTORY="$dir/state-beside")
install -d -m 700 "$dir/audit" "$dir/audit-beside" "$dir/state-beside"
# The token's keys have not been used yet.
env "${beside[@]}" "$xksd" state init --config "$dir/xksd.toml" 2>/dev/null

# serve CONFIGURATION OPS_PORT SETTING...: a daemon; its pid is in $daemon.
serve() {
    local configuration=$1 ops=$2 tries
    shift 2
    env "$@" "$xksd" serve --config "$configuration" 2>>"$dir/log" &
    daemon=$!
    started+=("$daemon")
    for ((tries = 0; tries < 200; tries++)); do
        ! "$xksd" probe readyz --address "127.0.0.1:$ops" >/dev/null 2>&1 || return 0
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.05
    done
    tail -n 5 "$dir/log" >&2
    fail 'the daemon does not get ready; what it said last is above'
}
stop() {
    kill -TERM "$1"
    # Whatever it answers to that, it has ended.
    wait "$1" || true
}

# bench OPTION...: one line of JSON, or with --compare three. Answers that were not good spoil a figure.
bench() {
    local status=0
    "$xksd" bench "$url" "${trust[@]}" --timeout 5 "$@" 2>>"$dir/bench.log" || status=$?
    if ((status)); then
        tail -n 8 "$dir/bench.log" >&2
        echo "error: xksd bench $* ended with $status" >&2
        touch "$dir/failed"
        ((status == 1)) || exit 1
    fi
}
rate() { bench "$@" | helper get rate; }

# --- the parts ------------------------------------------------------------------------------------

# An HSM of 2 and of 5 ms, 32 sessions, 64 connections, otherwise as it comes.
slow() {
    local ms checked calls instant limited bound open hsm
    cp -- "$target/release/libpkcs11_shim.so" "$dir/shim.so"
    printf '%s\n' "PKCS11_SHIM_MODULE=$softhsm" "PKCS11_SHIM_SCRIPT=$dir/script" >"$dir/shim.so.conf"
    for checked in when_asked always; do
        : >"$dir/script"
        serve "$dir/xksd.toml" "$ops_port" "${audited[@]}" XKSD_TOKENS__SOFTHSM__MODULE="$dir/shim.so" \
            XKSD_TOKENS__SOFTHSM__SESSIONS=32 XKSD_KEYSTORES__DEMO__VERIFY_WRITES=$checked
        calls=1
        [[ $checked == when_asked ]] || calls=2
        for ms in 2 5; do
            : >"$dir/script"
            instant=$(rate --concurrency 64 --duration "$seconds")
            printf '%s\n' "C_Encrypt delay ${ms}ms" "C_Decrypt delay ${ms}ms" >"$dir/script"
            limited=$(rate --concurrency 64 --duration "$seconds")
            hsm=$((ms * calls))
            bound=$(calc "min(32e3 / $hsm, $instant)")
            record 'encrypts a second / least of 32 sessions and an instant HSM' \
                "HSM $ms ms, process, verify_writes $checked" "$limited" "$bound" "$(calc "$limited / $bound")" '>=0.9'
            open=$(bench --concurrency 64 --rate 1800 --duration "$((seconds * 2))")
            for percentile in p99:3 p99.9:10; do
                value=$(calc "$(helper get latency_us "${percentile%:*}" <<<"$open") / 1e3")
                record "${percentile%:*} - HSM time, ms, 1,800 a second, open loop" \
                    "HSM $ms ms, process, verify_writes $checked" "$value" "$hsm" \
                    "$(calc "$value - $hsm")" "<=${percentile#*:}"
            done
        done
        stop "$daemon"
    done
}

# cost PID OPERATION SECONDS: microseconds of processor time for each good answer, all processes counted.
cost() {
    local pid=$1 before after answer
    before=$(helper cpu "$pid")
    answer=$(bench --concurrency 32 --warmup 0 --operation "$2" --duration "$3")
    after=$(helper cpu "$pid")
    calc "($after - $before) * 1e6 / $(helper get ok <<<"$answer")"
}

echo_server() {
    "$bare_echo" "127.0.0.1:$1" "$dir/tls/server.pem" "$dir/tls/server.key" >"$dir/echo" &
    echo_pid=$!
    started+=("$echo_pid")
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        ! grep -q listens "$dir/echo" || return 0
        sleep 0.05
    done
    fail 'the echo server does not listen'
}

# calls OPERATION: the C calls alone.
calls() { "$bare_calls" "$softhsm" xksd "$dir/token.pin" demo-key "$1" "$seconds"; }

# SoftHSM2: processor time over that of the same C calls and of a bare server with the same bytes.
cpu() {
    local isolation checked operation bare floor ours limit
    declare -A server
    echo_server "$port"
    for operation in encrypt decrypt; do
        # The first run is for the allocator and the branch predictors.
        cost "$echo_pid" $operation 1 >/dev/null
        server[$operation]=$(cost "$echo_pid" $operation "$seconds")
    done
    stop "$echo_pid"
    for isolation in thread process; do
        limit=1.3
        [[ $isolation == thread ]] || limit=1.6
        for checked in when_asked always; do
            serve "$dir/xksd.toml" "$ops_port" "${audited[@]}" XKSD_TOKENS__SOFTHSM__ISOLATION=$isolation \
                XKSD_KEYSTORES__DEMO__VERIFY_WRITES=$checked
            for operation in encrypt decrypt; do
                bare=$operation
                if [[ $checked == always ]]; then
                    # It says nothing about decryptions.
                    [[ $operation == encrypt ]] || continue
                    bare=encrypt-checked
                fi
                cost "$daemon" $operation 1 >/dev/null
                ours=$(cost "$daemon" $operation "$seconds")
                floor=$(calls $bare | helper get cpu_us)
                floor=$(calc "$floor + ${server[$operation]}")
                record "processor time per $operation, us / C calls and echo server" \
                    "SoftHSM2, $isolation, verify_writes $checked" "$ours" "$floor" "$(calc "$ours / $floor")" "<=$limit"
            done
            stop "$daemon"
        done
    done
}

# New TLS connections a second, and those of the bare server.
connections() {
    local ours floor
    serve "$dir/xksd.toml" "$ops_port" "${audited[@]}"
    ours=$(rate --new-connections --concurrency 32 --duration "$seconds")
    stop "$daemon"
    echo_server "$port"
    floor=$(rate --new-connections --concurrency 32 --duration "$seconds")
    stop "$echo_pid"
    record 'new TLS connections a second, each with an encrypt / those of the echo server' \
        'SoftHSM2, process, verify_writes always' "$ours" "$floor" "$(calc "$ours / $floor")" -
}

# Idle connections, and many requests.
memory() {
    local before after holder tries open
    if (($(ulimit -Hn) < idle + 200)); then
        not_run "speed: $idle idle connections want as many descriptors; the limit is $(ulimit -Hn)"
        idle=$(($(ulimit -Hn) - 200))
    fi
    ulimit -n "$((idle + 200))"
    serve "$dir/xksd.toml" "$ops_port" "${audited[@]}" XKSD_SERVER__MAX_CONNECTIONS=$((idle + 100))
    before=$(helper rss "$daemon")
    # Of these connections one at a time is used.
    "$xksd" bench "$url" "${trust[@]}" --concurrency "$idle" --rate 1 --warmup 0 --duration 600 \
        >/dev/null 2>>"$dir/bench.log" &
    holder=$!
    started+=("$holder")
    for ((tries = 0; tries < 1200; tries++)); do
        open=$(find "/proc/$daemon/fd" -lname 'socket:*' | wc -l)
        ((open < idle)) || break
        kill -0 "$holder" 2>/dev/null || fail 'the client could not hold the connections'
        sleep 0.1
    done
    ((open >= idle)) || fail "only $open connections were made"
    after=$(helper rss "$daemon")
    record "KiB for each of $idle idle TLS connections" 'SoftHSM2, process' \
        "$after KiB" "$before KiB" "$(calc "($after - $before) / $idle")" -
    stop "$holder"
    stop "$daemon"

    serve "$dir/xksd.toml" "$ops_port" "${audited[@]}"
    bench --duration 600 --warmup 0 --requests "$((requests / 10))" >/dev/null
    before=$(helper rss "$daemon")
    bench --duration 7200 --warmup 0 --requests "$requests" >/dev/null
    after=$(helper rss "$daemon")
    stop "$daemon"
    record "resident memory after $requests encrypts / after a tenth of them" \
        'SoftHSM2, process, verify_writes always' "$after KiB" "$before KiB" "$(calc "$after / $before")" '<=1.05'
}

# From the start of the daemon to its first good answer: that of a client which is started anew until it
# gets one, its own start included.
start() {
    local round begun took=() logins=() middle login
    for ((round = 0; round < starts; round++)); do
        logins+=("$("$bare_calls" "$softhsm" xksd "$dir/token.pin" demo-key encrypt 0.01 | helper get login_ms)")
        begun=$EPOCHREALTIME
        env "${audited[@]}" "$xksd" serve --config "$dir/xksd.toml" 2>>"$dir/log" &
        daemon=$!
        started+=("$daemon")
        until "$xksd" bench "$url" "${trust[@]}" --concurrency 1 --warmup 0 --requests 1 >/dev/null 2>&1; do
            kill -0 "$daemon" 2>/dev/null || fail 'the daemon ended'
        done
        took+=("$(calc "($EPOCHREALTIME - $begun) * 1e3")")
        stop "$daemon"
    done
    middle=$(calc "median([$(IFS=, && echo "${took[*]}")])")
    login=$(calc "median([$(IFS=, && echo "${logins[*]}")])")
    record "start to first answer - C_Initialize to C_Login, ms, median of $starts" \
        'SoftHSM2, process, verify_writes always' "$middle" "$login" "$(calc "$middle - $login")" '<=300'
}

# compared FIGURE SETTING ASKED: both daemons in turns, the second one's throughput over the first one's.
compared() {
    local operation answer rates
    for operation in encrypt decrypt; do
        answer=$(bench --compare "$second_url" --operation $operation --duration "$((seconds * 4))")
        rates=()
        for line in 1 2; do rates+=("$(sed -n ${line}p <<<"$answer" | helper get rate)"); done
        record "${operation}s a second, $1" "$2" "${rates[1]}" "${rates[0]}" "$(helper get rate_ratio <<<"$answer")" "$3"
    done
}

# The whole cookbook in shadow mode, and none.
policies() {
    local recipe first
    for recipe in docs/policies/*.cedar; do
        sed "s/@id(\"/&$(basename "$recipe" .cedar)./" "$recipe"
    done >"$dir/cookbook.cedar"
    python3 -c 'import json, sys
print(json.dumps([entity for file in sys.argv[1:] for entity in json.load(open(file))]))' \
        docs/policies/*.entities.json >"$dir/groups.json"
    sed -e 's/^authorization = .*/authorization = { mode = "shadow", policies = ["cookbook.cedar"], entities = "groups.json" }/' \
        "$dir/xksd.toml" >"$dir/guarded.toml"
    serve "$dir/xksd.toml" "$ops_port" "${audited[@]}"
    first=$daemon
    serve "$dir/guarded.toml" "$second_ops_port" "${beside[@]}" XKSD_AUDIT__DIRECTORY="$dir/audit-beside"
    compared 'the cookbook / no policies' 'SoftHSM2, process, verify_writes always' '>=0.95'
    stop "$first"
    stop "$daemon"
}

# With the audit log, and without.
audit() {
    local first
    serve "$dir/xksd.toml" "$ops_port"
    first=$daemon
    serve "$dir/xksd.toml" "$second_ops_port" "${beside[@]}" XKSD_AUDIT__DIRECTORY="$dir/audit-beside"
    compared 'audit log on / off' 'SoftHSM2, process, verify_writes always, sync_interval 200 ms' '>=0.95'
    stop "$first"
    stop "$daemon"
}

# C calls of an operation by the message functions of PKCS#11 3.0, and by those of 2.40.
kryoptic() {
    local profile operation before after requests=2000 label=speed pin=12345678 asked
    if [[ ! -f ${KRYOPTIC_MODULE:-} ]] || ! command -v pkcs11-tool >/dev/null; then
        not_run 'speed: kryoptic (KRYOPTIC_MODULE names no module, or there is no pkcs11-tool)'
        return 0
    fi
    printf '[[slots]]\nslot = 0\ndbtype = "sqlite"\ndbargs = "%s"\n' "$dir/kryoptic.sql" >"$dir/kryoptic.conf"
    export KRYOPTIC_CONF=$dir/kryoptic.conf
    pkcs11-tool --module "$KRYOPTIC_MODULE" --init-token --slot 0 --label $label --so-pin $pin >/dev/null 2>&1
    pkcs11-tool --module "$KRYOPTIC_MODULE" --login --login-type so --so-pin $pin --init-pin --pin $pin >/dev/null 2>&1
    cp -- "$target/release/libpkcs11_shim.so" "$dir/shim-kryoptic.so"
    printf '%s\n' "PKCS11_SHIM_MODULE=$KRYOPTIC_MODULE" "PKCS11_SHIM_COUNTS=$dir/counts" >"$dir/shim-kryoptic.so.conf"
    (umask 077 && printf %s $pin >"$dir/kryoptic.pin")
    install -d -m 700 "$dir/state-kryoptic"
    sed -e "s|^module = .*|module = \"$dir/shim-kryoptic.so\"|; s|^label = .*|label = \"$label\"|" \
        -e "s|^pin = .*|pin = { file = \"kryoptic.pin\" }|; s|^SOFTHSM2_CONF = .*|KRYOPTIC_CONF = \"$KRYOPTIC_CONF\"|" \
        -e 's|^directory = "state"|directory = "state-kryoptic"|' "$dir/xksd.toml" >"$dir/kryoptic.toml"
    "$xksd" state init --config "$dir/kryoptic.toml" 2>/dev/null
    "$xksd" keys create demo-key --token softhsm --usage encrypt,decrypt --config "$dir/kryoptic.toml" >/dev/null 2>>"$dir/log"
    for profile in kryoptic generic; do
        asked=-
        [[ $profile == generic ]] || asked='<=1.05'
        serve "$dir/kryoptic.toml" "$ops_port" "${audited[@]}" XKSD_TOKENS__SOFTHSM__PROFILE=$profile \
            XKSD_KEYSTORES__DEMO__VERIFY_WRITES=when_asked
        for operation in encrypt decrypt; do
            before=$(helper calls "$dir/counts")
            bench --operation $operation --concurrency 4 --warmup 0 --duration 60 --requests $requests >/dev/null
            after=$(helper calls "$dir/counts")
            record "C calls that $operation, for each operation" "kryoptic, profile $profile, verify_writes when_asked" \
                "$((after - before))" "$requests" "$(calc "($after - $before) / $requests")" "$asked"
        done
        stop "$daemon"
    done
}

for part in ${parts//,/ }; do
    echo "$part" >&2
    "$part"
done

commit=$(git rev-parse --short HEAD 2>/dev/null || echo 'no commit')
[[ -z $(git status --porcelain 2>/dev/null) ]] || commit+=', with changes'
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
about="$(date -u +%F), commit $commit, $(nproc) processors (${cpu:-unknown}), runs of $seconds s"
printf '%s\n\n' "$about"
helper table "$results" "$json" "$about"
echo "as JSON: $json" >&2
[[ ! -e $dir/failed ]] || fail 'some answers were not good: see above'
