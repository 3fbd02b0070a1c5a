"""Reads Terraform's files, given by folder, with a parser that is not Terraform's.

Prints a line for each argument that a resource of the AWS provider has not, by the facts in
terraform-schema.json, for each one that is missing, and for each variable, local value or resource
that is named and is not there.
"""

import json
import pathlib
import re
import sys

import hcl2

SCHEMA = json.loads((pathlib.Path(__file__).parent / "terraform-schema.json").read_text())
# What Terraform itself gives to every resource.
META = {"count", "for_each", "depends_on", "lifecycle", "provider", "connection"}


def plain(value):
    """Without the parser's own marks: it keeps the quotes of strings."""
    if isinstance(value, dict):
        return {
            name.strip('"'): plain(each)
            for name, each in value.items()
            if not name.startswith("__")
        }
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


def arguments(known, body, place):
    """Faults of a block's arguments."""
    for name, value in body.items():
        fact = known.get(name)
        if fact is None:
            yield f"{place} has no argument {name}"
        elif "block" in fact:
            for block in value if isinstance(value, list) else [value]:
                yield from arguments(fact["block"], block, f"{place}.{name}")
    for name, fact in known.items():
        if fact["required"] and name not in body:
            yield f"{place} lacks {name}"


def faults(folder):
    """Faults of the files of a folder."""
    paths = sorted(folder.glob("*.tf"))
    whole = {"resource": [], "data": [], "variable": [], "locals": [], "output": []}
    for path in paths:
        with path.open() as file:
            for kind, blocks in plain(hcl2.load(file)).items():
                whole.setdefault(kind, []).extend(blocks if isinstance(blocks, list) else [blocks])
    text = "\n".join(path.read_text() for path in paths)
    resources = set()
    for block in whole["resource"]:
        for kind, named in block.items():
            for name, body in named.items():
                resources.add(f"{kind}.{name}")
                own = {key: value for key, value in body.items() if key not in META}
                if kind not in SCHEMA["resources"]:
                    yield f"there are no facts of {kind}"
                    continue
                yield from arguments(SCHEMA["resources"][kind], own, f"{kind}.{name}")
    code = re.sub(r"#.*", "", text)
    variables = {name for block in whole["variable"] for name in block}
    local = {name for block in whole["locals"] for name in block}
    for kind, there, named in (
        ("variable", variables, re.findall(r"\bvar\.(\w+)", code)),
        ("local value", local, re.findall(r"\blocal\.(\w+)", code)),
        ("resource", resources, re.findall(r"(?<!data\.)\b(aws_\w+\.\w+)", code)),
    ):
        for name in sorted(set(named) - there):
            yield f"there is no {kind} {name}"
    for name in sorted(variables - set(re.findall(r"\bvar\.(\w+)", code))):
        yield f"nothing uses variable {name}"
    for block in whole["variable"] + whole["output"]:
        for name, body in block.items():
            if "description" not in body:
                yield f"{name} has no description"


for argument in sys.argv[1:]:
    for fault in faults(pathlib.Path(argument)):
        print(f"{argument}: {fault}")
