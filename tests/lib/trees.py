"""Trees for tests: made deterministically from a seed, looked at, compared.

Not here: mounting, keys, policies (koracle.py).
Read more: HACKING.md, "Tests".
"""
import ctypes
import errno
import hashlib
import os
import random
import shutil
import stat
import subprocess

FALLOC_KEEP_SIZE = 1
_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd, mode, offset, length):
    """As fallocate(2); nothing happens where the file has no extents to mark unwritten."""
    if _libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        code = ctypes.get_errno()
        if code != errno.EOPNOTSUPP:
            raise OSError(code, os.strerror(code))


def pattern(seed, length):
    """Bytes that do not repeat and do not compress."""
    return random.Random(seed).randbytes(length)


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


class Maker:
    """Fills one directory; everything follows from the seed and the block size."""

    def __init__(self, root, seed, block_size):
        self.root = os.fsencode(root)
        self.rng = random.Random(seed)
        self.block = block_size

    def path(self, *parts):
        return os.path.join(self.root, *(p if isinstance(p, bytes) else p.encode() for p in parts))

    def dir(self, *parts):
        path = self.path(*parts)
        os.makedirs(path, exist_ok=True)
        return path

    def sizes(self):
        """Files at every edge of a block, a data unit and the inode."""
        top, b = self.dir("sizes"), self.block
        for size in sorted({0, 1, 15, 16, 17, 59, 60, 61, 511, 512, 513, 1023, 1024, 1025, b - 1, b, b + 1, 2 * b - 1, 2 * b,
                            3 * b + 7, 12 * b, 13 * b + 1, 40 * b + 511, (b // 4 + 20) * b}):
            write(os.path.join(top, b"size-%d" % size), self.rng.randbytes(size))

    def sparse(self, far=1 << 26):
        top, b = self.dir("sparse"), self.block

        def make(name, size, *writes):
            with open(os.path.join(top, name), "wb") as f:
                for offset, length in writes:
                    f.seek(offset)
                    f.write(self.rng.randbytes(length))
                f.truncate(size)

        make(b"all-hole", 5 * b + 3)
        make(b"hole-first", 4 * b, (3 * b, b))
        make(b"hole-last", 9 * b + 5, (0, 10))
        make(b"hole-middle", 64 * b + 1, (0, b), (30 * b, 100), (64 * b, 1))
        make(b"far", far + 12345, (0, 1), (far + 12344, 1))
        make(b"written-zeros", 3 * b, (0, 3))
        with open(os.path.join(top, b"zeros"), "wb") as f:
            f.write(bytes(3 * b + 1))
        with open(os.path.join(top, b"punched"), "wb") as f:
            f.write(self.rng.randbytes(20 * b))
            f.flush()
            fallocate(f.fileno(), 3, 4 * b + 1, 8 * b)

    def preallocated(self):
        top, b = self.dir("preallocated"), self.block
        for name, mode, length, data in ((b"unwritten", 0, 6 * b + 9, 0), (b"written-start", 0, 10 * b, b + 1),
                                         (b"past-end", FALLOC_KEEP_SIZE, 12 * b, 2 * b + 5),
                                         (b"empty-past-end", FALLOC_KEEP_SIZE, 4 * b, 0)):
            with open(os.path.join(top, name), "wb") as f:
                fallocate(f.fileno(), mode, 0, length)
                f.write(self.rng.randbytes(data))
        with open(os.path.join(top, b"written-middle"), "wb") as f:
            f.truncate(30 * b)
            fallocate(f.fileno(), 0, 0, 30 * b)
            for at in (5, 6, 17):
                f.seek(at * b + 1)
                f.write(self.rng.randbytes(b - 2))

    def fragmented(self, pieces):
        """Files written turn by turn with holes between, some pieces on the medium before the next: many extents."""
        top = self.dir("fragmented")
        files = [os.open(os.path.join(top, b"part-%d" % i), os.O_WRONLY | os.O_CREAT, 0o644) for i in range(3)]
        for i in range(pieces):
            for fd in files:
                os.pwrite(fd, self.rng.randbytes(self.block), (2 * i) * self.block)
                if i % 8 == 0:
                    os.fdatasync(fd)
        for fd in files:
            os.close(fd)

    def names(self):
        """Names of 1 to 255 bytes, and awkward ones."""
        top = self.dir("names")
        for length in range(1, 256):
            write(os.path.join(top, (b"%d-" % length + b"n" * 255)[:length]), b"%d" % length)
        odd = self.dir("odd-names")
        for name in (b" ", b" leading", b"trailing ", b"new\nline", b"\n", b"tab\t", b"\x1b[31mred", b"-", b"-rf", b"--help", b"...",
                     b"..a", b"quote\"'`$(id)", b"back\\slash", b"percent%s%n", b"colon:/", b"star*?[a]", b"caf\xc3\xa9",
                     b"caf\xe9", b"\xff\xfe\x80", "\u6f22\u5b57".encode(), "\U0001f511".encode(), b"\x01\x02\x7f", b"a=b,c(d)"):
            write(os.path.join(odd, name.replace(b"/", b"_")), name)
        for i in range(40):
            name = bytes(self.rng.choice([c for c in range(1, 256) if c != 47]) for _ in range(self.rng.randrange(3, 200)))
            write(os.path.join(odd, name), name)

    def symlinks(self, longest):
        top = self.dir("symlinks")
        for length in sorted({1, 2, 13, 15, 16, 17, 30, 41, 48, 56, 57, 58, 59, 60, 61, 63, 64, 65, 100, 149, 150, 200, 255, 256,
                              511, 512, 513, 900, 1000, 1020, 1021, 2000, 2045, 4000, 4090, 4091, 4092, 4093}):
            if length <= longest:
                target = (b"%d/" % length + b"t" * length)[:length]
                os.symlink(target, os.path.join(top, b"to-%d" % length))
        for name, target in ((b"abs", b"/etc/passwd"), (b"up", b"../../../../tmp/x"), (b"loop", b"loop"), (b"odd", b"a\nb\xff"),
                             (b"dir", b"../sizes"), (b"dangling", b"no/such/file")):
            os.symlink(target, os.path.join(top, name))

    def nested(self, depth, width):
        def fill(path, level):
            for i in range(3):
                write(os.path.join(path, b"f%d" % i), self.rng.randbytes(self.rng.randrange(2000)))
            if level:
                for i in range(width):
                    child = os.path.join(path, b"d%d" % i)
                    os.mkdir(child)
                    fill(child, level - 1)

        fill(self.dir("nested"), depth)
        deep = self.dir("deep")
        for i in range(30):
            deep = os.path.join(deep, b"level-%d" % i)
            os.mkdir(deep)
        write(os.path.join(deep, b"bottom"), b"bottom")
        os.mkdir(os.path.join(self.dir("empty-dirs"), b"empty"))

    def hard_links(self):
        top, other = self.dir("links"), self.dir("links", "other")
        for i in range(20):
            first = os.path.join(top, b"first-%d" % i)
            write(first, self.rng.randbytes(100 * i))
            for j in range(i % 4):
                os.link(first, os.path.join(other if j % 2 else top, b"again-%d-%d" % (i, j)))
        os.symlink(b"shared", os.path.join(top, b"link"))
        os.link(os.path.join(top, b"link"), os.path.join(other, b"same-link"), follow_symlinks=False)

    def big_dir(self, n):
        top = self.dir("big")
        for i in range(n):
            os.close(os.open(os.path.join(top, b"entry %05d" % i), os.O_WRONLY | os.O_CREAT, 0o644))
        for i in range(0, n, 7):
            os.unlink(os.path.join(top, b"entry %05d" % i))
        for i in range(0, n, 21):
            write(os.path.join(top, b"later %05d" % i), b"%d" % i)

    def rewritten(self):
        top, b = self.dir("rewritten"), self.block
        for i in range(60):
            write(os.path.join(top, b"r%d" % i), self.rng.randbytes(self.rng.randrange(3 * b)))
        for i in range(0, 60, 3):
            os.unlink(os.path.join(top, b"r%d" % i))
        for i in range(0, 60, 6):
            write(os.path.join(top, b"r%d" % i), self.rng.randbytes(self.rng.randrange(4 * b)))
        for i in range(1, 60, 5):
            path = os.path.join(top, b"r%d" % i)
            if os.path.exists(path):
                with open(path, "r+b") as f:
                    f.truncate(self.rng.randrange(b))
                    f.seek(self.rng.randrange(2 * b))
                    f.write(b"overwritten")
        os.rename(os.path.join(top, b"r2"), os.path.join(top, b"r2-renamed"))

    def small(self, n):
        for i in range(n):
            path = self.dir("small", "%d" % (i % 12))
            write(os.path.join(path, b"file-%d.txt" % i), self.rng.randbytes(self.rng.randrange(700)))

    def xattrs(self, big):
        top = self.dir("xattrs")
        for i in range(12):
            path = os.path.join(top, b"x%d" % i)
            if i % 4 == 3:
                os.mkdir(path)
            else:
                write(path, b"x" * i)
            for j in range(1 + i % 3):
                value = self.rng.randbytes(self.rng.choice((0, 1, 20, 60, 200)))
                os.setxattr(path, b"user.attr-%d" % j, value)
        write(os.path.join(top, b"large"), b"")
        os.setxattr(os.path.join(top, b"large"), "user.large", self.rng.randbytes(big))
        if shutil.which("setfacl"):
            write(os.path.join(top, b"acl"), b"acl")
            os.mkdir(os.path.join(top, b"acl-dir"))
            subprocess.run(["setfacl", "-m", "u:1234:rw,g:55:r", os.path.join(top, b"acl")], check=True)
            subprocess.run(["setfacl", "-m", "u:77:rwx,d:u:77:rx", os.path.join(top, b"acl-dir")], check=True)

    def metadata(self):
        """Modes, owners and times, on files, directories and links; last, because it makes things unwritable."""
        top = self.dir("metadata")
        times = (0, 1, 999999999, 10 ** 9 + 1, 1234567890123456789, -1, -10 ** 9 - 5, 2 ** 31 * 10 ** 9 + 7,
                 (2 ** 33) * 10 ** 9 + 123456789)
        for i, ns in enumerate(times):
            path = os.path.join(top, b"time-%d" % i)
            write(path, b"t")
            try:
                os.utime(path, ns=(ns, ns))
            except OSError:
                pass
        for mode in (0, 0o400, 0o644, 0o755, 0o1777, 0o4755, 0o2711, 0o6000, 0o777):
            path = os.path.join(top, b"mode-%o" % mode)
            write(path, b"m")
            if os.geteuid() == 0:
                os.chown(path, 1000 + mode, 70000 + mode)
            os.chmod(path, mode)
            os.mkdir(path + b"-dir")
            os.chmod(path + b"-dir", mode)
        os.symlink(b"x", os.path.join(top, b"link"))
        os.utime(os.path.join(top, b"link"), ns=(5, 1111111111222222222), follow_symlinks=False)
        if os.geteuid() == 0:
            os.chown(os.path.join(top, b"link"), 123, 456, follow_symlinks=False)
            os.mkfifo(os.path.join(top, b"fifo"))
            os.mknod(os.path.join(top, b"char"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
            os.mknod(os.path.join(top, b"block"), 0o600 | stat.S_IFBLK, os.makedev(259, 300000))
        for path in (top, self.path("names"), self.path("nested")):
            if os.path.isdir(path):
                os.utime(path, ns=(1600000000000000001, 1600000000123456789))

    def everything(self, small=300, longest_link=4093, big_xattr=2000):
        self.sizes()
        self.sparse()
        self.preallocated()
        self.fragmented(24)
        self.names()
        self.symlinks(longest_link)
        self.nested(3, 3)
        self.hard_links()
        self.rewritten()
        self.small(small)
        self.xattrs(big_xattr)
        self.metadata()


# ---- looking at a tree -----------------------------------------------------------------------------------------------


SPARSE_SIZE = 1 << 27


def _digest(path):
    """SHA-256; of very long files a hash of what is not zero and where that is, however the holes lie."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        size = os.fstat(f.fileno()).st_size
        if size < SPARSE_SIZE:
            while data := f.read(1 << 20):
                digest.update(data)
            return digest.hexdigest()
        piece, at, end = 1 << 16, 0, 0
        while at < size:
            if at >= end:
                try:
                    at = os.lseek(f.fileno(), at, os.SEEK_DATA) & -piece
                except OSError:
                    break
                end = os.lseek(f.fileno(), max(at, end), os.SEEK_HOLE)
            data = os.pread(f.fileno(), piece, at)
            if data.strip(b"\0"):
                digest.update(b"%d:" % at + data)
            at += piece
    return "sparse:" + digest.hexdigest()


def _xattrs(path):
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
            if not name.startswith(("security.", "trusted."))}


def look_at(path, data=True):
    """What one file is, as a dictionary; data=False leaves contents and xattrs alone (a locked file)."""
    st = os.lstat(path)
    kind = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFCHR: "char",
            stat.S_IFBLK: "block", stat.S_IFSOCK: "socket"}[stat.S_IFMT(st.st_mode)]
    row = {"type": kind, "mode": stat.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid, "mtime": st.st_mtime_ns,
           "ino": st.st_ino, "nlink": st.st_nlink, "blocks": st.st_blocks, "size": st.st_size}
    if kind in ("char", "block"):
        row["rdev"] = st.st_rdev
    if kind == "symlink":
        row["target"] = os.readlink(path)
    if data:
        row["xattrs"] = _xattrs(path)
        if kind == "file":
            row["sha256"] = _digest(path)
    return row


def snapshot(root, data=True):
    """{path below root: row}; the root itself is b"."."""
    root = os.fsencode(root)
    out = {b".": look_at(root, data)}
    stack = [b""]
    while stack:
        base = stack.pop()
        with os.scandir(os.path.join(root, base)) as entries:
            names = [e.name for e in entries]
        for name in names:
            path = os.path.join(base, name)
            row = out[path] = look_at(os.path.join(root, path), data)
            if row["type"] == "dir":
                stack.append(path)
    return out


def link_groups(tree):
    groups = {}
    for path, row in tree.items():
        if row["type"] != "dir" and row["nlink"] > 1:
            groups.setdefault(row["ino"], set()).add(path)
    return sorted(sorted(g) for g in groups.values() if len(g) > 1)


def differences(wanted, got, fields=("type", "mode", "uid", "gid", "mtime", "xattrs", "size", "sha256", "target", "rdev"),
                grain=0):
    """Sentences on how two snapshots differ; none when they are equal.

    grain: bytes; holes may be lost where they are smaller (0: allocation is not compared)."""
    out = [f"missing: {p!r}" for p in wanted.keys() - got.keys()] + [f"too much: {p!r}" for p in got.keys() - wanted.keys()]
    for path in sorted(wanted.keys() & got.keys()):
        a, b = wanted[path], got[path]
        for field in fields:
            if field == "size" and a["type"] == "dir":
                continue
            if a.get(field) != b.get(field):
                out.append(f"{path!r}: {field} is {b.get(field)!r}, should be {a.get(field)!r}")
        if grain and a["type"] == "file" and b["blocks"] > a["blocks"] * max(1, 4096 // grain) + 16:
            out.append(f"{path!r}: takes {b['blocks']} blocks of 512 bytes, {a['blocks']} in the volume: holes were filled")
    if link_groups(wanted) != link_groups(got):
        out.append("hard links differ: %r" % [g for g in link_groups(wanted) if g not in link_groups(got)][:3])
    return out


def check(wanted, got, **how):
    found = differences(wanted, got, **how)
    if found:
        raise AssertionError(f"{len(found)} differences; the first:\n" + "\n".join(found[:12]))
