#!/usr/bin/env python3
"""Random changes of files in a mount by Inlay: what is read is what was written; the kernel reads the same afterwards.

Not here: the changes (fsx.c); names and modes (test_mount_twin.py).
Read more: HACKING.md, "Tests".

  test_mount_fsx.py [--ops N] [--seed S]     N operations of each of four processes; without it 5000

With --ops caches are dropped now and then, those of the whole machine. With TWIN_BOTH_KERNEL=1 the kernel stands in for
Inlay.
"""
import argparse
import hashlib
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import live  # noqa: E402
import mounted  # noqa: E402
import tap  # noqa: E402

OPTIONS = argparse.ArgumentParser(description=__doc__)
OPTIONS.add_argument("--ops", type=int)
OPTIONS.add_argument("--seed", type=int, default=1)
OPTIONS = OPTIONS.parse_args()
LIMIT = 120 + (OPTIONS.ops or 0) // 20
FAR = 5 << 30  # where files are long holes first, and offsets need more than 32 bits


def contents(root):
    """Size and hash of each file; what is before FAR in one that reaches further is a hole."""
    out = {}
    for where in ("plain", "locked"):
        for name in sorted(os.listdir(f"{root}/{where}")):
            with open(f"{root}/{where}/{name}", "rb") as f:
                size = f.seek(0, os.SEEK_END)
                f.seek(FAR if size >= FAR else 0)
                out[f"{where}/{name}"] = (size, hashlib.sha256(f.read()).hexdigest())
    return out


def fsx(ops, *args, mkfs=()):
    mounted.requires()
    key = live.key()
    image = mounted.volume("256M", key, *mkfs)
    args += ("--ops", ops, "--procs", 2, "--seed", OPTIONS.seed, "--keep", *(["--drop"] if OPTIONS.ops else []))
    with mounted.by_inlay(image, key, LIMIT) as root:
        mounted.at_once("fsx", [(f"{root}/{where}", *args) for where in ("plain", "locked")], LIMIT)
        seen = contents(root)
    assert seen, "no file is left"
    live.sound(image)
    with mounted.by_kernel(image, key, "ro") as root:
        tap.equal(contents(root), seen, "what the kernel reads")
    os.unlink(image)


@tap.test
def _():
    """what is read is what was written"""
    fsx(OPTIONS.ops or 4000)


@tap.test
def _():
    """the same around the caches, and far from the beginning of files"""
    fsx((OPTIONS.ops or 2000) // 2, "--direct", "--base", FAR)


@tap.test
def _():
    """the same with blocks of 1 KiB"""
    fsx((OPTIONS.ops or 2000) // 2, "--direct", mkfs=("--block-size", "1K"))


@tap.test
def _():
    """the same while its key is locked and unlocked: what is open goes on, what is opened waits for the key"""
    mounted.requires()
    key, over, n_busy = live.key(), threading.Event(), 0
    image = mounted.volume("256M", key)
    ops = (OPTIONS.ops or 3000) // 2
    with mounted.by_inlay(image, key, LIMIT) as root:

        def lock_and_unlock():
            nonlocal n_busy
            while not over.wait(0.005):
                n_busy += cli.run("lock", root).code == 5
                cli.good("unlock", root, keys=[key])

        locker = threading.Thread(target=lock_and_unlock)
        locker.start()
        try:
            mounted.at_once("fsx", [(f"{root}/locked", "--ops", ops, "--procs", 2, "--seed", OPTIONS.seed, "--patient",
                                     "--no-cases", "--keep")], LIMIT)
        finally:
            over.set()
            locker.join()
        assert n_busy > 3, "it was never locked while a file was open"
        seen = contents(root)
    live.sound(image)
    with mounted.by_kernel(image, key, "ro") as root:
        tap.equal(contents(root), seen, "what the kernel reads")
    os.unlink(image)


sys.argv[1:] = []
tap.main()
