"""Reads and arithmetic for tests/speed.sh, which is the way to call it."""

import glob
import json
import os
import socket
import struct
import sys

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid):
    """A process and all that it has started, and these."""
    found = [pid]
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path) as children:
            for child in children.read().split():
                found += family(int(child))
    return found


def cpu(pid):
    """Seconds of processor time, user and system, of all of them, ended children included."""
    ticks = 0
    for member in family(int(pid)):
        with open(f"/proc/{member}/stat") as stat:
            # The name, in parentheses, may hold anything.
            fields = stat.read().rsplit(")", 1)[1].split()
        ticks += sum(int(field) for field in fields[11:15])
    print(ticks / TICKS)


def rss(pid):
    """Resident memory of all of them, in KiB."""
    total = 0
    for member in family(int(pid)):
        with open(f"/proc/{member}/status") as status:
            total += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    print(total)


def ports(count):
    """Ports of 127.0.0.1 that nobody has at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(count))]
    print(*[each.getsockname()[1] for each in sockets])


def get(*path):
    """One value of the last JSON line of stdin."""
    value = json.loads(sys.stdin.read().strip().splitlines()[-1])
    for key in path:
        value = value[key]
    print(value)


def calls(path):
    """How often data functions were called, from a file of the shim's counts."""
    names = ("EncryptInit", "Encrypt", "DecryptInit", "Decrypt", "EncryptMessage", "DecryptMessage")
    wanted = {f"C_{name}".encode() for name in names}
    with open(path, "rb") as counts:
        data = counts.read()
    print(sum(n for name, n in struct.iter_unpack("=56sQ", data[64:]) if name.rstrip(b"\0") in wanted))


def record(file, part, figure, setting, measured, against, value, asked):
    """Adds a row. `asked` is `<=1.3`, `>=0.9` or `-`; `value` is what it is about."""
    met = None
    if asked != "-":
        sign, limit = asked[:2], float(asked[2:])
        met = float(value) <= limit if sign == "<=" else float(value) >= limit
    row = {
        "part": part,
        "figure": figure,
        "setting": setting,
        "measured": measured,
        "against": against,
        "value": round(float(value), 3),
        "asked": None if asked == "-" else asked,
        "met": met,
    }
    with open(file, "a") as results:
        results.write(json.dumps(row) + "\n")


def table(file, output, about):
    """Prints all rows in Markdown, and writes them as JSON."""
    with open(file) as results:
        rows = [json.loads(line) for line in results]
    words = {None: "", True: "yes", False: "**no**"}
    print("| part | figure | with | measured | against | value | asked | met |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [row[name] for name in ("part", "figure", "setting", "measured", "against", "value")]
        asked = (row["asked"] or "").replace("<=", "at most ").replace(">=", "at least ")
        print("| " + " | ".join(map(str, cells)) + f" | {asked} | {words[row['met']]} |")
    with open(output, "w") as whole:
        json.dump({"about": about, "figures": rows}, whole, indent=1)
        whole.write("\n")


COMMANDS = [cpu, rss, ports, get, calls, record, table]

if __name__ == "__main__":
    {command.__name__: command for command in COMMANDS}[sys.argv[1]](*sys.argv[2:])
