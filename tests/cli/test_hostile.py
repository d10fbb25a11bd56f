#!/usr/bin/env python3
"""Volumes made by somebody who means harm: nothing is written outside the destination, nothing hangs.

Not here: random damage (test_mutants.py).
Read more: SECURITY.md.
"""
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import reference  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
MKFS = ("-O", "^metadata_csum,^dir_index,^has_journal")


def tree(path):
    path = os.fsencode(path)
    trees.write(os.path.join(path, b"good.txt"), b"good")
    os.makedirs(os.path.join(path, b"zz-dir/inner"))
    trees.write(os.path.join(path, b"zz-dir/payload"), b"harm")
    trees.write(os.path.join(path, b"zz-dir/inner/more"), b"harm")
    trees.write(os.path.join(path, b"xx_evil"), b"harm")
    trees.write(os.path.join(path, b"xy"), b"harm")
    os.symlink(b"OUTSIDE" + b"/" * 300, os.path.join(path, b"aa-dir"))


def hostile(**names):
    """A copy of the volume in whose root some names are others. Returns the image."""
    path = tap.copy(tap.served(MKFS, 4 * MIB, tree))
    for entry in ext4.Volume(path).inode(ext4.ROOT).entries():
        new = names.get(entry.name.decode().replace("-", "_"))
        if new is not None:
            assert len(new) <= len(entry.name)
            cli.patch(path, entry.offset + 6, bytes([len(new)]))
            cli.patch(path, entry.offset + 8, new)
    return path


def export(image, code=None):
    """Export into a folder inside a watched folder; return what the watched folder holds besides it."""
    watched = tap.fresh_dir("watched")
    os.mkdir(os.path.join(watched, "outside"))
    dest = os.path.join(watched, "a", "b")
    os.makedirs(os.path.dirname(dest))
    result = cli.run("get", "--keep-going", image, dest, timeout=30)
    outside = sorted(os.path.relpath(os.path.join(b, n), watched) for b, d, f in os.walk(watched) for n in d + f
                     if not os.path.join(b, n).startswith(dest + "/"))
    tap.equal(outside, ["a", "a/b", "outside"], "what lies outside of the destination")
    if code is not None:
        tap.equal(result.code, code, repr(result))
    with open(os.path.join(dest, "good.txt"), "rb") as f:
        tap.equal(f.read(), b"good")
    return dest, result


@tap.test
def slash_in_name():
    """Names with a slash: refused, reported, nothing outside"""
    for name in (b"../evil", b"/tmp/ev", b"a/b", b"/"):
        image = hostile(xx_evil=name)
        assert cli.run("get", image, tap.fresh()).code != 0
        export(image, cli.PARTLY)


@tap.test
def dot_names():
    """Second entries named "." and "..": refused, reported, no endless walk"""
    for name in (b".", b".."):
        export(hostile(zz_dir=name))
        export(hostile(xy=name))


@tap.test
def nul_and_empty_names():
    """Names with NUL, and of length 0: no crash, the rest comes out"""
    export(hostile(xx_evil=b"a\0b"), cli.PARTLY)
    export(hostile(xx_evil=b"\0"), cli.PARTLY)
    export(hostile(xx_evil=b""))


@tap.test
def symlink_then_directory():
    """A symlink that leads outside and a directory of the same name: nothing is written through the link"""
    image = hostile(zz_dir=b"aa-dir")
    watched = tap.fresh_dir("watched")
    outside = os.path.join(watched, "out")
    os.mkdir(outside)
    volume = ext4.Volume(image)
    link = next(volume.inode(e.ino) for e in volume.inode(ext4.ROOT).entries() if volume.inode(e.ino).is_link)
    target = os.fsencode(outside)
    assert len(target) < link.size
    cli.patch(image, link.extents()[0].pblk * volume.block_size, target + b"/" * (link.size - len(target)))
    for _ in range(2):
        cli.run("get", "--keep-going", image, os.path.join(watched, "dest"), timeout=30)
        assert os.path.exists(os.path.join(watched, "dest", "good.txt"))
        tap.equal(os.listdir(outside), [], "what was written through the link")


@tap.test
def symlink_in_destination():
    """A symlink in the destination where the volume has a directory or a file: not followed"""
    image = tap.served(MKFS, 4 * MIB, tree)
    watched = tap.fresh_dir("watched")
    outside, dest = os.path.join(watched, "out"), os.path.join(watched, "dest")
    os.mkdir(outside)
    os.mkdir(dest)
    trees.write(os.path.join(outside, "victim"), b"untouched")
    os.symlink(outside, os.path.join(dest, "zz-dir"))
    os.symlink(os.path.join(outside, "victim"), os.path.join(dest, "good.txt"))
    cli.run("get", image, dest)
    cli.run("get", "--keep-going", image, dest)
    assert not os.path.islink(os.path.join(dest, "good.txt")), "a link that was in the way of a file stayed"
    tap.equal(os.listdir(outside), ["victim"])
    with open(os.path.join(outside, "victim"), "rb") as f:
        tap.equal(f.read(), b"untouched")


@tap.test
def directory_cycle():
    """A directory that contains an ancestor: no endless walk, exit not 0"""
    path = tap.copy(tap.served(MKFS, 4 * MIB, tree))
    volume = ext4.Volume(path)
    inner = next(e for e in volume.find(b"/zz-dir").entries() if e.name == b"inner")
    for ino in (ext4.ROOT, volume.find(b"/zz-dir").number):
        cli.patch(path, inner.offset, ino.to_bytes(4, "little"))
        for verb in (("ls", "-R"), ("tree",)):
            result = cli.run(*verb, path, timeout=20)
            assert len(result.out) < MIB, "an endless listing"
        dest = tap.fresh("dest")
        result = cli.run("get", "--keep-going", path, dest, timeout=20)
        assert result.code != 0, result
        with open(os.path.join(dest, "good.txt"), "rb") as f:
            tap.equal(f.read(), b"good")


def deep_volume(name, depth):
    """mke2fs -d does not get that deep; debugfs does."""
    image = tap.copy(tap.served(("-b", "1024", "-N", "2048", "-O", "^has_journal"), 16 * MIB, tree))
    source = tap.fresh("bottom")
    trees.write(source, b"bottom")
    commands = tap.fresh("commands")
    trees.write(commands, f"mkdir {name}\ncd {name}\n".encode() * depth + f"write {source} bottom\n".encode())
    subprocess.run(["debugfs", "-w", "-f", commands, image], check=True, capture_output=True)
    return image


@tap.test
def deep_nesting():
    """Directories 1,000 deep, with short names and beyond PATH_MAX: exported and listed"""
    for name in ("d", "directory"):
        image = deep_volume(name, 1000)
        dest = tap.fresh("dest")
        cli.good("get", image, dest, timeout=120)
        here = os.open(dest, os.O_RDONLY)
        for _ in range(1000):
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        fd = os.open("bottom", os.O_RDONLY, dir_fd=here)
        tap.equal(os.read(fd, 100), b"bottom")
        os.close(fd)
        os.close(here)
        result = cli.run("ls", "-R", image)
        assert result.code == 0 and b"bottom" in result.out, result
        assert b"bottom" in cli.run("tree", image).out
        subprocess.run(["rm", "-rf", dest], check=True)


def attribute(index, name, value_inode, value=b""):
    """An attribute area as it lies in an inode of 256 bytes: one entry, its value at the end of the area."""
    at = 256 - 160 - 4 - len(value) if value else 0
    area = struct.pack("<BBHIII", len(name), index, at, value_inode, len(value) or 40, 0) + name.ljust(4, b"\0")
    return struct.pack("<I", 0xEA020000) + area.ljust(256 - 160 - 4 - len(value), b"\0") + value


def set_flags(path, inode, flags):
    cli.patch(path, inode.at + 32, struct.pack("<I", inode.flags | flags))


@tap.test
def attribute_circle():
    """An attribute that is stored in the very inode whose reading needs it: damage, no endless descent"""
    for index, name, flags in ((9, b"c", ext4.ENCRYPT_FL), (7, b"data", ext4.INLINE_FL)):
        path = tap.copy(tap.served(("-O", "encrypt,ea_inode,^metadata_csum,^has_journal"), 4 * MIB, tree))
        victim = ext4.Volume(path).find(b"/xy")
        set_flags(path, victim, 0x200000 | flags)
        cli.patch(path, victim.at + 160, attribute(index, name, victim.number))
        assert cli.run("cat", path + ":/xy", timeout=20).code != 0
        export(path, cli.PARTLY)


@tap.test
def encrypted_journal():
    """A journal inode that says it is encrypted: refused with a word"""
    path = tap.copy(tap.served(("-O", "encrypt,^metadata_csum"), 16 * MIB, tree))
    journal = ext4.Volume(path).inode(8)
    set_flags(path, journal, ext4.ENCRYPT_FL)
    context = bytes((2, 1, 4, 3, 0, 0, 0, 0)) + bytes(32)
    cli.patch(path, journal.at + 160, attribute(9, b"c", 0, context))
    cli.patch(path, 1024 + 0x60, struct.pack("<I", ext4.Volume(path).incompat | 4))  # needs recovery
    cli.bad(4, "ls", path, says=(b"journal",))


def wide_tree(path):
    os.mkdir(os.path.join(path, "wide"))
    for i in range(600):
        trees.write(os.path.join(os.fsencode(path), b"wide", b"%d-%s" % (i, b"n" * 120)), b"x")


@tap.test
def endless_index():
    """An index in which every entry continues the one before, three levels deep: looked through once, not for ever"""
    path = tap.copy(tap.served(("-b", "4096", "-O", "large_dir,^metadata_csum,^has_journal"), 16 * MIB, wide_tree))
    subprocess.run(["e2fsck", "-fyD", path], capture_output=True, check=False)
    volume = ext4.Volume(path)
    wide = volume.find(b"/wide")
    assert wide.flags & ext4.INDEX_FL, "e2fsck made no index"
    blocks = [e.pblk + i for e in wide.extents() for i in range(e.count)]
    root = bytearray(volume.block(blocks[0]))
    wanted, _ = reference.half_md4(b"nosuchname", volume.hash_seed, bool(volume.flags & 2))

    def node(room, child):
        return struct.pack("<HHI", room, room, child) + struct.pack("<II", wanted | 1, child) * (room - 1)

    root[28], root[30] = 1, 2  # half MD4, two levels below the root
    cli.patch(path, blocks[0] * 4096, bytes(root[:32]) + node(508, 1))
    for block, child in ((blocks[1], 2), (blocks[2], 3)):
        cli.patch(path, block * 4096, struct.pack("<IHH", 0, 4096, 0) + node(511, child))
    assert cli.run("stat", path + ":/wide/nosuchname", timeout=10).code != 0


@tap.test
def terminal_names():
    """Control characters in names do not reach a terminal; elsewhere names are as they are"""
    image = hostile(xx_evil=b"\x1b[31mX\n")
    assert b"\x1b[31mX\n" in cli.good("ls", image).out
    result = subprocess.run(["script", "-qec", f"'{cli.command()}' ls '{image}'; '{cli.command()}' tree '{image}'", "/dev/null"],
                            capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert b"good.txt" in result.stdout, result
    assert b"\x1b" not in result.stdout and b"?[31mX?" in result.stdout, result


tap.main()
