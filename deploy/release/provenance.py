#!/usr/bin/env python3
"""Says what the files of a directory were built from and with: an in-toto statement with the predicate
of SLSA provenance, version 1. Whoever builds says it of themselves (SLSA's build level 1), and signs it
with everything else.

  provenance.py DIRECTORY

To stdout. RELEASE_BUILDER is a URI of who builds.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def said(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def sha256(path: pathlib.Path) -> dict:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: provenance.py DIRECTORY")
    files = sorted(path for path in pathlib.Path(sys.argv[1]).iterdir() if path.is_file())
    rustc = said(os.environ.get("RUSTC", "rustc"), "--version", "--verbose")
    tools = {
        "rustc": rustc.splitlines()[0],
        "target": next(
            line.split()[1] for line in rustc.splitlines() if line.startswith("host: ")
        ),
        "cc": said(os.environ.get("CC", "cc"), "--version").splitlines()[0],
    }
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path.name, "digest": sha256(path)} for path in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:xksd:deploy/release/release.sh",
                "externalParameters": {"commit": said("git", "rev-parse", "HEAD")},
                "internalParameters": tools,
                "resolvedDependencies": [
                    {
                        "uri": "urn:xksd:source",
                        "digest": {"gitCommit": said("git", "rev-parse", "HEAD")},
                    },
                    {"uri": "urn:xksd:Cargo.lock", "digest": sha256(ROOT / "Cargo.lock")},
                ],
            },
            "runDetails": {
                "builder": {"id": os.environ.get("RELEASE_BUILDER", "urn:xksd:maintainer")}
            },
        },
    }
    print(json.dumps(statement, indent=1))


if __name__ == "__main__":
    main()
