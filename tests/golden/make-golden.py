#!/usr/bin/env python3
"""The recipe of the golden volumes: each is made by a real kernel, described by a manifest, compressed.

Not here: the tests that read them (tests/cli/test_golden.py). Run by hand, as root, where a kernel has ext4 and fscrypt:
    tests/golden/make-golden.py [NAME...]
Read more: README.md beside this file.
"""
import hashlib
import json
import lzma
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import ext4  # noqa: E402
import koracle  # noqa: E402
import reference  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

LIMIT = 250 << 10
MKFS = ("-E", "lazy_itable_init=0,lazy_journal_init=0,hash_seed=0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "-m", "0")


def master(name, size=64):
    """A key that is only ever used for tests."""
    return hashlib.sha512(b"inlay golden volume: " + name.encode()).digest()[:size]


class Golden:
    def __init__(self, name, size, *mkfs):
        self.name, self.keys, self.policies = name, [], []
        self.known = None  # what is in it, where this kernel cannot read it all
        self.image = tap.fresh(name + ".img")
        koracle.mkfs(self.image, size, "-L", name[:16], *MKFS, *mkfs)

    def key(self, name, v1=False, size=64):
        raw = master(name, size)
        self.keys.append({"file": name + ".key", "version": 1 if v1 else 2,
                          "name": koracle.descriptor(raw) if v1 else reference.identifier(raw).hex()})
        with open(os.path.join(HERE, name + ".key"), "wb") as f:
            f.write(raw)
        return self.keys[-1]["name"]

    def unlock(self, root):
        for key in self.keys:
            with open(os.path.join(HERE, key["file"]), "rb") as f:
                koracle.add_key(root, f.read(), key["version"] == 1)

    def locked_dir(self, root, name, key, **policy):
        path = os.path.join(root, name)
        os.mkdir(path)
        koracle.set_policy(path, key, **policy)
        version, contents, names, flags, log2_unit, key = koracle.get_policy(path)
        self.policies.append({"path": "/" + name, "version": version or 1, "contents": contents, "names": names, "flags": flags,
                              "log2_unit": log2_unit, "key": key})
        return path

    def manifest(self):
        """Everything the kernel shows, with the keys and without them."""
        copy = tap.fresh("copy.img")
        shutil.copyfile(self.image, copy)
        with tap.mounted(copy) as root:
            locked = trees.snapshot(root, data=False)
        shutil.copyfile(self.image, copy)
        with tap.mounted(copy) as root:
            self.unlock(root)
            files = trees.snapshot(root, data=self.known is None)
            if self.known:
                # Names, types, sizes and targets are the kernel's all the same.
                trees.check(self.known, files, fields=("type", "size", "target"))
                files = self.known
        os.unlink(copy)
        return {"volume": self.name, "keys": self.keys, "policies": self.policies,
                "files": {os.fsdecode(p): row_json(r) for p, r in sorted(files.items())},
                "locked": {os.fsdecode(p): {k: os.fsdecode(v) if k == "target" else v for k, v in r.items()
                                            if k in ("type", "size", "target", "ino")} for p, r in sorted(locked.items())}}

    def finish(self, clean=True):
        if clean:
            subprocess.run(["e2fsck", "-fn", self.image], check=True, capture_output=True)
        manifest = self.manifest()
        with open(os.path.join(HERE, self.name + ".json"), "w", encoding="ascii") as f:
            json.dump(manifest, f, indent=0, sort_keys=True)
            f.write("\n")
        with open(self.image, "rb") as f:
            raw = f.read()
        packed = lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
        assert len(packed) < LIMIT, f"{self.name}: {len(packed)} bytes"
        with open(os.path.join(HERE, self.name + ".img.xz"), "wb") as f:
            f.write(packed)
        print(f"{self.name}: {len(manifest['files'])} files, {len(raw) >> 10} KiB, packed {len(packed) >> 10} KiB")
        os.unlink(self.image)
        return manifest


def row_json(row):
    row = {k: v for k, v in row.items() if k != "xattrs"} | ({"xattrs": {k: v.hex() for k, v in row["xattrs"].items()}}
                                                              if row.get("xattrs") else {})
    if "target" in row:
        row["target"] = os.fsdecode(row["target"])
    return row


def a_bit_of_everything(path, block, longest, big_names):
    """Small enough for a repository: one or two of each kind."""
    m = trees.Maker(path, "golden", block)
    top = m.dir("sizes")
    for size in sorted({0, 1, 16, 511, 512, 513, block - 1, block, block + 1, 2 * block}):
        trees.write(os.path.join(top, b"size-%d" % size), m.rng.randbytes(size))
    top = m.dir("sparse")
    for name, size, at in ((b"all-hole", 3 * block + 1, None), (b"middle", 9 * block + 5, 4 * block + 3),
                           (b"far", 1 << 31, (1 << 31) - 7)):
        with open(os.path.join(top, name), "wb") as f:
            if at is not None:
                f.seek(at)
                f.write(b"data")
            f.truncate(size)
    with open(os.path.join(top, b"preallocated"), "wb") as f:
        trees.fallocate(f.fileno(), 0, 0, 4 * block)
        f.write(b"start")
    with open(os.path.join(top, b"past-end"), "wb") as f:
        trees.fallocate(f.fileno(), trees.FALLOC_KEEP_SIZE, 0, 4 * block)
        f.write(b"start")
    with open(m.path("fragmented"), "wb") as f:
        for i in range(8):
            f.seek(2 * i * block)
            f.write(b"piece %d" % i)
            f.flush()
    os.makedirs(m.path("names"))
    for length in (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 143, 144, 145, 149, 150, 160, 161, 223, 224, 225,
                   254, 255):
        trees.write(m.path("names", (b"%d-" % length + b"n" * 255)[:length]), b"")
    for name in (b" ", b"new\nline", b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe", b"-rf", b"\x1b[31mred", b"..."):
        trees.write(m.path("names", name), b"")
    top = m.dir("symlinks")
    for length in (1, 16, 30, 41, 48, 57, 58, 59, 60, 100, 149, 200, 255, 500, longest):
        os.symlink((b"%d/" % length + b"t" * length)[:length], os.path.join(top, b"to-%d" % length))
    os.symlink(b"../sizes", os.path.join(top, b"dir"))
    os.symlink(b"a\nb\xff", os.path.join(top, b"odd"))
    deep = m.dir("nested", "a", "b", "c", "d")
    trees.write(os.path.join(deep, b"bottom.txt"), b"bottom\n")
    first = os.path.join(m.dir("links"), b"first")
    trees.write(first, b"linked")
    os.link(first, m.path("links", "second"))
    os.link(first, m.path("nested", "third"))
    top = m.dir("many")
    for i in range(big_names):
        trees.write(os.path.join(top, b"entry %04d" % i), b"")
    for i in range(0, big_names, 9):
        os.unlink(os.path.join(top, b"entry %04d" % i))
    trees.write(m.path("xattr"), b"x")
    os.setxattr(m.path("xattr"), "user.comment", b"hello")
    os.setxattr(m.path("xattr"), "user.large", m.rng.randbytes(block // 2 - 100))
    subprocess.run(["setfacl", "-m", "u:1234:rw", m.path("xattr")], check=True)
    for mode in (0, 0o444, 0o755, 0o4711, 0o1777):
        trees.write(m.path("mode-%o" % mode), b"")
        os.chown(m.path("mode-%o" % mode), 1000, 70000)
        os.chmod(m.path("mode-%o" % mode), mode)
    for i, ns in enumerate((0, -5 * 10 ** 8, 2 ** 32 * 10 ** 9 + 987654321, 1234567890123456789)):
        trees.write(m.path("time-%d" % i), b"")
        os.utime(m.path("time-%d" % i), ns=(ns, ns))
    os.utime(m.path("nested"), ns=(7, 1500000000000000042))
    os.mkfifo(m.path("fifo"))
    trees.write(m.path("gone"), m.rng.randbytes(block))
    os.unlink(m.path("gone"))
    os.mkdir(m.path("empty"))


def plain(root):
    top = os.path.join(root, "plain")
    os.mkdir(top)
    trees.write(os.path.join(top, "hello.txt"), b"Nobody needs a key for this.\n")
    trees.write(os.path.join(top, "n" * 255), b"")
    os.symlink("hello.txt", os.path.join(top, "short"))
    os.symlink("x" * 200, os.path.join(top, "long"))
    os.mkfifo(os.path.join(top, "fifo"))
    os.mknod(os.path.join(top, "null"), 0o600 | 0o020000, os.makedev(1, 3))


def one_volume(name, size, block, key, policies, longest=4093, big_names=150, mkfs=(), v1=False):
    g = Golden(name, size, "-b", str(block), *mkfs)
    names = [g.key(k, v1) for k in ([key] if isinstance(key, str) else key)]
    with tap.mounted(g.image) as root:
        g.unlock(root)
        for i, (directory, policy) in enumerate(policies):
            path = g.locked_dir(root, directory, names[min(i, len(names) - 1)], **policy)
            if i == 0:
                a_bit_of_everything(path, block, longest, big_names)
            else:
                trees.write(os.path.join(path, "one.txt"), b"one\n" * 300)
                trees.write(os.path.join(path, "n" * 100), trees.pattern(directory, block + 17))
                os.symlink("one.txt", os.path.join(path, "to-one"))
                os.mkdir(os.path.join(path, "below"))
                trees.write(os.path.join(path, "below", "two.txt"), b"two\n")
        plain(root)
    g.finish()


def v2_4k():
    one_volume("v2-4k", 8 << 20, 4096, ["v2-4k", "v2-4k-second"],
               [("pad32", {}), ("pad4", {"flags": 0}), ("pad8", {"flags": 1}), ("pad16", {"flags": 2}),
                ("units-512", {"log2_unit": 9}), ("units-2048", {"log2_unit": 11})])


def lblk64_1k():
    one_volume("lblk64-1k", 4 << 20, 1024, "lblk64-1k",
               [("lblk64", {"flags": 3 | koracle.LBLK_64}), ("per-file", {}), ("lblk64-pad4", {"flags": koracle.LBLK_64})],
               longest=1021, big_names=250, mkfs=("-O", "stable_inodes", "-J", "size=1"))


def lblk32_4k():
    one_volume("lblk32-4k", 8 << 20, 4096, "lblk32-4k",
               [("lblk32", {"flags": 2 | koracle.LBLK_32}), ("lblk64", {"flags": 1 | koracle.LBLK_64})],
               mkfs=("-O", "stable_inodes"))


def v1():
    """Old formats throughout: v1 policies, indirect maps, 128-byte inodes, no checksums."""
    one_volume("v1", 8 << 20, 2048, "v1", [("v1-pad32", {}), ("v1-pad4", {"flags": 0})], longest=2045, v1=True,
               mkfs=("-O", "^extents,^metadata_csum,^64bit,^flex_bg", "-I", "128", "-J", "size=2"))


def essiv():
    """AES-128-CBC-ESSIV and AES-128-CBC-CTS. Few kernels have ESSIV: the kernel writes the tree with AES-256, then the
    reference encrypts it again, in place. Linear directories and no checksums make that possible. Policies v1 and v2."""
    g = Golden("essiv", 2 << 20, "-b", "1024", "-O", "^metadata_csum,^dir_index,^has_journal")
    keys = {1: g.key("essiv-v1", v1=True, size=16), 2: g.key("essiv-v2", size=32)}
    with tap.mounted(g.image) as root:
        for version in keys:
            raw = master(f"essiv-v{version}", 64)
            name = koracle.add_key(root, raw, version == 1)
            path = g.locked_dir(root, f"v{version}", name, flags=2)
            for size in (0, 1, 16, 700, 1024, 1025, 5000):
                trees.write(os.path.join(path, f"size-{size}"), trees.pattern(size, size))
            trees.write(os.path.join(path, "n" * 200), b"long name")
            os.mkdir(os.path.join(path, "below"))
            trees.write(os.path.join(path, "below", "deep.txt"), b"deep\n")
            os.symlink("below/deep.txt", os.path.join(path, "fast"))
            os.symlink("t" * 300, os.path.join(path, "slow"))
        g.known = trees.snapshot(root)
    for policy in g.policies:
        policy.update(contents=5, names=6, key=keys[policy["version"]])
    _encrypt_again(g.image, {1: (master("essiv-v1", 64), master("essiv-v1", 16)),
                             2: (master("essiv-v2", 64), master("essiv-v2", 32))})
    g.finish()


def _encrypt_again(image, masters):
    v = ext4.Volume(image)
    out = bytearray(v.raw)

    def pair(inode):
        context = reference.parse_context(inode.context_at()[0])
        old, new = masters[context.version]
        key = reference.descriptor(new) if context.version == 1 else reference.identifier(new)
        fresh = context._replace(contents=5, names=6, key=key)
        return tuple(reference.Inode(c, m, inode.number, v.uuid, v.block_size) for c, m in ((context, old), (fresh, new)))

    def again(inode):
        if not inode.encrypted:
            return
        before, after = pair(inode)
        at = inode.context_at()[1]
        out[at:at + len(reference.pack_context(after.c))] = reference.pack_context(after.c)
        if inode.is_dir:
            for e in inode.entries():
                stored = reference.cts_encrypt(after.key(6), bytes(16), reference.cts_decrypt(before.key(4), bytes(16), e.name))
                out[e.offset + 8:e.offset + 8 + len(stored)] = stored
        elif inode.is_reg:
            for e in inode.extents():
                for i in range(e.count):
                    place, offset = (e.pblk + i) * v.block_size, (e.lblk + i) * v.block_size
                    clear = before.contents(offset, v.block(e.pblk + i))
                    out[place:place + v.block_size] = after.contents(offset, clear, decrypt=False)
        elif inode.is_link:
            old = reference.symlink_ciphertext(inode.symlink())
            stored = reference.cts_encrypt(after.key(6), bytes(16), reference.cts_decrypt(before.key(4), bytes(16), old))
            place = inode.at + 40 if inode.size + 1 <= 60 else inode.extents()[0].pblk * v.block_size
            out[place + 2:place + 2 + len(stored)] = stored

    for _, inode in v.walk():
        again(inode)
    with open(image, "wb") as f:
        f.write(out)


def unclean():
    """Copied while mounted, right after a commit: much of it is in the journal only. Blocks of deleted directories became
    data of files, so that a replay without the journal's revoke records would destroy these files."""
    g = Golden("unclean", 8 << 20, "-b", "4096")
    key = g.key("unclean")
    with tap.mounted(g.image) as root:
        g.unlock(root)
        path = g.locked_dir(root, "locked", key)
        trees.write(os.path.join(path, "before.txt"), b"written before\n")
        trees.write(os.path.join(path, "changed.txt"), b"old content\n")
        trees.write(os.path.join(path, "deleted.txt"), b"deleted\n")
        trees.write(os.path.join(root, "plain-before.txt"), b"plain\n")
        space = os.statvfs(root)
        with open(os.path.join(root, "filler"), "wb") as f:
            trees.fallocate(f.fileno(), 0, 0, (space.f_bavail - 40) * 4096)
    # A fresh mount: nothing of the above is left in the journal.
    with tap.mounted(g.image, "commit=300") as root:
        g.unlock(root)
        path = os.path.join(root, "locked")
        synced(os.path.join(path, "new.txt"), b"only the journal knows my name\n")
        synced(os.path.join(path, "changed.txt"), b"new content, longer than the old one\n" * 300)
        os.unlink(os.path.join(path, "deleted.txt"))
        os.rename(os.path.join(path, "before.txt"), os.path.join(path, "renamed.txt"))
        for i in range(6):
            os.mkdir(os.path.join(path, f"doomed-{i}"))
            for j in range(30):
                trees.write(os.path.join(path, f"doomed-{i}", f"{j:02d}" + "x" * 150), b"")
        sync_dir(path)
        for i in range(6):
            shutil.rmtree(os.path.join(path, f"doomed-{i}"))
        sync_dir(path)
        free = os.statvfs(root).f_bavail
        for i in range(2):
            synced(os.path.join(path, f"reuses-{i}"), trees.pattern(i, (free - 4) // 2 * 4096))
        os.mkdir(os.path.join(path, "subdir"))
        os.symlink("renamed.txt", os.path.join(path, "link"))
        os.setxattr(os.path.join(path, "new.txt"), "user.late", b"late")
        sync_dir(path)
        frozen = tap.fresh("frozen.img")
        shutil.copyfile(g.image, frozen)
    g.image = frozen
    check_unclean(frozen)
    g.finish(clean=False)


def synced(path, data):
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def sync_dir(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def check_unclean(image):
    """That the volume is what it claims to be."""
    before = ext4.Volume(image)
    assert before.incompat & 4, "the journal needs no recovery"
    log = subprocess.run(["debugfs", "-R", "logdump -a", image], capture_output=True, text=True, check=True).stdout
    revoked = {int(n) for n in re.findall(r"Revoke FS block (\d+)", log)}
    assert revoked, "no revoke records"
    replayed = tap.fresh("replayed.img")
    shutil.copyfile(image, replayed)
    subprocess.run(["e2fsck", "-fy", replayed], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = ext4.Volume(replayed)

    def stored(volume):
        return {e.name for e in volume.find(b"/locked").entries()}

    assert stored(before) != stored(after), "the directory on the medium is current already"
    data = {b for _, i in after.walk(after.find(b"/locked").number) if i.is_reg for e in i.extents()
            for b in range(e.pblk, e.pblk + e.count)}
    assert revoked & data, "no revoked block became data"
    print(f"unclean: {len(revoked)} blocks revoked, {len(revoked & data)} of them are data of files now")


POEM = """Lock and key

A house that keeps its doors in code
still has a door, a step, a road;
the lock is mathematics, and the key
is sixty-four bytes of memory.

Lose them, and the house is sand.
Hold them, and it fits your hand.
"""


def png(width, height, pixel):
    """A small picture; pixel(x, y) gives (r, g, b)."""
    rows = b"".join(b"\0" + bytes(c for x in range(width) for c in pixel(x, y)) for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def julia(x, y):
    z, n = complex((x - 80) / 50, (y - 60) / 50), 0
    while abs(z) < 2 and n < 40:
        z, n = z * z + complex(-0.8, 0.156), n + 1
    return (n * 6, (n * 6) ** 2 // 255, 255 - n * 6)


def demo():
    """What `make run` shows: two people, two keys, one volume."""
    g = Golden("demo", 8 << 20, "-b", "4096")
    alice, bob = g.key("demo-alice"), g.key("demo-bob")
    with tap.mounted(g.image) as root:
        g.unlock(root)
        trees.write(os.path.join(root, "README.txt"), b"alice/ and bob/ are encrypted, each with its own key. This file is not.\n")
        top = g.locked_dir(root, "alice", alice)
        m = trees.Maker(top, "demo", 4096)
        trees.write(m.path("poem.txt"), POEM.encode())
        trees.write(m.path("julia.png"), png(160, 120, julia))
        for year in (2024, 2025):
            for month in ("03-March", "11-November"):
                m.dir("letters", str(year), month)
                for day in (3, 17):
                    trees.write(m.path("letters", str(year), month, f"to-bob-{day:02d}.txt"),
                                f"Dear Bob,\n\non day {day} of {month[3:]} {year} I wrote this under my own key.\n\nAlice\n".encode())
        trees.write(m.path("letters", "a name so long that its encrypted form is cut in the listing without a key, which ends in a hash "
                           "of the rest, because names on Linux have at most 255 bytes and this one has many.txt"), b"Found me.\n")
        os.symlink("letters/2025/11-November/to-bob-17.txt", m.path("latest"))
        with open(m.path("disk.sparse"), "wb") as f:
            f.seek(3 << 20)
            f.write(b"Three megabytes of nothing lie before this line.\n")
        top = g.locked_dir(root, "bob", bob, flags=0)
        m = trees.Maker(top, "demo", 4096)
        rng = random.Random("ledger")
        rows = "".join(f"2025-{i % 12 + 1:02d}-{i % 28 + 1:02d};{rng.randrange(100, 99999) / 100:.2f}\n" for i in range(400))
        trees.write(m.path("ledger.csv"), ("date;amount\n" + rows).encode())
        os.link(m.path("ledger.csv"), m.path("ledger-again.csv"))
        m.dir("photos")
        trees.write(m.path("photos", "stripes.png"), png(64, 64, lambda x, y: (255, 255 * (x // 8 % 2), 255 * (y // 8 % 2))))
        for base, dirs, names in os.walk(os.fsencode(root)):
            for i, name in enumerate(sorted(dirs + names)):
                os.utime(os.path.join(base, name), ns=(0, (1762000000 + 60 * i) * 10 ** 9 + 123456789), follow_symlinks=False)
    manifest = g.finish()
    with open(os.path.join(HERE, "demo.sha256"), "w", encoding="utf-8") as f:
        for path, row in manifest["files"].items():
            if row["type"] == "file":
                f.write(f"{row['sha256']}  {path}\n")


VOLUMES = {"demo": demo, "v2-4k": v2_4k, "lblk64-1k": lblk64_1k, "lblk32-4k": lblk32_4k, "v1": v1, "essiv": essiv,
           "unclean": unclean}


def main():
    if not koracle.available():
        sys.exit("make-golden: needs root, a loop device and a kernel with ext4 and fscrypt")
    for name in sys.argv[1:] or VOLUMES:
        VOLUMES[name]()


if __name__ == "__main__":
    try:
        main()
    finally:
        tap._cleanup()
