#!/usr/bin/env bash
# Makes everything that xksd needs for a run against SoftHSM2 in one directory; see README.md here.
set -euo pipefail
export LC_ALL=C
umask 077
shopt -s inherit_errexit

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=softhsm-setup/talk.sh
source "$here/talk.sh"
# shellcheck source=softhsm-setup/module.sh
source "$here/module.sh"
# shellcheck source=softhsm-setup/certificates.sh
source "$here/certificates.sh"
# shellcheck source=softhsm-setup/binary.sh
source "$here/binary.sh"

usage() {
    cat <<'END'
usage: setup.sh DIR [options]

Makes in DIR a SoftHSM2 token with AES-256 keys, a development CA and server certificate, SigV4
credentials, DIR/xksd.toml and DIR/client.env. Run again, it keeps every key, certificate and
secret and writes the two files anew, to match the options of this run.

  --listen HOST:PORT       where the daemon serves KMS            (127.0.0.1:8443)
  --ops-listen HOST:PORT   where it answers /readyz and so on     (127.0.0.1:9443)
  --prefix PREFIX          what stands before /kms/xks/v1         (demo; '' for none)
  --region REGION          AWS Region of the calling KMS          (us-east-1)
  --keys ID,ID,...         keys that encrypt and decrypt          (demo-key)
  --encrypt-only ID        a key that only encrypts               (encrypt-only-key)
  --decrypt-only ID        a key that only decrypts               (decrypt-only-key)
  --no-use ID              a key that does neither                (impotent-key)
  --module PATH            PKCS#11 module in the configuration    (SoftHSM2's)
  --plain-http             HTTP instead of HTTPS; loopback only
  --help                   this text

HOST is an IP address ([::1] for IPv6) or localhost. The xksd that makes the keys is $XKSD, or the
release build of this repository, or the one on PATH. Exit codes: 64 wrong command line, 69
something needed is missing, 70 a tool failed, 78 DIR cannot be used.
END
}

usage_error() { fail "$EXIT_USAGE" "$1" "${@:2}" "setup.sh --help lists the options"; }

# --- the command line ---------------------------------------------------------------------------

dir='' module=''
listen=127.0.0.1:8443 ops_listen=127.0.0.1:9443
prefix=demo region=us-east-1
keys_list=demo-key encrypt_only=encrypt-only-key decrypt_only=decrypt-only-key no_use=impotent-key
plain_http=0

while (($#)); do
    option=$1
    shift
    case $option in
        --help) usage && exit 0 ;;
        --plain-http) plain_http=1 && continue ;;
        --listen | --ops-listen | --prefix | --region | --keys | --encrypt-only | --decrypt-only | --no-use | --module)
            (($#)) || usage_error "\`$option\` needs a value"
            value=$1
            shift
            ;;
        -*) usage_error "unknown option \`$option\`" ;;
        *)
            [[ -z $dir ]] || usage_error "one directory is enough: \`$option\` is the second"
            [[ -n $option ]] || usage_error 'the directory is an empty string'
            dir=$option
            continue
            ;;
    esac
    case $option in
        --listen) listen=$value ;;
        --ops-listen) ops_listen=$value ;;
        --prefix) prefix=$value ;;
        --region) region=$value ;;
        --keys) keys_list=$value ;;
        --encrypt-only) encrypt_only=$value ;;
        --decrypt-only) decrypt_only=$value ;;
        --no-use) no_use=$value ;;
        --module) module=$value ;;
    esac
done
[[ -n $dir ]] || usage_error 'no directory named'

# address OPTION VALUE: sets host (IPv6 without brackets) and port.
address() {
    local pattern='^(\[([0-9a-fA-F:.]+)\]|([0-9.]+)|localhost):([0-9]{1,5})$'
    [[ $2 =~ $pattern ]] || usage_error "\`$1 $2\` is not HOST:PORT" 'HOST is an IP address, in brackets if IPv6, or localhost'
    host=${BASH_REMATCH[2]:-${BASH_REMATCH[3]:-127.0.0.1}} port=$((10#${BASH_REMATCH[4]}))
    ((port >= 1 && port <= 65535)) || usage_error "\`$1 $2\`: the port must be 1 to 65535"
    local octet='(25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})'
    [[ $host == *:* || $host =~ ^($octet\.){3}$octet$ ]] || usage_error "\`$1 $2\`: \`$host\` is not an IP address"
}

is_loopback() { [[ $1 == 127.* || $1 == ::1 ]]; }
bracketed() { if [[ $1 == *:* ]]; then printf '[%s]' "$1"; else printf '%s' "$1"; fi; }

address --ops-listen "$ops_listen"
ops_listen="$(bracketed "$host"):$port"
address --listen "$listen"
listen="$(bracketed "$host"):$port"
((!plain_http)) || is_loopback "$host" ||
    usage_error "--plain-http with \`--listen $listen\`: without TLS, secrets would cross the network" \
        'listen on 127.0.0.1 or [::1], or leave --plain-http out'
# The name a client on this machine uses; the certificate has it and the address.
case $host in
    127.0.0.1 | 0.0.0.0 | ::) client_host=localhost:$port ;;
    *) client_host=$listen ;;
esac

while [[ $prefix == /* ]]; do prefix=${prefix#/}; done
while [[ $prefix == */ ]]; do prefix=${prefix%/}; done
[[ $prefix =~ ^[A-Za-z0-9/_-]{0,116}$ && $prefix != *//* ]] ||
    usage_error "\`--prefix $prefix\`: at most 116 characters of A-Z a-z 0-9 / - _, no empty segment"
[[ $region =~ ^[a-z0-9-]{1,32}$ ]] || usage_error "\`--region $region\` is not a Region, as us-east-1 is"

IFS=, read -r -a keys <<<"$keys_list"
[[ $keys_list =~ ^[^,]+(,[^,]+)*$ ]] || usage_error "\`--keys $keys_list\`: ids with a comma between, at least one"
declare -A usages=()
# want_key USAGE ID...
want_key() {
    local id
    for id in "${@:2}"; do
        [[ $id =~ ^[A-Za-z0-9._-]{1,128}$ ]] ||
            usage_error "\`$id\` is not an external key id: 1 to 128 characters of A-Z a-z 0-9 - . _"
        [[ ! -v usages[$id] ]] || usage_error "\`$id\` is named twice: each key has one usage"
        usages[$id]=$1
    done
}
want_key encrypt,decrypt "${keys[@]}"
want_key encrypt "$encrypt_only"
want_key decrypt "$decrypt_only"
want_key none "$no_use"
all_keys=("${keys[@]}" "$encrypt_only" "$decrypt_only" "$no_use")

# client.env's SECURE is put into command lines without quotes by the scripts that read it.
dir=$(realpath -m -- "$dir")
[[ $dir =~ ^[A-Za-z0-9/._+@%,:=~-]+$ ]] ||
    fail "$EXIT_CONFIG" "the path \`$dir\` has a character that client.env cannot carry" \
        'use a directory whose whole path is of A-Z a-z 0-9 / . _ + @ % , : = ~ - only: no spaces'
refuse_root_in_foreign_tree "$dir"
[[ ! -e $dir || (-d $dir && -w $dir) ]] || fail "$EXIT_CONFIG" "\`$dir\` is not a directory that can be written to"

# --- what must be there -------------------------------------------------------------------------

need() {
    command -v "$1" >/dev/null || fail "$EXIT_UNAVAILABLE" "\`$1\` not found" \
        "it is in the Debian and Ubuntu package $2" "$here/install-packages.sh --for run installs what is missing"
}
need softhsm2-util softhsm2
need openssl openssl
softhsm=$(softhsm_module) || fail "$EXIT_UNAVAILABLE" 'libsofthsm2.so not found' 'it is in the Debian and Ubuntu package softhsm2'
if [[ -n $module ]]; then
    module=$(realpath -ms -- "$module")
    [[ -f $module ]] || usage_error "\`--module $module\`: no such file"
    [[ $module != *[\"\\[:cntrl:]]* ]] || usage_error "\`--module $module\`: no quotes or backslashes, please"
fi
xksd=$(find_xksd)

mkdir -p -- "$dir"
chmod 0700 -- "$dir"
exec 9>>"$dir/.lock"
flock 9

# --- secrets: made once, never changed ----------------------------------------------------------

# write FILE: stdin becomes FILE, whole or not at all; an unchanged file keeps its times.
write() {
    cat >"$1.new"
    if cmp -s -- "$1.new" "$1"; then rm -- "$1.new"; else mv -- "$1.new" "$1"; fi
}

# secret FILE BYTES ENCODER [CHARACTERS]: random bytes as text, without a line end.
secret() {
    [[ ! -s $1 ]] || return 0
    local text
    text=$(head -c "$2" /dev/urandom | "$3" -w 0)
    printf %s "${text:0:${4:-${#text}}}" | write "$1"
}

mkdir -p -- "$dir/credentials"
secret "$dir/token.pin" 15 base32
secret "$dir/token.so-pin" 15 base32
# P-14: an id of 20 characters of A-Z 2-7, a secret of 256 bits in 44 characters.
secret "$dir/credentials/demo.access-key-id" 13 base32 20
secret "$dir/credentials/demo.secret" 32 base64
access_key_id=$(<"$dir/credentials/demo.access-key-id")
secret_access_key=$(<"$dir/credentials/demo.secret")

# --- the token ----------------------------------------------------------------------------------

# softhsm_conf TOKENDIR: a configuration of SoftHSM2 that sees that directory's tokens only.
softhsm_conf() {
    printf '%s\n' "directories.tokendir = $1" 'objectstore.backend = file' 'log.level = ERROR' \
        'slots.removable = false'
}

make_token() {
    local fresh
    # Made aside and moved: an interrupted run leaves no token without a PIN.
    rm -rf -- "$dir"/.tokens.*
    fresh=$(mktemp -d "$dir/.tokens.XXXXXX")
    softhsm_conf "$fresh" >"$fresh.conf"
    # softhsm2-util takes PINs from the command line or from a terminal, so for a moment other users
    # can see these. A PIN of a SoftHSM2 token is of use only to those who can read its files.
    SOFTHSM2_CONF="$fresh.conf" softhsm2-util --init-token --free --label xksd \
        --so-pin "$(<"$dir/token.so-pin")" --pin "$(<"$dir/token.pin")" >/dev/null ||
        fail "$EXIT_SOFTWARE" 'softhsm2-util could not make a token'
    rm -- "$fresh.conf"
    mv -T -- "$fresh" "$dir/tokens"
    say "made the token xksd: $dir/tokens"
}

[[ -d $dir/tokens ]] || make_token
softhsm_conf "$dir/tokens" | write "$dir/softhsm2.conf"
export SOFTHSM2_CONF=$dir/softhsm2.conf

# --- certificates -------------------------------------------------------------------------------

# Made with --plain-http too: client.env names the CA either way.
case $host in
    0.0.0.0 | ::) make_certificates "$dir/tls" ;;
    *) make_certificates "$dir/tls" "$host" ;;
esac

# --- xksd.toml ----------------------------------------------------------------------------------

quoted() { printf '"%s", ' "$@" | sed 's/, $//'; }

configuration() {
    cat <<END
# Written by softhsm-setup/setup.sh, which writes it anew on each run: options, not edits, last.
version = 1

[server]
listen = "$listen"
END
    if ((plain_http)); then
        echo 'insecure_plain_http_on_loopback = true'
    else
        printf '%s\n' '' '[server.tls]' 'certificate = "tls/server.pem"' 'private_key = "tls/server.key"'
    fi
    cat <<END

[ops]
listen = "$ops_listen"

[state]
directory = "state"

[tokens.softhsm]
module = "${module:-$softhsm}"
label = "xksd"
pin = { file = "token.pin" }

[tokens.softhsm.environment]
# How SoftHSM2 finds the token: xksd sees to it that the module has this in its environment.
SOFTHSM2_CONF = "$SOFTHSM2_CONF"

[keystores.demo]
prefix = "$prefix"
regions = ["$region"]
tokens = ["softhsm"]
keys = [$(quoted "${all_keys[@]}")]
# To try things out. In earnest: accounts = ["your AWS account"], see docs/policies.md.
authorization = { mode = "off" }

[[keystores.demo.credentials]]
access_key_id = "$access_key_id"
secret = { file = "credentials/demo.secret" }
END
}

# An operator's edits are worth keeping, whatever the file's first line says.
if [[ -s $dir/xksd.toml ]] && ! cmp -s -- "$dir/xksd.toml" <(configuration); then
    cp -p -- "$dir/xksd.toml" "$dir/xksd.toml.old"
    say "rewrote $dir/xksd.toml; the former one is $dir/xksd.toml.old"
fi
configuration | write "$dir/xksd.toml"

# --- keys ---------------------------------------------------------------------------------------

# Keys are made through SoftHSM2's own module: the one configured may count, delay or fail.
keys_of_xksd() {
    XKSD_TOKENS__SOFTHSM__MODULE=$softhsm "$xksd" keys "$@" --config "$dir/xksd.toml"
}

present=$(keys_of_xksd list --json) ||
    fail "$EXIT_SOFTWARE" "\`$xksd keys list\` failed" 'what it said is above' \
        "a token that does not fit its PIN any more: move $dir away and run this again"

# Where no key has ever been used, encryptions are counted from zero on. Without a file, the daemon would
# take the keys for used up, as it has to where keys are there and the file is not.
mkdir -p -- "$dir/state"
if [[ $present == '[]' && ! -e $dir/state/encryption-counts ]]; then
    "$xksd" state init --config "$dir/xksd.toml" 2>/dev/null ||
        fail "$EXIT_SOFTWARE" "\`$xksd state init\` failed" "$dir/state may be another's"
fi

for id in "${all_keys[@]}"; do
    # The member that holds the id, in whatever structure; the id's characters need no JSON escape.
    ! grep -Eq "\"(id|key|key_id|external_key_id)\" *: *\"${id//./\\.}\"" <<<"$present" || continue
    keys_of_xksd create "$id" --token softhsm --usage "${usages[$id]}" >/dev/null ||
        fail "$EXIT_SOFTWARE" "\`$xksd keys create $id\` failed" 'what it said is above'
done

# --- for clients --------------------------------------------------------------------------------

uri_path="/${prefix:+$prefix/}kms/xks/v1"
scheme=https://
((!plain_http)) || scheme=

write "$dir/client.env" <<END
# Written by softhsm-setup/setup.sh; holds a secret. Use: . $dir/client.env
export SCHEME='$scheme'
export XKS_PROXY_HOST='$client_host'
export URI_PREFIX='$prefix'
export REGION='$region'
export SIGV4_ACCESS_KEY_ID='$access_key_id'
export SIGV4_SECRET_ACCESS_KEY='$secret_access_key'
export KEY_ID='${keys[0]}'
export ENCRYPT_ONLY_KEY_ID='$encrypt_only'
export DECRYPT_ONLY_KEY_ID='$decrypt_only'
export IMPOTENT_KEY_ID='$no_use'
export SECURE='--cacert $dir/tls/ca.pem'
export SOFTHSM2_CONF='$SOFTHSM2_CONF'
END

write "$dir/aws-credential.json" <<END
{"AccessKeyId": "$access_key_id", "RawSecretAccessKey": "$secret_access_key"}
END
write "$dir/kms-console.json" <<END
{
  "XksProxyUriPath": "$uri_path",
  "XksProxyAuthenticationCredential": {
    "AccessKeyId": "$access_key_id",
    "RawSecretAccessKey": "$secret_access_key"
  }
}
END

say "ready: $dir
  $xksd serve --config $dir/xksd.toml"
