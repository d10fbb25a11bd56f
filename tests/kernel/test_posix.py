#!/usr/bin/env python3
"""What programs of Linux see of names, modes, ACLs, flags and free space: each case by the kernel and by Inlay, and what comes of it.

Not here: random operations (test_twin.py); what is refused around encryption (test_errno.py).
Read more: acl(5), umask(2), inode(7); inlay/volume.h; the lines are those of tests/unit/twin_script.c.

A case is a line; what both say must be the same, and so must what is there afterwards.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap  # noqa: E402

MIB = 1 << 20
KEY = "policy=2:3:0:1:64"
POLICY = "2:1:4:3:0:0:0"


def twin(verb, side, target, *options, lines=()):
    build = os.environ.get("INLAY_BUILD") or os.path.dirname(os.path.dirname(os.environ["INLAY"]))
    args = [os.path.join(build, "tests", "twin"), verb, side, target, *options, KEY]
    done = subprocess.run(args, input="".join(line + "\n" for line in lines).encode(), capture_output=True, check=False,
                          timeout=60)
    if done.returncode:
        tap.fail(f"{verb} {side}: exit {done.returncode}\n{done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout.decode("latin-1").splitlines()


def volume(*mkfs, tune=()):
    tap.requires("root", "loop", "kernel")
    image = tap.fresh("posix.img")
    with open(image, "wb") as f:
        f.truncate(16 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "encrypt", *mkfs, image], check=True,
                   stdout=subprocess.DEVNULL)
    if tune:
        subprocess.run(["tune2fs", *tune, image], check=True, stdout=subprocess.DEVNULL)
    return image


def compare(ours, theirs, what):
    tap.equal(len(ours), len(theirs), what)
    tap.equal([f"{a}; the kernel: {b}" for a, b in zip(ours, theirs) if a != b], [], what)


def check(image, lines, refused=()):
    """All lines on two copies. They are refused with each of these errors, and with no other one. None: with any."""
    lines = [line.strip() for line in lines if line.strip()]
    ours, theirs = tap.copy(image), tap.copy(image)
    with tap.mounted(theirs) as root:
        linux = twin("script", "kernel", root, lines=lines)
    inlay = twin("script", "inlay", ours, lines=lines)
    said = [[f"{line} = {result}" for line, result in zip(lines, results)] for results in (inlay, linux)]
    compare(*said, "results")
    if refused is not None:
        tap.equal({result.split(" ")[-1] for result in inlay} - {"0"}, {*refused}, "errors")
    done = subprocess.run(["e2fsck", "-fn", ours], capture_output=True, check=False)
    tap.equal(done.returncode, 0, done.stdout.decode(errors="replace")[-1500:])
    seen = []
    for which in (ours, theirs):
        with tap.mounted(which, "ro") as root:
            seen.append(twin("dump", "kernel", root))
    compare(*seen, "what is there")
    compare(twin("dump", "inlay", ours), seen[1], "what Inlay sees")
    os.unlink(ours)
    os.unlink(theirs)


# User, group, mask, others; names.
PLAIN_ACL = "1:7,4:5,32:1"
SMALL_ACL = "1:6,4:0,32:0"
NAMED_ACL = "1:7,2:6:100,4:5,8:3:200,16:6,32:4"
MASKED_ACL = "1:7,4:7,16:5,32:0"
LONG_ACL = ",".join(["1:7", *(f"2:{n % 8}:{n + 1000}" for n in range(70)), "4:7", "16:7", "32:7"])
TYPES = (("reg", 0o100000), ("fifo", 0o010000), ("sock", 0o140000), ("chr", 0o020000), ("blk", 0o060000))


def made_in(folder, mode, mark):
    """One of each type, and something below what is a directory."""
    yield from (f"mknod {folder}/{name}{mark} {kind | mode:o}" for name, kind in TYPES)
    yield f"mknod {folder}/dir{mark} {0o040000 | mode:o}"
    yield f"mknod {folder}/dir{mark}/file 100666"
    yield f"mknod {folder}/dir{mark}/dir 40777"
    yield f"symlink {folder}/link{mark} {10 if mode & 1 else 100}"


def inherit_lines(top=""):
    acls = (None, PLAIN_ACL, SMALL_ACL, NAMED_ACL, MASKED_ACL, LONG_ACL)
    for number, acl in enumerate(acls):
        folder = f"{top}d{number}"
        yield f"mkdir {folder}"
        if acl:
            yield f"acl {folder} default {acl}"
        if number % 2:
            yield f"chown {folder} {70000 + number}"
            yield f"chmod {folder} 2755"
        for mask in ("0", "022", "0777"):
            yield f"umask {mask}"
            for mode in (0, 0o666, 0o777, 0o640, 0o1755, 0o7777):
                yield from made_in(folder, mode, f"-{mask}-{mode:o}")


def inheriting(mkfs, refused):
    check(volume(*mkfs), inherit_lines(), refused)


def inheriting_encrypted(mkfs, refused):
    check(volume(*mkfs), ["mkdir e", f"set e {POLICY}", *inherit_lines("e/")], refused)


# A small block has no room for the long ACL twice: nothing is made then, and nothing below.
for args in ((("-b", "4096"), ()), (("-b", "1024", "-I", "128"), ("ENOSPC", "ENOENT"))):
    title = " ".join(args[0])
    tap.add(f"umask, default ACLs and set-group-ID directories: {title}", lambda args=args: inheriting(*args))
    tap.add(f"the same where it is encrypted: {title}", lambda args=args: inheriting_encrypted(*args))


@tap.test
def bsd_groups():
    """A volume whose default mount options give everything its directory's group"""
    check(volume(tune=("-o", "bsdgroups")), [
        "mkdir d", "chown d 5", *made_in("d", 0o755, "1"), "chmod d 2755", *made_in("d", 0o755, "2"),
        f"acl d default {NAMED_ACL}", *made_in("d", 0o2777, "3")])


# ---- whiteouts -----------------------------------------------------------------------------------------------------------

def whiteout_lines(top=""):
    yield from (line.format(t=top) for line in f"""
        mkdir {{t}}d
        mkdir {{t}}other
        create {{t}}d/f
        create {{t}}d/g
        create {{t}}d/h
        link {{t}}d/h {{t}}d/h2
        mkdir {{t}}d/sub
        mkdir {{t}}d/sub2
        mkdir {{t}}other/empty
        create {{t}}other/full
        symlink {{t}}d/l 80
        mkfifo {{t}}d/p
        whiteout {{t}}d/f {{t}}d/new
        whiteout {{t}}d/g {{t}}other/g
        whiteout {{t}}d/l {{t}}other/full
        whiteout {{t}}d/h {{t}}d/h2
        whiteout {{t}}d/none {{t}}d/x
        whiteout {{t}}d/p {{t}}other/none/x
        whiteout-noreplace {{t}}d/p {{t}}other/g
        whiteout-noreplace {{t}}d/p {{t}}other/p
        whiteout {{t}}d/sub {{t}}other/empty
        whiteout {{t}}d/sub2 {{t}}other/empty/sub2
        whiteout {{t}}other/empty {{t}}other/empty/sub2/x
        whiteout {{t}}other/empty {{t}}other/full
        whiteout {{t}}d/f {{t}}d/f2
        whiteout {{t}}d/sub {{t}}d/f
        mkdir {{t}}d/f
        unlink {{t}}d/f
        chown {{t}}d 1234
        chmod {{t}}d 2775
        acl {{t}}d default {NAMED_ACL}
        chown {{t}}other 99
        umask 077
        create {{t}}d/a
        create {{t}}other/b
        whiteout {{t}}d/a {{t}}other/a
        whiteout {{t}}other/b {{t}}d/b
        acl {{t}}d default {SMALL_ACL}
        create {{t}}d/c
        whiteout {{t}}d/c {{t}}d/c2""".splitlines())


WHITEOUT_REFUSED = ("ENOENT", "EEXIST", "EINVAL", "ENOTDIR")


@tap.test
def whiteouts():
    """What is moved leaves a whiteout under its old name"""
    check(volume(), whiteout_lines(), WHITEOUT_REFUSED)
    check(volume("-b", "1024", "-I", "128", "-O", "^filetype"), whiteout_lines(), WHITEOUT_REFUSED)


@tap.test
def whiteouts_encrypted():
    """The same where it is encrypted"""
    check(volume(), ["mkdir e", f"set e {POLICY}", *whiteout_lines("e/")], WHITEOUT_REFUSED)


# ---- flags ---------------------------------------------------------------------------------------------------------------

IMMUTABLE, APPEND, NODUMP, ENCRYPT, EXTENTS, JOURNAL_DATA, DAX, CASEFOLD = \
    0x10, 0x20, 0x40, 0x800, 0x80000, 0x4000, 0x2000000, 0x40000000


def flag_lines(path):
    """Each bit set and cleared, two at once, and what goes with what."""
    def chattr(flags):
        return f"chattr {path} {flags:x}", f"lsattr {path}"

    for bit in range(32):
        # Linux converts the map, Inlay does not; who may set the other one is the caller's business.
        if 1 << bit in (EXTENTS, JOURNAL_DATA):
            continue
        yield from chattr(EXTENTS | 1 << bit)
        yield from chattr(EXTENTS | 1 << bit | NODUMP)
        yield from chattr(EXTENTS)
    for flags in ((IMMUTABLE, IMMUTABLE, IMMUTABLE | NODUMP, IMMUTABLE | APPEND, NODUMP, IMMUTABLE | NODUMP, NODUMP, 0),
                  (APPEND, APPEND | NODUMP, APPEND | IMMUTABLE, APPEND, IMMUTABLE, 0, DAX, DAX | NODUMP, CASEFOLD,
                   DAX | CASEFOLD, 0, 0x100800, 0x10000000)):
        for value in flags:
            yield from chattr(EXTENTS | value)


@tap.test
def flags_bit_by_bit():
    """Which flags can be set on what"""
    check(volume(), ["create f", "write f", *flag_lines("f"), "mkdir d", *flag_lines("d"),
                     "hold f", "unlink f", "chattr ! 80040", "lsattr !"], ("EOPNOTSUPP", "EPERM"))


@tap.test
def flags_encrypted():
    """The same where it is encrypted: of what is immutable there nothing at all is set, not even what is"""
    check(volume(), ["mkdir e", f"set e {POLICY}", "create e/f", *flag_lines("e/f"), "mkdir e/d", *flag_lines("e/d")],
          ("EOPNOTSUPP", "EPERM"))


# What is done to a file, and to what is in a directory, that is marked.
ON_FILE = """
    write {0}
    write-end {0}
    truncate {0} 2
    truncate {0} 100
    allocate {0}
    allocate-more {0}
    punch {0}
    chmod {0} 600
    chown {0} 5
    utimes {0}
    xattr {0} v
    acl {0} access 1:6,2:4:5,4:4,16:4,32:0
    read {0}
    link {0} linked
    rename {0} renamed
    rename other {0}
    whiteout {0} renamed
    exchange {0} other
    exchange other {0}
    unlink {0}
    """
IN_DIR = """
    create {0}/new
    mkdir {0}/newdir
    symlink {0}/newlink 5
    link other {0}/linked
    rename other {0}/f
    rename other {0}/moved
    create other
    rename {0}/f {0}/f2
    rename {0}/f out
    whiteout {0}/f out
    exchange {0}/f other
    write {0}/f
    chmod {0}/f 600
    unlink {0}/f
    rmdir {0}/d
    create {0}/d/below
    create {0}/f
    list {0}
    chmod {0} 700
    acl {0} default 1:7,4:0,32:0
    chown {0} 5
    rename {0} away
    rename {0} {0}/d/x
    rmdir {0}
    """


@tap.test
def flags_honoured():
    """What immutable and append-only files and directories can still have done to them"""
    for mark in (0, IMMUTABLE, APPEND, IMMUTABLE | APPEND):
        lines = [f"create {name}" for name in ("f", "other")] + ["write f"]
        lines += [f"chattr f {EXTENTS | mark:x}"]
        lines += ON_FILE.format("f").splitlines()
        lines += ["mkdir dir", "create dir/f", "mkdir dir/d", "create dir/d/f", f"chattr dir {EXTENTS | mark:x}"]
        lines += IN_DIR.format("dir").splitlines()
        check(volume(), lines, None)


# ---- trim ----------------------------------------------------------------------------------------------------------------

def holes():
    """A volume with runs of free blocks of many lengths, and groups that were never used."""
    tap.requires("root", "loop", "kernel")
    image = tap.fresh("holes.img")
    with open(image, "wb") as f:
        f.truncate(160 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-g", "8192", "-O", "encrypt", image], check=True,
                   stdout=subprocess.DEVNULL)
    with tap.mounted(image) as root:
        for i in range(40):
            with open(os.path.join(root, str(i)), "wb") as f:
                f.write(bytes([i]) * 4096 * (1 + i * i % 53))
            os.sync()
        for i in range(0, 40, 2):
            os.unlink(os.path.join(root, str(i)))
    return image


def free_runs(image):
    """(first, last) block of each run of free blocks, no longer than its group, as e2fsprogs see them."""
    said = subprocess.run(["dumpe2fs", image], capture_output=True, check=True, text=True).stdout
    for line in said.splitlines():
        _, is_list, blocks = line.partition("  Free blocks: ")
        for run in blocks.split(", ") if is_list and blocks.strip() else ():
            first, _, last = run.partition("-")
            yield int(first), int(last or first)


@tap.test
def trim():
    """What is discarded of which range, and what is refused"""
    image, whole = holes(), 2 ** 64 - 1
    runs = list(free_runs(image))
    for offset, length, shortest in (
            (0, whole, 0), (0, whole, 4096 * 9), (0, whole, 4096 * 8192), (0, whole, 4096 * 8193), (0, 4096, 0), (0, 4095, 0),
            (4096 * 1000, 4096 * 9000, 0), (4096 * 1000 + 5, 4096 * 9000 + 4000, 4096 * 20 + 1), (4096 * 8190, 4096 * 900, 0),
            (160 * MIB - 4096, whole, 0), (160 * MIB, whole, 0), (160 * MIB - 1, 4096, 0), (2 ** 63, whole, 0), (0, 0, 0)):
        line = [f"trim {offset} {length} {shortest}"]
        ours, theirs = tap.copy(image), tap.copy(image)
        with tap.mounted(theirs) as root:
            linux = twin("script", "kernel", root, lines=line)[0]
        inlay = twin("script", "inlay", ours, lines=line)[0]
        # Linux discards all of a run that begins in the range.
        tap.equal(inlay.split(" ")[-1], linux.split(" ")[-1], line[0])
        if length == whole:
            tap.equal(inlay, linux, line[0])
        if inlay.endswith(" 0"):
            first, end = offset // 4096, min(offset // 4096 + length // 4096, 160 * MIB // 4096)
            parts = [max(0, min(b + 1, end) - max(a, first)) for a, b in runs]
            tap.equal(inlay, f"{4096 * sum(n for n in parts if n >= shortest // 4096)} 0", line[0])
        tap.equal(subprocess.run(["e2fsck", "-fn", ours], capture_output=True, check=False).returncode, 0, line[0])
        os.unlink(ours)
        os.unlink(theirs)


tap.main()
