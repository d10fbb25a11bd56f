#!/usr/bin/env python3
"""Plain volumes of every layout that mke2fs makes and Inlay reads: block sizes, block maps, inline data, features.

Not here: encryption (test_golden.py); layouts that only a kernel makes (tests/kernel/).
Read more: doc/inlay.1. mke2fs -d copies the tree and needs neither root nor a kernel.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
# mke2fs -d keeps whole seconds only.
FIELDS = ("type", "mode", "uid", "gid", "size", "sha256", "target", "rdev")


def fill(path):
    m = trees.Maker(path, "layouts", 4096)
    m.sizes()
    m.names()
    m.symlinks(900)
    m.nested(2, 3)
    m.hard_links()
    os.unlink(m.path("links", "other", "same-link"))  # mke2fs -d copies hard-linked symlinks one by one
    m.small(100)
    with open(m.path("long"), "wb") as f:
        f.write(m.rng.randbytes(3 * MIB + 5))
    with open(m.path("sparse"), "wb") as f:
        for i in range(0, 300, 3):
            f.seek(i * 65536)
            f.write(b"piece %d" % i)
    top = m.dir("many")
    for i in range(1500):
        trees.write(os.path.join(top, b"entry %d" % i), b"")
    os.chmod(m.path("small"), 0o2751)
    os.chmod(m.path("long"), 0o600)


def source():
    if not _source:
        path = tap.fresh_dir("tree")
        fill(path)
        _source.update(trees.snapshot(path))
        subprocess.run(["rm", "-rf", path], check=True)
    return _source


_source = {}


def layout(size, mkfs):
    image = tap.served(tuple(mkfs), size, fill)
    dest = tap.fresh("dest")
    before = cli.checksum(image)
    info = cli.run("info", image)
    result = cli.run("get", image, dest)
    tap.equal((info.code, result.code), (0, 0), f"{info!r} {result!r}")
    wanted, got = dict(source()), trees.snapshot(dest)
    got.pop(b"lost+found", None)
    # Equal but for times, the root's mode, and ownership, which mke2fs -d keeps and only root can restore.
    wanted[b"."] = got[b"."]
    fields = FIELDS if os.geteuid() == 0 else [f for f in FIELDS if f not in ("uid", "gid")]
    trees.check(wanted, got, fields=fields)
    tap.equal(cli.checksum(image), before, "checksum of the image")
    subprocess.run(["rm", "-rf", dest], check=True)
    os.unlink(image)


LAYOUTS = (
    ("ext2, 1 KiB blocks", 32, ("-t", "ext2", "-b", "1024")),
    ("ext3, 4 KiB blocks, 128-byte inodes", 64, ("-t", "ext3", "-b", "4096", "-I", "128")),
    ("1 KiB blocks, many groups, meta_bg", 40, ("-b", "1024", "-g", "2048", "-O", "meta_bg,^resize_inode")),
    ("2 KiB blocks, no flex_bg, no checksums", 48, ("-b", "2048", "-O", "^flex_bg,^metadata_csum")),
    ("4 KiB blocks, uninit_bg, 32 bits", 64, ("-b", "4096", "-O", "^metadata_csum,uninit_bg,^64bit")),
    ("4 KiB blocks, 512-byte inodes, inline data", 64, ("-b", "4096", "-I", "512", "-O", "inline_data")),
    ("1 KiB blocks, 256-byte inodes, inline data", 40, ("-b", "1024", "-I", "256", "-O", "inline_data")),
    ("bigalloc", 128, ("-b", "4096", "-C", "16384", "-O", "bigalloc")),
    ("64 KiB blocks", 512, ("-b", "65536", "-N", "4096")),
    ("16 KiB blocks, 1 KiB inodes", 256, ("-b", "16384", "-I", "1024", "-N", "4096")),
    ("quota, project, verity", 64, ("-O", "quota,project,verity", "-b", "4096")),
    ("casefold", 64, ("-O", "casefold", "-E", "encoding=utf8", "-b", "4096")),
    ("sparse_super2, large_dir, ea_inode, orphan_file, checksum seed", 64,
     ("-O", "sparse_super2,large_dir,ea_inode,orphan_file,metadata_csum_seed", "-b", "4096")),
    ("no journal, no htree, no filetype", 64, ("-O", "^has_journal,^dir_index,^filetype", "-b", "4096")),
)
for title, mebibytes, options in LAYOUTS:
    tap.add(title, lambda mebibytes=mebibytes, options=options: layout(mebibytes * MIB, options))

tap.main()
