#!/usr/bin/env python3
"""The recipe of the seeds in fuzz/corpus/: pieces of the golden volumes; volumes and journals made by a real kernel.

Not here: what fuzzing finds (build-asan/fuzz-work/). Run by hand, as root, when a target changes what it takes:
    fuzz/make-corpus.py [NAME...]
Read more: HACKING.md, "Fuzzing"; the comment that opens each target says what its input is.
"""
import atexit
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(HERE, "..", "tests")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(TESTS, "lib"))
import ext4  # noqa: E402
import koracle  # noqa: E402
import tap  # noqa: E402

GOLDEN = os.path.join(TESTS, "golden")
KEY = bytes([1, 2, 3]) + bytes(61)  # fuzz_image.c knows this one
LIMIT = 16  # seeds of one kind
MIB = 1 << 20


def golden_volumes():
    for name in sorted(os.listdir(GOLDEN)):
        if name.endswith(".img.xz"):
            path = tap.fresh(name[:-3])
            with lzma.open(os.path.join(GOLDEN, name)) as packed, open(path, "wb") as f:
                f.write(packed.read())
            yield ext4.Volume(path)
            os.unlink(path)


class Seeds:
    """Collects seeds; of those that look alike in `kind` only the first is kept."""

    def __init__(self, name):
        self.name, self.found = name, {}

    def add(self, kind, data):
        self.found.setdefault(kind, data)

    def write(self):
        folder = os.path.join(HERE, "corpus", self.name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        for i, kind in enumerate(sorted(self.found, key=repr)[:LIMIT]):
            with open(os.path.join(folder, f"{i:02d}"), "wb") as f:
                f.write(self.found[kind])
        print(f"{self.name}: {min(LIMIT, len(self.found))} seeds")


def everything(volume):
    yield from volume.walk(name=lambda inode, stored: b"?")


# ---- pieces of golden volumes --------------------------------------------------------------------------------------

def context(seeds):
    for volume in golden_volumes():
        for _, inode in everything(volume):
            place = inode.context_at()
            if place:
                policy = place[0]
                bits = volume.block_size.bit_length() - 11
                seeds.add((policy[0], policy[1:5], volume.block_size), bytes([bits | 8 | 16]) + policy)


def dirblock(seeds):
    for volume in golden_volumes():
        flags = {1024: 0, 2048: 1, 4096: 2}[volume.block_size] | 4
        for _, inode in everything(volume):
            if not inode.is_dir:
                continue
            for i, extent in enumerate(inode.extents()):
                block = volume.block(extent.pblk)
                kind = (volume.block_size, inode.is_indexed(), i == 0, inode.encrypted)
                seeds.add(kind, bytes([flags | (16 if volume.ro_compat & 0x400 else 0)]) + block)


def extent(seeds):
    for volume in golden_volumes():
        for _, inode in everything(volume):
            if not inode.flags & 0x80000 or inode.is_link:
                continue
            node = inode.raw[40:100]
            magic, n, _, depth = struct.unpack_from("<4H", node)
            if magic != 0xF30A:
                continue
            seeds.add(("root", n, depth), b"\0" + node)
            if depth and n:
                _, low, high = struct.unpack_from("<IIH", node, 12)
                seeds.add(("node", depth - 1, volume.block_size), bytes([depth]) + volume.block(low | high << 32))


def symlink(seeds):
    for volume in golden_volumes():
        for _, inode in everything(volume):
            if inode.is_link and inode.encrypted:
                stored = inode.symlink()
                seeds.add(len(stored) // 40, struct.pack("<H", 4096) + stored)


def xattr(seeds):
    for volume in golden_volumes():
        for _, inode in everything(volume):
            n = len(list(inode.xattr_entries()))
            if volume.inode_size > 128 and n:
                start = 128 + struct.unpack_from("<H", inode.raw, 128)[0]
                if inode.raw[start:start + 4] == b"\x00\x00\x02\xea":
                    seeds.add(("inode", n), b"\0" + inode.raw[start + 4:])
            if inode.file_acl:
                seeds.add(("block", n), b"\1" + volume.block(inode.file_acl))
            for index, _, value, _ in inode.xattr_entries():
                if index in (2, 3):
                    seeds.add(("acl", index, len(value)), b"\0" + value)


def nokey(seeds):
    for name in sorted(os.listdir(GOLDEN)):
        if not name.endswith(".json"):
            continue
        with open(os.path.join(GOLDEN, name), encoding="utf-8") as f:
            for path in json.load(f)["locked"]:
                part = path.rsplit("/", 1)[-1]
                if len(part) > 20 and part.isascii():
                    seeds.add(len(part), part.encode())


def rules(seeds):
    for text in ("write@3=EIO", "read@*=EIO+delay=100us", "write@5=torn:512", "flush@2=drop", "bad=4096..8192", "reset@5",
                 "program@3..7+evict@1", "latency=100us+io@4", "modes=AES-256-XTS+unit=512", "reset", "delay=100us..300us",
                 "clear"):
        seeds.add(text, text.encode())


def spec(seeds):
    texts = ["disk.img", "file(disk.img, direct)", "ram(64M)", "ram(1M, block_size=4096)", 
             "slice(dump.bin, offset=1M, length=1G)", "part(disk.img, 2)", "engine(disk.img, slots=1)",
             "engine(part(slice(ram(8M), offset=512), 1), slots=0, dun_bytes=8)",
             "engine(ram(1M), modes=aes-256-xts+aes-128-cbc-essiv, unit=512+4096)", 'file("a, \\"b\\" (c)\\\\", direct)',
             " slice ( a b.img , offset = 4 KiB ) ", "./part(1)",
             'linear(a.img, file(b.img, direct), "c=d", fallback=on)', "stripe(ram(1M), ram(2M), chunk = 16K, bounce=1M)",
             "fault(a.img, write@3=torn:512+read@*=EIO, delay=100us, flush@2=drop, fallback=off)"]
    for text in texts:
        seeds.add(text, text.encode())


# ---- volumes and journals made by the kernel ------------------------------------------------------------------------

def fill(root):
    """Something of everything that has a parser."""
    locked = os.path.join(root, "a")
    os.mkdir(locked)
    koracle.set_policy(locked, koracle.add_key(root, KEY))
    for top in (locked, root):
        os.makedirs(os.path.join(top, "b", "deep"), exist_ok=True)
        os.symlink("deep", os.path.join(top, "b", "link"))
        os.symlink("x" * 100, os.path.join(top, "b", "long link"))
        for i in range(30):
            with open(os.path.join(top, "b", f"a name of some length, number {i}"), "wb") as f:
                f.write(b"content" * i)
        with open(os.path.join(top, "holes"), "wb") as f:
            for i in range(6):
                f.seek(i * 9000)
                f.write(b"data")
        os.setxattr(os.path.join(top, "holes"), "user.small", b"value")
        os.setxattr(os.path.join(top, "holes"), "user.large", b"v" * 400)


def image(seeds):
    layouts = {
        "extents": ["-O", "^has_journal,^metadata_csum,^resize_inode"],
        "old": ["-O", "^has_journal,^metadata_csum,^resize_inode,^extent,^64bit,^flex_bg", "-I", "128"],
        "inline": ["-O", "^has_journal,^metadata_csum,^resize_inode,inline_data"],
        "checksums": ["-O", "^has_journal,metadata_csum,^resize_inode"],
        "ea-inode": ["-O", "^has_journal,^metadata_csum,^resize_inode,ea_inode", "-b", "4096"],
    }
    for name, options in layouts.items():
        path = tap.fresh(name)
        size = MIB // 2 if "4096" in options else MIB // 4
        koracle.mkfs(path, size, "-b", "1024", "-N", "128", "-m", "0", *options)
        with tap.mounted(path) as root:
            fill(root)
        subprocess.run(["e2fsck", "-fn", path], check=True, capture_output=True)
        with open(path, "rb") as f:
            seeds.add(name, f.read())


def live_journal(options):
    """The journal of a volume that is mounted and has committed several times, with revoked blocks: as bytes."""
    path, copy = tap.fresh("journal"), tap.fresh("copy")
    koracle.mkfs(path, 8 * MIB, "-b", "1024", "-m", "0", "-J", "size=1", *options)
    with tap.mounted(path) as root:
        for turn in range(2):
            folder = os.path.join(root, f"dir {turn}")
            os.mkdir(folder)
            for i in range(12):
                os.mkdir(os.path.join(folder, str(i)))
            os.sync()
            for i in range(0, 12, 2):
                os.rmdir(os.path.join(folder, str(i)))
            os.sync()
        shutil.copyfile(path, copy)
    return bytearray(ext4.Volume(copy).inode(8).data())


def journal(seeds):
    for name, flags, options in (("32bit", 0, ["-O", "^metadata_csum,^64bit"]),
                                 ("64bit", 1, ["-O", "^metadata_csum,64bit"])):
        data = live_journal(options)
        used = max(at for at in range(0, len(data), 1024) if any(data[at:at + 1024])) + 2048
        struct.pack_into(">I", data, 16, used // 1024)  # s_maxlen
        seeds.add(name, bytes([flags]) + bytes(data[:used]))
        if not any(data[at:at + 8] == b"\xc0\x3b\x39\x98\0\0\0\5" for at in range(0, used, 1024)):
            sys.exit("no revoke block in the journal")


def number(value):
    """A varint."""
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(*fields):
    """Of protobuf: (number, integer or bytes)."""
    out = b""
    for tag, value in fields:
        out += number(tag << 3) + number(value) if isinstance(value, int) else number(tag << 3 | 2) + number(len(value)) + value
    return out


def protect(seeds):
    name, other = b"0123456789abcdef", b"fedcba9876543210"
    def wrapped(size):
        return message((1, bytes(16)), (2, bytes(range(size))), (3, bytes(32)))
    costs = message((2, 1), (3, 64), (4, 2))
    for source in (1, 2, 3):
        more = [] if source == 3 else [(4, costs), (5, bytes(16)), (6, 1000)]
        seeds.add(source, b"\0" + message((1, name), (2, source), (3, b"me"), *more, (7, wrapped(32))))
    seeds.add("recovery", b"\0" + message((1, name), (2, 2), (4, costs), (5, bytes(16)), (7, wrapped(32)), (5001, 1)))
    seeds.add("costs", b"\0" + message((1, name), (2, 2), (4, message((2, 1 << 40), (3, 1 << 40), (4, 258), (5, 1))), (5, bytes(16)),
                                       (7, wrapped(32))))
    for n in (0, 1, 3):
        keys = [(3, message((1, other if i else name), (2, wrapped(64)))) for i in range(n)]
        seeds.add(("policy", n), b"\1" + message((1, name * 2), (2, message((1, 32), (2, 1), (3, 4), (4, 2))), *keys, (77, b"new")))
    seeds.add("code", b"\2000000-000000")


MAKERS = {f.__name__: f for f in (context, dirblock, extent, symlink, xattr, nokey, spec, rules, image, journal, protect)}


def main():
    atexit.register(tap._cleanup)  # pylint: disable=protected-access
    for name in sys.argv[1:] or MAKERS:
        seeds = Seeds(name)
        MAKERS[name](seeds)
        seeds.write()


if __name__ == "__main__":
    main()
