#!/usr/bin/env python3
"""Random operations on names and modes have the same results in a mount by Inlay and in one by the kernel, line by line.

Not here: the operations (posix.c); contents in all detail (test_mount_fsx.py).
Read more: HACKING.md, "Tests".

  test_mount_twin.py [--ops N] [--seed S]     N operations of each process; without it a few hundred

Some processes work at once in plain and in encrypted directories, and one where both are. In the end Inlay's volume is
sound, and the kernel sees in it what Inlay has shown. With TWIN_BOTH_KERNEL=1 the kernel is compared with itself.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import live  # noqa: E402
import mounted  # noqa: E402
import tap  # noqa: E402

OPTIONS = argparse.ArgumentParser(description=__doc__)
OPTIONS.add_argument("--ops", type=int)
OPTIONS.add_argument("--seed", type=int, default=1)
OPTIONS = OPTIONS.parse_args()
N_PROCS = 2
# What a file system behind FUSE cannot do as ext4 does it: the kernel does not ask it, or does not tell it.
FUSE_CANNOT = {
    "far": "refuse to write behind the last block that a file can have: the kernel has taken the data already",
    "far-times": "show that an mtime was brought into the range that an inode has room for: the kernel keeps its own",
    "chown-none": "keep capabilities when somebody else's chown() that changes nothing is refused: the kernel has removed them",
    "same-size": "set mtime for truncate() to the size that there is: the kernel keeps its own",
    "pipe-times": "set mtime of a pipe that is written: it is not told",
    "late-flags": "refuse to write what was open before it became immutable, or say so in access(); EPERM before ENOTDIR",
}
WITHOUT = [] if mounted.BOTH_KERNEL else [arg for what in FUSE_CANNOT for arg in ("--without", what)]
LIMIT = 120 + (OPTIONS.ops or 0) // 20


def run(*runs):
    return mounted.at_once("posix", [(*args, *WITHOUT) for args in runs], LIMIT)


def walk(root):
    return run((root, "--walk"))[0].decode("latin-1").splitlines()


def exercise(root, ops, out):
    """Returns {which: lines}."""
    os.mkdir(out)
    what = ("--ops", ops, "--seed", OPTIONS.seed)
    *_, mixed = run(*((f"{root}/{where}", *what, "--procs", N_PROCS, "--out", f"{out}/{where}") for where in ("plain", "locked")),
                    (f"{root}/mixed", *what))
    lines = {f"{where}, process {p}": mounted.lines_of(f"{out}/{where}.p{p}")
             for where in ("plain", "locked") for p in range(N_PROCS)}
    lines["mixed"] = mixed.decode("latin-1").splitlines()
    return lines


def twins(ops, *mkfs, policy=()):
    mounted.requires()
    key = live.key()
    image = mounted.volume("192M", key, *mkfs, policy=policy)
    other = tap.copy(image)
    with mounted.by_inlay(image, key, LIMIT) as root:
        ours = exercise(root, ops, tap.fresh("ours"))
        shown = walk(root)
    live.sound(image)
    with mounted.by_kernel(other, key) as root:
        theirs = exercise(root, ops, tap.fresh("theirs"))
    for which, lines in ours.items():
        mounted.same(lines, theirs[which], f"{which}, seed {OPTIONS.seed}")
    with mounted.by_kernel(image, key, "ro") as root:
        mounted.same(shown, walk(root), "what Inlay has shown, and what the kernel sees")
    with mounted.by_inlay(image, key, LIMIT) as root:
        mounted.same(walk(root), shown, "what Inlay shows the next time")
    live.sound(image)
    os.unlink(image)
    os.unlink(other)


@tap.test
def _():
    """the same operations have the same results"""
    twins(OPTIONS.ops or 500)


@tap.test
def _():
    """the same with blocks of 1 KiB, and IVs made of inode numbers"""
    twins(OPTIONS.ops or 250, "--block-size", "1K", policy=("--iv-ino-lblk-64",))


@tap.test
def _():
    """many processes in the same directories"""
    mounted.requires()
    key = live.key()
    image = mounted.volume("192M", key)
    with mounted.by_inlay(image, key, LIMIT) as root:
        for where in ("plain", "locked"):
            run((f"{root}/{where}", "--shared", "--ops", OPTIONS.ops or 400, "--procs", 4, "--seed", OPTIONS.seed))
        shown = walk(root)
    live.sound(image)
    with mounted.by_kernel(image, key, "ro") as root:
        mounted.same(shown, walk(root), "what Inlay has shown, and what the kernel sees")
    os.unlink(image)


sys.argv[1:] = []
tap.main()
