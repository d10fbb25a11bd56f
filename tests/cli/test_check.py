#!/usr/bin/env python3
"""What fsck finds out about encryption: nothing on sound volumes, and every kind of damage by its path.

Not here: the journal, e2fsck, exit codes (test_write.py, "fsck").
Read more: doc/inlay.1, "fsck"; Linux Documentation/filesystems/fscrypt.rst.
"""
import hashlib
import os
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import koracle as k  # noqa: E402
import reference as r  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
KEYS = [hashlib.sha512(b"check %d" % i).digest() for i in range(2)]
GOLDEN = {"demo": ("demo-alice", "demo-bob"), "essiv": ("essiv-v1", "essiv-v2"), "lblk32-4k": ("lblk32-4k",),
          "lblk64-1k": ("lblk64-1k",), "v1": ("v1",), "v2-4k": ("v2-4k", "v2-4k-second")}
N_MANY = 130
INODES = {}  # of the sound volume: path -> number
_made = []


def fill(root):
    """Two keys, three policies; hard links, special files, and an encrypted file that was moved to a plain directory."""
    names = [k.add_key(root, key) for key in KEYS]
    for top, name, policy in (("a", names[0], {}), ("b", names[1], {"flags": 0}), ("many", names[0], {"flags": 1})):
        os.mkdir(os.path.join(root, top))
        k.set_policy(os.path.join(root, top), name, **policy)
    for path in ("a/dir", "a/dir/below", "plain"):
        os.mkdir(os.path.join(root, path))
    for path in ("a/file", "a/dir/file", "a/moved", "a/" + "n" * 200, "b/file", "b/second", "plain/file"):
        trees.write(os.path.join(root, path), path.encode())
    os.link(os.path.join(root, "a/file"), os.path.join(root, "a/dir/again"))
    os.rename(os.path.join(root, "a/moved"), os.path.join(root, "plain/moved"))
    os.symlink("somewhere", os.path.join(root, "a/link"))
    os.symlink("x" * 300, os.path.join(root, "b/long-link"))
    os.mkfifo(os.path.join(root, "a/fifo"))
    for i in range(N_MANY):
        trees.write(os.path.join(root, "many", "%03d" % i), b"")


def sound():
    """The volume by the kernel, without checksums so that it can be damaged; made once."""
    tap.requires("root", "loop", "kernel")
    if not _made:
        image = tap.fresh("sound.img")
        k.mkfs(image, 16 * MIB, "-b", "1024", "-O", "^metadata_csum,^has_journal")
        with tap.mounted(image) as root:
            fill(root)
            for where, dirs, files in os.walk(root):
                for path in [where, *(os.path.join(where, f) for f in dirs + files)]:
                    INODES[os.path.relpath(path, root)] = os.lstat(path).st_ino
        _made.append(image)
    return _made[0]


def key_files(count):
    out = []
    for key in KEYS[:count]:
        out.append(tap.fresh("key"))
        trees.write(out[-1], key)
    return out


def of_inlay(done):
    """What fsck says on standard error, without what it says of e2fsck's findings."""
    return [line for line in done.err.decode().splitlines() if line.startswith("inlay: ") and "e2fsck found errors" not in line]


def catches(pid, number):
    """Does a process handle this signal by now?"""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        mask = next(line.split()[1] for line in f if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


class Damaged:
    """A private copy of the sound volume, to be damaged."""

    def __init__(self):
        self.image = tap.copy(sound())

    def inode(self, path):
        return ext4.Volume(self.image).inode(INODES[path])

    def context(self, path):
        return r.parse_context(self.inode(path).context_at()[0])

    def patch_context(self, path, at, data):
        cli.patch(self.image, self.inode(path).context_at()[1] + at, data)

    def context_entry(self, path):
        """Where the entry of the context's attribute lies."""
        inode = self.inode(path)
        return inode.at + inode.raw.index(b"\x01\x09", 128)

    def flag(self, path, on):
        inode = self.inode(path)
        flags = inode.flags | ext4.ENCRYPT_FL if on else inode.flags & ~ext4.ENCRYPT_FL
        cli.patch(self.image, inode.at + 32, struct.pack("<I", flags))

    def shown(self, path):
        """The path without any key."""
        return next("/" + p.decode() for p, row in cli.listing(sound()).items() if row["ino"] == INODES[path])

    def names(self, directory, key):
        """The encryption of a directory's names, and {name: entry}."""
        here = self.inode(directory)
        crypt = r.Inode(self.context(directory), KEYS[key], here.number)
        return crypt, {crypt.name_decrypt(e.name): e for e in here.entries()}

    def finds(self, n_keys, *wanted):
        """fsck reports exactly these: (path, words); a path of None is the volume as a whole."""
        done = cli.run("fsck", "--read-only", self.image, keys=key_files(n_keys))
        tap.equal(done.code, cli.NOT_READABLE, repr(done))
        lines = of_inlay(done)
        left = list(lines)
        for path, words in wanted:
            where = f"inlay: fsck: {self.image}" + (f":{path}: " if path else ": ")
            hits = [line for line in left if line.startswith(where) and words in line]
            assert hits, f"nothing says {words!r} of {path}: {lines}"
            left.remove(hits[0])
        assert not left, f"what else was found: {left}"
        assert b"encryption: " not in done.out, repr(done)


# ---- sound volumes ---------------------------------------------------------------------------------------------------


@tap.test
def sound_volume():
    """A volume by the kernel is sound, with all keys, with some and with none; the line says what could be looked at"""
    image = sound()
    subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)
    before = cli.checksum(image)
    total = f"encryption: {N_MANY + 13} inodes, 3 policies, names of "
    for n_keys, rest in ((2, "5 directories checked\n"), (1, "4 directories checked; of 1 the key is missing\n"),
                         (0, "0 directories checked; of 5 the key is missing\n")):
        done = cli.run("fsck", "--read-only", image, keys=key_files(n_keys))
        tap.equal((done.code, done.err.count(b"inlay: ")), (0, 0), repr(done))
        tap.contains(done.out.decode(), total + rest)
    tap.equal(cli.checksum(image), before)
    done = cli.run("fsck", tap.copy(image), keys=key_files(2))
    tap.equal(done.code, 0, repr(done))


@tap.test
def golden_volumes():
    """Volumes of every kind of policy are sound, also one whose journal was not replayed; of a plain one nothing is said"""
    for name, keys in GOLDEN.items():
        done = cli.run("fsck", "--read-only", cli.golden(name), keys=[cli.golden_key(key) for key in keys])
        tap.equal((done.code, done.err.count(b"inlay: ")), (0, 0), repr(done))
        tap.contains(done.out, b"encryption: ")
        assert b"key is missing" not in done.out, repr(done)
    done = cli.run("fsck", tap.copy(cli.golden("unclean")), keys=[cli.golden_key("unclean")])
    tap.equal(done.code, 0, repr(done))
    tap.contains(done.out, b"replayed", b"encryption: ")
    plain = tap.fresh("plain.img")
    cli.good("mkfs", plain, "--size", "16M")
    done = cli.run("fsck", plain)
    tap.equal(done.code, 0, repr(done))
    assert b"encryption" not in done.out, repr(done)


# ---- contexts, nonces, policies --------------------------------------------------------------------------------------


@tap.test
def contexts():
    """Contexts that are missing, too long, or of an unknown version are counted, and named: of a file, a link, a directory"""
    d = Damaged()
    d.patch_context("a/dir/file", 0, b"\x09")
    cli.patch(d.image, d.context_entry("a/link") + 8, struct.pack("<I", 36))
    cli.patch(d.image, d.context_entry("b") + 16, b"x")
    lost = "encryption context is missing or damaged"
    d.finds(2, (None, "3 encrypted inodes have no encryption context"), ("/a/dir/file", lost), ("/a/link", lost), ("/b", lost))


@tap.test
def refused_policies():
    """A policy that Linux refuses is reported with the reason: modes, flags, reserved bytes"""
    why = "a policy that Linux refuses: "
    other = "has another policy than the directory that it is in"
    for at, byte, reason in ((2, 9, "does not go together"), (1, 77, "unknown mode 77"), (3, 0x80, "unknown policy flags"),
                             (3, k.LBLK_64, "stable_inodes"), (4, 30, "data units"), (6, 1, "reserved")):
        d = Damaged()
        d.patch_context("a/dir/file", at, bytes([byte]))
        d.finds(2, (None, "1 inode has " + why), ("/a/dir/file", why), ("/a/dir/file", other))
        d.patch_context("plain/moved", at, bytes([byte]))
        d.finds(1, (None, "2 inodes have " + why), ("/a/dir/file", why), ("/a/dir/file", other), ("/plain/moved", reason))


@tap.test
def nonces():
    """Two inodes with one nonce and one master key are both named; a hard link is no second inode, another key is other keys"""
    d = Damaged()
    nonce = d.context("a/file").nonce
    d.patch_context("b/second", 24, nonce)
    done = cli.run("fsck", "--read-only", d.image, keys=key_files(2))
    tap.equal(done.code, 0, repr(done))
    same = "has the nonce and the master key of inode %d"
    d.patch_context("b/file", 24, nonce)
    d.finds(2, ("/b/file", same % INODES["b/second"]), ("/b/second", same % INODES["b/file"]))
    # Any of the names of one with several; and a directory, three times the same.
    d = Damaged()
    for path in ("a/dir/below", "plain/moved"):
        d.patch_context(path, 24, nonce)
    done = cli.run("fsck", "--read-only", d.image)
    tap.equal(done.code, cli.NOT_READABLE, repr(done))
    tap.equal(done.err.count(b"has the nonce and the master key of inode"), 3, repr(done))
    tap.contains(done.err, b":/plain/moved: has the nonce")


@tap.test
def parents():
    """In an encrypted directory: what is plain, has another key or other flags is named, and special files are no error"""
    d = Damaged()
    d.flag("a/dir/file", False)
    d.patch_context("b/second", 8, bytes.fromhex("00" * 16))
    d.patch_context("b/file", 3, b"\x03")
    other = "has another policy than the directory that it is in"
    for n_keys, show in ((2, "/{}".format), (0, d.shown)):
        d.finds(n_keys, (show("a/dir/file"), "is not encrypted, but the directory that it is in"), (show("b/second"), other),
                (show("b/file"), other))


@tap.test
def never_encrypted():
    """Special files with the flag of encrypted inodes, lost+found and the root are named when they are encrypted"""
    d = Damaged()
    d.flag("a/fifo", True)
    d.finds(2, ("/a/fifo", "is a special file"))
    for path, shown in (("lost+found", "/lost+found"), (".", "/")):
        d = Damaged()
        d.flag(path, True)
        d.finds(2, (None, "1 encrypted inode has no"), (shown, "is encrypted, which this directory must not be"),
                (shown, "encryption context is missing"))


# ---- names, targets --------------------------------------------------------------------------------------------------


@tap.test
def impossible_names():
    """With the key: a stored name that decrypts to none that can be is reported"""
    d = Damaged()
    crypt, entries = d.names("a/dir", 0)
    for name in (b"sl/ash", b"", b"..", b"\0hidden"):
        cli.patch(d.image, entries[b"file"].offset + 8, crypt.name_encrypt(name))
        damaged = (f"/a/dir/(damaged entry of inode {INODES['a/dir/file']})", "damaged directory entry")
        d.finds(2, damaged)
    # Two of these are not two of the same name.
    cli.patch(d.image, entries[b"again"].offset, struct.pack("<I", INODES["a/dir/file"]))
    cli.patch(d.image, entries[b"again"].offset + 8, crypt.name_encrypt(b"a/b"))
    d.finds(2, damaged, damaged)


@tap.test
def short_names():
    """A stored name of fewer than 16 bytes is reported with the key and without it"""
    d = Damaged()
    _, entries = d.names("a/dir", 0)
    cli.patch(d.image, entries[b"again"].offset + 6, bytes([15]))
    for n_keys, where in ((2, "/a/dir"), (0, d.shown("a/dir"))):
        d.finds(n_keys, (f"{where}/(damaged entry of inode {INODES['a/file']})", "damaged directory entry"))


@tap.test
def equal_names():
    """Two stored names that decrypt to the same name are reported, though they differ on the medium"""
    d = Damaged()
    crypt, entries = d.names("many", 0)
    cli.patch(d.image, entries[b"007"].offset + 8, crypt.name_encrypt(b"100\0hidden"))
    d.finds(1, ("/many/100", "two entries of the directory have this name"))
    done = cli.run("fsck", "--read-only", d.image)
    assert b"two entries" not in done.err, repr(done)


@tap.test
def targets():
    """Symbolic links whose target has an impossible length, or is empty, are reported; the length without the key too"""
    d = Damaged()
    inode = d.inode("a/link")
    crypt = r.Inode(d.context("a/link"), KEYS[0], inode.number)
    cli.patch(d.image, inode.at + 40 + 2, crypt.name_encrypt(b""))
    d.finds(2, ("/a/link", "the symlink target is empty"))
    cli.patch(d.image, inode.at + 40, struct.pack("<H", 500))
    d.finds(2, ("/a/link", "says it stores 500"))
    d.finds(0, (d.shown("a/link"), "says it stores 500"))


# ---- the walk --------------------------------------------------------------------------------------------------------


@tap.test
def damaged_blocks():
    """A damaged directory block and an inode that is not in use are reported, and the walk goes on behind them"""
    d = Damaged()
    _, entries = d.names("a/dir", 0)
    cli.patch(d.image, entries[b"file"].offset + 4, struct.pack("<H", 3))
    (entry,) = [e for e in d.inode("plain").entries() if e.name == b"file"]
    cli.patch(d.image, entry.offset, struct.pack("<I", 1999))
    d.patch_context("b/second", 24, d.context("b/file").nonce)
    same = "has the nonce and the master key"
    found = [("/a/dir", "a bad entry"), ("/plain/file", "inode 1999 is not in use"), ("/b/file", same), ("/b/second", same)]
    d.finds(2, *found)


@tap.test
def interrupted():
    """SIGINT: the check ends, e2fsck is not asked, exit 130, and the volume is as clean as it was"""
    image = tap.copy(sound())
    process = subprocess.Popen(cli.arguments(["fsck", image], ["-"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    # It waits for its key, which comes after the signal.
    while process.poll() is None and not catches(process.pid, signal.SIGINT):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(KEYS[0])
    tap.equal((process.returncode, out), (cli.INTERRUPTED, b""), repr(err))
    tap.contains(err, b"interrupted")
    subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)


@tap.test
def many_findings():
    """Of more than a hundred findings the rest is counted"""
    d = Damaged()
    d.patch_context("many", 3, b"\x02")
    done = cli.run("fsck", "--read-only", d.image)
    tap.equal(done.code, cli.NOT_READABLE, repr(done))
    lines = of_inlay(done)
    tap.equal(len(lines), 101, "lines")
    tap.equal(sum("has another policy" in line for line in lines), 100, repr(done))
    assert lines[-1].endswith(f"{d.image}: and {N_MANY - 100} more"), lines[-1]


if __name__ == "__main__":
    tap.main()
