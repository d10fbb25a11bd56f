#!/usr/bin/env python3
"""Encrypted trees written by the command: what the kernel decrypts is what was put in, and each goes on with what the
other left. Every policy that the kernel has; those that it lacks are judged by the standards.

Not here: random operations (test_twin.py), errors (test_errno.py), crashes (tests/unit/test_crash.c).
Read more: HACKING.md, "Tests"; doc/inlay.1, "ENCRYPTING".
"""
import hashlib
import os
import random
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import decrypted  # noqa: E402
import koracle as k  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
_sources = {}


def source(block):
    """A tree of everything that is written differently when it is encrypted; made once for each block size."""
    if block not in _sources:
        path = tap.fresh_dir(f"source-{block}")
        maker = trees.Maker(path, f"encrypt {block}", block)
        maker.sizes()
        maker.sparse(1 << 22)
        maker.names()
        maker.symlinks(block - 3)
        maker.nested(1, 2)
        maker.hard_links()
        maker.xattrs(block // 2 - 100)
        maker.metadata()
        _sources[block] = (path, trees.snapshot(path))
    return _sources[block]


def key_file(name, size):
    path = tap.fresh(name.replace(" ", "-") + ".key")
    with open(path, "wb") as f:
        f.write(hashlib.sha512(name.encode()).digest()[:size])
    return path


def fsck(image, key):
    tap.contains(cli.run("fsck", image, keys=[key]).out, b"names of")
    done = cli.run("fsck", image, keys=[key])
    tap.equal(done.code, 0, repr(done))


def exported(image, key):
    """The encrypted tree as the command sees it."""
    dest = tap.fresh("dest")
    cli.good("get", image + ":/locked", dest, keys=[key])
    tree = trees.snapshot(dest)
    shutil.rmtree(dest)
    return tree


class Unlocked:
    """The image on a mount of the kernel, with its key."""

    def __init__(self, image, key, v1, *options):
        self.mounted = tap.mounted(image, *options)
        self.key, self.v1 = key, v1

    def __enter__(self):
        root = self.mounted.__enter__()
        with open(self.key, "rb") as f:
            k.add_key(root, f.read(), self.v1)
        return os.path.join(root, "locked")

    def __exit__(self, *args):
        self.mounted.__exit__(*args)


def kernel_goes_on(top, block):
    """Files that the command wrote are changed, renamed and removed, and new ones come."""
    maker = trees.Maker(top, "kernel", block)
    maker.rewritten()
    maker.small(40)
    for name, at, data in (("size-17", 17, b"longer"), (f"size-{block + 1}", 5, b"in between"), (f"size-{2 * block}", 3 * block, b"far")):
        with open(os.path.join(top, "sizes", name), "r+b") as f:
            f.seek(at)
            f.write(data)
    os.truncate(os.path.join(top, "sizes", f"size-{3 * block + 7}"), block + 3)
    os.rename(os.path.join(top, "names"), os.path.join(top, "renamed"))
    shutil.rmtree(os.path.join(top, "links"))


def command_goes_on(image, key, rng):
    """The same by the command, on what the kernel wrote."""
    at = image + ":/locked/"
    replaced = tap.fresh("replaced")
    trees.write(replaced, rng.randbytes(30000))
    cli.good("truncate", "-s", "100", at + "rewritten/r7", keys=[key])
    cli.good("truncate", "-s", "+5000", at + "small/1/file-1.txt", keys=[key])
    cli.good("put", "-q", replaced, at + "small/2/file-2.txt", keys=[key])
    cli.good("mv", at + "renamed", at + "nested/names", keys=[key])
    cli.good("rm", "-r", at + "symlinks", keys=[key])
    cli.good("ln", "-s", "a target", at + "soft", keys=[key])
    cli.good("mkdir", "-p", at + "deep/er", keys=[key])


FIELDS = ("type", "mode", "uid", "gid", "mtime", "xattrs", "size", "sha256", "target", "rdev")


def policy(name, *options, mkfs=(), block=4096, key_size=64, kernel=True):
    # Inodes of 128 bytes have whole seconds only, and fewer years.
    compared = [f for f in FIELDS if f != "mtime" or "128" not in mkfs]

    def run():
        tree, wanted = source(block)
        image, key = tap.fresh("v.img"), key_file(name, key_size)
        cli.good("mkfs", image, "--size", "96M", "--block-size", str(block))
        if mkfs:
            subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "encrypt,stable_inodes", "-b", str(block), *mkfs, image],
                           check=True, stdout=subprocess.DEVNULL)
        cli.good("mkdir", image + ":/locked")
        tap.contains(cli.good("encrypt", image + ":/locked", *options, keys=[key]).out, b"encrypted with key")
        cli.good("put", "-q", tree + "/.", image + ":/locked", keys=[key])
        fsck(image, key)
        trees.check(wanted, exported(image, key), fields=compared)
        (judged_by_kernel if kernel else judged_by_standards)(image, key, wanted, block, "--v1" in options, compared)
        os.unlink(image)

    tap.add(f"{name}: {'the kernel' if kernel else 'a reader of the standards'} reads what was put"
            + (", and both go on by turns" if kernel else ""), run)


def judged_by_kernel(image, key, wanted, block, v1, compared):
    tap.requires("root", "loop", "kernel")
    with Unlocked(image, key, v1, "ro") as top:
        trees.check(wanted, trees.snapshot(top), fields=compared)
    with Unlocked(image, key, v1) as top:
        kernel_goes_on(top, block)
        tree = trees.snapshot(top)
    fsck(image, key)
    trees.check(tree, exported(image, key))
    command_goes_on(image, key, random.Random(1))
    fsck(image, key)
    with Unlocked(image, key, v1, "ro") as top:
        trees.check(trees.snapshot(top), exported(image, key))


def judged_by_standards(image, key, wanted, *_):
    reader, read = decrypted.Reader(image, [key]), 0
    found = {path[len(b"/locked/"):]: inode for path, inode in reader.v.walk(name=reader.real_name)
             if path.startswith(b"/locked/")}
    tap.equal(sorted(set(found) ^ set(wanted) - {b"."})[:3], [], "paths that only one of the two has")
    for path, inode in found.items():
        if inode.is_link:
            tap.equal(reader.target(inode), wanted[path]["target"], repr(path))
        elif inode.is_reg and 0 < inode.size < 9000 and read < 60:
            tap.equal(hashlib.sha256(reader.contents(inode)).hexdigest(), wanted[path]["sha256"], repr(path))
            read += 1
    assert read >= 30, read


policy("padding 32")
policy("padding 4", "--padding", "4", key_size=32)
policy("padding 8, blocks of 1 KiB", "--padding", "8", block=1024)
policy("padding 16, inodes of 128 bytes", "--padding", "16", mkfs=("-I", "128"))
policy("IV_INO_LBLK_64", "--iv-ino-lblk-64")
policy("IV_INO_LBLK_32", "--iv-ino-lblk-32")
policy("units of 512 bytes", "--data-unit-size", "512")
policy("version 1", "--v1")
policy("no extents, no index, no checksums", mkfs=("-O", "^extents,^dir_index,^metadata_csum,^64bit"))
policy("AES-128-CBC-ESSIV", "--contents", "AES-128-CBC-ESSIV", kernel=False)

tap.main()
