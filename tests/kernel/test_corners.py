#!/usr/bin/env python3
"""Where data unit numbers are at their limits, and engines that can do less than is asked of them.

Not here: whole trees (test_matrix.py).
Read more: Linux Documentation/filesystems/fscrypt.rst, "IV_INO_LBLK_32 policies".
"""
import hashlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import koracle as k  # noqa: E402
import reference as r  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
KEY = hashlib.sha512(b"corners").digest()


def key_file():
    path = tap.fresh("key")
    trees.write(path, KEY)
    return path


def volume(fill, *mkfs, size=64, **policy):
    """A volume whose encrypted directory fill(path) has filled. Returns the image and a snapshot by the kernel."""
    tap.requires("root", "loop", "kernel")
    image = tap.fresh("corner.img")
    k.mkfs(image, size * MIB, *(() if "-b" in mkfs else ("-b", "4096")), *mkfs)
    with tap.mounted(image) as root:
        top = os.path.join(root, "locked")
        os.mkdir(top)
        k.set_policy(top, k.add_key(root, KEY), **policy)
        fill(top)
    with tap.mounted(image, "ro,noload") as root:
        k.add_key(root, KEY)
        tree = trees.snapshot(root)
    return image, tree


def read_by(image, tree, spec, engine):
    """Export through a SPEC, compare, and see who did the work: True the engine, False the fallback."""
    dest = tap.fresh("dest")
    result = cli.run("get", "--counters", spec.format(image), dest, keys=[key_file()])
    tap.equal(result.code, 0, repr(result))
    trees.check(tree, trees.snapshot(dest), grain=4096)
    counters = cli.counters(result)
    worked, idle = ("engine", "fallback") if engine else ("fallback", "engine")
    assert counters[worked + "_units_decrypted"] > 0, (spec, counters)
    tap.equal(counters[idle + "_units_decrypted"], 0, f"units decrypted by the {idle} of {spec}")


@tap.test
def lblk32_wraps():
    """IV_INO_LBLK_32: contents on both sides of the place where the data unit number wraps to 0"""
    hash_key = r.derive(KEY, 7, b"", 16)

    def wrap_of(path):
        return (1 << 32) - (r.siphash24(hash_key, os.stat(path).st_ino.to_bytes(8, "little")) & 0xFFFFFFFF)

    def fill(top):
        paths = [os.path.join(top, "file-%d" % i) for i in range(300)]
        for path in paths:
            trees.write(path, b"")
        # The wrap that comes first: some destinations do not take files of many terabytes.
        for path in sorted(paths, key=wrap_of)[:3]:
            with open(path, "r+b") as f:
                for first, count in ((-8, 16), (-20, 3), (300, 2)):
                    os.pwrite(f.fileno(), trees.pattern(count, count * 4096 - 7), (wrap_of(path) + first) * 4096)

    image, tree = volume(fill, "-O", "stable_inodes", flags=k.LBLK_32)
    assert sum(row["blocks"] > 100 for row in tree.values() if row["type"] == "file") == 3
    for spec, engine in (("{}", False), ("engine({}, slots=1)", True), ("engine({}, slots=0)", True),
                         ("engine({}, slots=1, dun_bytes=4)", True)):
        read_by(image, tree, spec, engine)


@tap.test
def long_data_unit_numbers():
    """Data units of 512 bytes beyond 2 TiB: numbers of more than 32 bits, which an engine for 32 bits cannot do"""
    def fill(top):
        with open(os.path.join(top, "far"), "wb") as f:
            for offset in (0, (1 << 41) - 8192, 3 << 40, (1 << 43) + 4096 * 7):
                os.pwrite(f.fileno(), trees.pattern(offset, 16384), offset)

    image, tree = volume(fill, log2_unit=9)
    read_by(image, tree, "{}", False)
    read_by(image, tree, "engine({}, slots=1)", True)
    read_by(image, tree, "engine({}, slots=1, dun_bytes=4)", False)


@tap.test
def engines_that_cannot():
    """An engine without the mode or the data unit size: the fallback does the work, and the bytes are the same"""
    def fill(top):
        trees.Maker(top, "engines", 4096).sizes()

    image, tree = volume(fill)
    for spec, engine in (("engine({}, slots=1, unit=512)", False), ("engine({}, slots=2, modes=aes-128-cbc-essiv)", False),
                         ("engine({}, slots=1, unit=4096, modes=aes-256-xts)", True),
                         ("engine(slice({}, offset=0), slots=3)", True), ("slice(engine({}, slots=1), offset=0)", True),
                         ("engine(engine({}, slots=1), slots=1, unit=512)", False)):
        read_by(image, tree, spec, engine)


@tap.test
def many_keys_one_slot():
    """More keys than slots: 1,500 files read in turn through one slot and through 32"""
    def fill(top):
        for i in range(1500):
            trees.write(os.path.join(top, "file-%d" % i), trees.pattern(i, 700))

    image, tree = volume(fill)
    for slots in (1, 32):
        read_by(image, tree, "engine({}, slots=%d)" % slots, True)


@tap.test
def longest_extent():
    """An extent of exactly 32,768 blocks, the most that one can have, beside long unwritten ones"""
    def fill(top):
        for where in (top, os.path.dirname(top)):
            with open(os.path.join(where, "written"), "wb") as f:
                for i in range(72):
                    f.write(trees.pattern(i, MIB // 2))
            with open(os.path.join(where, "unwritten"), "wb") as f:
                trees.fallocate(f.fileno(), 0, 0, 34 * MIB)
                f.write(b"written")

    image, tree = volume(fill, "-b", "1024", "-O", "sparse_super2", "-E", "num_backup_sb=0", size=192)
    v = ext4.Volume(image)
    counts = {(e.count, e.unwritten) for _, inode in v.walk() if inode.is_reg for e in inode.extents()}
    if (32768, False) not in counts:
        raise tap.Skip(f"this allocator made no such extent, but {max(counts)}")
    read_by(image, tree, "{}", False)
    read_by(image, tree, "engine({}, slots=1)", True)
    os.unlink(image)


@tap.test
def wrong_uuid():
    """IV_INO_LBLK_64 keys are bound to the UUID: with another one the contents are not what they were"""
    def fill(top):
        trees.write(os.path.join(top, "file"), b"bound to this volume")

    image, _ = volume(fill, "-O", "stable_inodes,^metadata_csum", flags=k.LBLK_64)
    where = image + ":/locked/file"
    tap.equal(cli.good("cat", where, keys=[key_file()]).out, b"bound to this volume")
    for number in range(100):
        cli.patch(image, 1024 + 104, b"another UUID  %02d" % number)
        with tap.mounted(image, "ro,noload") as root:
            k.add_key(root, KEY)
            try:
                (name,) = os.listdir(os.path.join(os.fsencode(root), b"locked"))
                break
            except OSError:  # the wrong key made a '/' of a byte: no name, neither there nor here
                assert cli.run("ls", "-a", image + ":/locked", keys=[key_file()]).code != 0
    assert name != b"file"
    tap.equal(cli.good("ls", "-a", image + ":/locked", keys=[key_file()]).out, name + b"\n")


if __name__ == "__main__":
    tap.main()
