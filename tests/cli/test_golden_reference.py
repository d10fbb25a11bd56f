#!/usr/bin/env python3
"""The golden volumes, decrypted by tests/lib/reference.py: two oracles, the kernel and the standards, must agree.

Not here: the command (test_golden.py). The volume that needs its journal is left out: ext4.py replays nothing.
Read more: tests/golden/README.md.
"""
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import decrypted  # noqa: E402
import reference as r  # noqa: E402
import tap  # noqa: E402

class Reader(decrypted.Reader):
    """A golden volume as the reference sees it."""

    def __init__(self, name):
        self.data = cli.manifest(name)
        super().__init__(cli.golden(name), cli.keys_of(self.data))


def paths(reader, name, part):
    found = {path[1:]: inode for path, inode in reader.v.walk(name=name)}
    wanted = set(reader.data[part]) - {b"."}
    tap.equal(sorted(wanted ^ set(found))[:4], [], "paths that only one of the two has")
    return found


def unlocked(volume):
    reader = Reader(volume)
    read, kinds = 0, set()
    for path, inode in paths(reader, reader.real_name, "files").items():
        row = reader.data["files"][path]
        if inode.is_link:
            tap.equal(reader.target(inode), row["target"], repr(path))
        # Pure Python has a pace of its own: a few files of every kind will do.
        elif inode.is_reg and 0 < inode.size < 9000 and (read < 100):
            tap.equal(hashlib.sha256(reader.contents(inode)).hexdigest(), row["sha256"], repr(path))
            read += 1
            if inode.encrypted:
                context = reader.inode(inode).c
                kinds.add((context.version, context.flags & ~3, context.log2_unit))
    policies = {(p["version"], p["flags"] & ~3, p["log2_unit"]) for p in reader.data["policies"]}
    tap.equal(policies - kinds, set(), "kinds of policy of which no file was read")


def locked(volume):
    reader = Reader(volume)
    for path, inode in paths(reader, reader.nokey_name, "locked").items():
        if inode.is_link:
            target = r.nokey_name(r.symlink_ciphertext(inode.symlink())) if inode.encrypted else inode.symlink()
            tap.equal(target, reader.data["locked"][path]["target"], repr(path))


for one in ("demo", "v2-4k", "lblk64-1k", "lblk32-4k", "v1", "essiv"):
    tap.add(f"{one}: names, targets and contents", lambda one=one: unlocked(one))
    tap.add(f"{one}: no-key names and targets", lambda one=one: locked(one))

tap.main()
