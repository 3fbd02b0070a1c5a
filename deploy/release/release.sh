#!/usr/bin/env bash
# Makes everything that a release consists of in one directory; docs/release.md has what comes before and
# after. It signs nothing: the key need not be on the machine that builds.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
readonly here

usage() {
    cat >&2 <<'END_OF_USAGE'
usage: release.sh [--untagged] [--program PROGRAM] DIRECTORY

Builds HEAD and puts into DIRECTORY, which must not be there: Debian and RPM package, archive of the files,
archive of the source, SBOM, licences of third parties, provenance, and SHA256SUMS over all of them.
  --untagged   to try it: HEAD need not carry the version's tag
  --program    take this program instead of building one; to try it
END_OF_USAGE
    exit 64
}

fail() {
    echo "release.sh: $*" >&2
    exit 1
}

tagged=yes
program=
directory=
while (($#)); do
    case $1 in
        --untagged) tagged= ;;
        --program) program=$(readlink -e -- "${2?}") || fail "there is no $2"; shift ;;
        -*) usage ;;
        *) [[ -z $directory ]] || usage; directory=$1 ;;
    esac
    shift
done
[[ -n $directory ]] || usage
[[ ! -e $directory ]] || fail "$directory is there already"
mkdir -p -- "$(dirname -- "$directory")"
directory=$(cd -- "$(dirname -- "$directory")" && pwd -P)/$(basename -- "$directory")

cd -- "$here/../.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
[[ -z $(git status --porcelain) ]] || fail 'there are changes that are not committed'
if [[ -n $tagged ]]; then
    git tag --points-at HEAD | grep -qFx "v$version" || fail "HEAD does not carry the tag v$version"
    git verify-tag "v$version" || fail "the tag v$version has no good signature"
    grep -qF "## [$version]" CHANGELOG.md || fail "CHANGELOG.md has no section for $version"
fi
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022

[[ -n $program ]] || program=$("$here/build.sh")
built=$("$program" --version | cut -d ' ' -f 2)
[[ $built == "$version" ]] || fail "the program says $built and Cargo.toml $version"

# What is there in the end is complete.
draft=$directory.draft
rm -rf -- "$draft"
mkdir -- "$draft"
for format in deb rpm tar; do
    "$here/../packages/build.sh" "$format" "$program" "$draft"
done
git archive --format=tar --prefix="xksd-$version/" HEAD | gzip -9n >"$draft/xksd-$version-source.tar.gz"
"$here/inventory.py" sbom >"$draft/sbom.cdx.json"
"$here/inventory.py" licenses >"$draft/third-party-licenses.txt"
"$here/provenance.py" "$draft" >"$draft.json"
mv -- "$draft.json" "$draft/provenance.json"
(cd -- "$draft" && sha256sum -- * >"$draft.sums")
mv -- "$draft.sums" "$draft/SHA256SUMS"
mv -- "$draft" "$directory"
cat -- "$directory/SHA256SUMS"
