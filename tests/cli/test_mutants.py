#!/usr/bin/env python3
"""Random damage where it hurts: no signal, no sanitizer report, no hang, whatever the bytes say.

Not here: damage with a known consequence (test_errors.py, test_resume.py); in-process fuzzing (fuzz/).
Usage: test_mutants.py [N [SEED]]: N mutants, by default 160. MUTANT=number (with the same SEED) makes that one alone.
Read more: HACKING.md, "Tests".
"""
import os
import random
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import tap  # noqa: E402

LIMIT = 20  # seconds for each command
CODES = {0, cli.FAILED, cli.NO_KEY, cli.NOT_READABLE, cli.PARTLY}


def without_checksums(name):
    """Checksums would catch most damage at the door; this volume has none."""
    path = tap.copy(cli.golden(name))
    subprocess.run(["tune2fs", "-O", "^metadata_csum", path], check=True, capture_output=True)
    return path


BASES = {
    "essiv": lambda: cli.golden("essiv"),
    "v1": lambda: cli.golden("v1"),
    "lblk64-1k": lambda: without_checksums("lblk64-1k"),
    "lblk32-4k": lambda: without_checksums("lblk32-4k"),
    "unclean": lambda: cli.golden("unclean"),
    "demo": lambda: cli.golden("demo"),
}


class Base:
    """A good volume and where its parts lie: kind -> list of (offset, length)."""

    def __init__(self, name):
        self.path = BASES[name]()
        self.keys = cli.keys_of(cli.manifest(name))
        v = self.volume = ext4.Volume(self.path)
        self.parts = {"superblock": [(1024, 0x180)], "descriptors": [(v.desc_at, v.n_groups * v.desc_size)],
                      "inodes": [], "extents": [], "directories": [], "contexts": [], "xattrs": [], "symlinks": [],
                      "journal": []}
        seen = set()
        for _, inode in [(b"", v.inode(ext4.ROOT))] + list(v.walk()):
            if inode.number not in seen:
                seen.add(inode.number)
                self.add(inode)
        if v.compat & 4:
            self.add_journal(v.inode(8))
        self.parts = {kind: places for kind, places in self.parts.items() if places}

    def add(self, inode):
        v, parts = self.volume, self.parts
        parts["inodes"].append((inode.at, min(v.inode_size, 160)))
        fast = inode.is_link and inode.size < 60
        if not fast:
            parts["extents"].append((inode.at + 40, 60))
            self.add_map_blocks(inode)
        if inode.is_dir:
            parts["directories"] += [((e.pblk + i) * v.block_size, v.block_size) for e in inode.extents() for i in range(e.count)]
        if inode.is_link:
            parts["symlinks"].append((inode.at + 40, 60) if fast else (inode.extents()[0].pblk * v.block_size, 8))
        if inode.encrypted:
            value, at = inode.context_at()
            parts["contexts"].append((at, len(value) - 16))
            parts["xattrs"].append((at - 24 if at - 24 > inode.at else at, 24))
        if inode.file_acl:
            parts["xattrs"].append((inode.file_acl * v.block_size, 120))

    def add_map_blocks(self, inode):
        root = inode.raw[40:100]
        if not inode.flags & ext4.EXTENTS_FL:
            pointers = [int.from_bytes(root[i:i + 4], "little") for i in (48, 52, 56)]
            self.parts["extents"] += [(p * self.volume.block_size, 64) for p in pointers if p]
        elif root[6]:
            for i in range(root[2]):
                leaf = int.from_bytes(root[12 + 12 * i + 4:12 + 12 * i + 8], "little")
                self.parts["extents"].append((leaf * self.volume.block_size, 96))

    def add_journal(self, inode):
        size = self.volume.block_size
        for e in inode.extents():
            for i in range(e.count):
                block = self.volume.block(e.pblk + i)
                if block[:4] == b"\xc0\x3b\x39\x98":
                    self.parts["journal"].append(((e.pblk + i) * size, 256 if e.lblk + i else 96))


def damage(rng, data):
    """One to four changes of the kinds that happen: a byte, a bit, a word at a limit, a swap."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[at] = (data[at] + rng.choice((1, -1))) & 255
        elif kind == 3:
            at &= ~3
            data[at:at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80",
                                          b"\1\0\0\0"))[:len(data) - at]
        elif kind == 4:
            at &= ~1
            data[at:at + 2] = rng.choice((b"\0\0", b"\xff\xff", b"\xff\x7f", b"\0\x80", b"\x0c\0"))[:len(data) - at]
        else:
            other = rng.randrange(len(data))
            data[at], data[other] = data[other], data[at]
    return bytes(data)


def judge(result, what):
    """cli.run has already refused signals, sanitizer reports and timeouts."""
    if result.code not in CODES:
        tap.fail(f"{what}: exit code {result.code}: {result!r}")
    if result.code and not result.err:
        tap.fail(f"{what}: exit {result.code} without a word: {result!r}")


def mutant(number, seed, bases):
    rng = random.Random(f"{seed} {number}")
    name = rng.choice(sorted(BASES))
    if name not in bases:
        bases[name] = Base(name)
    base = bases[name]
    kind = rng.choice(sorted(base.parts))
    offset, length = rng.choice(base.parts[kind])
    path = tap.copy(base.path)
    cli.patch(path, offset, damage(rng, base.volume.raw[offset:offset + length]))
    dest = tap.fresh("dest")
    keys = base.keys if rng.randrange(3) else []
    what = f"mutant {number} of seed {seed}: {kind} of {name} at byte {offset}"
    try:
        for args in (("info",), ("ls", "-lR"), ("get", "--keep-going")):
            try:
                judge(cli.run(*args, path, *([dest] if args[0] == "get" else []), keys=keys, timeout=LIMIT), what)
            except AssertionError as error:
                kept = os.path.join(os.environ.get("KEEP_MUTANTS", "/tmp"), f"mutant-{seed}-{number}.img")
                shutil.copyfile(path, kept)
                raise AssertionError(f"{what} (kept as {kept}): {error}") from None
    finally:
        if os.path.lexists(dest):
            subprocess.run(["chmod", "-R", "u+rwx", dest], check=False, capture_output=True)
            subprocess.run(["rm", "-rf", dest], check=True)
        os.unlink(path)


def batch(numbers, seed, bases):
    failures = []
    for number in numbers:
        try:
            mutant(number, seed, bases)
        except AssertionError as error:
            failures.append(str(error)[:1500])
            if len(failures) == 4:
                break
    if failures:
        tap.fail(f"{len(failures)} mutants:\n" + "\n\n".join(failures))


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 160
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"
    bases = {}
    if os.environ.get("MUTANT"):
        tap.add("one mutant", lambda: mutant(int(os.environ["MUTANT"]), seed, bases))
    else:
        step = max(20, count // 50)
        for start in range(0, count, step):
            numbers = range(start, min(count, start + step))
            tap.add(f"mutants {numbers[0]} to {numbers[-1]}", lambda numbers=numbers: batch(numbers, seed, bases))
    tap.main()


main()
