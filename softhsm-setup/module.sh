# shellcheck shell=bash
# Where SoftHSM2's PKCS#11 module is. Sourced, never run.

# Prints the path; fails when there is none.
softhsm_module() {
    local path
    for path in \
        /usr/lib/softhsm/libsofthsm2.so \
        /usr/lib/*/softhsm/libsofthsm2.so \
        /usr/lib64/{softhsm/libsofthsm2.so,pkcs11/libsofthsm2.so,libsofthsm2.so} \
        /usr/local/lib/softhsm/libsofthsm2.so; do
        [[ -f $path ]] || continue
        printf '%s\n' "$path"
        return 0
    done
    return 1
}
