#!/usr/bin/env python3
"""Volumes copied while mounted, read through a replay of the journal in memory: the same as what the kernel's replay gives.

Not here: cleanly unmounted volumes (test_matrix.py). Nothing here writes while a copy is taken, so a copy is one moment.
Read more: HACKING.md, "Tests".
"""
import errno
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import koracle as k  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
KEY = hashlib.sha512(b"journal").digest()
JBD2_MAGIC = b"\xc0\x3b\x39\x98"


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


ALL_KINDS, REUSE = (0, 1, 2, 3, 4, 5, 6, 7), (0, 0, 3, 3, 3, 4, 4, 4, 5)


def step(rng, top, files, serial, kinds):
    """A few changes below top, the last of which is on the journal when this returns."""
    for _ in range(rng.randrange(4, 30)):
        try:
            change(rng, top, files, serial, rng.choice(kinds))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            while len(files) > 4:
                os.unlink(files.pop(rng.randrange(len(files))))
            sync(top)
    trees.write(os.path.join(top, "last"), b"%d" % serial[0])
    sync(os.path.join(top, "last"))
    sync(top)


def change(rng, top, files, serial, what):
    serial[0] += 1
    name = os.path.join(top, "entry %d" % serial[0])
    if what < 3 or not files:
        # Data that begins with the journal's magic number must be escaped when it is journaled itself.
        trees.write(name, (JBD2_MAGIC if rng.randrange(2) else b"") + rng.randbytes(rng.choice((0, 5, 1000, 9000))))
        files.append(name)
    elif what == 3:
        os.mkdir(name)
        for i in range(rng.randrange(40)):
            trees.write(os.path.join(name, "%02d" % i + "x" * rng.randrange(150)), b"%d" % i)
    elif what == 4:
        directories = [e.path for e in os.scandir(top) if e.is_dir(follow_symlinks=False)]
        if directories:
            shutil.rmtree(rng.choice(directories))
    elif what == 5:
        os.unlink(files.pop(rng.randrange(len(files))))
    elif what == 6:
        old = files.pop(rng.randrange(len(files)))
        os.rename(old, name)
        files.append(name)
    else:
        os.truncate(files[rng.randrange(len(files))], rng.randrange(5000))


def kernel_view(image):
    copy = tap.copy(image)
    with tap.mounted(copy) as root:
        k.add_key(root, KEY)
        tree = trees.snapshot(root)
    os.unlink(copy)
    return tree


def compare(image, key_file):
    """One copy. Returns whether its journal had to be replayed."""
    before = cli.checksum(image)
    unclean = bool(ext4.Volume(image).incompat & 4)
    dest = tap.fresh("dest")
    result = cli.run("get", image, dest, keys=[key_file])
    tap.equal(result.code, 0, repr(result))
    trees.check(kernel_view(image), trees.snapshot(dest))
    tap.equal(cli.checksum(image), before, "checksum of the image")
    subprocess.run(["rm", "-rf", dest], check=True)
    return unclean


def crashes(name, mkfs, options, seed, spare=0, steps=10):
    tap.requires("root", "loop", "kernel")
    rng, serial = random.Random(seed), [0]
    image, key_file = tap.fresh(name + ".img"), tap.fresh("key")
    trees.write(key_file, KEY)
    k.mkfs(image, 24 * MIB, *mkfs)
    copies = []
    # Without delayed allocation every commit brings the data of the files that it creates.
    with tap.mounted(image, "commit=300,nodelalloc", *options) as root:
        locked, plain = os.path.join(root, "locked"), os.path.join(root, "plain")
        os.mkdir(locked)
        os.mkdir(plain)
        k.set_policy(locked, k.add_key(root, KEY))
        files = {locked: [], plain: []}
        if spare:
            space = os.statvfs(root)
            with open(os.path.join(root, "filler"), "wb") as f:
                trees.fallocate(f.fileno(), 0, 0, (space.f_bavail - spare) * space.f_bsize)
        for i in range(steps):
            for top in (plain, locked):
                step(rng, top, files[top], serial, REUSE if spare else ALL_KINDS)
            if i % 3 == 0 or i % 3 == 2 and not spare:
                copies.append(tap.copy(image))
    replayed = sum(compare(copy, key_file) for copy in copies)
    assert replayed == len(copies), f"{replayed} of {len(copies)} copies needed their journal"
    for copy in copies + [image]:
        os.unlink(copy)


for title, mkfs_args, mount_options in (
        ("4 KiB blocks", ("-b", "4096"), ()),
        ("a full volume, so that blocks of deleted directories become data", ("-b", "1024", "-m", "0"), ()),
        ("1 KiB blocks, a small journal that wraps", ("-b", "1024", "-J", "size=1"), ()),
        ("no checksums, 32 bits", ("-b", "1024", "-J", "size=1", "-O", "^metadata_csum,^64bit"), ()),
        ("journaled data, with the journal's magic in it", ("-b", "1024", "-J", "size=2"), ("data=journal",)),
        ("commits without a flush, their checksums", ("-b", "4096"), ("journal_async_commit", "data=writeback")),
        ("a checksum seed, an orphan file, no htree", ("-b", "2048", "-O", "metadata_csum_seed,orphan_file,^dir_index"), ())):
    how = {"spare": 160, "steps": 24} if title.startswith("a full volume") else {}
    tap.add(f"{title}: copies of a mounted volume",
            lambda a=(title.split(",")[0], mkfs_args, mount_options, title), how=how: crashes(*a, **how))


@tap.test
def fast_commits():
    """Fast commits: refused by name, or read as the kernel does; never something else"""
    tap.requires("root", "loop", "kernel")
    image, key_file = tap.fresh("fast.img"), tap.fresh("key")
    trees.write(key_file, KEY)
    k.mkfs(image, 24 * MIB, "-b", "4096", "-O", "fast_commit")
    with tap.mounted(image, "commit=300") as root:
        for i in range(20):
            with open(os.path.join(root, "file-%d" % i), "wb") as f:
                f.write(b"fast %d" % i)
                f.flush()
                os.fsync(f.fileno())
        copy = tap.copy(image)
    dest = tap.fresh("dest")
    result = cli.run("get", copy, dest)
    if result.code:
        tap.equal(result.code, cli.NOT_READABLE, repr(result))
        tap.contains(result.err.lower(), b"fast")
    else:
        # The kernel gives directories the time of its own replay.
        trees.check(kernel_view(copy), trees.snapshot(dest), fields=("type", "mode", "size", "sha256"))


@tap.test
def interrupted_recovery():
    """A journal whose last transaction is torn: that one does not count, as in the kernel"""
    tap.requires("root", "loop", "kernel")
    image, key_file = tap.fresh("torn.img"), tap.fresh("key")
    trees.write(key_file, KEY)
    k.mkfs(image, 24 * MIB, "-b", "4096", "-J", "size=4")
    with tap.mounted(image, "commit=300") as root:
        for i in range(4):
            os.mkdir(os.path.join(root, "dir-%d" % i))
            sync(os.path.join(root, "dir-%d" % i))
        copy = tap.copy(image)
    volume = ext4.Volume(copy)
    commits = []
    for e in volume.inode(8).extents():
        for i in range(e.count):
            block = volume.block(e.pblk + i)
            if block[:4] == JBD2_MAGIC and struct.unpack_from(">I", block, 4)[0] == 2:
                commits.append((struct.unpack_from(">I", block, 8)[0], (e.pblk + i) * volume.block_size))
    assert len(commits) >= 4, commits
    torn = tap.copy(copy)
    cli.patch(torn, max(commits)[1], bytes(4))
    dest = tap.fresh("dest")
    cli.good("get", torn, dest)
    got, wanted = set(os.listdir(dest)), {os.fsdecode(p) for p in kernel_view(torn) if b"/" not in p and p != b"."}
    tap.equal(got, wanted)
    assert "dir-3" not in got and "dir-2" in got, got
    # Where only its checksum is wrong, Linux 6.18 refuses to mount.
    cli.patch(copy, max(commits)[1] + 16, b"\xff\xff\xff\xff")
    dest = tap.fresh("dest")
    result = cli.run("get", copy, dest)
    if result.code:
        tap.equal(result.code, cli.NOT_READABLE, repr(result))
        tap.contains(result.err.lower(), b"journal")
    else:
        tap.equal(set(os.listdir(dest)), wanted, "with a bad checksum")


tap.main()
