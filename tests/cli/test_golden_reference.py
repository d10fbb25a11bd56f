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
import ext4  # noqa: E402
import reference as r  # noqa: E402
import tap  # noqa: E402

DIR_INDEX, SIGNED_HASH, UNSIGNED_HASH = 0x20, 1, 2


class Reader:
    """A golden volume as the reference sees it."""

    def __init__(self, name):
        self.v, self.data = ext4.Volume(cli.golden(name)), cli.manifest(name)
        self.masters = []
        for path in cli.keys_of(self.data):
            with open(path, "rb") as f:
                self.masters.append(f.read())
        self.cache = {}

    def inode(self, inode):
        if inode.number not in self.cache:
            context = r.parse_context(inode.context_at()[0])
            named = r.identifier if context.version == 2 else r.descriptor
            master = next(m for m in self.masters if named(m) == context.key)
            self.cache[inode.number] = r.Inode(context, master, inode.number, self.v.uuid, self.v.block_size)
        return self.cache[inode.number]

    def real_name(self, directory, stored):
        return self.inode(directory).name_decrypt(stored) if directory.encrypted else stored

    def nokey_name(self, directory, stored):
        if not directory.encrypted:
            return stored
        indexed = self.v.compat & DIR_INDEX and (directory.is_indexed() or directory.size == self.v.block_size)
        if not indexed:
            return r.nokey_name(stored)
        assert self.v.hash_version == 1, "half-MD4"
        return r.nokey_name(stored, r.half_md4(stored, self.v.hash_seed, bool(self.v.flags & UNSIGNED_HASH)))

    def contents(self, inode):
        raw, out = inode.data(), b""
        written = {e.lblk + i for e in inode.extents() if not e.unwritten for i in range(e.count)}
        size = self.v.block_size
        for at in range(0, len(raw), size):
            block = raw[at:at + size]
            out += self.inode(inode).contents(at, block) if at // size in written and inode.encrypted else block
        return out[:inode.size]

    def target(self, inode):
        raw = inode.symlink()
        return self.inode(inode).symlink_decrypt(raw) if inode.encrypted else raw


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
