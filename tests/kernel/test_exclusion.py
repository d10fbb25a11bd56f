#!/usr/bin/env python3
"""What somebody else uses is not written: images behind loop devices, mounted ones, locked ones. Reading stays allowed.

Not here: other hosts (tests/unit/test_mmp.c).
Read more: drivers/inuse.c; doc/inlay.1.
"""
import contextlib
import fcntl
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import koracle as k  # noqa: E402
import tap  # noqa: E402

MIB = 1 << 20
F_OFD_SETLK = 37


def image():
    path = tap.fresh("disk.img")
    k.mkfs(path, 16 * MIB, "-J", "size=1")
    return path


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def looped(path, *options):
    device = run("losetup", "-f", "--show", *options, path)
    try:
        yield device
    finally:
        run("losetup", "-d", device)


@contextlib.contextmanager
def mounted(device, where, *options):
    run("mount", *options, device, where)
    try:
        yield
    finally:
        run("umount", where)


def written(path, **how):
    """Something is changed, and the image is then sound."""
    cli.good("chmod", "755", path + ":/", **how)
    if not path.startswith("/dev/"):
        run("e2fsck", "-fn", path)


def refused(path, *says, **how):
    cli.bad(cli.FAILED, "chmod", "755", path + ":/", says=(path, *says), **how)
    cli.good("ls", path + ":/", **how)


@tap.test
def behind_loop():
    """An image behind a loop device: by any of its names, whatever became of the first, also read-only"""
    tap.requires("root", "loop", "kernel")
    path = image()
    other, link, moved = path + ".other", path + ".link", path + ".moved"
    os.link(path, other)
    os.symlink(path, link)
    written(path)
    with looped(path) as device:
        for name in (path, other, link):
            refused(name, "in use by the kernel", device)
        os.rename(path, moved)
        refused(moved, device)
        os.unlink(moved)
        refused(other, device)
    written(other)
    with looped(other, "-r", "-o", "1024") as device:
        refused(other, device)
    written(other)


@tap.test
def mounted_image():
    """A mounted image, and its loop device: the words say where"""
    tap.requires("root", "loop", "kernel")
    path, where = image(), tap.fresh_dir("here and\tthere")
    with looped(path) as device:
        with mounted(device, where):
            refused(path, device, "mounted on '")
            refused(path, "here and")
            refused(device, "mounted on '", "here and")
        with mounted(device, where, "-o", "ro"):
            refused(device, "mounted on")
            refused(path, "mounted on")
        # A loop device that is not mounted may be written as any block device, unless it is behind another.
        written(device)
        with looped(device) as second:
            refused(device, second)
    written(path)


@tap.test
def without_rights():
    """One who may not ask loop devices goes by the names of their files"""
    tap.requires("root", "loop", "kernel")
    path = image()
    os.chmod(path, 0o666)
    with looped(path) as device:
        refused(path, device, user=cli.NOBODY)
    written(path, user=cli.NOBODY)


@tap.test
def locks():
    """Locks of others: flock, and OFD locks as virtual machine monitors have them"""
    path = image()
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        refused(path, "is locked")
        fcntl.flock(file, fcntl.LOCK_UN)
        fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 100, 1, 0))
        refused(path, "is locked")
        fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 100, 1, 0))
        refused(path, "is locked")
        fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        cli.bad(cli.FAILED, "chmod", "755", path + ":/", says="is locked")
        cli.bad(cli.FAILED, "ls", path + ":/", says="is locked")
    written(path)


if __name__ == "__main__":
    tap.main()
