#!/usr/bin/env python3
"""As much as a volume can take, of each kind: e2fsck finds it sound, and the kernel sees it.

Not here: what is done (tests/unit/limits.c); volumes that are nearly full (tests/unit/test_write_full.c).
Read more: HACKING.md, "Tests".

  test_limits.py [--long]     as much as there can be; without it less of what takes long
"""
import argparse
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap  # noqa: E402

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
OPTIONS = argparse.ArgumentParser(description=__doc__)
OPTIONS.add_argument("--long", action="store_true")
OPTIONS = OPTIONS.parse_args()


def limits(image, what, number):
    build = os.environ.get("INLAY_BUILD") or os.path.dirname(os.path.dirname(os.environ["INLAY"]))
    done = subprocess.run([os.path.join(build, "tests", "limits"), image, what, str(number)], capture_output=True, check=False,
                          timeout=1800)
    if done.returncode:
        tap.fail(f"limits {what} {number}: exit {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")


def volume(size, *mkfs):
    image = tap.fresh("limits.img")
    with open(image, "wb") as f:
        f.truncate(size)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", *mkfs, image], check=True, stdout=subprocess.DEVNULL)
    return image


def fsck(image, what):
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    if done.returncode:
        tap.fail(f"{what}: e2fsck says {done.returncode}\n{done.stdout.decode(errors='replace')[-2500:]}")


def sound(image, what, look=None):
    """e2fsck, and the kernel, which is given the chance to write."""
    fsck(image, what)
    with tap.mounted(image) as root:
        if look:
            look(root)
    fsck(image, what + ", after the kernel had it")


@tap.test
def names():
    """Names of 255 bytes"""
    tap.requires("root", "loop", "kernel")
    image, n = volume(64 * MIB, "-b", "1024"), 2000
    limits(image, "names", n)

    def look(root):
        seen = [name for name in os.listdir(root) if len(name) == 255]
        tap.equal(len(seen), n, "names")
        for name in seen[::50]:
            os.stat(os.path.join(root, name))
    sound(image, "names", look)
    os.unlink(image)


@tap.test
def links():
    """65,000 links"""
    tap.requires("root", "loop", "kernel")
    image = volume(64 * MIB, "-b", "4096")
    limits(image, "links", 65000)

    def look(root):
        tap.equal(os.stat(os.path.join(root, "file")).st_nlink, 65000, "links")
        try:
            os.link(os.path.join(root, "file"), os.path.join(root, "other"))
            tap.fail("the kernel makes one more")
        except OSError:
            pass
    sound(image, "links", look)
    os.unlink(image)


@tap.test
def subdirectories():
    """More than 65,000 subdirectories"""
    tap.requires("root", "loop", "kernel")
    n = 66000 if OPTIONS.long else 5000
    image = volume(512 * MIB if OPTIONS.long else 64 * MIB, "-b", "1024", "-N", str(n + 2000))
    limits(image, "dirs", n)

    def look(root):
        tap.equal(os.stat(os.path.join(root, "dirs")).st_nlink, 1 if OPTIONS.long else n + 1, "links")
        os.rmdir(os.path.join(root, "dirs", "8"))
        os.mkdir(os.path.join(root, "dirs", "new"))
    sound(image, "subdirectories", look)
    os.unlink(image)


@tap.test
def files():
    """A million files in one directory"""
    tap.requires("root", "loop", "kernel")
    n = 1000000 if OPTIONS.long else 20000
    image = volume(n * 512 + 64 * MIB, "-b", "4096", "-N", str(n + 1000))
    limits(image, "files", n)

    def look(root):
        tap.equal(sum(1 for entry in os.scandir(root)), n + 1, "names")
        for i in range(0, n, n // 1000):
            os.stat(os.path.join(root, f"file {i}"))
    sound(image, "files", look)
    limits(image, "unfiles", n)
    sound(image, "files that are removed", lambda root: tap.equal(os.listdir(root), ["lost+found"], "names"))
    os.unlink(image)


@tap.test
def sparse():
    """The largest file: 16 TiB"""
    tap.requires("root", "loop", "kernel")
    size = 16 * TIB - 4096
    image = volume(64 * MIB, "-b", "4096")
    limits(image, "sparse", size)

    def look(root):
        with open(os.path.join(root, "sparse"), "rb") as f:
            tap.equal(os.fstat(f.fileno()).st_size, size, "size")
            f.seek(size - 4096)
            tap.equal(f.read(), b"e" * 4096, "the last block")
    sound(image, "sparse", look)
    os.unlink(image)


@tap.test
def large_volume():
    """A volume of 4 TiB"""
    tap.requires("root", "loop", "kernel")
    image = volume(4 * TIB if OPTIONS.long else 64 * GIB, "-b", "4096", "-i", str(MIB), "-J", "size=64", "-E",
                   "lazy_itable_init=1,lazy_journal_init=1")
    limits(image, "files", 3000)
    limits(image, "dirs", 1000)
    limits(image, "names", 300)
    sound(image, "a large volume", lambda root: tap.equal(len(os.listdir(root)), 3302, "names"))
    os.unlink(image)


@tap.test
def full():
    """Filled to the last block, and emptied"""
    tap.requires("root", "loop", "kernel")
    for block_size in (1024, 4096):
        image = volume((512 if OPTIONS.long else 48) * MIB, "-b", str(block_size))
        limits(image, "fill", 3)

        def look(root):
            tap.equal(os.statvfs(root).f_bfree, 0, "free blocks")
            os.unlink(os.path.join(root, "full"))
        sound(image, "full", look)
        os.unlink(image)


@tap.test
def extents():
    """A tree of extents of four levels"""
    tap.requires("root", "loop", "kernel")
    n = 100003 if OPTIONS.long else 40009
    image = volume((256 if OPTIONS.long else 96) * MIB, "-b", "1024")
    limits(image, "extents", n)
    said = subprocess.run(["debugfs", "-R", "dump_extents /extents", image], capture_output=True, check=True).stdout
    levels = {line.split(b"/")[1].split()[0] for line in said.splitlines()[1:3] if b"/" in line}
    tap.equal(levels, {b"3"}, "levels below the root")

    def look(root):
        with open(os.path.join(root, "extents"), "rb") as f:
            for i in range(0, n, 97):
                f.seek(i * 2048)
                tap.equal(f.read(1024), b"x" * 1024, f"extent {i}")
    sound(image, "extents", look)
    limits(image, "unextents", n)
    sound(image, "extents that are removed")
    os.unlink(image)


sys.argv[1:] = []
tap.main()
