#!/usr/bin/env python3
"""What an export must not do: give rights away, replace the better by the worse, pass for finished, take one for another.

Not here: interruptions and plain damage (test_resume.py), names that lead outside (test_hostile.py).
Read more: doc/inlay.1, "EXPORT".
"""
import os
import stat
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
MARK = ".inlay-unfinished"
MKFS = ("-b", "1024", "-O", "^metadata_csum,^dir_index,^has_journal")
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # version 2, effective, cap_net_bind_service
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in (
    (1, 4, 0xFFFFFFFF), (2, 6, 1234), (4, 4, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)))  # u::r--, u:1234:rw-


def image(fill, size=8 * MIB):
    return tap.served(MKFS, size, fill)


def damaged(fill, path, offset, data):
    """A copy with bytes overwritten, offset bytes into the inode of path."""
    out = tap.copy(image(fill))
    cli.patch(out, ext4.Volume(out).find(path).at + offset, data)
    return out


def content(*path):
    with open(os.path.join(*path), "rb") as f:
        return f.read()


def mode(*path):
    return stat.S_IMODE(os.lstat(os.path.join(*path)).st_mode)


def run_under(tool, *args):
    """Run the command under another program. LeakSanitizer cannot work where somebody traces."""
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
    argv = [*tool, *cli.arguments(args)]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False, env=env)
    return cli.judge(cli.Result(argv, done.returncode, done.stdout, done.stderr))


# ---- rights ----------------------------------------------------------------------------------------------------------


def set_id_tree(path):
    for name, uid, gid in (("both", 1000, 1000), ("group", 0, 1000), ("user", 1000, 0), ("ours", 0, 0),
                           ("nobody", cli.NOBODY, cli.NOBODY)):
        file = os.path.join(path, name)
        trees.write(file, b"#!/bin/sh\n")
        os.mkfifo(file + "-fifo")
        os.mkdir(file + "-dir")
        for one in (file, file + "-fifo", file + "-dir"):
            os.chown(one, uid, gid)
            os.chmod(one, 0o6755)


@tap.test
def set_id_without_chown():
    """Root that may not change owners: set-ID bits only where the owner is right anyway"""
    tap.requires("root", "capsh")
    dest = tap.fresh("dest")
    result = run_under(("capsh", "--drop=cap_chown", "--", "-c", 'exec "$@"', "sh"), "get", image(set_id_tree), dest)
    tap.equal(result.code, 0, repr(result))
    for name, wanted in (("both", 0o755), ("group", 0o4755), ("user", 0o2755), ("ours", 0o6755), ("nobody", 0o755)):
        for kind in ("", "-fifo", "-dir"):
            tap.equal(os.lstat(os.path.join(dest, name + kind)).st_uid, 0, name)
            tap.equal(oct(mode(dest, name + kind)), oct(wanted), name + kind)


@tap.test
def set_id_in_namespace():
    """Root of a user namespace with one user: the same"""
    tap.requires("root", "unshare")
    if subprocess.run(["unshare", "-r", "true"], capture_output=True, check=False).returncode:
        raise tap.Skip("no user namespaces")
    dest = tap.fresh("dest")
    tap.equal(run_under(("unshare", "-r"), "get", image(set_id_tree), dest).code, 0)
    tap.equal(oct(mode(dest, "both")), oct(0o755))
    tap.equal(oct(mode(dest, "nobody")), oct(0o755))
    tap.equal(oct(mode(dest, "ours")), oct(0o6755))


@tap.test
def set_id_with_owner():
    """Root: set-ID bits with their owners"""
    tap.requires("root")
    dest = tap.fresh("dest")
    cli.good("get", image(set_id_tree), dest)
    for name in ("both", "group", "user", "ours", "nobody"):
        for kind in ("", "-fifo", "-dir"):
            tap.equal(oct(mode(dest, name + kind)), oct(0o6755), name + kind)
    tap.equal(os.lstat(os.path.join(dest, "group")).st_gid, 1000)


@tap.test
def set_id_of_nobody():
    """A user in a directory that hands its group down: no set-group-ID for a group that the file did not have"""
    who = cli.as_nobody()
    dest = tap.fresh_dir("dest")
    os.chown(dest, cli.NOBODY, 1000)
    os.chmod(dest, 0o2777)
    who["extra_groups"] = [1000]
    path = tap.copy(image(set_id_tree))
    result = cli.run("get", path + ":/nobody", dest, **who)
    tap.equal(result.code, 0, repr(result))
    there = os.lstat(os.path.join(dest, "nobody"))
    tap.equal((there.st_uid, there.st_gid, oct(mode(dest, "nobody"))), (cli.NOBODY, 1000, oct(0o4755)))


def capability_tree(path):
    for name, uid in (("theirs", 1000), ("ours", 0)):
        file = os.path.join(path, name)
        trees.write(file, b"x")
        os.chown(file, uid, uid)
        os.setxattr(file, "security.capability", CAPABILITY)


@tap.test
def capability_without_owner():
    """Capabilities of a file whose owner cannot be set are left out, and that is said"""
    tap.requires("root", "capsh", "xattrs")
    dest = tap.fresh("dest")
    result = run_under(("capsh", "--drop=cap_chown", "--", "-c", 'exec "$@"', "sh"), "get", image(capability_tree), dest)
    tap.equal(result.code, 0, repr(result))
    tap.contains(result.err, b"security.capability", b"theirs", b"1 extended attribute")
    tap.equal(os.listxattr(os.path.join(dest, "theirs")), [])
    tap.equal(os.getxattr(os.path.join(dest, "ours"), "security.capability"), CAPABILITY)


def plain_special_tree(path):
    trees.write(os.path.join(path, "file"), b"x")
    os.mkfifo(os.path.join(path, "fifo"), 0o640)
    os.chmod(os.path.join(path, "fifo"), 0o640)
    os.mkdir(os.path.join(path, "dir"))
    os.mkfifo(os.path.join(path, "dir", "fifo"))
    os.chmod(os.path.join(path, "dir", "fifo"), 0o604)


@tap.test
def inherited_acl():
    """A destination that hands an ACL down: what has none in the volume has none in the copy, FIFOs too"""
    tap.requires("setfacl", "xattrs")
    dest = tap.fresh_dir("dest")
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", dest], check=True)
    cli.good("get", image(plain_special_tree) + ":/fifo", dest)
    cli.good("get", image(plain_special_tree) + ":/file", dest)
    cli.good("get", image(plain_special_tree) + ":/dir", dest)
    for name, wanted in (("fifo", 0o640), ("dir/fifo", 0o604)):
        tap.equal(oct(mode(dest, name)), oct(wanted))
    for name in ("fifo", "dir/fifo", "file", "dir"):
        tap.equal(os.listxattr(os.path.join(dest, name)), [], name)


def acl_tree(path):
    for name in ("a", "b"):
        file = os.path.join(path, name)
        trees.write(file, b"x")
        attributes = [("user.first", b"1"), ("system.posix_acl_access", ACL), ("user.last", b"2" * 300)]
        for attribute in attributes if name == "a" else reversed(attributes):
            os.setxattr(file, *attribute)


@tap.test
def acl_comes_last():
    """A user's file whose ACL takes the owner's right to write keeps its other attributes"""
    tap.requires("xattrs")
    who = cli.as_nobody()
    dest = tap.fresh_dir("dest")
    os.chmod(dest, 0o777)
    path = tap.copy(image(acl_tree))
    for name in ("a", "b"):
        result = cli.good("get", f"{path}:/{name}", dest, **who)
        tap.equal(sorted(os.listxattr(os.path.join(dest, name))), ["system.posix_acl_access", "user.first", "user.last"],
                  repr(result))


# ---- the worse and the better ----------------------------------------------------------------------------------------


def pieces_tree(path):
    for name in ("first", "second"):
        with open(os.path.join(path, name), "wb") as f:
            f.write(trees.pattern(name, 20480))
            f.seek(40960)
            f.write(trees.pattern(name + "again", 20480))
    os.mkdir(os.path.join(path, "dir"))
    trees.write(os.path.join(path, "dir", "file"), b"x")


def half(*names):
    """The last extents of files lie beyond the end of the volume. Returns the image, what of one can be read, and why."""
    out = tap.copy(image(pieces_tree))
    volume = ext4.Volume(out)
    for name in names:
        inode = volume.find(name)
        extents = inode.extents()
        assert inode.raw[46] == 0 and len(extents) > 1, extents
        cli.patch(out, inode.at + 40 + 12 * len(extents) + 8, b"\xff\xff\xff\x7f")
        data = bytearray(inode.data()[:inode.size])
        start, end = (1024 * (extents[-1].lblk + n) for n in (0, extents[-1].count))
        data[start:end] = bytes(end - start)
    return out, bytes(data), f"{end - start} bytes could not be read".encode()


@tap.test
def partial_does_not_replace():
    """--keep-going: what can only be read in part does not replace what is there; where nothing is, it is exported"""
    dest = tap.fresh("dest")
    hurt, readable, why = half(b"/first")
    result = cli.run("get", "--keep-going", hurt, dest)
    tap.equal(result.code, cli.PARTLY, repr(result))
    tap.contains(result.err, why, b"/first", b"3 exported, 1 of them only in part")
    assert content(dest, "first") == readable
    cli.good("get", image(pieces_tree), dest)
    whole = content(dest, "first")
    assert whole != readable
    os.utime(os.path.join(dest, "first"), (1, 1))
    result = cli.run("get", "--keep-going", hurt, dest)
    tap.equal(result.code, cli.PARTLY, repr(result))
    tap.contains(result.err, b"not replaced", b"/first", why, b"0 exported, 0 of them only in part", b"1 skipped")
    assert content(dest, "first") == whole
    tap.equal([n for n in os.listdir(dest) if n.startswith(".inlay")], [])


@tap.test
def on_the_medium_before():
    """An older version goes only after its successor is on the medium; at the end all is; nothing done, nothing waited for"""
    tap.requires("strace")
    dest, log = tap.fresh("dest"), tap.fresh("log")
    strace = ("strace", "-o", log, "-e", "trace=fdatasync,fsync,syncfs,rename,renameat,renameat2")

    def calls():
        tap.equal(run_under(strace, "get", image(pieces_tree), dest).code, 0)
        return [line.split("(")[0] for line in content(log).decode().splitlines() if "(" in line]

    tap.equal(calls(), ["syncfs"])
    tap.equal(calls(), [])
    os.utime(os.path.join(dest, "first"), (1, 1))
    got = calls()
    tap.equal([got[0], got[1][:6], got[2]], ["fdatasync", "rename", "syncfs"])
    tap.equal(len(got), 3)


# ---- finished or not -------------------------------------------------------------------------------------------------


def marked_tree(path):
    os.mkdir(os.path.join(path, "dir"))
    for name in ("good", "hurt"):
        trees.write(os.path.join(path, "dir", name), trees.pattern(name, 3000))
    os.setxattr(os.path.join(path, "dir"), "user.big", trees.pattern("big", 700))
    os.mkdir(os.path.join(path, "reserved"))
    trees.write(os.path.join(path, "reserved", MARK), b"mine")
    trees.write(os.path.join(path, "reserved", "other"), b"other")


def goes_on(dest):
    """Another run, of the volume without damage, finishes the copy where it is."""
    assert os.path.exists(os.path.join(dest, MARK)), "the mark is gone though something is missing"
    cli.good("get", image(marked_tree) + ":/dir", dest)
    tap.equal(sorted(os.listdir(dest)), ["good", "hurt"])


@tap.test
def mark_stays_after_skipping():
    """An export from which something was skipped goes on in the same place"""
    hurt = damaged(marked_tree, b"/dir/hurt", 40, b"\0\0")
    dest = tap.fresh("dest")
    for _ in range(2):
        tap.equal(cli.run("get", "--keep-going", hurt + ":/dir", dest).code, cli.PARTLY)
        tap.equal(sorted(os.listdir(dest)), [MARK, "good"])
    goes_on(dest)


@tap.test
def mark_stays_until_the_top_is_done():
    """A top directory that cannot be finished: the next run goes on there"""
    tap.requires("xattrs")
    path = tap.copy(image(marked_tree))
    volume = ext4.Volume(path)
    block = volume.find(b"/dir").file_acl
    assert block, "no attribute block"
    cli.patch(path, block * volume.block_size, b"\0\0\0\0")
    dest = tap.fresh("dest")
    result = cli.run("get", path + ":/dir", dest)
    assert result.code in (cli.FAILED, cli.NOT_READABLE), result
    goes_on(dest)


@tap.test
def read_only_top():
    """A directory in which its owner may not write: the mark of an unfinished export goes even so"""
    who = cli.as_nobody()
    path, parent = tap.copy(tap.served(MKFS, 4 * MIB, read_only_tree)), tap.fresh_dir("parent")
    os.chmod(parent, 0o777)
    cli.good("get", path + ":/dir", os.path.join(parent, "dest"), **who)
    tap.equal(os.listdir(os.path.join(parent, "dest")), ["file"])
    tap.equal(mode(parent, "dest"), 0o555)
    tap.equal(os.lstat(os.path.join(parent, "dest")).st_mtime, 1e9)


def read_only_tree(path):
    os.mkdir(os.path.join(path, "dir"))
    trees.write(os.path.join(path, "dir", "file"), b"x")
    os.chmod(os.path.join(path, "dir"), 0o555)
    os.utime(os.path.join(path, "dir"), (1e9, 1e9))


@tap.test
def signal_after_the_last_step():
    """A signal when all is done: that is no interruption"""
    tap.requires("strace")
    dest, log = tap.fresh("dest"), tap.fresh("log")
    result = run_under(("strace", "-o", log, "-e", "trace=utimensat", "-e", "inject=utimensat:signal=SIGINT:when=1"), "get",
                       image(pieces_tree) + ":/first", dest)
    tap.contains(content(log), b"SIGINT")
    tap.equal((result.code, result.err), (0, b""), repr(result))


@tap.test
def reserved_name():
    """An entry with the name of the mark: not exported, said; what has the name in the destination is not ours to remove"""
    where, dest = image(marked_tree) + ":/reserved", tap.fresh("dest")
    cli.bad(cli.FAILED, "get", where, dest, says=(MARK, "reserved"))
    result = cli.run("get", "--keep-going", where, dest)
    tap.equal(result.code, cli.PARTLY, repr(result))
    tap.contains(result.err, b"reserved", MARK.encode())
    tap.equal(content(dest, "other"), b"other")
    assert content(dest, MARK) != b"mine", "the entry took the place of the mark"
    dest = tap.fresh_dir("dest")
    trees.write(os.path.join(dest, MARK), b"mine")
    cli.good("get", image(marked_tree) + ":/dir/.", dest)
    tap.equal(content(dest, MARK), b"mine")


@tap.test
def report_before_failure():
    """An export that ends with a failure says what it had to skip until then"""
    tap.requires("root")
    small = tap.mount("-t", "tmpfs", "-o", "size=32k", "none", tap.fresh_dir("small"))
    hurt, _, why = half(b"/first", b"/second")
    result = cli.run("get", "--keep-going", hurt, os.path.join(small, "dest"))
    tap.equal(result.code, cli.FAILED, repr(result))
    tap.contains(result.err, b"no space left", why)
    tap.umount(small)


# ---- one for another -------------------------------------------------------------------------------------------------


def twin_tree(path):
    for name, data in (("aa", b"the first"), ("bb", b"the second one"), ("cc", b"the third of them")):
        trees.write(os.path.join(path, name), data)
    os.link(os.path.join(path, "aa"), os.path.join(path, "zz"))
    for name in ("dd", "ee"):
        os.mkdir(os.path.join(path, name))
        trees.write(os.path.join(path, name, "file"), b"in " + name.encode())


def renamed(fill, *pairs):
    path = tap.copy(image(fill))
    entries = {e.name: e for e in ext4.Volume(path).inode(ext4.ROOT).entries()}
    for old, new in pairs:
        cli.patch(path, entries[old].offset + 8, new)
    return path


def in_order(path):
    """The names of the root in the order on the medium, those of the tree only."""
    return [e.name for e in ext4.Volume(path).inode(ext4.ROOT).entries() if e.name != b"lost+found"]


@tap.test
def twins():
    """Two entries of one name: the first stays, the second is reported, every time; a link to the first is one"""
    order = in_order(image(twin_tree))
    first, second = sorted((b"aa", b"bb"), key=order.index)
    path = renamed(twin_tree, (second, first))
    data = {b"aa": b"the first", b"bb": b"the second one"}
    dest = tap.fresh("dest")
    assert cli.run("get", path, tap.fresh("other")).code == cli.FAILED
    for _ in range(3):
        result = cli.run("get", "--keep-going", path, dest)
        tap.equal(result.code, cli.PARTLY, repr(result))
        tap.contains(result.err, b"under this name", first)
        tap.equal(content(dest, first.decode()), data[first])
        tap.equal(content(dest, "zz"), b"the first")


@tap.test
def twins_of_directories():
    """Two directories of one name are not poured into one"""
    order = in_order(image(twin_tree))
    first, second = sorted((b"dd", b"ee"), key=order.index)
    path, dest = renamed(twin_tree, (second, first)), tap.fresh("dest")
    for _ in range(2):
        result = cli.run("get", "--keep-going", path, dest)
        tap.equal(result.code, cli.PARTLY, repr(result))
        tap.contains(result.err, b"under this name", first)
        tap.equal(content(dest, first.decode(), "file"), b"in " + first)


@tap.test
def twins_of_links():
    """A link whose name is taken by an entry of the same directory does not replace that"""
    order = in_order(image(twin_tree))
    first, second = sorted((b"zz", b"aa"), key=order.index)
    assert order.index(b"cc") > order.index(first) or order.index(b"cc") < order.index(second), order
    victim = b"cc" if order.index(b"cc") < order.index(second) else b"bb"
    if order.index(victim) > order.index(second):
        raise tap.Skip("mke2fs puts the link before everything else")
    path, dest = renamed(twin_tree, (second, victim)), tap.fresh("dest")
    result = cli.run("get", "--keep-going", path, dest)
    tap.equal(result.code, cli.PARTLY, repr(result))
    tap.equal(content(dest, victim.decode()), {b"cc": b"the third of them", b"bb": b"the second one"}[victim])


@tap.test
def one_name_for_two():
    """A destination that takes "aa" and "AA" for one name: the first stays, the second is reported, every time"""
    tap.requires("root", "loop")
    disk, dest = tap.fresh("folding.img"), tap.fresh_dir("folding")
    with open(disk, "wb") as f:
        f.truncate(16 * MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "casefold", disk], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", disk, dest], capture_output=True, check=False).returncode:
        raise tap.Skip("this kernel cannot fold names")
    try:
        os.mkdir(os.path.join(dest, "in"))
        subprocess.run(["chattr", "+F", os.path.join(dest, "in")], check=True)
        order = in_order(image(twin_tree))
        first, second = sorted((b"cc", b"bb"), key=order.index)
        path = renamed(twin_tree, (second, first.upper()))
        for _ in range(3):
            result = cli.run("get", "--keep-going", path, os.path.join(dest, "in"))
            tap.equal(result.code, cli.PARTLY, repr(result))
            tap.contains(result.err, b"under this name", first.upper())
            tap.equal(content(dest, "in", first.decode()), {b"bb": b"the second one", b"cc": b"the third of them"}[first])
    finally:
        subprocess.run(["umount", dest], check=True)


@tap.test
def links_that_were_broken():
    """Two links of an older export that are two files now: both come out right"""
    dest = tap.fresh_dir("dest")
    trees.write(os.path.join(dest, "aa"), b"old")
    os.link(os.path.join(dest, "aa"), os.path.join(dest, "bb"))
    os.link(os.path.join(dest, "aa"), os.path.join(dest, "cc"))
    cli.good("get", image(twin_tree), dest)
    tap.equal([content(dest, n) for n in ("aa", "bb", "cc", "zz")],
              [b"the first", b"the second one", b"the third of them", b"the first"])
    os.unlink(os.path.join(dest, "cc"))
    os.link(os.path.join(dest, "bb"), os.path.join(dest, "cc"))
    os.utime(os.path.join(dest, "bb"), (1, 1))
    cli.good("get", image(twin_tree), dest)
    tap.equal([content(dest, n) for n in ("bb", "cc")], [b"the second one", b"the third of them"])
    data = {"bb": b"the second one", "cc": b"the third of them"}
    for stays, goes in (("bb", "cc"), ("cc", "bb")):
        os.unlink(os.path.join(dest, goes))
        os.link(os.path.join(dest, stays), os.path.join(dest, goes))
        cli.good("get", image(twin_tree), dest)
        tap.equal({n: content(dest, n) for n in data}, data)


# ---- without end -----------------------------------------------------------------------------------------------------


def comb(path, n, name_len):
    here = os.fsencode(path)
    for level in range(40):
        for i in range(n):
            trees.write(os.path.join(here, b"a%d%s" % (i, b"n" * name_len)), b"%d %d" % (level, i))
        os.mkdir(os.path.join(here, b"down"))
        for i in range(n):
            trees.write(os.path.join(here, b"z%d%s" % (i, b"n" * name_len)), b"%d %d" % (level, i))
        here = os.path.join(here, b"down")


def comb_tree(path):
    """Deeper than directories are kept open, each with several blocks of entries around the one that leads down."""
    comb(path, 15, 200)


def inline_tree(path):
    """The same with directories that lie in their inodes."""
    comb(path, 1, 0)


@tap.test
def deep_and_wide():
    """Directories that are left and come back to: every entry, once"""
    for mkfs, fill in ((MKFS, comb_tree), (("-b", "4096", "-O", "inline_data,^has_journal"), inline_tree)):
        dest, source = tap.fresh("dest"), tap.fresh_dir("again")
        path = tap.served((*mkfs, "-N", "4096"), 32 * MIB, fill)
        tap.equal(bool(ext4.Volume(path).find(b"/down").flags & ext4.INLINE_FL), fill is inline_tree, "inline")
        cli.good("get", path, dest)
        fill(source)
        got = {p: row for p, row in trees.snapshot(dest).items() if p != b"lost+found"}
        trees.check(trees.snapshot(source), got, fields=("type", "size", "sha256"))


def legacy_hash(name):
    """The simplest of the hashes of ext4's directories."""
    now, before = 0x12A3FE2D, 0x37ABE8F9
    for c in name:
        value = (before + (now ^ c * 7152373)) & 0xFFFFFFFF
        now, before = value - 0x7FFFFFFF & 0xFFFFFFFF if value & 0x80000000 else value, now
    return now << 1 & 0xFFFFFFFF


def same_hash():
    """Two names of one hash, in order."""
    seen = {}
    for i in range(1000000):
        name = b"%d.name" % i
        other = seen.setdefault(legacy_hash(name), name)
        if other != name:
            return min(name, other), max(name, other)
    raise AssertionError("no two names have the same hash")


def same_hash_tree(path):
    """A deep tree where each directory has a neighbour with the same hash, which comes behind it."""
    down, beside = same_hash()
    here = os.fsencode(path)
    for level in range(40):
        os.makedirs(os.path.join(here, beside, b"x"))
        trees.write(os.path.join(here, b"file"), b"%d" % level)
        here = os.path.join(here, down)
        os.mkdir(here)


@tap.test
def deep_and_same():
    """The same in the order of the hash, where names of one hash come behind the directory that was gone into"""
    path = tap.copy(tap.served(("-b", "1024", "-N", "512"), 8 * MIB, same_hash_tree))
    subprocess.run(["tune2fs", "-E", "hash_alg=legacy", path], check=True, capture_output=True)
    dest, source = tap.fresh("dest"), tap.fresh_dir("again")
    cli.good("get", path, dest)
    same_hash_tree(source)
    got = {p: row for p, row in trees.snapshot(dest).items() if p != b"lost+found"}
    trees.check(trees.snapshot(source), got, fields=("type", "size", "sha256"))
    down = os.fsdecode(same_hash()[0])
    cli.good("chmod", "-R", "u+rwx", path + ":/" + down)
    cli.good("rm", "-r", path + ":/" + down)
    subprocess.run(["e2fsck", "-fn", path], check=True, capture_output=True)


def long_path_tree(path):
    here = path
    for _ in range(12):
        here = os.path.join(here, "n" * 200)
        os.mkdir(here)
    trees.write(os.path.join(here, "hurt"), trees.pattern("hurt", 3000))


@tap.test
def long_paths_in_the_report():
    """A very long path is shortened in the report: its beginning and its end"""
    path = damaged(long_path_tree, b"/" + b"/".join([b"n" * 200] * 12) + b"/hurt", 40, b"\0\0")
    result = cli.run("get", "--keep-going", path, tap.fresh("dest"))
    tap.equal(result.code, cli.PARTLY, repr(result))
    line = next(line for line in result.err.splitlines() if b"hurt" in line)
    tap.contains(line, b"...", b"/hurt: ")
    assert len(line) < 1300 and line.startswith(b"inlay: get: " + path.encode() + b":/nnn"), line


@tap.test
def endless_key():
    """A key file without end: exit 3, soon"""
    path = image(pieces_tree)
    cli.bad(cli.NO_KEY, "ls", "--key", "/dev/zero", path, says="keys have 16 to 64 bytes", timeout=20)
    spaces = tap.fresh("spaces")
    trees.write(spaces, b" " * MIB)
    cli.bad(cli.NO_KEY, "ls", "--key-hex", spaces, path, says="keys have 16 to 64 bytes", timeout=20)


@tap.test
def direction_marks():
    """Characters that change the direction of text do not reach a message"""
    result = cli.bad(cli.FAILED, "ls", image(pieces_tree) + ":/a\u061cb\u202ec", says="a?b?c")
    assert "\u061c".encode() not in result.err


tap.main()
