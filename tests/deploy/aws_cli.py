"""Checks commands of the AWS CLI against the service models of botocore.

Reads from standard input a JSON array of commands, each an array of words; prints a line for each
fault. Options that take a whole structure are checked to the last member, as JSON or in the AWS CLI's
shorthand; values of $VARIABLES and of files are not known and pass.
"""

import json
import re
import sys

import botocore.session
from botocore import xform_name

# Options of every command: https://docs.aws.amazon.com/cli/ calls them global.
GLOBAL = {
    "--region": True,
    "--profile": True,
    "--query": True,
    "--output": True,
    "--endpoint-url": True,
    "--cli-input-json": True,
    "--cli-binary-format": True,
    "--no-cli-pager": False,
}
SESSION = botocore.session.get_session()


def is_open(value):
    """Whether a value is known only when the command runs."""
    return "$" in value or value.startswith(("file://", "fileb://")) or "..." in value


def members(text):
    """Reads a structure in shorthand: Name=Value,Name="a,b",Name=a\\,b."""
    parts = re.findall(r'(?:\\.|"[^"]*"|[^,])+', text)
    return dict(part.split("=", 1) if "=" in part else (part, "") for part in parts)


def check(shape, value, place):
    """Faults of a value, a string or what was read from JSON."""
    kind = shape.type_name
    if isinstance(value, str) and is_open(value):
        return
    if kind == "structure":
        if isinstance(value, str):
            value = json.loads(value) if value.startswith("{") else members(value)
        for name in value:
            if name not in shape.members:
                yield f"{place}: {shape.name} has no {name}"
            else:
                yield from check(shape.members[name], value[name], f"{place}.{name}")
        for name in shape.required_members:
            if name not in value:
                yield f"{place}: {name} is missing"
    elif kind == "list":
        if isinstance(value, str):
            value = json.loads(value) if value.startswith("[") else [value]
        for each in value:
            yield from check(shape.member, each, place)
    elif kind == "string":
        enum = getattr(shape, "enum", None)
        if enum and value not in enum:
            yield f"{place}: {value} is none of {enum}"
        pattern = shape.metadata.get("pattern")
        # Patterns of the models are Java's; those that Python cannot read are passed over.
        try:
            if pattern and not re.search(pattern, value):
                yield f"{place}: {value} does not match {pattern}"
        except re.error:
            pass
        low, high = shape.metadata.get("min", 0), shape.metadata.get("max", sys.maxsize)
        if not low <= len(value) <= high:
            yield f"{place}: {value} has not {low} to {high} characters"
    elif kind in ("integer", "long"):
        if not re.fullmatch(r"-?\d+", str(value)):
            yield f"{place}: {value} is no number"


def faults(words):
    """Faults of one command, `aws` included."""
    if len(words) < 3 or words[1] not in SESSION.get_available_services():
        yield "there is no such service"
        return
    model = SESSION.get_service_model(words[1])
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    # A waiter describes again and again, by the same options.
    rest = words[3:]
    if words[2] == "wait":
        waiters = SESSION.get_waiter_model(words[1])
        names = {xform_name(name, "-"): name for name in waiters.waiter_names}
        if not rest or rest[0] not in names:
            yield f"there is no waiter {rest[:1]}"
            return
        operation, rest = waiters.get_waiter(names[rest[0]]).operation, rest[1:]
    elif words[2] in operations:
        operation = operations[words[2]]
    else:
        yield f"{words[1]} has no operation {words[2]}"
        return
    # Of what is only talked about, the name is checked.
    if rest == ["help"]:
        return
    shape = model.operation_model(operation).input_shape
    inputs = shape.members if shape else {}
    options = {"--" + xform_name(name, "-"): name for name in inputs}
    given = set()
    while rest:
        option, rest = rest[0], rest[1:]
        if option in GLOBAL:
            given.add(option)
            rest = rest[1:] if GLOBAL[option] else rest
            continue
        negated = option.replace("--no-", "--", 1)
        name = options.get(option) or options.get(negated)
        if name is None or option not in options and inputs[name].type_name != "boolean":
            yield f"{operation} has no option {option}"
            return
        given.add(name)
        kind = inputs[name].type_name
        values = []
        while rest and not rest[0].startswith("--"):
            values.append(rest[0])
            rest = rest[1:]
        if kind == "boolean":
            if values:
                yield f"{option} takes no value"
        elif not values or len(values) > 1 and kind != "list":
            yield f"{option} wants one value, not {values}"
        else:
            for value in values:
                yield from check(inputs[name], value, option)
    for name in shape.required_members if shape else []:
        if name not in given and "--cli-input-json" not in given:
            yield f"{operation} wants --{xform_name(name, '-')}"


for command in json.load(sys.stdin):
    for fault in faults(command):
        print(f"{' '.join(command)}: {fault}")
