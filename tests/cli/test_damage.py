#!/usr/bin/env python3
"""Volumes whose vital parts are damaged: backups are used and said, older states are said to be older.

Not here: random damage (test_mutants.py), hostile volumes (test_hostile.py).
Read more: inlay(1), "DAMAGED VOLUMES".
"""
import os
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20


def tree(path):
    for i in range(40):
        trees.write(os.path.join(path, "dir", f"file-{i}"), trees.pattern(i, 3000))


def fill(path):
    os.mkdir(os.path.join(path, "dir"))
    tree(path)


def files(dest):
    return {n: open(os.path.join(dest, "dir", n), "rb").read() for n in os.listdir(os.path.join(dest, "dir"))}


@tap.test
def group_descriptors():
    """Damaged group descriptors and a good backup: used, said, everything comes out; no backup: an error"""
    for block_size, size in ((1024, 24), (4096, 300)):
        image = tap.copy(tap.served(("-b", str(block_size)), size * MIB, fill))
        volume = ext4.Volume(image)
        assert volume.n_groups > 1
        cli.patch(image, volume.desc_at, os.urandom(volume.desc_size))
        tap.contains(cli.good("info", image).out.lower(), b"backup")
        dest = tap.fresh("dest")
        cli.good("get", image, dest)
        tap.equal(files(dest), {f"file-{i}": trees.pattern(i, 3000) for i in range(40)})
        backup = (volume.first_data + volume.per_group) * block_size
        cli.patch(image, backup, bytes(2 * block_size))
        assert cli.run("get", image, tap.fresh()).code != 0
        os.unlink(image)


@tap.test
def free_counts():
    """Free blocks and inodes are those of the groups, not of a superblock that was not brought up to date"""
    image = tap.copy(tap.served(("-b", "1024", "-O", "^metadata_csum"), 24 * MIB, fill))
    right = cli.good("info", "--json", image).json()
    cli.patch(image, 1024 + 0x0C, bytes(4))
    cli.patch(image, 1024 + 0x10, bytes(4))
    stale = cli.good("info", "--json", image).json()
    for field in ("free_blocks", "free_inodes"):
        assert right[field] > 0, field
        tap.equal(stale[field], right[field], field)
    shown = subprocess.run(["dumpe2fs", "-h", tap.served(("-b", "1024", "-O", "^metadata_csum"), 24 * MIB, fill)],
                           capture_output=True, check=True).stdout.split(b"\n")
    tap.equal([int(l.split()[-1]) for l in shown if l.startswith(b"Free blocks:")], [right["free_blocks"]])


@tap.test
def journal_left_out():
    """A journal that cannot be replayed: an error; with --keep-going what is there, and the word that it is older"""
    image = tap.copy(cli.golden("unclean"))
    key = [cli.golden_key("unclean")]
    volume = ext4.Volume(image)
    start = volume.inode(8).extents()[0].pblk * volume.block_size
    cli.patch(image, start, bytes(12))
    cli.bad(4, "get", image, tap.fresh(), keys=key, says=(b"journal",))
    result = cli.run("get", "--keep-going", image, tap.fresh(), keys=key)
    tap.equal(result.code, cli.PARTLY)
    tap.contains(result.err, b"journal", b"older state")


@tap.test
def image_as_destination():
    """An export onto its own image, by any name, or onto a device: refused, nothing replaced"""
    folder = tap.fresh_dir("folder")
    image = os.path.join(folder, "file-1")
    os.rename(tap.copy(tap.served(("-b", "1024"), 24 * MIB, fill)), image)
    before = cli.checksum(image)
    os.link(image, os.path.join(folder, "another"))
    for dest in (image, os.path.join(folder, "another"), folder):
        assert cli.run("get", image + ":/dir/file-1", dest).code == 1
        assert cli.run("get", f"slice({image}):/dir/file-1", dest).code == 1
    assert cli.run("get", image + ":/dir", folder).code == 0  # beside it: fine
    fifo = os.path.join(folder, "fifo")
    os.mkfifo(fifo)
    assert cli.run("get", image + ":/dir/file-2", fifo).code == 1
    assert stat.S_ISFIFO(os.stat(fifo).st_mode)
    tap.equal(cli.checksum(image), before)


@tap.test
def json_names():
    """The name of a file that is named by its path is its last part"""
    image = tap.served(("-b", "1024"), 24 * MIB, fill)
    (row,) = cli.good("ls", "--json", image + ":/dir/file-3").json()
    tap.equal((row["name"], row["path"]), ("file-3", "/dir/file-3"))


@tap.test
def no_trace():
    """Reading an image leaves its access time alone"""
    image = tap.copy(tap.served(("-b", "1024",), 24 * MIB, fill))
    os.utime(image, (1, 2))
    cli.good("ls", "-R", image)
    tap.equal(os.stat(image).st_atime_ns, 10 ** 9)


if __name__ == "__main__":
    tap.main()
