#!/usr/bin/env python3
"""Programs that everybody has do their work in an encrypted directory of a mount, which is then what the kernel reads.

Not here: random work (test_mount_random.py); how a mount begins and ends (test_mount_life.py).
Read more: doc/inlay.1, "MOUNTING". With --long stress-ng has a minute.
"""
import fcntl
import mmap
import os
import socket
import sqlite3
import stat
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import live  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
LONG = "--long" in sys.argv
NOBODY = cli.NOBODY


def run(*argv, **how):
    """A program that must succeed. Returns its output."""
    how = {"timeout": 90, "capture_output": True, **how}
    done = subprocess.run(argv, check=False, **how)
    if done.returncode:
        tap.fail(f"{argv}: exit {done.returncode}: {done.stdout[-1000:]!r} {done.stderr[-1000:]!r}")
    return done.stdout.decode(errors="replace")


def fill(top):
    """A small tree of all kinds of things; returns its path."""
    maker = trees.Maker(top, 11, 4096)
    maker.sizes()
    maker.sparse(far=1 << 24)
    maker.symlinks(4000)
    maker.nested(2, 3)
    maker.hard_links()
    maker.xattrs(1500)
    maker.metadata()
    return top


# ---- building --------------------------------------------------------------------------------------------------------


def write_project(top, n=12):
    os.mkdir(top)
    for i in range(n):
        trees.write(f"{top}/part{i}.c", b'#include "parts.h"\nint part%d(int x) { return x * %d + 1; }\n' % (i, i + 2))
    trees.write(f"{top}/parts.h", b"".join(b"int part%d(int x);\n" % i for i in range(n)))
    calls = b" + ".join(b"part%d(%d)" % (i, i) for i in range(n))
    trees.write(f"{top}/main.c", b'#include <stdio.h>\n#include "parts.h"\nint main(void) { return printf("%d\\n", '
                + calls + b") < 0; }\n")
    trees.write(f"{top}/Makefile", b"objects := $(patsubst %.c,%.o,$(wildcard *.c))\nCFLAGS := -O1 -g -Wall\n"
                b"main: libparts.a main.o\n\t$(CC) -o $@ main.o -L. -lparts\n"
                b"libparts.a: $(filter-out main.o,$(objects))\n\trm -f $@\n\t$(AR) rcs $@ $^\n"
                b"%.o: %.c parts.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n")


@tap.test
def builds():
    """make -j4 builds a program, which runs there; a second make does nothing, a third only what changed"""
    tap.requires("make", "gcc")
    with live.encrypted() as top:
        project = f"{top}/project"
        write_project(project)
        run("make", "-j4", "-C", project)
        tap.equal(run(f"{project}/main"), f"{sum(i * (i + 2) + 1 for i in range(12))}\n")
        tap.contains(run("make", "-C", project), "up to date")
        run("touch", f"{project}/part3.c")
        tap.equal(run("make", "-s", "-C", project, "--trace").count("Wall"), 1, "compilations")
        run("strip", f"{project}/main")
        run(f"{project}/main")


# ---- git, sqlite, rsync, tar -----------------------------------------------------------------------------------------


@tap.test
def git():
    """git: commits, a clone through hard links and one without, fsck, repack, a clean status"""
    tap.requires("git")
    with live.encrypted() as top:
        home = {**os.environ, "HOME": top, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
                "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}

        def command(where, *argv):
            return run("git", "-C", f"{top}/{where}", *argv, env=home)

        os.mkdir(f"{top}/first")
        command("first", "init", "-q", "-b", "main")
        for i in range(4):
            os.makedirs(f"{top}/first/d{i}/deeper")
            for j in range(15):
                trees.write(f"{top}/first/d{i}/deeper/file {j}", trees.pattern(100 * i + j, 500 * j))
            os.symlink(f"d{i}", f"{top}/first/link{i}")
            command("first", "add", ".")
            command("first", "commit", "-q", "-m", f"commit {i}")
        command(".", "clone", "-q", "first", "second")
        command(".", "clone", "-q", "--no-local", "first", "third")
        command("third", "gc", "-q")
        command("second", "checkout", "-q", "-b", "old", "HEAD~2")
        command("second", "checkout", "-q", "main")
        for name in ("first", "second", "third"):
            tap.equal(command(name, "fsck", "--full", "--strict"), "", f"{name}: fsck says")
            tap.equal(command(name, "status", "--porcelain"), "", f"{name}: status says")
            tap.equal(command(name, "rev-list", "--count", "main"), "4\n")
        seen = [{p: r for p, r in trees.snapshot(f"{top}/{name}").items() if not p.startswith(b".git")}
                for name in ("first", "third")]
        trees.check(*seen, fields=("type", "size", "sha256", "target"))


def sqlite_work(seed):
    """SQL for the shell: rows come, change and go, in many transactions."""
    out = []
    for i in range(25):
        out.append("BEGIN;")
        out += [f"INSERT INTO t(seed, k, v) VALUES({seed}, 'key {i} {j}', randomblob({i * j * 37 % 3000}));"
                for j in range(12)]
        out.append(f"UPDATE t SET v = randomblob(700) WHERE seed = {seed} AND id % 5 = {i % 5};")
        out.append(f"DELETE FROM t WHERE seed = {seed} AND id % 31 = {i};")
        out.append("ROLLBACK;" if i % 6 == 5 else "COMMIT;")
    return "\n".join(out) + "\n"


@tap.test
def sqlite_modes():
    """sqlite: a rollback journal, a WAL shared by two processes, mapped reads; its own check finds nothing"""
    tap.requires("sqlite3")
    with live.encrypted() as top:
        for mode in ("delete", "truncate", "persist", "wal"):
            path = f"{top}/{mode}.db"
            begin = f"PRAGMA busy_timeout=20000;\nPRAGMA journal_mode={mode};\nPRAGMA mmap_size={16 * MIB};\n"
            run("sqlite3", "-bail", path, begin, "CREATE TABLE t(id INTEGER PRIMARY KEY, seed INT, k TEXT, v BLOB);",
                "CREATE INDEX i ON t(k);")
            shells, pipes = [], dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            for seed in (1, 2) if mode == "wal" else (1,):
                shell = subprocess.Popen(["sqlite3", "-bail", path], **pipes)
                shell.stdin.write((begin + sqlite_work(seed)).encode())
                shell.stdin.close()
                shells.append(shell)
            for shell in shells:
                said = shell.stderr.read()
                shell.stdout.read()
                tap.equal((shell.wait(60), said), (0, b""), mode)
            check = "PRAGMA integrity_check; SELECT count(*) > 50 FROM t; VACUUM; PRAGMA integrity_check;"
            tap.equal(run("sqlite3", path, check), "ok\n1\nok\n", mode)
        # Two connections of one WAL that stays: what one commits the other sees through the shared index.
        with sqlite3.connect(f"{top}/wal.db") as one:
            before = one.execute("SELECT count(*) FROM t").fetchone()[0]
            run("sqlite3", f"{top}/wal.db", "INSERT INTO t(k) VALUES('from outside');")
            tap.equal(one.execute("SELECT count(*) FROM t").fetchone()[0], before + 1)
            assert os.path.exists(f"{top}/wal.db-shm")
        one.close()


def whole_seconds(tree):
    return {p: {**r, "mtime": r["mtime"] // 10 ** 9} if r["type"] != "file" else r for p, r in tree.items()}


@tap.test
def rsync():
    """rsync -aHAX into a mount, and out of it: a second run finds nothing to do, and the copies are the same"""
    tap.requires("rsync", "xattrs")
    source, dest = fill(tap.fresh_dir("source")), tap.fresh_dir("dest")
    with live.encrypted() as top:
        for there in (f"{top}/copy", dest):
            run("rsync", "-aHAXS", f"{source}/", f"{there}/")
            for more in ((), ("--checksum",)):
                again = run("rsync", "-aHAXS", "--itemize-changes", *more, f"{source}/", f"{there}/")
                tap.equal(again, "", f"{there}: rsync does again")
            # Of all but files rsync itself sets the time only where the second differs.
            trees.check(whole_seconds(trees.snapshot(source)), whole_seconds(trees.snapshot(there)), grain=4096)
            source = there
        run("rsync", "-a", "--delete", f"{top}/copy/nested/", f"{top}/copy/sizes/")
        tap.equal(sorted(os.listdir(f"{top}/copy/sizes")), sorted(os.listdir(f"{top}/copy/nested")))


@tap.test
def tar():
    """tar with xattrs, ACLs and holes: packed from a mount and unpacked there, it is what it was, and holes stay holes"""
    tap.requires("tar", "xattrs")
    with live.encrypted() as top:
        os.mkdir(f"{top}/one")
        os.mkdir(f"{top}/two")
        fill(f"{top}/one")
        before = trees.snapshot(f"{top}/one")
        options = ("--xattrs", "--xattrs-include=*", "--acls", "--sparse")
        run("tar", "-C", f"{top}/one", *options, "-cf", f"{top}/archive.tar", ".")
        run("tar", "-C", f"{top}/two", *options, "--numeric-owner", "-xpf", f"{top}/archive.tar")
        after = trees.snapshot(f"{top}/two")
        # Times are whole seconds in an archive.
        fields = ("type", "mode", "uid", "gid", "xattrs", "size", "sha256", "target", "rdev")
        trees.check(before, after, fields=fields, grain=4096)
        holes = after[b"sparse/far"]
        assert holes["size"] > 1 << 24 and holes["blocks"] < 100, holes
        tap.equal(after[b"sparse/all-hole"]["blocks"], 0)


# ---- holes of files that are being written ---------------------------------------------------------------------------


@tap.test
def sparse_copies():
    """cp of a sparse file that another process has just written and still has open loses nothing, and fills no holes"""
    with live.encrypted() as top:
        path = f"{top}/file"
        writer = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(writer, 8 * MIB)
        for i in range(6):
            # Never the same place twice, and no fsync: what cp is to see is in the page cache and nowhere else.
            os.pwrite(writer, trees.pattern(i, 5000), (i * MIB) + i * 4096 + 7)
            for option in ("--sparse=always", "--sparse=auto", "--reflink=never"):
                run("cp", option, path, f"{top}/copy")
                tap.equal(cli.checksum(f"{top}/copy"), cli.checksum(path), f"{option}, round {i}")
            os.fsync(writer)
            run("cp", "--sparse=always", path, f"{top}/copy")
            assert os.stat(f"{top}/copy").st_blocks <= (i + 1) * 32, os.stat(f"{top}/copy")
        at = os.lseek(writer, 0, os.SEEK_DATA)
        tap.equal(at, 0)
        tap.equal(os.lseek(writer, 0, os.SEEK_HOLE), 8192)
        tap.equal(os.lseek(writer, 8192, os.SEEK_DATA), MIB + 4096)
        tap.equal(os.lseek(writer, 7 * MIB, os.SEEK_HOLE), 7 * MIB)
        tap.equal(live.errno_of(os.lseek, writer, 7 * MIB, os.SEEK_DATA), "ENXIO")
        # Into a hole that cp has passed, and behind the end.
        os.pwrite(writer, b"end", 9 * MIB)
        tap.equal(os.lseek(writer, 7 * MIB, os.SEEK_DATA), 9 * MIB)
        os.close(writer)


# ---- looking at it ---------------------------------------------------------------------------------------------------


@tap.test
def space():
    """df and statfs say what is free, du and stat what is used, and it comes back when files go"""
    with live.encrypted() as top:
        before = os.statvfs(top)
        words = run("df", "--output=fstype,size,used,avail,target", top).splitlines()[1].split()
        tap.equal((words[0], words[4]), ("fuse.inlay", os.path.dirname(top)))
        unit = before.f_frsize // 1024
        tap.equal((int(words[1]), int(words[3])), (before.f_blocks * unit, before.f_bavail * unit))
        tap.equal(before.f_namemax, 255)
        trees.write(f"{top}/a", bytes(b"x") * (5 * MIB))
        fd = os.open(f"{top}/a", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        tap.equal(run("du", "-s", "--block-size=1", f"{top}/a").split()[0], str(5 * MIB))
        tap.equal((before.f_bfree - os.statvfs(top).f_bfree) * before.f_frsize, 5 * MIB)
        tap.equal(before.f_ffree - os.statvfs(top).f_ffree, 1)
        os.unlink(f"{top}/a")
        # FUSE tells the server that nobody has a file any more when it finds the time.
        def is_back():
            now = os.statvfs(top)
            return (now.f_bfree, now.f_ffree) == (before.f_bfree, before.f_ffree)

        live.wait_for(is_back, 3, "space is lost")


@tap.test
def finding():
    """find, stat, ls and lsattr tell the numbers that ext4 has, and E where it is encrypted"""
    with live.encrypted() as top:
        for i in range(30):
            os.makedirs(f"{top}/d{i % 3}/e{i}")
            trees.write(f"{top}/d{i % 3}/e{i}/file", b"x" * i)
        os.link(f"{top}/d0/e0/file", f"{top}/d1/other")
        inode = os.stat(f"{top}/d0/e0/file").st_ino
        tap.equal(sorted(run("find", top, "-inum", str(inode)).split()), [f"{top}/d0/e0/file", f"{top}/d1/other"])
        tap.equal(len(run("find", top, "-type", "f").split()), 31)
        tap.equal(len(run("find", top, "-type", "d").split()), 34)
        tap.equal(len(run("find", top, "-links", "12").split()), 3, "directories with ten in them")
        tap.equal(len(run("find", top, "-type", "f", "-size", "-16c").split()), 17)
        tap.equal(run("find", top, "-newermt", "1 hour", "-print"), "", "things of the future")
        tap.equal(run("stat", "-c", "%h %F %a", f"{top}/d0"), "12 directory 755\n")
        for where in (top, f"{top}/d0"):
            tap.contains(run("lsattr", "-d", where).split()[0], "E")
        tap.contains(run("lsattr", f"{top}/d0/e0/file").split()[0], "E")
        assert "E" not in run("lsattr", "-d", os.path.dirname(top)).split()[0]
        for name, entry in {e.name: e for e in os.scandir(f"{top}/d0")}.items():
            tap.equal(entry.inode(), os.stat(f"{top}/d0/{name}").st_ino, "d_ino")
        many = f"{top}/many"
        os.mkdir(many)
        for i in range(3000):
            os.close(os.open(f"{many}/name number {i}", os.O_CREAT | os.O_WRONLY, 0o600))
        names = os.listdir(many)
        tap.equal((len(names), len(set(names))), (3000, 3000))
        run("rm", "-r", many)


@tap.test
def special_files():
    """FIFOs, sockets and device nodes: made, used where they can be, shown as they are"""
    with live.encrypted() as top:
        run("mkfifo", "-m", "640", f"{top}/fifo")
        reader = subprocess.Popen(["cat", f"{top}/fifo"], stdout=subprocess.PIPE)
        with open(f"{top}/fifo", "wb") as f:
            f.write(b"through a pipe")
        tap.equal(reader.communicate(timeout=10)[0], b"through a pipe")
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            os.chdir(top)
            try:
                server.bind("socket")
                server.listen()
                client.connect("socket")
            finally:
                os.chdir("/")
        run("mknod", f"{top}/null", "c", "1", "3")
        run("mknod", f"{top}/disk", "b", "259", "300000")
        tap.equal(run("stat", "-c", "%F %t %T", f"{top}/null", f"{top}/disk", f"{top}/fifo", f"{top}/socket"),
                  "character special file 1 3\nblock special file 103 493e0\nfifo 0 0\nsocket 0 0\n")
        # fusermount's nodev, unless asked for.
        tap.equal(live.errno_of(os.open, f"{top}/null", os.O_RDONLY), "EACCES")


# ---- load ------------------------------------------------------------------------------------------------------------


STRESSORS = ("dentry", "dir", "rename", "link", "symlink", "hdd", "seek", "fallocate", "utime", "xattr", "flock", "dirdeep",
             "filename", "chmod", "fstat", "getdent", "open", "readahead", "sync-file", "mknod", "copy-file", "io", "iomix",
             "fpunch", "fiemap", "dirmany", "touch", "aio", "acl", "mmap", "msync", "lease", "lockf", "chown")
SHORT = ("dentry", "dir", "rename", "link", "hdd", "seek", "fallocate", "xattr", "fpunch", "mmap", "dirdeep", "copy-file")


@tap.test
def stress():
    """stress-ng's stressors of file systems, checking what they read"""
    tap.requires("stress-ng")
    known = run("stress-ng", "--stressors").split()
    names = [s for s in STRESSORS if s in known]
    if not LONG:
        names = [s for s in names if s in SHORT]
    with live.encrypted(size="512M", limit=200) as top:
        for i in range(0, len(names), 6):
            chosen = names[i:i + 6]
            seconds = "10" if LONG else "1"
            small = ("--hdd-bytes", "8M", "--seek-size", "4M", "--fallocate-bytes", "8M", "--mmap-bytes", "4M", "--mmap-file",
                     "--readahead-bytes", "4M", "--sync-file-bytes", "4M", "--iomix-bytes", "8M",
                     "--fiemap-bytes", "4M", "--dirdeep-inodes", "2000", "--filename-opts", "posix")
            run("stress-ng", *(a for s in chosen for a in ("--" + s, "1")), *small, "--verify", "--timeout", seconds,
                "--temp-path", top, timeout=150)
        tap.equal(os.listdir(top), [], "what is left")


# ---- locks -----------------------------------------------------------------------------------------------------------


def locked_by_other(path, how):
    """Whether another process gets a lock at once."""
    def attempt():
        with open(path, "r+b") as f:
            how(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "got"
    return live.as_user(os.getuid(), attempt)


@tap.test
def locks():
    """flock(1) and record locks exclude other processes, and end with their holders"""
    with live.encrypted() as top:
        path = f"{top}/lock"
        trees.write(path, b"0")
        for how in (fcntl.flock, fcntl.lockf):
            with open(path, "r+b") as f:
                how(f, fcntl.LOCK_EX)
                assert locked_by_other(path, how) in ("EAGAIN", "EACCES"), how
                how(f, fcntl.LOCK_UN)
                tap.equal(locked_by_other(path, how), "got")
                how(f, fcntl.LOCK_EX)
            tap.equal(locked_by_other(path, how), "got", "after close")
        # A counter under flock(1) loses nothing.
        add = f"n=$(cat {path}); echo $((n + 1)) >{path}"
        script = f"for i in 1 2 3 4 5 6 7 8 9 10; do flock {path} sh -c '{add}'; done"
        shells = [subprocess.Popen(["sh", "-c", script]) for _ in range(3)]
        for shell in shells:
            tap.equal(shell.wait(30), 0)
        with open(path, "rb") as f:
            tap.equal(f.read(), b"30\n")


# ---- who may what ----------------------------------------------------------------------------------------------------


def opened(path, flags=os.O_RDONLY):
    os.close(os.open(path, flags))
    return "ok"


@tap.test
def permissions():
    """With allow_other the kernel enforces modes for other users, and umask, set-ID bits and sticky directories work"""
    with live.encrypted("-o", "allow_other") as top:
        os.chmod(top, 0o755)
        trees.write(f"{top}/secret", b"s")
        os.chmod(f"{top}/secret", 0o600)
        trees.write(f"{top}/public", b"p")
        os.chmod(f"{top}/public", 0o644)
        tap.equal(live.as_user(NOBODY, opened, f"{top}/secret"), "EACCES")
        tap.equal(live.as_user(NOBODY, opened, f"{top}/public"), "ok")
        tap.equal(live.as_user(NOBODY, opened, f"{top}/public", os.O_WRONLY), "EACCES")
        tap.equal(live.as_user(NOBODY, os.chmod, f"{top}/public", 0o777), "EPERM")
        tap.equal(live.as_user(NOBODY, os.unlink, f"{top}/public"), "EACCES")
        tap.equal(live.as_user(NOBODY, os.mkdir, f"{top}/new"), "EACCES")
        os.mkdir(f"{top}/tmp")
        os.chmod(f"{top}/tmp", 0o1777)
        trees.write(f"{top}/tmp/mine", b"m")
        tap.equal(live.as_user(NOBODY, os.mkdir, f"{top}/tmp/theirs"), "None")
        tap.equal((os.stat(f"{top}/tmp/theirs").st_uid, os.stat(f"{top}/tmp/theirs").st_gid), (NOBODY, NOBODY))
        tap.equal(live.as_user(NOBODY, os.unlink, f"{top}/tmp/mine"), "EPERM")
        tap.equal(live.as_user(1000, os.rmdir, f"{top}/tmp/theirs"), "EPERM")
        tap.equal(live.as_user(NOBODY, os.rmdir, f"{top}/tmp/theirs"), "None")
        old = os.umask(0o027)
        try:
            os.mkdir(f"{top}/masked", 0o777)
            os.close(os.open(f"{top}/masked/file", os.O_CREAT | os.O_WRONLY, 0o666))
            os.mkfifo(f"{top}/masked/fifo", 0o666)
        finally:
            os.umask(old)
        modes = [oct(stat.S_IMODE(os.stat(f"{top}/masked{p}").st_mode)) for p in ("", "/file", "/fifo")]
        tap.equal(modes, ["0o750", "0o640", "0o640"])
        os.mkdir(f"{top}/group")
        os.chown(f"{top}/group", 0, 4242)
        os.chmod(f"{top}/group", 0o2777)
        live.as_user(NOBODY, os.mkdir, f"{top}/group/sub")
        made = os.stat(f"{top}/group/sub")
        tap.equal((made.st_gid, oct(made.st_mode & 0o7000)), (4242, "0o2000"))
        trees.write(f"{top}/suid", b"x")
        os.chmod(f"{top}/suid", 0o6777)
        tap.equal(live.as_user(NOBODY, lambda: os.write(os.open(f"{top}/suid", os.O_WRONLY), b"y")), "1")
        tap.equal(oct(os.stat(f"{top}/suid").st_mode & 0o7777), "0o777", "set-ID bits after a write by another")
        os.setxattr(f"{top}/secret", "trusted.t", b"t")
        tap.equal(live.as_user(NOBODY, os.getxattr, f"{top}/public", "trusted.t"), "ENODATA")
        os.removexattr(f"{top}/secret", "trusted.t")


@tap.test
def alone():
    """Without allow_other nobody but who mounted gets in, whatever the modes"""
    with live.encrypted() as top:
        os.chmod(top, 0o777)
        trees.write(f"{top}/public", b"p")
        tap.equal(live.as_user(NOBODY, opened, f"{top}/public"), "EACCES")
        tap.equal(live.as_user(NOBODY, os.listdir, os.path.dirname(top)), "EACCES")


@tap.test
def acls():
    """setfacl and getfacl: entries are enforced, defaults inherited, chmod changes the mask"""
    tap.requires("setfacl", "getfacl")
    with live.encrypted("-o", "allow_other") as top:
        os.chmod(top, 0o755)
        trees.write(f"{top}/file", b"f")
        os.chmod(f"{top}/file", 0o600)
        run("setfacl", "-m", f"u:{NOBODY}:rw,g:77:r", f"{top}/file")
        tap.equal(live.as_user(NOBODY, opened, f"{top}/file", os.O_RDWR), "ok")
        tap.equal(live.as_user(77, opened, f"{top}/file"), "ok")
        tap.equal(live.as_user(77, opened, f"{top}/file", os.O_RDWR), "EACCES")
        tap.equal(live.as_user(1000, opened, f"{top}/file"), "EACCES")
        tap.contains(run("getfacl", "-n", "-p", f"{top}/file"), f"user:{NOBODY}:rw-\n", "group:77:r--\n", "mask::rw-\n")
        tap.equal(oct(os.stat(f"{top}/file").st_mode & 0o777), "0o660")
        os.chmod(f"{top}/file", 0o640)
        tap.contains(run("getfacl", "-n", "-p", f"{top}/file"), "mask::r--\n")
        tap.equal(live.as_user(NOBODY, opened, f"{top}/file", os.O_RDWR), "EACCES")
        os.mkdir(f"{top}/dir")
        run("setfacl", "-d", "-m", f"u:{NOBODY}:rwx,o::-", f"{top}/dir")
        old = os.umask(0o077)
        try:
            os.mkdir(f"{top}/dir/sub")
            trees.write(f"{top}/dir/sub/file", b"f")
        finally:
            os.umask(old)
        tap.contains(run("getfacl", "-n", "-p", f"{top}/dir/sub"), f"default:user:{NOBODY}:rwx\n",
                     f"\nuser:{NOBODY}:rwx\n", "\nother::---\n")
        tap.contains(run("getfacl", "-n", "-p", f"{top}/dir/sub/file"), f"user:{NOBODY}:rwx\t#effective:rw-\n")
        run("setfacl", "-b", f"{top}/file")
        assert NOBODY not in [int(w) for w in run("getfacl", "-n", "-p", f"{top}/file").split(":") if w.isdigit()]


@tap.test
def times():
    """What stat says of a file after its last change is what it says after the next mount, to the nanosecond"""
    with live.encrypted() as top:
        for i in range(20):
            # Several changes within a tick of the kernel's clock, which is all that the kernel says of them.
            for _ in range(3):
                with open(f"{top}/append{i}", "ab") as f:
                    f.write(b"x" * 1000)
            trees.write(f"{top}/again{i}", b"a")
            trees.write(f"{top}/again{i}", b"b")
            with open(f"{top}/punched{i}", "wb") as f:
                f.write(b"x" * 80000)
                f.flush()
                trees.fallocate(f.fileno(), 3, 4096, 8192)
                trees.fallocate(f.fileno(), 0, 0, 100000)
            trees.write(f"{top}/copied{i}", b"")
            with open(f"{top}/append{i}", "rb") as f, open(f"{top}/copied{i}", "wb") as g:
                os.copy_file_range(f.fileno(), g.fileno(), 2000)


@tap.test
def mapped():
    """Shared mappings: two processes see each other's stores, msync makes them durable, and an end after close is kept"""
    with live.encrypted() as top:
        path = f"{top}/map"
        trees.write(path, bytes(64 * 1024))
        script = ("import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nf.close()\n"
                  "m[40000:40005]=b'child'\nm.flush()\nprint(m[100:106].decode())\n")
        with open(path, "r+b") as f:
            shared = mmap.mmap(f.fileno(), 0)
        shared[100:106] = b"parent"
        tap.equal(run(sys.executable, "-c", script, path), "parent\n")
        tap.equal(shared[40000:40005], b"child")
        shared[60000:60004] = b"late"
        shared.close()
        with open(path, "rb") as f:
            data = f.read()
        tap.equal((data[100:106], data[40000:40005], data[60000:60004]), (b"parent", b"child", b"late"))


tap.main()
