#!/usr/bin/env bash
# Makes a Debian package, an RPM package or an archive of a program that is built already.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
readonly here
# Debian's and RPM's count of packages of one version.
readonly REVISION=1

usage() {
    cat >&2 <<'END_OF_USAGE'
usage: build.sh FORMAT PROGRAM DIRECTORY [VERSION]

Makes a package in DIRECTORY and prints its name. FORMAT is
  deb   Debian package        (dpkg-deb, dpkg-shlibdeps; lintian approves of it)
  rpm   RPM package           (rpmbuild)
  tar   archive of the files  (GNU tar)
VERSION is that of the program if left out. SOURCE_DATE_EPOCH is the time of all files; the time of the
last commit if left out.
END_OF_USAGE
    exit 64
}

case "$#:${1-}" in
    [34]:deb | [34]:rpm | [34]:tar) format=$1 ;;
    *) usage ;;
esac
program=$(cd -- "$(dirname -- "$2")" && pwd -P)/$(basename -- "$2")
mkdir -p -- "$3"
out=$(cd -- "$3" && pwd -P)
version=${4-$("$program" --version | cut -d ' ' -f 2)}
# 1.0.0-rc.1 comes before 1.0.0, which both formats write so.
version=${version/-/\~}
if [[ ! $version =~ ^[0-9][0-9A-Za-z.+~]*$ ]]; then
    echo "build.sh: '$version' is no version" >&2
    exit 64
fi
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH-$(git -C "$here" log -1 --format=%ct)}
export LC_ALL=C TZ=UTC
umask 022

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
root=$work/root

# All files get the time of the release, whenever they were made.
settle() { find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +; }

build_deb() {
    local architecture documents=$root/usr/share/doc/xksd dependencies
    architecture=$(dpkg --print-architecture)
    "$here/stage.sh" "$program" "$root" usr/share/zsh/vendor-completions
    install -m 644 "$here/debian/copyright" "$documents/copyright"
    install -D -m 644 "$here/debian/lintian-overrides" "$root/usr/share/lintian/overrides/xksd"
    {
        printf 'xksd (%s-%s) unstable; urgency=medium\n\n' "$version" "$REVISION"
        printf '  * This version: /usr/share/doc/xksd/changelog.gz says what changes.\n\n'
        printf ' -- %s  %s\n' "$(maintainer)" "$(date --utc --date="@$SOURCE_DATE_EPOCH" --rfc-email)"
    } | gzip -9n >"$documents/changelog.Debian.gz"

    # dpkg-shlibdeps looks for debian/control where it is run.
    mkdir -p "$work/debian"
    printf 'Source: xksd\n\nPackage: xksd\nArchitecture: any\n' >"$work/debian/control"
    dependencies=$(cd "$work" && dpkg-shlibdeps -O "$root/usr/bin/xksd")

    install -d "$root/DEBIAN"
    install -m 755 "$here"/debian/{postinst,prerm,postrm} -t "$root/DEBIAN"
    echo /etc/xksd/xksd.toml.example >"$root/DEBIAN/conffiles"
    (cd "$root" && find etc usr -type f ! -path 'etc/*' -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    {
        cat <<END_OF_CONTROL
Package: xksd
Version: $version-$REVISION
Architecture: $architecture
Maintainer: $(maintainer)
Installed-Size: $(du --apparent-size --summarize --block-size=1K --exclude=DEBIAN "$root" | cut -f 1)
Depends: ${dependencies#shlibs:Depends=}, systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles
Suggests: softhsm2
Section: net
Priority: optional
END_OF_CONTROL
        cat "$here/debian/description"
    } >"$root/DEBIAN/control"
    settle
    local package=$out/xksd_$version-${REVISION}_$architecture.deb
    # The same everywhere, whatever dpkg's own choice is.
    DPKG_DEB_COMPRESSOR_TYPE=${DPKG_DEB_COMPRESSOR_TYPE-xz} \
        dpkg-deb --root-owner-group --build "$root" "$package" >&2
    echo "$package"
}

# As Debian's own tools read it.
maintainer() { echo "${DEBFULLNAME-xksd maintainers} <${DEBEMAIL-maintainers@xksd.invalid}>"; }

build_rpm() {
    "$here/stage.sh" "$program" "$root" usr/share/zsh/site-functions
    install -D -m 644 "$here/../../LICENSE" "$root/usr/share/licenses/xksd/LICENSE"
    settle
    rpmbuild -bb --quiet --define "_topdir $work/rpm" --define "_rpmdir $out" \
        --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
        --define "_binary_payload ${RPM_PAYLOAD-w19.zstdio}" \
        --define "xksd_version $version" --define "xksd_revision $REVISION" --define "xksd_root $root" \
        "$here/xksd.spec" >&2
    echo "$out/xksd-$version-$REVISION.$(rpm --eval '%{_arch}').rpm"
}

build_tar() {
    local name
    name=xksd-$version-$(uname -m)-linux-gnu
    "$here/stage.sh" "$program" "$root" usr/share/zsh/site-functions
    install -m 644 "$here/../../LICENSE" "$root/usr/share/doc/xksd/LICENSE"
    settle
    tar --create --directory "$root" --sort=name --owner=0 --group=0 --numeric-owner \
        --transform "s,^\.,$name," . | gzip -9n >"$out/$name.tar.gz"
    echo "$out/$name.tar.gz"
}

"build_$format"
