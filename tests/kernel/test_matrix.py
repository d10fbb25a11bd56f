#!/usr/bin/env python3
"""Trees written by the running kernel, read by the command: every policy, block size and layout; unlocked and locked.

Not here: volumes for machines without a loop device (tests/cli/test_golden.py).
Read more: HACKING.md, "Tests". ONLY=words runs some tests, TIMES=1 shows how long each took.
"""
import hashlib
import os
import random
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import koracle as k  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20


class Config:
    """One volume: how mke2fs makes it, the policy of its encrypted tree, what is in there."""

    def __init__(self, name, block=4096, mkfs=(), policy=None, v1=False, key_size=64, size=160 * MIB, big=0, large=0, pieces=0,
                 far=1 << 26, small=300, xattr=None, super_values=()):
        self.name, self.block, self.mkfs, self.policy, self.v1 = name, block, mkfs, policy or {}, v1
        self.key = hashlib.sha512(name.encode()).digest()[:key_size]
        self.size, self.big, self.large, self.pieces, self.far = size, big, large, pieces, far
        self.small, self.xattr, self.super_values = small, xattr or block // 2 - 40, super_values
        self.image = None

    def build(self):
        """Make the volume, once; keep what the kernel shows of it with the key and without."""
        tap.requires("root", "loop", "kernel")
        if self.image:
            return self
        image = tap.fresh(self.name + ".img")
        k.mkfs(image, self.size, "-b", str(self.block), "-N", "32768", "-E", "lazy_itable_init=1", *self.mkfs)
        for name, value in self.super_values:
            subprocess.run(["debugfs", "-w", "-R", f"ssv {name} {value}", image], check=True, capture_output=True)
        self.key_file = tap.fresh(self.name + ".key")
        with open(self.key_file, "wb") as f:
            f.write(self.key)
        with tap.mounted(image) as root:
            name = k.add_key(root, self.key, self.v1)
            top = os.path.join(root, "locked")
            os.mkdir(top)
            k.set_policy(top, name, **self.policy)
            self.key_name = name
            self.fill(trees.Maker(top, self.name, self.block))
            self.fill_plain(trees.Maker(root, self.name, self.block))
        with tap.mounted(image, "ro,noload") as root:
            k.add_key(root, self.key, self.v1)
            self.tree = trees.snapshot(root)
        with tap.mounted(image, "ro,noload") as root:
            self.nokey = trees.snapshot(root, data=False)
        subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)
        self.checksum = cli.checksum(image)
        self.image = image
        return self

    def fill(self, m):
        m.everything(self.small, self.block - 3, self.xattr)
        if self.far > trees.SPARSE_SIZE:
            m.sparse(self.far)
        if self.pieces:
            m.fragmented(self.pieces)
        if self.big:
            m.big_dir(self.big)
        if self.large:
            with open(m.path("large"), "wb") as f:
                for _ in range(self.large):
                    f.write(m.rng.randbytes(MIB))

    @staticmethod
    def fill_plain(m):
        os.mkdir(m.path("plain"))
        m = trees.Maker(m.path("plain"), "plain", m.block)
        m.sizes()
        m.sparse()
        m.preallocated()
        m.symlinks(m.block - 1)
        m.hard_links()
        m.xattrs(500)
        m.metadata()

    def untouched(self):
        tap.equal(cli.checksum(self.image), self.checksum, "checksum of the image")

    def drop(self):
        if self.image:
            os.unlink(self.image)
            self.image = None


def export(config, spec, *options):
    """Run `inlay get`, compare everything, and return the result."""
    dest = tap.fresh("dest")
    result = cli.run("get", *options, spec, dest, keys=[config.key_file], timeout=120)
    if result.code:
        tap.fail(repr(result))
    trees.check(config.tree, trees.snapshot(dest), grain=config.block)
    config.untouched()
    shutil.rmtree(dest)
    return result


def regular_units(config):
    """How many data units of encrypted files an export of everything has to decrypt at least."""
    unit = 1 << config.policy["log2_unit"] if config.policy.get("log2_unit") else config.block
    return sum(-(-row["size"] // unit) for path, row in config.tree.items()
               if path.startswith((b"locked/sizes/", b"locked/small/")) and row["type"] == "file")


def get_plain(config):
    config.build()
    result = export(config, config.image, "--counters")
    counters = cli.counters(result)
    assert counters["fallback_units_decrypted"] >= regular_units(config), counters
    tap.equal(counters["engine_units_decrypted"], 0, "units that an engine decrypted")
    tap.equal(counters["bytes_written"], 0, "bytes written to the image")


def get_engine(config, slots):
    config.build()
    counters = cli.counters(export(config, f"engine({config.image}, slots={slots})", "--counters"))
    assert counters["engine_units_decrypted"] >= regular_units(config), counters
    tap.equal(counters["fallback_units_decrypted"], 0, "units that the fallback decrypted")
    if slots:
        assert counters["slot_programs"] > 0, counters
    else:
        tap.equal(counters["slot_programs"], 0, "slots programmed where there are none")


def listed(config, wanted, fields, **how):
    """`inlay ls -laR --json` against what the kernel shows."""
    config.build()
    got = cli.listing(config.image, **how)
    wanted = {path: row for path, row in wanted.items() if path != b"."}
    tap.equal(sorted(wanted.keys() ^ got.keys())[:5], [], "paths that only one of the two has")
    for path, row in wanted.items():
        for field in fields:
            if field == "size" and row["type"] == "dir" or field == "target" and row["type"] != "symlink":
                continue
            tap.equal(got[path].get(field), row.get(field), f"{field} of {path!r}")
    config.untouched()


LISTED = ("type", "size", "mode", "uid", "gid", "mtime", "nlink", "ino", "target")


def list_unlocked(config):
    config.build()
    listed(config, config.tree, LISTED, keys=[config.key_file])


def list_locked(config):
    config.build()
    listed(config, config.nokey, LISTED)


def plain_listing(config):
    """`inlay ls -a` prints the kernel's no-key names, sorted by bytes, one per line."""
    config.build()
    for where in (b"", b"locked", *(p for p, row in config.nokey.items() if p.count(b"/") == 1 and p.startswith(b"locked/")
                                    and row["type"] == "dir")):
        names = sorted(os.path.basename(p) for p in config.nokey if p != b"." and os.path.dirname(p) == where)
        result = cli.good("ls", "-a", os.fsencode(config.image) + b":/" + where)
        tap.equal(result.out, b"".join(n + b"\n" for n in names), f"ls of {where!r}")


def fetch_locked(config):
    """No-key paths lead to the inodes that they lead to in the kernel; contents stay closed, and say which key is missing."""
    config.build()
    rng = random.Random(1)
    paths = sorted(p for p, row in config.nokey.items()
                   if p.startswith(b"locked/") and row["type"] in ("file", "dir", "symlink"))
    for path in rng.sample(paths, 12) + [max(paths, key=len)]:
        where = os.fsencode(config.image) + b":/" + path
        row = cli.as_row(cli.stat(where))
        tap.equal(row["ino"], config.nokey[path]["ino"], repr(path))
        tap.equal(row["size"] if config.nokey[path]["type"] != "dir" else None,
                  config.nokey[path]["size"] if config.nokey[path]["type"] != "dir" else None, repr(path))
    locked = [p for p in paths if config.nokey[p]["type"] == "file" and config.nokey[p]["size"]]
    cli.bad(cli.NO_KEY, "cat", os.fsencode(config.image) + b":/" + rng.choice(locked), says=config.key_name)
    dest = tap.fresh("dest")
    cli.bad(cli.NO_KEY, "get", config.image + ":/locked", dest, says=config.key_name)
    assert not os.path.lexists(dest), "a locked export left something behind"
    cli.bad(cli.NO_KEY, "cat", config.image + ":/locked/no such name", says=config.key_name)
    cli.bad(cli.FAILED, "cat", config.image + ":/locked/" + "A" * 43, says="no such file")
    tap.equal(cli.run("cat", os.fsencode(config.image) + b":/plain/sizes/size-513").out,
              read_plain(config, b"plain/sizes/size-513"))
    config.untouched()


def read_plain(config, path):
    with tap.mounted(config.image, "ro,noload") as root:
        with open(os.path.join(os.fsencode(root), path), "rb") as f:
            return f.read()


CONFIGS = (
    Config("v2-4k-pad32", policy={"flags": 3}, big=12000, large=64, size=320 * MIB, far=(1 << 40) + 4096),
    Config("v2-1k-pad4", block=1024, policy={"flags": 0}, big=12000, pieces=400),
    Config("lblk64-4k-pad16", mkfs=("-O", "stable_inodes"), policy={"flags": 2 | k.LBLK_64}),
    Config("lblk64-1k", block=1024, mkfs=("-O", "stable_inodes"), policy={"flags": 3 | k.LBLK_64}, far=(1 << 33) + 1),
    Config("lblk32-4k-pad8", mkfs=("-O", "stable_inodes"), policy={"flags": 1 | k.LBLK_32}, large=64, size=240 * MIB,
           far=1 << 43),
    Config("units-512-4k", policy={"flags": 0, "log2_unit": 9}, big=0),
    Config("units-512-1k", block=1024, policy={"flags": 1, "log2_unit": 9}),
    Config("v2-2k", block=2048, policy={"flags": 2}, key_size=32),
    Config("v1-4k", policy={"flags": 3}, v1=True),
    Config("old-layout-1k", block=1024, policy={"flags": 3}, super_values=(("def_hash_version", 0),),
           mkfs=("-I", "128", "-O", "^extents,^metadata_csum,^64bit,^flex_bg,^huge_file,^dir_nlink,^extra_isize")),
    Config("linear-4k", policy={"flags": 3}, mkfs=("-O", "^dir_index,^has_journal")),
    Config("tea-2k", block=2048, policy={"flags": 0}, super_values=(("def_hash_version", 2), ("flags", 2)),
           mkfs=("-O", "^metadata_csum,sparse_super2,large_dir")),
    Config("ea-inode-seed-4k", policy={"flags": 3, "log2_unit": 10}, small=20, xattr=9000,
           mkfs=("-O", "ea_inode,metadata_csum_seed,orphan_file", "-G", "4")),
)
MORE_ENGINE = ("v2-4k-pad32", "lblk64-1k", "lblk32-4k-pad8", "units-512-1k", "v1-4k")

for one in CONFIGS:
    tap.add(f"{one.name}: get, software", lambda one=one: get_plain(one))
    tap.add(f"{one.name}: get, an engine with one slot", lambda one=one: get_engine(one, 1))
    if one.name in MORE_ENGINE:
        tap.add(f"{one.name}: get, an engine without slots", lambda one=one: get_engine(one, 0))
    tap.add(f"{one.name}: ls -laR with the key", lambda one=one: list_unlocked(one))
    tap.add(f"{one.name}: ls -laR without the key", lambda one=one: list_locked(one))
    tap.add(f"{one.name}: ls without the key, byte for byte", lambda one=one: plain_listing(one))
    tap.add(f"{one.name}: no-key paths", lambda one=one: fetch_locked(one))
    tap.add(f"{one.name}: e2fsck is content, the image is as it was", lambda one=one: (one.build().untouched(), one.drop()))

if __name__ == "__main__":
    tap.main()
