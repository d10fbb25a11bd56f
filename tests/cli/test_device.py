#!/usr/bin/env python3
"""`inlay device`: the list of drivers, a stack as a tree and as JSON.

Not here: SPECs that do not parse (tests/cli/test_errors.py).
Read more: doc/inlay.1, "DEVICES".
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
DRIVERS = {"file", "ram", "slice", "part", "linear", "stripe", "engine", "fault"}
STACK = "stripe(engine(slice(ram(3M), offset=1M), slots=3), linear(ram(1M), ram(1M)), chunk=64K)"
MEMBERS = {"driver", "label", "size", "block_size", "writable", "fallback", "engine", "slots", "capabilities", "counters",
           "children"}
COUNTERS = {"reads", "writes", "flushes", "bytes_read", "bytes_written", "fallback_units_decrypted",
            "fallback_units_encrypted", "engine_units_decrypted", "engine_units_encrypted", "slot_hits", "slot_programs",
            "slot_waits", "slot_evictions", "slot_program_failures", "slot_evict_failures", "resets", "bounce_waits",
            "splits", "merges", "keys_started", "keys_evicted", "errors"}
BARS = "((?:\u2502   |    ){%s})"
BRANCH = re.compile(BARS % "0,9" + "(?:\u251c\u2500\u2500 |\u2514\u2500\u2500 )([a-z]+)(?:: .*)?")
FIELD = BARS + "(?:\u2502 |  )(.{14})(\\S.*)"


def device(spec):
    return cli.good("device", "--json", spec).json()


def walk(dev, depth=0):
    yield depth, dev
    for child in dev["children"]:
        yield from walk(child, depth + 1)


def drawn(spec):
    """[(depth, driver, {field: value})] as the tree shows it."""
    out = []
    for line in cli.good("device", spec).out.decode().splitlines():
        branch = BRANCH.fullmatch(line)
        if branch:
            out.append((len(branch.group(1)) // 4 + 1, branch.group(2), {}))
            continue
        if not out:
            out.append((0, line.split(":")[0], {}))
            continue
        field = re.fullmatch(FIELD % out[-1][0], line)
        assert field, f"no line about a device at depth {out[-1][0]}: {line!r}"
        name = field.group(2).strip()
        if name:
            out[-1][2][name] = field.group(3)
    return out


@tap.test
def drivers():
    """The list of drivers names every one of them, as text and as JSON"""
    rows = cli.good("device", "--json").json()
    tap.equal(DRIVERS - {row["name"] for row in rows}, set(), "drivers that are missing")
    text = cli.good("device").out.decode()
    for row in rows:
        tap.contains(text, row["usage"], row["summary"])
        assert row["usage"].startswith(row["name"] + "("), row


@tap.test
def json_tree():
    """JSON: every device of a stack with all that is known of it"""
    found = list(walk(device(STACK)))
    tap.equal([(depth, dev["driver"], dev["size"]) for depth, dev in found],
              [(0, "stripe", 4 * MIB), (1, "engine", 2 * MIB), (2, "slice", 2 * MIB), (3, "ram", 3 * MIB),
               (1, "linear", 2 * MIB), (2, "ram", MIB), (2, "ram", MIB)])
    for _, dev in found:
        tap.equal(MEMBERS - set(dev), set(), "members that are missing")
        tap.equal(set(dev["counters"]), COUNTERS, "counters")
        tap.equal((dev["engine"], dev["slots"]), (True, 3) if dev["driver"] == "engine" else (False, 0), dev["driver"])
        tap.equal((dev["writable"], dev["fallback"], dev["block_size"]), (False, True, 512), dev["driver"])


@tap.test
def text_tree():
    """Text: the same tree, drawn"""
    shown = drawn(STACK)
    tap.equal([(depth, driver) for depth, driver, _ in shown],
              [(depth, dev["driver"]) for depth, dev in walk(device(STACK))])
    for _, driver, fields in shown:
        tap.equal(set(fields), {"size", "block size", "key slots", "engine does", "fallback", "counters"}, driver)
        tap.equal(fields["key slots"], "3" if driver == "engine" else "none: no engine of its own", driver)
        tap.equal((fields["fallback"], fields["counters"]), ("yes", "all zero"), driver)
    tap.contains(drawn("engine(ram(1M), slots=0)")[0][2]["key slots"], "with the request")


@tap.test
def capabilities():
    """Capabilities: those of an engine; what all children of a stack have"""
    engine = "engine(ram(1M), modes=AES-256-XTS, unit={}, dun_bytes={})"
    caps = device(engine.format("512+4096", 4))["capabilities"]
    tap.equal(caps, {"modes": [{"mode": "AES-256-XTS", "data_unit_sizes": [512, 4096]}], "max_dun_bytes": 4,
                     "raw_keys": True, "wrapped_keys": False})
    both = device(f"linear({engine.format('512+4096', 8)}, {engine.format('4096', 4)})")
    tap.equal(both["capabilities"]["modes"], [{"mode": "AES-256-XTS", "data_unit_sizes": [4096]}])
    tap.equal(both["capabilities"]["max_dun_bytes"], 4)
    none = device(f"linear({engine.format('4096', 8)}, ram(1M))")
    tap.equal((none["capabilities"]["modes"], none["engine"]), ([], False))
    tap.contains(drawn(engine.format("512+4096", 4))[0][2]["engine does"], "AES-256-XTS", "512, 4096")
    tap.equal(drawn("ram(1M)")[0][2]["engine does"], "nothing")


@tap.test
def fallback():
    """fallback=off is shown, and holds for every stack above"""
    dev = device("slice(linear(ram(1M, fallback=off), ram(1M)))")
    tap.equal([(d["driver"], d["fallback"]) for _, d in walk(dev)],
              [("slice", False), ("linear", False), ("ram", False), ("ram", True)])
    tap.contains(drawn("ram(1M, fallback=off)")[0][2]["fallback"], "no: ")


tap.main()
