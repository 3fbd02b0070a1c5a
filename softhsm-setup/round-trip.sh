# shellcheck shell=bash
# Health, metadata, encrypt and decrypt, signed by curl, shown and checked. Sourced, never run.
# Expects say() and what client.env exports.

# Values as in AWS's documentation; nothing of them is checked without an authorization policy.
readonly PRINCIPAL=arn:aws:iam::123456789012:user/Alice
readonly KMS_KEY=arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab

# Fails, after saying why, at the first answer that is not what it should be.
round_trip() {
    local answer plaintext aad key="keys/$KEY_ID"
    plaintext=$(printf 'a data key, for one' | base64 -w 0)
    aad=$(printf 'project=nile,department=marketing' | base64 -w 0)

    post health "{\"requestMetadata\": $(metadata KmsHealthCheck)}" || return
    expect ekmFleetDetails '[' || return

    post "$key/metadata" "{\"requestMetadata\": $(metadata DescribeKey)}" || return
    expect keySpec '"AES_256"' || return

    post "$key/encrypt" "{\"requestMetadata\": $(metadata Encrypt),
     \"plaintext\": \"$plaintext\", \"encryptionAlgorithm\": \"AES_GCM\",
     \"additionalAuthenticatedData\": \"$aad\",
     \"ciphertextDataIntegrityValueAlgorithm\": \"SHA_256\"}" || return
    local ciphertext iv tag cipher_metadata integrity
    ciphertext=$(member ciphertext) iv=$(member initializationVector) tag=$(member authenticationTag)
    cipher_metadata=$(member ciphertextMetadata) integrity=$(member ciphertextDataIntegrityValue)
    # P-43: over the bytes themselves, one after the other.
    local ours part
    ours=$(for part in "$aad" "$cipher_metadata" "$iv" "$ciphertext" "$tag"; do
        printf %s "$part" | base64 -d
    done | openssl dgst -sha256 -binary | base64 -w 0)
    [[ $integrity == "$ours" ]] || wrong "the integrity value is $integrity, openssl computes $ours" || return

    post "$key/decrypt" "{\"requestMetadata\": $(metadata Decrypt),
     \"ciphertext\": \"$ciphertext\", \"encryptionAlgorithm\": \"AES_GCM\",
     \"additionalAuthenticatedData\": \"$aad\", \"initializationVector\": \"$iv\",
     \"authenticationTag\": \"$tag\"${cipher_metadata:+, \"ciphertextMetadata\": \"$cipher_metadata\"}}" || return
    [[ $(member plaintext) == "$plaintext" ]] || wrong "decryption gave \`$(member plaintext)\`, not \`$plaintext\`" || return
    printf '\nDecrypted to what was encrypted: %s\n' "$(base64 -d <<<"$plaintext")"
}

wrong() {
    say "error: $1"
    return 1
}

# metadata OPERATION: the requestMetadata that KMS would send with it (P-20).
metadata() {
    local id arns=''
    id=$(od -An -N 16 -tx1 /dev/urandom | tr -d ' \n')
    [[ $1 == KmsHealthCheck ]] || arns=", \"awsPrincipalArn\": \"$PRINCIPAL\", \"kmsKeyArn\": \"$KMS_KEY\""
    printf '{"kmsOperation": "%s", "kmsRequestId": "%s"%s}' "$1" "$id" "$arns"
}

# post PATH BODY: sends it, shows both sides and sets answer; fails unless it is a 200.
post() {
    local url="${SCHEME:-http://}$XKS_PROXY_HOST${URI_PREFIX:+/$URI_PREFIX}/kms/xks/v1/$1" status
    printf '\nPOST %s\n  -> %s\n' "$url" "$2"
    # The secret goes through a pipe, not through the command line, which other users can read.
    # Host without its port: so do older curls sign it (7.81 of Ubuntu 22.04), whatever they send.
    # shellcheck disable=SC2086 # SECURE is an option and its value
    answer=$(curl -q -sS --noproxy '*' --max-time 10 $SECURE \
        --config <(printf 'user = "%s:%s"\n' "$SIGV4_ACCESS_KEY_ID" "$SIGV4_SECRET_ACCESS_KEY") \
        --aws-sigv4 "aws:amz:$REGION:kms-xks-proxy" \
        -H "Host: ${XKS_PROXY_HOST%:*}" -H 'Content-Type: application/json' \
        --data-binary "$2" -w '\n%{http_code}' "$url") || wrong 'curl got no answer' || return
    status=${answer##*$'\n'} answer=${answer%$'\n'*}
    printf '  <- %s %s\n' "$status" "$answer"
    [[ $status == 200 ]] || wrong "the answer is $status, not 200"
}

# member NAME: the string that answer has under that name. Base64 and names need no unescaping.
member() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" <<<"$answer"; }

# expect NAME START: answer has that member, and its value begins like that.
expect() {
    [[ $answer =~ \"$1\"\ *:\ *"$2" ]] || wrong "the answer has no $1 that begins with $2"
}
