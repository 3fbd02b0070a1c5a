# shellcheck shell=bash
# Development CA and server certificate, made by openssl. Sourced, never run.
#
# Private keys are made once and kept; certificates are made again, with the same keys, when they
# are about to expire or do not name the address that is listened on. Expects say() and fail().

readonly WEEK=$((7 * 24 * 3600)) CA_DAYS=3650
# Clients commonly refuse server certificates that are valid for longer.
readonly SERVER_DAYS=397

# make_certificates DIR ADDRESS...: DIR/{ca,server}.{key,pem}; the server's names are localhost,
# 127.0.0.1, ::1 and every address given.
make_certificates() {
    local dir=$1
    shift
    mkdir -p -- "$dir"
    make_private_key "$dir/ca.key"
    make_private_key "$dir/server.key"

    if ! is_fresh "$dir/ca.pem" || ! is_of_key "$dir/ca.pem" "$dir/ca.key"; then
        local subject
        # Each CA has its own name: two with one name and different keys confuse trust stores.
        subject="/O=xksd development/CN=xksd development CA $(openssl rand -hex 4)"
        # A configuration of our own: the system's may add extensions, some of them twice.
        openssl req -new -x509 -key "$dir/ca.key" -out "$dir/ca.pem.new" -days "$CA_DAYS" \
            -sha256 -subj "$subject" -config <(
                printf '%s\n' '[req]' 'distinguished_name=subject' 'x509_extensions=ca' '[subject]' \
                    '[ca]' 'basicConstraints=critical,CA:TRUE,pathlen:0' \
                    'keyUsage=critical,keyCertSign,cRLSign' 'subjectKeyIdentifier=hash'
            )
        mv -- "$dir/ca.pem.new" "$dir/ca.pem"
        say "made a development CA: $dir/ca.pem"
    fi

    local names=(localhost) addresses=(127.0.0.1 ::1) address
    for address in "$@"; do
        [[ " ${addresses[*]} " == *" $address "* ]] || addresses+=("$address")
    done
    if is_fresh "$dir/server.pem" && is_of_key "$dir/server.pem" "$dir/server.key" &&
        openssl verify -CAfile "$dir/ca.pem" "$dir/server.pem" >/dev/null 2>&1 &&
        has_names "$dir/server.pem"; then
        return 0
    fi
    issue_server_certificate "$dir"
    say "issued a server certificate for ${names[*]} ${addresses[*]}: $dir/server.pem"
}

# PKCS#8, ECDSA P-256: the kind of key that P-2's ECDSA suites want.
make_private_key() {
    [[ ! -e $1 ]] || return 0
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.new"
    mv -- "$1.new" "$1"
}

is_fresh() {
    [[ -s $1 ]] && openssl x509 -in "$1" -noout -checkend "$WEEK" >/dev/null 2>&1
}

is_of_key() {
    local of_certificate of_key
    of_certificate=$(openssl x509 -in "$1" -noout -pubkey) || return 1
    of_key=$(openssl pkey -in "$2" -pubout) || return 1
    [[ $of_certificate == "$of_key" ]]
}

# Reads names and addresses of make_certificates. openssl answers in words, its status is 0 for both.
has_names() {
    local name answer
    for name in "${names[@]}"; do
        answer=$(openssl x509 -in "$1" -noout -checkhost "$name")
        [[ $answer == *'does match'* ]] || return 1
    done
    for name in "${addresses[@]}"; do
        answer=$(openssl x509 -in "$1" -noout -checkip "$name")
        [[ $answer == *'does match'* ]] || return 1
    done
}

# Reads names and addresses of make_certificates.
issue_server_certificate() {
    local dir=$1 san serial request answer
    san="$(printf 'DNS:%s,' "${names[@]}")$(printf 'IP:%s,' "${addresses[@]}")"
    serial="0x$(openssl rand -hex 15)"
    request=$(openssl req -new -key "$dir/server.key" -subj '/O=xksd development/CN=localhost')
    # openssl reports its successes on stderr too: its words are shown only with a failure.
    answer=$(openssl x509 -req -in <(printf '%s\n' "$request") -out "$dir/server.pem.new" \
        -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -set_serial "$serial" -days "$SERVER_DAYS" -sha256 \
        -extfile <(
            printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
                'extendedKeyUsage=serverAuth' 'subjectKeyIdentifier=hash' \
                'authorityKeyIdentifier=keyid' "subjectAltName=${san%,}"
        ) 2>&1) || fail "$EXIT_SOFTWARE" "openssl did not issue a server certificate: $answer"
    mv -- "$dir/server.pem.new" "$dir/server.pem"
}
