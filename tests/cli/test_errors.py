#!/usr/bin/env python3
"""One misuse each: what goes wrong is said in one line, with what and where, and the exit code tells its class.

Not here: damage at random (test_mutants.py), exports that are interrupted (test_resume.py), hostile volumes (test_hostile.py).
Read more: doc/inlay.1, "EXIT STATUS".
"""
import os
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import reference as r  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20


def tree(path):
    """A small plain tree."""
    path = os.fsencode(path)
    trees.write(os.path.join(path, b"file.txt"), b"content\n" * 100)
    trees.write(os.path.join(path, b"big"), trees.pattern("big", 300000))
    os.makedirs(os.path.join(path, b"dir/sub"))
    trees.write(os.path.join(path, b"dir/sub/deep"), b"deep\n")
    os.symlink(b"file.txt", os.path.join(path, b"link"))
    os.symlink(b"dir", os.path.join(path, b"to-dir"))
    os.symlink(b"loop-b", os.path.join(path, b"loop-a"))
    os.symlink(b"loop-a", os.path.join(path, b"loop-b"))
    os.symlink(b"nowhere", os.path.join(path, b"dangling"))


def plain(*mkfs, size=8 * MIB):
    return tap.served(mkfs, size, tree)


def scratch(data):
    path = tap.fresh("file")
    trees.write(path, data)
    return path


def key_file(data):
    return scratch(data)


def missing(path):
    assert not os.path.lexists(path), f"{path} was made"


# ---- not a volume ----------------------------------------------------------------------------------------------------


@tap.test
def not_ext4():
    """A file that is no ext4 file system: exit 4, named"""
    path = scratch(b"This is a letter, not a disk.\n" * 1000)
    for verb in ("info", "ls", "tree"):
        cli.bad(cli.NOT_READABLE, verb, path, says=path)
    dest = tap.fresh()
    cli.bad(cli.NOT_READABLE, "get", path, dest, says=path)
    missing(dest)


@tap.test
def empty_file():
    """An empty file: exit 4"""
    path = scratch(b"")
    cli.bad(cli.NOT_READABLE, "info", path, says=path)
    cli.bad(cli.NOT_READABLE, "ls", path, says=path)


@tap.test
def all_zeros():
    """Eight megabytes of zeros: exit 4"""
    path = scratch(bytes(8 * MIB))
    cli.bad(cli.NOT_READABLE, "info", path, says=path)


@tap.test
def truncated():
    """Truncated images: exit 4, said; at 1500 bytes, at 64 KiB, one byte short"""
    for size in (1024, 1500, 2048, 65536, 8 * MIB - 1):
        path = tap.copy(plain())
        os.truncate(path, size)
        dest = tap.fresh()
        result = cli.bad(cli.NOT_READABLE, "get", path, dest, says=path)
        cli.bad(cli.NOT_READABLE, "ls", path, says=path)
        if size > 65536:
            assert any(w in result.err.lower() for w in (b"truncat", b"short", b"beyond", b"smaller", b"end")), result
        missing(dest)


@tap.test
def truncated_keep_going():
    """A truncated image with get --keep-going: what is there comes out, exit 5"""
    path = tap.copy(plain("-O", "^has_journal"))
    volume = ext4.Volume(path)
    ends = {name: max((e.pblk + e.count for e in inode.extents()), default=0) for name, inode in volume.walk()
            if inode.is_dir or inode.is_reg}
    cut = max(ends, key=ends.get)
    os.truncate(path, (ends[cut] - 1) * volume.block_size)
    hurt = {name for name, end in ends.items() if end == ends[cut]}
    dest = tap.fresh()
    result = cli.run("get", "--keep-going", path, dest)
    tap.equal(result.code, cli.PARTLY, repr(result))
    tap.contains(result.err, os.path.basename(cut))
    for name, data in (("file.txt", b"content\n" * 100), ("big", trees.pattern("big", 300000)), ("dir/sub/deep", b"deep\n")):
        if b"/" + name.encode() not in hurt:
            with open(os.path.join(dest, name), "rb") as f:
                tap.equal(f.read(), data, name)


@tap.test
def no_such_image():
    """An image that does not exist: exit 1, named"""
    path = tap.fresh("nope.img")
    cli.bad(cli.FAILED, "info", path, says=(path, "no such file"))
    cli.bad(cli.FAILED, "ls", path + ":/x", says="nope.img")


@tap.test
def directory_as_image():
    """A directory, a FIFO and a character device where an image was meant"""
    fifo = tap.fresh("fifo")
    os.mkfifo(fifo)
    for path in (tap.work(), fifo, "/dev/null"):
        cli.bad((cli.FAILED, cli.NOT_READABLE), "info", path, says=path, timeout=10)


@tap.test
def unreadable_image():
    """An image without read permission: exit 1, permission denied"""
    who = cli.as_nobody()
    path = tap.copy(plain())
    os.chmod(path, 0)
    cli.bad(cli.FAILED, "info", path, says=(path, "permission denied"), **who)


@tap.test
def read_only_image():
    """An image that may only be read, by a user who is not root: everything works, nothing is written"""
    who = cli.as_nobody()
    path = cli.golden("demo")
    os.chmod(path, 0o444)
    before = cli.checksum(path), os.stat(path).st_mtime_ns
    dest = tap.fresh_dir("dest")
    os.chown(dest, cli.NOBODY, cli.NOBODY)
    keys = [key_file(open(k, "rb").read()) for k in cli.keys_of(cli.manifest("demo"))]
    for verb in (("info",), ("ls", "-lR"), ("tree",)):
        cli.good(*verb, path, keys=keys, **who)
    cli.good("get", path, os.path.join(dest, "out"), keys=keys, **who)
    with open(os.path.join(dest, "out", "alice", "poem.txt"), "rb") as f:
        assert f.read().startswith(b"Lock and key")
    tap.equal((cli.checksum(path), os.stat(path).st_mtime_ns), before)


@tap.test
def every_command_reads_only():
    """No command changes a byte of the image or its times, not even of one whose journal needs replay"""
    path = tap.copy(cli.golden("unclean"))
    before = cli.checksum(path), os.stat(path).st_mtime_ns, os.stat(path).st_blocks
    key = [cli.golden_key("unclean")]
    for verb in (("info",), ("ls", "-lR"), ("tree",), ("stat",)):
        for keys in (key, ()):
            assert cli.good(*verb, path + ":/" if verb[0] == "stat" else path, keys=keys).out
    tap.equal(cli.run("get", path, tap.fresh(), keys=key).code, 0)
    cli.run("get", "--keep-going", path, tap.fresh())
    cli.run("device", path)
    tap.equal((cli.checksum(path), os.stat(path).st_mtime_ns, os.stat(path).st_blocks), before)


@tap.test
def unknown_feature():
    """An incompatible feature that nobody knows: exit 4, named"""
    path = tap.copy(plain("-O", "^metadata_csum"))
    with open(path, "rb") as f:
        f.seek(1024 + 96)
        (incompat,) = struct.unpack("<I", f.read(4))
    cli.patch(path, 1024 + 96, struct.pack("<I", incompat | 1 << 30))
    result = cli.bad(cli.NOT_READABLE, "ls", path, says="feature")
    assert b"30" in result.err or b"40000000" in result.err, result


@tap.test
def journal_device():
    """An external journal is no volume: exit 4"""
    path = tap.fresh()
    with open(path, "wb") as f:
        f.truncate(8 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-O", "journal_dev", path], check=True, capture_output=True)
    cli.bad(cli.NOT_READABLE, "info", path, says=path)


def bad_superblock(block_size, backup_block, size):
    path = tap.copy(plain("-b", str(block_size), size=size))
    backup = backup_block * block_size
    with open(path, "rb") as f:
        f.seek(backup + 56)
        tap.equal(f.read(2), b"\x53\xef", "the backup that this test means to be used")
    for damage in ((1024 + 56, b"\0\0"), (1024, b"\xff" * 1024), (1024, bytes(1024))):
        hurt = tap.copy(path)
        cli.patch(hurt, *damage)
        info = cli.run("info", hurt)
        tap.equal(info.code, 0, repr(info))
        tap.contains((info.out + info.err).lower(), b"backup", str(backup_block).encode())
        dest = tap.fresh()
        tap.equal(cli.run("get", hurt, dest).code, 0, "get")
        with open(os.path.join(dest, "big"), "rb") as f:
            tap.equal(f.read(), trees.pattern("big", 300000))
        tap.equal(cli.run("cat", hurt + ":/file.txt").out, b"content\n" * 100)


@tap.test
def backup_superblock_1k():
    """A bad superblock and a good backup, 1 KiB blocks: used, and said"""
    bad_superblock(1024, 8193, 24 * MIB)


@tap.test
def backup_superblock_4k():
    """A bad superblock and a good backup, 4 KiB blocks: used, and said"""
    bad_superblock(4096, 32768, 200 * MIB)


@tap.test
def no_good_superblock():
    """A bad superblock and bad backups: exit 4"""
    path = tap.copy(plain("-b", "1024", size=24 * MIB))
    for block in (1, 8193):
        cli.patch(path, block * 1024, bytes(1024))
    cli.bad(cli.NOT_READABLE, "info", path, says=path)


# ---- keys ------------------------------------------------------------------------------------------------------------

def locked_file(volume, where, size=None):
    """The no-key path of a file below a directory: of this size, or of any but 0."""
    return next(os.fsdecode(p) for p, row in cli.manifest(volume)["locked"].items()
                if row["type"] == "file" and p.startswith(where) and row["size"] and size in (None, row["size"]))


def secret_volume():
    """A volume, the path of a locked file, the right key, the identifier of its key."""
    data = cli.manifest("demo")
    return cli.golden("demo"), "/alice/poem.txt", cli.golden_key("demo-alice"), data["keys"][0]["name"]


@tap.test
def short_and_long_keys():
    """Keys of 0, 15 and 65 bytes: the file, its length and the lengths that are allowed"""
    image, path, _, _ = secret_volume()
    for length in (0, 15, 65, 4096):
        key = key_file(b"k" * length)
        result = cli.bad((cli.USAGE, cli.NO_KEY, cli.FAILED), "cat", image + ":" + path, keys=[key], says=(key, "16", "64"))
        if length < 100:
            tap.contains(result.err, str(length).encode())
        tap.equal(result.out, b"")


@tap.test
def no_such_key_file():
    """A key file that does not exist, and a directory: named, nothing printed"""
    image, path, _, _ = secret_volume()
    name = tap.fresh("no-key")
    cli.bad((cli.FAILED, cli.NO_KEY), "cat", image + ":" + path, keys=[name], says=(name, "no such file"))
    cli.bad((cli.FAILED, cli.NO_KEY, cli.USAGE), "cat", image + ":" + path, keys=[tap.work()], says=tap.work())


@tap.test
def no_key():
    """No key: exit 3, and the identifier that is needed"""
    image, path, _, name = secret_volume()
    cli.bad(cli.NO_KEY, "get", image + ":/alice", tap.fresh(), says=name)
    nokey = locked_file("demo", b"alice/")
    cli.bad(cli.NO_KEY, "cat", image + ":/" + nokey, says=name)
    cli.bad(cli.NO_KEY, "cat", image + ":" + path, says=name)


@tap.test
def wrong_key():
    """The wrong key: exit 3, the identifier that is needed and the one that was given"""
    image, path, _, name = secret_volume()
    other = b"another key, 32 bytes long......"
    cli.bad(cli.NO_KEY, "cat", image + ":" + path, keys=[key_file(other)], says=(name, r.identifier(other).hex()))
    nokey = locked_file("demo", b"alice/")
    cli.bad(cli.NO_KEY, "cat", image + ":/" + nokey, keys=[key_file(other)], says=(name, r.identifier(other).hex()))
    dest = tap.fresh()
    cli.bad(cli.NO_KEY, "get", image + ":/alice", dest, keys=[key_file(other)], says=(name, r.identifier(other).hex()))
    missing(dest)


@tap.test
def wrong_key_v1():
    """The wrong key for a v1 policy: descriptors instead of identifiers"""
    data = cli.manifest("v1")
    nokey = locked_file("v1", b"v1-pad32/")
    other = b"k" * 64
    cli.bad(cli.NO_KEY, "cat", cli.golden("v1") + ":/" + nokey, keys=[key_file(other)],
            says=(data["keys"][0]["name"], r.descriptor(other).hex()))


@tap.test
def partly_locked():
    """One key of two: a tree is refused whole, or with --keep-going exported in part: exit 5"""
    image, _, key, _ = secret_volume()
    bob = cli.manifest("demo")["keys"][1]["name"]
    dest = tap.fresh()
    cli.bad(cli.NO_KEY, "get", image, dest, keys=[key], says=bob)
    result = cli.run("get", "--keep-going", image, dest, keys=[key])
    tap.equal(result.code, cli.PARTLY, repr(result))
    tap.contains(result.err, bob.encode())
    with open(os.path.join(dest, "alice", "poem.txt"), "rb") as f:
        assert f.read().startswith(b"Lock and key")
    files = [n for _, _, names in os.walk(os.path.join(dest, "bob")) for n in names]
    tap.equal(files, [], "files of Bob, whose key is missing")


@tap.test
def key_on_standard_input():
    """--key - reads the key from standard input"""
    image, path, key, _ = secret_volume()
    with open(key, "rb") as f:
        raw = f.read()
    out = cli.good("cat", image + ":" + path, keys=["-"], stdin=raw).out
    assert out.startswith(b"Lock and key"), out
    cli.bad((cli.USAGE, cli.NO_KEY, cli.FAILED), "cat", image + ":" + path, keys=["-"], stdin=raw[:15], says=("15", "16", "64"))
    cli.bad((cli.USAGE, cli.NO_KEY, cli.FAILED), "cat", image + ":" + path, keys=["-"], stdin=raw + b"\n", says=("16", "64"))


@tap.test
def key_in_hex():
    """--key-hex: white space and upper case are fine; other characters are not, and are not repeated"""
    image, path, key, _ = secret_volume()
    with open(key, "rb") as f:
        text = f.read().hex()
    for good in (text, text.upper() + "\n", " ".join(text[i:i + 2] for i in range(0, 128, 2)) + "\n\n"):
        out = cli.good("cat", "--key-hex", key_file(good.encode()), image + ":" + path).out
        assert out.startswith(b"Lock and key"), out
    for wrong in (text[:-1], text[:-1] + "g", "zz" + text[2:], text[:30], text + "00"):
        name = key_file(wrong.encode())
        result = cli.bad((cli.USAGE, cli.NO_KEY, cli.FAILED), "cat", "--key-hex", name, image + ":" + path, says=name)
        assert text[8:16].encode() not in result.err + result.out, "part of a key was printed"


@tap.test
def keys_are_not_printed():
    """No command prints a key"""
    image, _, key, _ = secret_volume()
    with open(key, "rb") as f:
        raw = f.read()
    shown = b""
    for verb in (("info",), ("info", "--json"), ("ls", "-lR"), ("stat", "--json")):
        result = cli.good(*verb, image + ":/alice" if verb[0] == "stat" else image, keys=[key])
        shown += result.out
    assert raw not in shown and raw.hex()[:24].encode() not in shown.lower() and len(shown) > 500


@tap.test
def keyid():
    """keyid prints the identifier (v2) or descriptor (v1); 15 and 65 bytes are refused"""
    for length in (16, 32, 64):
        raw = trees.pattern(length, length)
        tap.equal(cli.good("keyid", stdin=raw).out, r.identifier(raw).hex().encode() + b"\n")
        tap.equal(cli.good("keyid", "--v1", stdin=raw).out, r.descriptor(raw).hex().encode() + b"\n")
        tap.equal(cli.good("keyid", "--key-hex", stdin=raw.hex().encode()).out, r.identifier(raw).hex().encode() + b"\n")
    for length in (0, 15, 65):
        cli.bad((cli.USAGE, cli.NO_KEY, cli.FAILED), "keyid", stdin=b"x" * length, says=("16", "64"))


# ---- policies that cannot be served ----------------------------------------------------------------------------------


def repoliced(**changes):
    """A copy of a volume without checksums whose v2 directory and all in it has another policy, byte by byte."""
    path = tap.copy(cli.golden("essiv"))
    volume = ext4.Volume(path)
    top = volume.find(b"/v2")
    offsets = {"version": 0, "contents": 1, "names": 2, "flags": 3, "log2_unit": 4, "reserved": 5}
    for inode in [top] + [i for _, i in volume.walk(top.number)]:
        at = inode.context_at()[1]
        for field, value in changes.items():
            cli.patch(path, at + offsets[field], bytes([value]))
    return path


def refused(image, says, codes=(cli.FAILED, cli.NO_KEY, cli.NOT_READABLE), names_only=False):
    """Listing works, by no-key names; reading fails with the reason. names_only: contents could be read."""
    locked = cli.manifest("essiv")["locked"]
    names = sorted(os.path.basename(p) for p in locked if os.path.dirname(p) == b"v2")
    key = [cli.golden_key("essiv-v2")]
    tap.equal(cli.good("ls", image + ":/v2", keys=key).out, b"".join(n + b"\n" for n in names))
    dest = tap.fresh()
    if not names_only:
        file = locked_file("essiv", b"v2/", 5000)
        cli.bad(codes, "cat", f"{image}:/{file}", keys=key, says=says)
        cli.bad(codes, "get", f"{image}:/{file}", dest, keys=key, says=says)
    cli.bad(codes, "cat", f"{image}:/v2/size-5000.txt", keys=key, says=says)
    cli.bad(codes, "get", f"{image}:/v2", dest, keys=key, says=says)
    missing(dest)
    info = cli.run("info", image, keys=key)
    tap.equal(info.code, 0, repr(info))
    return info


@tap.test
def missing_ciphers():
    """Ciphers that are not there are named: Adiantum, HCTR2, SM4; listing works"""
    for contents, names, says in ((9, 9, "Adiantum"), (1, 10, "HCTR2"), (7, 8, "SM4")):
        info = refused(repoliced(contents=contents, names=names), says, names_only=contents == 1)
        tap.contains(info.out.lower(), says.lower().encode())


@tap.test
def unknown_modes():
    """Unknown modes and pairs that Linux refuses: listing works, reading names the number"""
    refused(repoliced(contents=77, names=4), "77")
    refused(repoliced(contents=1, names=78), "78")
    refused(repoliced(contents=4, names=4), ())
    refused(repoliced(contents=1, names=6), ())


@tap.test
def unknown_flags():
    """Unknown and contradictory policy flags: listing works, reading is refused"""
    refused(repoliced(flags=0x80), ())
    refused(repoliced(contents=1, names=4, flags=0x18), ())
    refused(repoliced(flags=0x04), ())
    refused(repoliced(log2_unit=8), ())
    refused(repoliced(log2_unit=11), ())


@tap.test
def unknown_version():
    """An unknown context version, and a reserved byte: said, no crash, exit not 0"""
    for changes in ({"version": 3}, {"version": 0}, {"version": 1}, {"reserved": 1}):
        image = repoliced(**changes)
        dest = tap.fresh()
        result = cli.run("get", image + ":/v2", dest, keys=[cli.golden_key("essiv-v2")])
        assert result.code in (cli.FAILED, cli.NO_KEY, cli.NOT_READABLE), result
        tap.equal(len(result.err.splitlines()), 1, repr(result))
        assert cli.run("info", image).code == 0
        result = cli.run("get", "--keep-going", image, tap.fresh(), keys=[cli.golden_key("essiv-v1")])
        tap.equal(result.code, cli.PARTLY, repr(result))


@tap.test
def key_too_short_for_mode():
    """A 16-byte key for AES-256: exit 3, as if it were missing, and said"""
    path = tap.copy(cli.golden("essiv"))
    volume = ext4.Volume(path)
    top = volume.find(b"/v1")
    for inode in [top] + [i for _, i in volume.walk(top.number)]:
        cli.patch(path, inode.context_at()[1] + 1, bytes([1, 4]))
    file = locked_file("essiv", b"v1/", 5000)
    cli.bad(cli.NO_KEY, "cat", f"{path}:/{file}", keys=[cli.golden_key("essiv-v1")])


# ---- paths -----------------------------------------------------------------------------------------------------------


@tap.test
def path_not_found():
    """A path that does not exist: exit 1, named; nothing is made"""
    image = plain()
    dest = tap.fresh()
    for verb in (("ls",), ("tree",), ("stat",), ("cat",)):
        cli.bad(cli.FAILED, *verb, image + ":/dir/nope", says=("/dir/nope", "no such file"))
        cli.bad(cli.FAILED, *verb, image + ":/dir/nope/more", says=("nope", "no such file"))
    cli.bad(cli.FAILED, "get", image + ":/dir/nope", dest, says=("/dir/nope", "no such file"))
    missing(dest)


@tap.test
def directory_for_file():
    """cat of a directory: exit 1, "is a directory\""""
    for path in ("/", "/dir", "/to-dir", ""):
        cli.bad(cli.FAILED, "cat", plain() + ":" + path, says="is a directory")


@tap.test
def file_for_directory():
    """A path that goes on behind a file: exit 1, "not a directory\""""
    for path in ("/file.txt/x", "/link/x", "/file.txt/"):
        cli.bad(cli.FAILED, "cat", plain() + ":" + path, says="not a directory")


@tap.test
def symlink_loops():
    """Symbolic links in a circle, and into nothing: exit 1, no hang; an export keeps them as they are"""
    image = plain()
    cli.bad(cli.FAILED, "cat", image + ":/loop-a", says="loop-a", timeout=10)
    cli.bad(cli.FAILED, "ls", image + ":/loop-a/x", says="loop-a", timeout=10)
    cli.bad(cli.FAILED, "cat", image + ":/dangling", says="dangling")
    dest = tap.fresh()
    cli.good("get", image, dest)
    tap.equal(os.readlink(os.path.join(dest, "loop-a")), "loop-b")


@tap.test
def links_are_followed_inside():
    """Links inside a path are followed within the volume; names may be long, not too long"""
    image = plain()
    tap.equal(cli.good("cat", image + ":/to-dir/sub/deep").out, b"deep\n")
    tap.equal(cli.good("cat", image + ":/dir/../link").out, b"content\n" * 100)
    cli.bad(cli.FAILED, "cat", image + ":/" + "n" * 256, says="name too long")
    cli.bad(cli.FAILED, "cat", image + ":/" + "n" * 255, says="no such file")


@tap.test
def several_paths():
    """cat of several paths; one that is missing does not pass for success"""
    image = plain()
    tap.equal(cli.good("cat", image + ":/dir/sub/deep", image + ":/link").out, b"deep\n" + b"content\n" * 100)
    result = cli.run("cat", image + ":/dir/sub/deep", image + ":/nope")
    tap.equal(result.code, cli.FAILED, repr(result))


# ---- destinations ----------------------------------------------------------------------------------------------------


def tmpfs(*options):
    tap.requires("root")
    directory = tap.fresh_dir("tmpfs")
    return tap.mount("-t", "tmpfs", "-o", ",".join(options), "none", directory)


@tap.test
def destination_full():
    """A destination that is full: exit 1, one line, no unfinished file"""
    small = tmpfs("size=128k")
    cli.bad(cli.FAILED, "get", plain(), os.path.join(small, "out"), says="no space left")
    left = {n: os.path.getsize(os.path.join(b, n)) for b, _, names in os.walk(small) for n in names
            if not os.path.islink(os.path.join(b, n))}
    left.pop("file.txt", None)
    left.pop("deep", None)
    tap.equal(left, {}, "files that stayed")
    cli.bad(cli.FAILED, "get", "--keep-going", plain(), os.path.join(small, "again"), says="no space left")
    tap.umount(small)


@tap.test
def destination_full_replacing():
    """A destination too small for the new version of a file: the old version survives"""
    small = tmpfs("size=128k")
    path = os.path.join(small, "big")
    trees.write(path, b"the old version")
    cli.bad(cli.FAILED, "get", plain() + ":/big", path, says="no space left")
    with open(path, "rb") as f:
        tap.equal(f.read(), b"the old version")
    tap.equal(os.listdir(small), ["big"])
    tap.umount(small)


@tap.test
def destination_read_only():
    """A destination that is read-only: exit 1, one line"""
    directory = tmpfs("ro")
    cli.bad(cli.FAILED, "get", plain(), os.path.join(directory, "out"), says="read-only")
    cli.bad(cli.FAILED, "get", plain() + ":/file.txt", directory, says="read-only")
    tap.umount(directory)


@tap.test
def destination_without_permission():
    """A destination where the user may not write: exit 1, permission denied"""
    who = cli.as_nobody()
    image = tap.copy(plain())
    where = os.path.join(tap.work(), "not-yours")
    cli.bad(cli.FAILED, "get", image, where, says=("permission denied", "not-yours"), **who)


@tap.test
def destination_parent_missing():
    """A destination whose parent does not exist: exit 1, named"""
    dest = os.path.join(tap.fresh("no-parent"), "x", "y")
    cli.bad(cli.FAILED, "get", plain(), dest, says="no such file")
    missing(os.path.dirname(dest))


@tap.test
def directory_onto_file():
    """A tree onto a file: exit 1, the file stays as it was"""
    path = scratch(b"mine")
    for source in ("", ":/dir"):
        cli.bad(cli.FAILED, "get", plain() + source, path, says=path)
        with open(path, "rb") as f:
            tap.equal(f.read(), b"mine")


@tap.test
def file_onto_directory():
    """A file where the destination has a directory of that name: exit 1, the directory stays"""
    dest = tap.fresh_dir("dest")
    os.makedirs(os.path.join(dest, "file.txt", "inside"))
    cli.bad(cli.FAILED, "get", plain() + ":/file.txt", dest, says="directory")
    assert os.path.isdir(os.path.join(dest, "file.txt", "inside"))


@tap.test
def destination_rules():
    """Where an export goes: into an existing directory, to a new name, "/." and the root into DEST itself"""
    image = plain()

    def get(path, *names):
        dest = tap.fresh_dir("dest")
        cli.good("get", image + path, os.path.join(dest, *names))
        return sorted(os.path.relpath(os.path.join(b, n), dest) for b, d, f in os.walk(dest) for n in d + f)

    tap.equal(get(":/file.txt"), ["file.txt"])
    tap.equal(get(":/file.txt", "new-name"), ["new-name"])
    tap.equal(get(":/dir"), ["dir", "dir/sub", "dir/sub/deep"])
    tap.equal(get(":/dir", "new"), ["new", "new/sub", "new/sub/deep"])
    tap.equal(get(":/dir/."), ["sub", "sub/deep"])
    tap.equal(get(":/dir/.", "new"), ["new", "new/sub", "new/sub/deep"])
    tap.equal("dir/sub/deep" in get(""), True)
    tap.equal("dir/sub/deep" in get(":/"), True)
    tap.equal("new/dir/sub/deep" in get("", "new"), True)
    tap.equal(get(":/link"), ["link"])


@tap.test
def replaces_and_skips():
    """A file that differs is replaced, one that is equal is left alone, one that is not in the volume stays"""
    image, dest = plain(), tap.fresh("dest")
    cli.good("get", image, dest)
    path = os.path.join(dest, "file.txt")
    before = os.stat(os.path.join(dest, "big")).st_ino
    trees.write(path, b"changed")
    trees.write(os.path.join(dest, "own"), b"own")
    os.unlink(os.path.join(dest, "link"))
    os.symlink("elsewhere", os.path.join(dest, "link"))
    cli.good("get", image, dest)
    with open(path, "rb") as f:
        tap.equal(f.read(), b"content\n" * 100)
    tap.equal(os.readlink(os.path.join(dest, "link")), "file.txt")
    tap.equal(os.stat(os.path.join(dest, "big")).st_ino, before, "inode of a file that was equal already")
    assert os.path.exists(os.path.join(dest, "own"))


@tap.test
def full_standard_output():
    """Standard output that cannot be written: exit 1, said"""
    for verb, path in (("cat", ":/big"), ("ls", ""), ("info", ""), ("tree", "")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(cli.arguments([verb, plain() + path]), stdout=full, stderr=subprocess.PIPE, check=False)
        tap.equal(done.returncode, cli.FAILED, verb)
        tap.contains(done.stderr.lower(), b"no space left")


@tap.test
def broken_pipe():
    """A reader that goes away: quiet, no success"""
    argv = cli.arguments(["cat", plain() + ":/big", plain() + ":/big"])
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tap.equal(process.stdout.read(10), trees.pattern("big", 300000)[:10])
    process.stdout.close()
    err = process.stderr.read()
    code = process.wait(timeout=20)
    assert code in (-13, 141), code
    tap.equal(err, b"")


# ---- usage and SPECs -------------------------------------------------------------------------------------------------


@tap.test
def usage():
    """Wrong usage: exit 2, one line or the usage, and the culprit"""
    image = plain()
    for args, says in (((), ()), (("frobnicate",), "frobnicate"), (("ls", "--frob", image), "frob"), (("ls", "-Z", image), "Z"),
                       (("ls",), ()), (("cat",), ()), (("stat",), ()), (("tree",), ()), (("info",), ()), (("get",), ()),
                       (("get", image), ()), (("get", image, "a", "b"), ()), (("info", image, image), ()),
                       (("cat", "--key"), "key"), (("info", "--v1", image), "v1"), (("help", "frobnicate"), "frobnicate")):
        result = cli.run(*args) if args else cli.judge(cli.Result([cli.command()], *bare()))
        tap.equal(result.code, cli.USAGE, repr(result))
        assert result.err.startswith((b"inlay: ", b"usage: ", b"Usage: ")) and not result.out, result
        tap.contains(result.err, os.fsencode(says or ""))


def bare():
    done = subprocess.run([cli.command()], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout, done.stderr


@tap.test
def help_texts():
    """--help, help COMMAND and --version: exit 0, on standard output"""
    for verb in ("info", "ls", "tree", "stat", "cat", "get", "keyid", "device", "bench"):
        result = cli.good(verb, "--help")
        tap.contains(result.out, verb.encode())
        tap.equal(cli.good("help", verb).out, result.out)
    tap.contains(cli.good("help").out, b"get", b"keyid", b"130")
    tap.equal(cli.good("--help").out, cli.good("help").out)
    tap.contains(cli.good("--version").out, b"inlay", b".")


@tap.test
def spec_errors():
    """Device SPECs that do not parse: said, with the column; nothing opened"""
    image = plain()
    for spec, says in ((f"slice({image}", "column"), (f"slice({image}, offset=banana)", "column"),
                       (f"slice(prt({image}), offset=1)", ()),
                       (f"engine({image}, nope=1)", "nope"), (f"engine({image}, slots=99999999999999999999)", "column"),
                       ("ram()", ()), ("ram(12Q)", "column"), (f"slice({image}, offset=1T)", ()), (f"part({image}, 9)", ()),
                       (f"engine({image}, slots=1) trailing", ()), ("engine(" * 40 + image + ")" * 40, ()), ('engine("unclosed)', ()),
                       ("engine()", ()), ("file(/nonexistent/x)", "/nonexistent/x"), (f"engine({image}, modes=rot13)", "rot13")):
        cli.bad((cli.FAILED, cli.USAGE, cli.NOT_READABLE), "device", spec, says=says)
        cli.bad((cli.FAILED, cli.USAGE, cli.NOT_READABLE), "ls", spec + ":/", says=says)


@tap.test
def spec_stacks():
    """Stacks: a slice, an MBR partition, an engine above them, and a path whose name looks like a SPEC"""
    image = plain("-O", "^has_journal", size=4 * MIB)
    with open(image, "rb") as f:
        raw = f.read()
    disk = tap.fresh("disk.img")
    table = bytearray(512)
    struct.pack_into("<B3sB3sII", table, 446, 0, b"", 0x83, b"", 2048, len(raw) // 512)
    table[510:] = b"\x55\xaa"
    with open(disk, "wb") as f:
        f.write(table)
        f.seek(MIB)
        f.write(raw)
        f.truncate(MIB + len(raw) + 4096)
    for spec in (f"slice({disk}, offset=1M)", f"slice({disk}, offset=1M, length={len(raw)})", f"part({disk}, 1)",
                 f"engine(part({disk}, 1), slots=1)", f'engine("{image}", slots=0)', f"part(engine({disk}), 1)", f"file({image})"):
        tap.equal(cli.good("cat", spec + ":/dir/sub/deep").out, b"deep\n", spec)
        cli.good("device", spec)
    cli.bad((cli.FAILED, cli.NOT_READABLE), "ls", f"part({disk}, 2):/", says="1")
    odd = tap.fresh("part(odd: name).img")
    shutil.copyfile(image, odd)
    tap.equal(cli.good("cat", odd + ":/dir/sub/deep").out, b"deep\n")
    tap.equal(cli.good("cat", os.path.join(".", os.path.basename(odd)) + ":/dir/sub/deep", cwd=os.path.dirname(odd)).out, b"deep\n")
    with_colon = tap.fresh("a:/b".replace("/", "_"))
    shutil.copyfile(image, with_colon)
    tap.contains(cli.good("ls", with_colon).out, b"file.txt")
    listing = cli.good("device").out
    tap.contains(listing, b"file", b"ram", b"slice", b"part", b"engine")


tap.main()
