#!/usr/bin/env python3
"""Says of which crates xksd is made, from what cargo says of them; standard library only.

  inventory.py sbom       a CycloneDX 1.5 document
  inventory.py licenses   the licences of everything that is linked into the program, with their texts

To stdout. SOURCE_DATE_EPOCH is the time of the document. The same commit gives the same bytes.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import time
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Names of files that hold a licence or a notice, without their ending.
TEXTS = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE)([-_.].*)?", re.IGNORECASE)
# What a crate carries along for its tests and tools is not in the program.
UNUSED = {"tests", "test", "benches", "examples", "docs", "tool-openssl"}
# Sources are no texts: license.rs is somebody's module.
SOURCES = {".rs", ".c", ".h", ".py", ".go", ".js"}


def cargo(*arguments: str) -> str:
    program = [os.environ.get("CARGO", "cargo"), *arguments, "--locked"]
    done = subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def host() -> str:
    """The target that is built for: this machine's, as the Rust compiler calls it."""
    command = [os.environ.get("RUSTC", "rustc"), "--version", "--verbose"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return next(line.split()[1] for line in said.splitlines() if line.startswith("host: "))


class Inventory:
    """The crates of a build, without those that only tests use."""

    def __init__(self) -> None:
        self.target = host()
        said = json.loads(
            cargo("metadata", "--format-version=1", f"--filter-platform={self.target}")
        )
        by_name = {(p["name"], p["version"]): p for p in said["packages"]}
        self.linked = self.tree("normal,no-proc-macro", by_name)
        self.all = self.tree("normal,build", by_name)
        members = set(said["workspace_members"])
        self.root = next(p for p in said["packages"] if p["name"] == "xksd" and p["id"] in members)
        # Edges of the whole graph; those that leave the build are left out.
        self.edges = {
            node["id"]: sorted(d["pkg"] for d in node["deps"] if d["pkg"] in self.all)
            for node in said["resolve"]["nodes"]
        }
        lock = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))
        self.checksums = {
            (p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p
        }

    def tree(self, kinds: str, by_name: dict) -> dict:
        """The crates that these edges lead to, by id. `cargo tree` knows what the build would use;
        `cargo metadata` counts the features in that only the tests ask for."""
        said = cargo(
            "tree", f"--edges={kinds}", f"--target={self.target}", "--package=xksd",
            "--prefix=none", "--format={p}", "--no-dedupe",
        )
        found = {}
        for line in said.splitlines():
            name, version = line.split()[:2]
            crate = by_name[name, version.removeprefix("v")]
            found[crate["id"]] = crate
        return found

    def others(self, crates: dict) -> list:
        """All but xksd itself, by name."""
        rest = (crate for crate in crates.values() if crate["id"] != self.root["id"])
        return sorted(rest, key=lambda crate: (crate["name"], crate["version"]))


def expression(crate: dict) -> str:
    """Its licence as SPDX writes it; a slash is what older crates write for OR."""
    return (crate["license"] or "").replace(" / ", " OR ").replace("/", " OR ")


def purl(crate: dict) -> str:
    return f"pkg:cargo/{crate['name']}@{crate['version']}"


def component(crate: dict, inventory: Inventory) -> dict:
    described = {
        "type": "library",
        "bom-ref": purl(crate),
        "name": crate["name"],
        "version": crate["version"],
        # What is not linked into the program made it: build scripts and procedural macros.
        "scope": "required" if crate["id"] in inventory.linked else "excluded",
        "hashes": [
            {"alg": "SHA-256", "content": inventory.checksums[crate["name"], crate["version"]]}
        ],
        "purl": purl(crate),
    }
    if crate["license"]:
        described["licenses"] = [{"expression": expression(crate)}]
    if crate["repository"]:
        described["externalReferences"] = [{"type": "vcs", "url": crate["repository"]}]
    return described


def sbom(inventory: Inventory) -> str:
    root = inventory.root
    moment = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment),
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "application",
                "bom-ref": purl(root),
                "name": root["name"],
                "version": root["version"],
                "description": root["description"],
                "licenses": [{"expression": root["license"]}],
                "properties": [{"name": "xksd:target", "value": inventory.target}],
            },
        },
        "components": [component(crate, inventory) for crate in inventory.others(inventory.all)],
        "dependencies": [
            {
                "ref": purl(crate),
                "dependsOn": [purl(inventory.all[id]) for id in inventory.edges[crate["id"]]],
            }
            for crate in [root, *inventory.others(inventory.all)]
        ],
    }
    # Of the content, so that another document has another number and the same one the same.
    number = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document, sort_keys=True))
    document["serialNumber"] = f"urn:uuid:{number}"
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def texts(crate: dict) -> dict:
    """The texts that a crate carries, by path inside it; also those of C code inside it."""
    folder = pathlib.Path(crate["manifest_path"]).parent
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if UNUSED & set(inside.parts[:-1]) or path.suffix in SOURCES:
            continue
        if TEXTS.fullmatch(path.name) and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            found[str(inside)] = "\n".join(line.rstrip() for line in text.splitlines()).strip()
    return found


def licenses(inventory: Inventory) -> str:
    holders: dict[str, list[str]] = {}
    table, bare = [], []
    for crate in inventory.others(inventory.linked):
        title = f"{crate['name']} {crate['version']}"
        table.append(f"{title:40} {expression(crate) or 'see its text'}")
        carried = texts(crate)
        for inside, text in carried.items():
            holders.setdefault(text, []).append(f"{title} ({inside})")
        if not carried:
            if "Apache-2.0" not in expression(crate) and "MIT" not in expression(crate):
                sys.exit(f"inventory.py: {title} ({expression(crate)}) carries no licence text")
            authors = ", ".join(re.sub(r" *<.*?>", "", name) for name in crate["authors"])
            bare.append(f"{title:40} {expression(crate)}; {authors or crate['repository']}")
    rule = "=" * 78
    parts = [
        f"What is linked into xksd {inventory.root['version']} ({inventory.target}), and its licences.",
        "\n".join(table),
        "The standard library of Rust is linked in as well: MIT OR Apache-2.0, The Rust Project\n"
        "contributors.",
    ]
    if bare:
        parts.append(
            "These carry no text of their licence; authors or origin, as they name them:\n\n"
            + "\n".join(bare)
        )
        parts.append("Apache-2.0 and MIT are below in full, with other crates.")
    for text, crates in sorted(holders.items(), key=lambda holder: holder[1]):
        parts.append(f"{rule}\n" + "\n".join(crates) + f"\n{rule}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    kinds = {"sbom": sbom, "licenses": licenses}
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        sys.exit("usage: inventory.py sbom|licenses")
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(kinds[sys.argv[1]](Inventory()))


if __name__ == "__main__":
    main()
