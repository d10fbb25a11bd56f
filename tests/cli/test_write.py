#!/usr/bin/env python3
"""The commands that write: what they make is what the kernel sees, e2fsck finds nothing wrong, mistakes are refused in a line.

Not here: crashes at every write (tests/unit/test_crash.c); put that is killed (tests/kernel/test_write_resume.py).
Read more: doc/inlay.1, "WRITING", "IMPORT".
"""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20


def mkfs(size="64M", *options):
    path = tap.fresh("new.img")
    cli.good("mkfs", path, "--size", size, *options)
    return path


def plain(size, *options):
    """A volume by mke2fs itself, with other features."""
    path = tap.fresh("plain.img")
    with open(path, "wb") as f:
        f.truncate(size)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *options, path], check=True, stdout=subprocess.DEVNULL)
    return path


def clean(image):
    """e2fsck finds nothing wrong, and the volume was closed."""
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    if done.returncode:
        tap.fail(f"e2fsck: {done.stdout.decode(errors='replace')[-3000:]}")
    with open(image, "rb") as f:
        f.seek(1024 + 0x60)
        tap.equal(int.from_bytes(f.read(4), "little") & 4, 0, "needs_recovery")


def seen_by_kernel(image):
    """What a read-only loop mount shows, and e2fsck before it."""
    clean(image)
    mounted = tap.mount("-o", "loop,ro", image, tap.fresh_dir("mnt"))
    try:
        return trees.snapshot(mounted)
    finally:
        tap.umount(mounted)


def without(tree, *names):
    return {p: row for p, row in tree.items() if not any(p == n or p.startswith(n + b"/") for n in (b"lost+found", *names))}


def compare(wanted, got, **how):
    trees.check(without(wanted), without(got), **how)


# ---- mkfs ------------------------------------------------------------------------------------------------------------


@tap.test
def mkfs_makes():
    """mkfs: a sparse file with the features for encryption, the label, UUID, block size and size that were asked for"""
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    image = mkfs("1G", "--label", "a label", "--uuid", uuid, "--block-size", "4K")
    tap.equal(os.stat(image).st_size, 1 << 30)
    assert os.stat(image).st_blocks * 512 < 64 * MIB, "not sparse"
    info = cli.good("info", "--json", image).json()
    tap.equal((info["label"], info["uuid"], info["block_size"]), ("a label", uuid, 4096))
    said = cli.good("info", image).out
    tap.contains(said, b"encrypt", b"64bit", b"metadata_csum", b"stable_inodes")
    clean(image)
    for size in ("1K", "2K", "64K"):
        clean(mkfs("64M", "--block-size", size))
    cli.good("mkfs", image, "--force")
    tap.equal(os.stat(image).st_size, 1 << 30, "the size that was there")
    cli.good("mkfs", image, "--force", "--size", "32M")
    tap.equal(os.stat(image).st_size, 32 * MIB)
    clean(image)


@tap.test
def mkfs_refuses():
    """mkfs: one line for what is there already, no size, bad values, no mke2fs, and what mke2fs does not like"""
    image = mkfs("16M")
    before = cli.checksum(image)
    missing = tap.fresh("missing.img")
    cli.bad(cli.FAILED, "mkfs", image, "--size", "32M", says=("is not empty", "--force"))
    tap.equal(cli.checksum(image), before)
    cli.bad(cli.USAGE, "mkfs", missing, says="--size")
    for options, word in (((), "--size"), (("--size", "1"), "--size"), (("--size", "x"), "--size"),
                          (("--size", "1G", "--block-size", "3K"), "--block-size"),
                          (("--size", "1G", "--block-size", "128K"), "--block-size"),
                          (("--size", "1G", "--label", "x" * 17), "--label"), (("--size", "1G", "--uuid", "1-2"), "--uuid")):
        cli.bad(cli.USAGE, "mkfs", missing, *options, says=word)
    cli.bad(cli.FAILED, "mkfs", missing, "--size", "256K", "--block-size", "64K", says="not enough space")
    assert not os.path.exists(missing), "an image was left that is none"
    cli.bad(cli.FAILED, "mkfs", tap.work(), "--size", "16M", says="directory")
    cli.bad(cli.FAILED, "mkfs", os.path.join(missing, "x"), "--size", "16M", says="no such")
    cli.bad(cli.FAILED, "mkfs", "/dev/null", "--size", "16M", says="neither a file nor a block device")


@tap.test
def no_e2fsprogs():
    """mkfs, fsck: without mke2fs and e2fsck the message names the package, and mkfs leaves nothing behind"""
    tap.requires("root", "unshare")
    image, missing = mkfs("16M"), tap.fresh("missing.img")
    empty = tap.fresh_dir("empty")
    script = 'for d in /sbin /usr/sbin /usr/local/sbin /bin /usr/bin; do [ ! -e $d/mke2fs ] || mount --bind "$0" $d; done; exec "$@"'
    for argv in (["mkfs", missing, "--size", "16M"], ["fsck", image]):
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, empty, *cli.arguments(argv)], capture_output=True, check=False)
        tap.equal(done.returncode, cli.FAILED, repr(done.stderr))
        tap.contains(done.stderr, b"e2fsprogs")
        tap.equal(done.stderr.count(b"\n"), 1, repr(done.stderr))
    assert not os.path.exists(missing)


# ---- put -------------------------------------------------------------------------------------------------------------


def round_trip(image, block, **how):
    source = tap.fresh_dir("source")
    trees.Maker(source, "put", block).everything(longest_link=block - 1, big_xattr=block // 2)
    wanted = trees.snapshot(source)
    cli.good("put", source + "/.", image + ":/copy", timeout=300)
    again = cli.good("put", "-v", source + "/.", image + ":/copy", timeout=300)
    tap.equal(again.out, b"", "put a second time")
    compare(wanted, {p[5:] or b".": row for p, row in seen_by_kernel(image).items() if p.startswith(b"copy")}, **how)
    dest = tap.fresh("back")
    cli.good("get", image + ":/copy", dest, timeout=300)
    compare(wanted, trees.snapshot(dest), **how)
    subprocess.run(["rm", "-rf", source, dest], check=True)


@tap.test
def put_everything():
    """put: a tree of everything is what it was, for the kernel, and exported again"""
    tap.requires("loop", "xattrs")
    round_trip(mkfs("512M"), 4096, grain=4096)


@tap.test
def put_other_volumes():
    """put: the same on 1 KiB blocks, without checksums, without a journal"""
    tap.requires("loop", "xattrs")
    round_trip(mkfs("512M", "--block-size", "1K"), 1024)
    round_trip(plain(512 * MIB, "-O", "^metadata_csum,^64bit"), 4096)
    image, source = plain(64 * MIB, "-I", "128"), tap.fresh_dir("seconds")
    trees.write(source + "/file", b"x")
    cli.good("put", source, image + ":/")
    tap.equal(cli.good("put", "-v", source + "/.", image + ":/" + os.path.basename(source)).out, b"", "times in seconds")


@tap.test
def put_where():
    """put: DEST is treated as cp -a treats it: missing, a directory, a link to one, content, several sources"""
    tap.requires("loop")
    image, top = mkfs(), tap.fresh_dir("top")
    m = trees.Maker(top, "where", 4096)
    trees.write(m.path("file"), b"file")
    trees.write(os.path.join(m.dir("tree", "below"), b"inside"), b"inside")
    os.symlink("tree", m.path("link"))
    tree, file = top + "/tree", top + "/file"
    cli.good("put", tree, image + ":/new")
    cli.good("put", tree, image + ":/new")
    cli.good("put", tree + "/", image + ":/slash")
    cli.good("put", tree + "/.", image + ":/content")
    cli.good("put", tree + "/.", image + ":/content")
    cli.good("put", file, image)
    cli.good("put", file, image + ":/renamed")
    cli.good("put", file, image + ":/new/")
    cli.good("put", top + "/link", image + ":/to-link")
    cli.good("mkdir", image + ":/many")
    cli.good("ln", "-s", "many", image + ":/to-many")
    cli.good("put", file, tree, top + "/link", image + ":/to-many")
    got = seen_by_kernel(image)
    for path in (b"new/below/inside", b"new/tree/below/inside", b"slash/below/inside", b"content/below/inside", b"file",
                 b"renamed", b"new/file", b"many/file", b"many/tree/below/inside"):
        tap.equal(got[path]["type"], "file", repr(path))
    tap.equal((got[b"to-link"]["target"], got[b"many/link"]["target"]), (b"tree", b"tree"))
    tap.equal(got[b"content"]["mtime"], os.lstat(tree).st_mtime_ns)
    assert b"content/tree" not in got and b"slash/tree" not in got


@tap.test
def put_refuses():
    """put: what cannot be put is said in a line; what is in the way stays; what is there and older is replaced"""
    image, top = mkfs(), tap.fresh_dir("top")
    file, tree = top + "/file", top + "/tree"
    trees.write(file, b"file")
    os.mkdir(tree)
    trees.write(tree + "/file", b"new")
    cli.good("mkdir", "-p", image + ":/d/file", image + ":/e")
    cli.good("put", file, image + ":/tree")
    cli.bad(cli.FAILED, "put", file, image + ":/d", says=("file", "a directory is in the way"))
    cli.bad(cli.FAILED, "put", tree, image + ":/tree", says="no directory is in the way")
    cli.bad(cli.FAILED, "put", file, image + ":/none/there", says="no such")
    cli.bad(cli.FAILED, "put", file, image + ":/none/", says="not a directory")
    cli.bad(cli.FAILED, "put", file, tree, image + ":/none", says="no such")
    cli.bad(cli.FAILED, "put", file, tree, image + ":/tree", says="not a directory")
    cli.bad(cli.FAILED, "put", top + "/none", image + ":/", says="no such")
    cli.bad(cli.USAGE, "put", file, says="too few")
    cli.bad(cli.FAILED, "put", file, tap.fresh("none.img") + ":/", says="no such")
    cli.good("put", tree + "/.", image + ":/e")
    trees.write(tree + "/file", b"newer")
    os.utime(tree + "/file", ns=(1, 1600000000123456789))
    cli.good("put", tree + "/.", image + ":/e")
    tap.equal(cli.good("cat", image + ":/e/file").out, b"newer")
    tap.equal(cli.stat(image + ":/e/file")["mtime"], {"sec": 1600000000, "nsec": 123456789})
    clean(image)


@tap.test
def put_keeps_going():
    """put --keep-going: what cannot be read, and the image itself, are reported, the rest is put, exit status 5"""
    image, top = mkfs(), tap.fresh_dir("top")
    os.chmod(top, 0o755)
    for name in ("a", "b", "c"):
        trees.write(os.path.join(top, name), name.encode())
    trees.write(os.path.join(top, ".inlay-replacing"), b"")
    inside = os.path.join(top, "inside.img")
    os.rename(image, inside)
    done = cli.run("put", "--keep-going", top + "/.", inside + ":/")
    tap.equal(done.code, cli.PARTLY, repr(done))
    tap.contains(done.err, b"inside.img: is the image that is being written", b".inlay-replacing: the name is reserved")
    for name in ("a", "b", "c"):
        tap.equal(cli.good("cat", f"{inside}:/{name}").out, name.encode())
    clean(inside)
    who = cli.as_nobody()
    os.chmod(os.path.join(top, "b"), 0)
    image = mkfs()
    os.chmod(image, 0o666)
    os.unlink(inside)
    os.unlink(os.path.join(top, ".inlay-replacing"))
    cli.bad(cli.FAILED, "put", top + "/.", image + ":/", says=("/b:", "permission denied"), **who)
    done = cli.run("put", "--keep-going", top + "/.", image + ":/", **who)
    tap.equal(done.code, cli.PARTLY, repr(done))
    tap.contains(done.err, b"b: permission denied")
    tap.equal(cli.good("cat", image + ":/c").out, b"c")
    clean(image)


@tap.test
def put_full():
    """put: a volume that becomes full says so, stays clean, and what does not fit leaves nothing half"""
    image, top = mkfs("16M"), tap.fresh_dir("top")
    for i in range(30):
        trees.write(os.path.join(top, "%02d" % i), trees.pattern(i, MIB))
    cli.bad(cli.FAILED, "put", top + "/.", image + ":/", says=("full", "no block"))
    clean(image)
    listing = {p: row for p, row in cli.listing(image).items() if row["type"] == "file"}
    assert 5 < len(listing) < 16, listing.keys()
    for path, row in listing.items():
        tap.equal(row["size"], MIB, repr(path))
        tap.equal(cli.good("cat", image + ":/" + path.decode()).out, trees.pattern(int(path), MIB))
    cli.good("rm", "-r", *(image + ":/" + p.decode() for p in listing))
    clean(image)
    cli.good("put", top + "/00", image + ":/")
    few = plain(16 * MIB, "-N", "16")
    small = tap.fresh_dir("small")
    for i in range(20):
        trees.write(os.path.join(small, "%d" % i), b"x")
    cli.bad(cli.FAILED, "put", small + "/.", few + ":/", says=("full", "no inode"))
    clean(few)


@tap.test
def put_changes():
    """put: a source that changes while it is read is refused; with --keep-going it is skipped"""
    image, source = mkfs("512M"), tap.fresh("changing")
    with open(source, "wb") as f:
        f.write(b"x" * (192 * MIB))
    for options, code in (((), cli.FAILED), (("--keep-going",), cli.PARTLY)):
        process = subprocess.Popen(cli.arguments(["put", *options, source, image + ":/"]), stderr=subprocess.PIPE)
        while process.poll() is None:
            with open(source, "r+b") as f:
                f.write(b"y")
            time.sleep(0.005)
        said = process.stderr.read()
        tap.equal(process.returncode, code, repr(said))
        tap.contains(said, b"changed while it was read")
    assert b"changing" not in cli.good("ls", image).out
    clean(image)


# ---- the small commands ----------------------------------------------------------------------------------------------


@tap.test
def mkdir():
    """mkdir: -p, -m, the umask, setgid directories, and what is in the way"""
    tap.requires("loop")
    image = mkfs()
    old = os.umask(0o027)
    try:
        cli.good("mkdir", image + ":/a", image + ":b")
        cli.good("mkdir", "-p", image + ":/a/x/y/z", image + ":/a//x/", image + ":/")
        cli.good("mkdir", "-m", "1777", image + ":/sticky")
        cli.good("mkdir", "-m", "u=rwx,g=rs,o=", image + ":/symbolic")
        cli.good("chmod", "2775", image + ":/b")
        cli.good("chown", "7:8", image + ":/b")
        cli.good("mkdir", image + ":/b/inherits")
        cli.good("touch", image + ":/b/file")
    finally:
        os.umask(old)
    cli.bad(cli.FAILED, "mkdir", image + ":/a", says="exists")
    cli.bad(cli.FAILED, "mkdir", image + ":/", says="exists")
    cli.bad(cli.FAILED, "mkdir", image + ":/none/x", says="no such")
    cli.bad(cli.FAILED, "mkdir", image + ":/b/file/x", says="not a directory")
    cli.bad(cli.FAILED, "mkdir", "-p", image + ":/b/file/x", says="not a directory")
    cli.bad(cli.FAILED, "mkdir", image + ":/" + "n" * 256, says="too long")
    cli.bad(cli.USAGE, "mkdir", "-m", "9", image + ":/m", says="--mode")
    got = seen_by_kernel(image)
    tap.equal({p.decode(): oct(got[p]["mode"]) for p in (b"a", b"a/x", b"a/x/y/z", b"sticky", b"symbolic", b"b/inherits")},
              {"a": "0o750", "a/x": "0o750", "a/x/y/z": "0o750", "sticky": "0o1777", "symbolic": "0o2740", "b/inherits": "0o2750"})
    tap.equal((got[b"b/inherits"]["gid"], got[b"b/file"]["gid"], got[b"b/file"]["mode"]), (8, 8, 0o640))


@tap.test
def rm():
    """rm: files, links, trees of any depth; -f; refuses directories without -r, the root, what is not there"""
    image, source = mkfs("256M"), tap.fresh_dir("source")
    m = trees.Maker(source, "rm", 4096)
    m.nested(3, 3)
    m.hard_links()
    m.symlinks(4000)
    m.big_dir(3000)
    deep = m.dir("deep-one")
    for _ in range(300):
        deep = os.path.join(deep, b"d")
        os.mkdir(deep)
    empty = cli.good("info", "--json", image).json()
    cli.good("put", source, image + ":/tree", timeout=120)
    cli.good("ln", "-s", "tree", image + ":/link")
    cli.bad(cli.FAILED, "rm", image + ":/tree", says=("directory", "-r"))
    cli.bad(cli.FAILED, "rm", "-r", image + ":/", says="cannot be removed")
    cli.bad(cli.FAILED, "rm", "-r", image + ":/tree/.", says="cannot be removed")
    cli.bad(cli.FAILED, "rm", image + ":/none", says="no such")
    cli.bad(cli.FAILED, "rm", "-r", image + ":/link/", says="not a directory")
    cli.good("rm", "-f", image + ":/none", image + ":/nothing")
    cli.good("rm", image + ":/link", image + ":/tree/links/first-1")
    clean(image)
    cli.good("rm", "-r", image + ":/tree", timeout=120)
    clean(image)
    left = cli.good("info", "--json", image).json()
    tap.equal([left[k] for k in ("free_blocks", "free_inodes") if k in left], [empty[k] for k in ("free_blocks", "free_inodes") if k in empty])
    tap.equal(cli.good("ls", image).out, b"lost+found\n")


@tap.test
def mv():
    """mv: renames, moves into directories, replaces, exchanges, -n; not into itself, not between images"""
    image, other = mkfs(), mkfs("16M")
    cli.good("mkdir", "-p", image + ":/a/b", image + ":/c")
    for name in ("one", "two", "three"):
        path = tap.fresh_dir(name) + "/" + name
        trees.write(path, name.encode())
        cli.good("put", path, image + ":/")
    cli.good("mv", image + ":/one", image + ":/uno")
    cli.good("mv", image + ":/uno", image + ":/a/b")
    cli.good("mv", image + ":/two", image + ":/three", image + ":/c/")
    cli.good("mv", image + ":/a", image + ":/c/")
    cli.good("mv", image + ":/c/a", image + ":/moved/")
    cli.bad(cli.FAILED, "mv", "-n", image + ":/c/two", image + ":/c/three", says="not replaced")
    cli.good("mv", "--exchange", image + ":/c/two", image + ":/c/three")
    tap.equal(cli.good("cat", image + ":/c/two", image + ":/c/three").out, b"threetwo")
    cli.good("mv", "--exchange", image + ":/c", image + ":/moved")
    tap.equal(cli.good("ls", image + ":/c").out, b"b\n")
    cli.good("mv", image + ":/moved/two", image + ":/moved/three")
    tap.equal(cli.good("cat", image + ":/moved/three").out, b"three")
    cli.bad(cli.FAILED, "mv", image + ":/c", image + ":/c/b", says="into itself")
    cli.bad(cli.FAILED, "mv", image + ":/none", image + ":/x", says="no such")
    cli.bad(cli.FAILED, "mv", image + ":/", image + ":/x", says="cannot be moved")
    cli.bad(cli.FAILED, "mv", image + ":/c", image + ":/moved/three", says="not a directory")
    cli.bad(cli.FAILED, "mv", image + ":/moved/three", image + ":/none/", says="not a directory")
    cli.bad(cli.FAILED, "mv", image + ":/moved/three", image + ":/moved/three", says="same file")
    cli.bad(cli.FAILED, "mv", "--exchange", image + ":/c", image + ":/none", says="no such")
    cli.bad(cli.USAGE, "mv", image + ":/c", other + ":/c", says=("not in the same image", "get and put"))
    cli.bad(cli.USAGE, "mv", "--exchange", "-n", image + ":/c", image + ":/d", says="--exchange")
    cli.good("mv", image + ":/c", os.path.join(os.path.dirname(image), ".", os.path.basename(image)) + ":/same-image")
    tap.equal(cli.good("ls", image + ":/").out, b"lost+found\nmoved\nsame-image\n")
    clean(image)
    clean(other)


@tap.test
def ln():
    """ln: hard and symbolic links, into directories; no links to directories, none over what is there"""
    tap.requires("loop")
    image = mkfs()
    cli.good("touch", image + ":/file")
    cli.good("mkdir", image + ":/d")
    cli.good("ln", image + ":/file", image + ":/again")
    cli.good("ln", image + ":/file", image + ":/d")
    cli.good("ln", "-s", "../some/where", image + ":/d/sym")
    cli.good("ln", "-s", "a" * 2000, image + ":/long")
    cli.good("ln", "-s", "/etc/passwd", image + ":/d")
    cli.good("ln", image + ":/d/sym", image + ":/sym-again")
    cli.bad(cli.FAILED, "ln", image + ":/d", image + ":/x", says="is a directory")
    cli.bad(cli.FAILED, "ln", image + ":/file", image + ":/again", says="exists")
    cli.bad(cli.FAILED, "ln", "-s", "x", image + ":/again", says="exists")
    cli.bad(cli.FAILED, "ln", image + ":/none", image + ":/x", says="no such")
    cli.bad(cli.FAILED, "ln", "-s", "a" * 5000, image + ":/x", says="no room")
    cli.bad(cli.USAGE, "ln", "-s", "", image + ":/x")
    cli.bad(cli.USAGE, "ln", image + ":/file", mkfs("16M") + ":/x", says="not in the same image")
    got = seen_by_kernel(image)
    tap.equal((got[b"file"]["nlink"], got[b"again"]["ino"], got[b"d/file"]["ino"]), (3, got[b"file"]["ino"], got[b"file"]["ino"]))
    tap.equal((got[b"d/sym"]["target"], got[b"long"]["target"], got[b"d/passwd"]["target"], got[b"sym-again"]["ino"]),
              (b"../some/where", b"a" * 2000, b"/etc/passwd", got[b"d/sym"]["ino"]))


@tap.test
def truncate():
    """truncate: makes, shortens, extends; what was cut off does not come back"""
    tap.requires("loop")
    image, source = mkfs(), tap.fresh("data")
    data = trees.pattern("t", 300000)
    trees.write(source, data)
    cli.good("put", source, image + ":/f")
    cli.good("truncate", "-s", "100001", image + ":/f")
    cli.good("truncate", "-s", "+100K", image + ":/f")
    tap.equal(cli.good("cat", image + ":/f").out, data[:100001] + bytes(102400))
    cli.good("truncate", "-s", "-202400", image + ":/f")
    cli.good("truncate", "-s", "1T", image + ":/huge")
    cli.good("truncate", "-c", "-s", "5", image + ":/none")
    cli.good("ln", "-s", "f", image + ":/link")
    cli.good("truncate", "-s", "10", image + ":/link")
    for size, word in (("x", "--size"), ("", "--size"), ("--5", "--size"), ("99999999T", "--size")):
        cli.bad(cli.USAGE, "truncate", "-s", size, image + ":/f", says=word)
    cli.bad(cli.USAGE, "truncate", image + ":/f", says="--size")
    cli.bad(cli.FAILED, "truncate", "-s", "5", image + ":/", says="directory")
    cli.bad(cli.FAILED, "truncate", "-s", "64T", image + ":/f")
    got = seen_by_kernel(image)
    tap.equal((got[b"f"]["size"], got[b"huge"]["size"], got[b"huge"]["blocks"]), (10, 1 << 40, 0))
    assert b"none" not in got


@tap.test
def chmod():
    """chmod: every mode of a list is what chmod(1) makes of it, on files and directories; -R leaves links alone"""
    tap.requires("loop")
    image, host = mkfs(), tap.fresh_dir("host")
    modes = ("0", "644", "4755", "01777", "7777", "u+x", "go-rwx", "a=r", "u=rwx,g=rx,o=", "+x", "-w", "=rw", "u=g", "g=u,o=u-w", "a+X",
             "ug+s", "+t", "u-s,g-s", "o=t", "a=rwX", "u+rw,g-x+r", "00755")
    for i, mode in enumerate(modes):
        os.mkdir(f"{host}/d{i}", 0o751)
        trees.write(f"{host}/f{i}", b"")
        for path, was in ((f"{host}/d{i}", 0o2751), (f"{host}/f{i}", 0o4640)):
            os.chmod(path, was)
    cli.good("put", host + "/.", image + ":/")
    old = os.umask(0o022)
    try:
        for i, mode in enumerate(modes):
            subprocess.run(["chmod", "--", mode, f"{host}/d{i}", f"{host}/f{i}"], check=False, stderr=subprocess.DEVNULL)
            cli.good("chmod", "--", mode, f"{image}:/d{i}", f"{image}:/f{i}")
    finally:
        os.umask(old)
    wanted, got = trees.snapshot(host), seen_by_kernel(image)
    for i, mode in enumerate(modes):
        for name in (b"d%d" % i, b"f%d" % i):
            tap.equal(oct(got[name]["mode"]), oct(wanted[name]["mode"]), f"{mode} of {name!r}")
    cli.good("mkdir", "-p", image + ":/r/x/y")
    cli.good("touch", image + ":/r/x/file", image + ":/outside")
    cli.good("chmod", "600", image + ":/outside")
    cli.good("ln", "-s", "/outside", image + ":/r/link")
    cli.good("chmod", "-R", "u=rwX,go=", image + ":/r")
    got = seen_by_kernel(image)
    tap.equal([oct(got[p]["mode"]) for p in (b"r", b"r/x", b"r/x/y", b"r/x/file", b"r/link", b"outside")],
              ["0o700", "0o700", "0o700", "0o600", "0o777", "0o600"])
    for mode in ("8", "u", "u+q", "", "u+r,", "12345678", "rwx"):
        cli.bad(cli.USAGE, "chmod", mode, image + ":/r")
    cli.bad(cli.FAILED, "chmod", "644", image + ":/none", says="no such")


@tap.test
def chown():
    """chown: numbers only; links themselves; -R; set-ID bits and capabilities go, as on Linux"""
    tap.requires("loop")
    image = mkfs()
    cli.good("mkdir", "-p", image + ":/d/e")
    cli.good("touch", image + ":/d/suid", image + ":/d/e/f")
    cli.good("chmod", "6755", image + ":/d/suid", image + ":/d")
    cli.good("ln", "-s", "d", image + ":/link")
    cli.good("xattr", "set", "security.capability", "0x0100000200200000000000000000000000000000", image + ":/d/suid")
    cli.good("chown", "1000", image + ":/d/suid")
    cli.good("chown", "3000000000:4000000000", image + ":/link")
    cli.good("chown", "-R", ":77", image + ":/d/e")
    cli.good("chown", "5", image + ":/d")
    got = seen_by_kernel(image)
    tap.equal((got[b"d/suid"]["uid"], got[b"d/suid"]["gid"], oct(got[b"d/suid"]["mode"])), (1000, os.getegid(), "0o755"))
    tap.equal((got[b"link"]["uid"], got[b"link"]["gid"]), (3000000000, 4000000000))
    tap.equal((got[b"d/e"]["gid"], got[b"d/e/f"]["gid"], got[b"d"]["gid"], got[b"d"]["uid"]), (77, 77, os.getegid(), 5))
    tap.equal(oct(got[b"d"]["mode"]), "0o6755", "of a directory")
    tap.equal(cli.good("xattr", "list", image + ":/d/suid").out, b"")
    for owner in ("root", "", ":", "1:", "-1", "4294967295", "1:2:3"):
        cli.bad(cli.USAGE, "chown", "--", owner, image + ":/d")


@tap.test
def touch():
    """touch: dates are what date(1) makes of them; -a, -m, -c; new files"""
    tap.requires("loop")
    image = mkfs()
    env = {**os.environ, "TZ": "Europe/Berlin"}
    cli.good("touch", image + ":/f")
    dates = {"@0": 0, "@1234567890.5": 1234567890500000000, "@-1.25": -1250000000, "2026-11-28T05:09:00Z": 1795842540000000000,
             "2026-11-28T05:09:00+01:00": 1795838940000000000, "2026-07-01": 1782856800000000000,
             "2026-11-28 05:09": 1795838940000000000, "2026-11-28 05:09:00.123456789 +0000": 1795842540123456789,
             "2001-02-03T04:05:06,7-0330": 981185706700000000}
    for date, wanted in dates.items():
        cli.good("touch", "-d", date, image + ":/f", env=env)
        st = cli.stat(image + ":/f")
        tap.equal(tuple(st[k]["sec"] * 10 ** 9 + st[k]["nsec"] for k in ("atime", "mtime")), (wanted, wanted), date)
    cli.good("touch", "-a", "-d", "@5", image + ":/f")
    cli.good("touch", "-m", "-d", "@6", image + ":/f")
    st = cli.stat(image + ":/f")
    tap.equal((st["atime"]["sec"], st["mtime"]["sec"]), (5, 6))
    before = time.time()
    cli.good("touch", image + ":/f", image + ":/g")
    for name in ("f", "g"):
        assert before - 1 < cli.stat(f"{image}:/{name}")["mtime"]["sec"] <= time.time() + 1, name
    cli.good("touch", "-c", image + ":/none")
    tap.equal(cli.good("ls", image).out, b"f\ng\nlost+found\n")
    for date in ("", "@", "@x", "yesterday", "2026-13-01", "2026-02-30", "2026-11-28T25:00", "2026-11-28T05:09:00+99", "2026-1-1", "@1.", "@1x"):
        cli.bad(cli.USAGE, "touch", "-d", date, image + ":/f", says="--date")
    cli.bad(cli.FAILED, "touch", image + ":/none/x", says="no such")
    tap.equal(seen_by_kernel(image)[b"g"]["size"], 0)


@tap.test
def xattr():
    """xattr: values in every notation; list, get, set, remove; what get prints can be set"""
    tap.requires("loop", "xattrs")
    image = mkfs()
    cli.good("touch", image + ":/f")
    cli.good("ln", "-s", "f", image + ":/link")
    values = {"plain": (b"plain", b"plain"), "0x00ff10": (b"\x00\xff\x10", b"0x00ff10"), "0sAAECAw==": (b"\0\1\2\3", b"0x00010203"),
              '"a\\"b\\\\c\\012"': (b'a"b\\c\n', b"0x6122625c630a"), "": (b"", b""), '"0x1"': (b"0x1", b"0x307831"),
              "caf\u00e9": ("caf\u00e9".encode(), "caf\u00e9".encode()), "x" * 1500: (b"x" * 1500, b"x" * 1500)}
    for text, (_, printed) in values.items():
        cli.good("xattr", "set", "user.v", text, image + ":/f")
        tap.equal(cli.good("xattr", "get", "user.v", image + ":/f").out, printed + b"\n", text)
        cli.good("xattr", "set", "user.again", printed.decode(), image + ":/link")
        tap.equal(cli.good("xattr", "get", "user.again", image + ":/f").out, printed + b"\n", text)
    cli.good("xattr", "set", "trusted.t", "1", image + ":/f", "-h", image + ":/link")
    cli.good("xattr", "remove", "user.again", image + ":/f")
    tap.equal(sorted(cli.good("xattr", "list", image + ":/f").out.split()), [b"trusted.t", b"user.v"])
    tap.equal(cli.good("xattr", "list", "-h", image + ":/link").out, b"trusted.t\n")
    cli.bad(cli.FAILED, "xattr", "get", "user.none", image + ":/f", says=("user.none", "no attribute"))
    cli.bad(cli.FAILED, "xattr", "remove", "user.none", image + ":/f", says="no attribute")
    cli.bad(cli.FAILED, "xattr", "set", "nonsense", "1", image + ":/f", says="nonsense")
    cli.bad(cli.FAILED, "xattr", "set", "user.x", "0x1", image + ":/f", says="expected a value")
    cli.bad(cli.FAILED, "xattr", "set", "user.x", "0s1", image + ":/f", says="expected a value")
    cli.bad(cli.USAGE, "xattr", "frob", image + ":/f", says="expected list")
    cli.bad(cli.USAGE, "xattr", "set", "user.x", image + ":/f", says="too few")
    tap.equal(seen_by_kernel(image)[b"f"]["xattrs"], {"user.v": b"x" * 1500})


# ---- images ----------------------------------------------------------------------------------------------------------


WRITERS = (("mkdir", "{}:/d"), ("rm", "{}:/f"), ("mv", "{}:/f", "{}:/g"), ("ln", "{}:/f", "{}:/g"), ("truncate", "-s", "1", "{}:/f"),
           ("chmod", "600", "{}:/f"), ("chown", "1", "{}:/f"), ("touch", "{}:/f"), ("xattr", "set", "user.a", "b", "{}:/f"),
           ("put", os.path.abspath(__file__), "{}:/f"))


@tap.test
def not_writable():
    """Every writing command refuses an image that is mounted, in use, read-only, cut off, or no volume, and changes nothing"""
    tap.requires("loop", "root")
    image = mkfs("16M")
    cli.good("touch", image + ":/f")
    cut, none = tap.fresh("cut.img"), tap.fresh("none.img")
    subprocess.run(["cp", "--sparse=always", image, cut], check=True)
    os.truncate(cut, 8 * MIB)
    trees.write(none, bytes(MIB))
    locked = tap.fresh("locked.img")
    subprocess.run(["cp", "--sparse=always", image, locked], check=True)
    os.chmod(locked, 0o444)
    before = {p: cli.checksum(p) for p in (image, cut, none, locked)}
    mounted = tap.mount("-o", "loop", image, tap.fresh_dir("mnt"))
    try:
        for argv in WRITERS:
            cli.bad(cli.FAILED, *(a.format(image) for a in argv), says=(image, "in use"))
        cli.bad(cli.FAILED, "fsck", image, says="in use")
        cli.bad(cli.FAILED, "mkfs", image, "--force", says="in use")
    finally:
        tap.umount(mounted)
    for argv in WRITERS:
        cli.bad((cli.NOT_READABLE, cli.FAILED), *(a.format(cut) for a in argv), says=cut)
        cli.bad(cli.NOT_READABLE, *(a.format(none) for a in argv), says=none)
    who = cli.as_nobody()
    for argv in WRITERS:
        cli.bad(cli.FAILED, *(a.format(locked) for a in argv), says=(locked, "permission denied"), **who)
    for path in (cut, none, locked):
        tap.equal(cli.checksum(path), before[path], path)
    clean(image)


@tap.test
def no_journal():
    """A volume without a journal is written after a warning, and is clean afterwards"""
    image = plain(16 * MIB, "-O", "^has_journal")
    for argv in (WRITERS[-1], *WRITERS[3:-1], *WRITERS[:3][::-1]):
        argv = [a.format(image) for a in argv]
        if argv[0] == "mv":
            argv[2] += "-moved"
        if argv[0] == "rm":
            argv[1] = image + ":/g-moved"
        done = cli.run(*argv)
        tap.equal(done.code, 0, repr(done))
        tap.equal(done.err.count(b"\n"), 1, repr(done))
        tap.contains(done.err, b"warning", b"no journal")
        clean(image)


@tap.test
def fsck():
    """fsck: a clean volume is clean; one with errors, and one that is no volume, end with 4; what it prints is e2fsck's"""
    tap.requires("debugfs")
    image = mkfs("16M")
    cli.good("mkdir", image + ":/d")
    done = cli.run("fsck", image)
    tap.equal(done.code, 0, repr(done))
    tap.contains(done.out, b"Pass 5")
    before = cli.checksum(image)
    tap.equal(cli.run("fsck", "--read-only", image).code, 0)
    tap.equal(cli.checksum(image), before)
    subprocess.run(["debugfs", "-w", "-R", "set_inode_field /d links_count 9", image], check=True, capture_output=True)
    done = cli.run("fsck", image)
    tap.equal(done.code, cli.NOT_READABLE, repr(done))
    tap.contains(done.err, b"e2fsck found errors")
    none = tap.fresh("none.img")
    trees.write(none, bytes(MIB))
    tap.equal(cli.run("fsck", none).code, cli.NOT_READABLE)
    cli.bad(cli.USAGE, "fsck", f"slice({image}, offset=0)", says="stack")
    cli.bad(cli.FAILED, "fsck", tap.fresh("missing"), says="no such")


@tap.test
def fsck_contexts():
    """fsck: encrypted inodes whose context is damaged are counted, which e2fsck does not do"""
    tap.requires("debugfs")
    image = tap.fresh("demo.img")
    subprocess.run(["cp", cli.golden("demo"), image], check=True)
    os.chmod(image, 0o644)
    done = cli.run("fsck", image)
    tap.equal(done.code, 0, repr(done))
    subprocess.run(["debugfs", "-w", "-R", "set_inode_field /README.txt flags 0x80800", image], check=True, capture_output=True)
    done = cli.run("fsck", image)
    tap.equal(done.code, cli.NOT_READABLE, repr(done))
    tap.contains(done.err, b"1 encrypted inode has no encryption context")


@tap.test
def encrypted():
    """Encrypted directories are not written without the key, and what is in them can be removed; with it they are"""
    image = tap.fresh("demo.img")
    subprocess.run(["cp", cli.golden("demo"), image], check=True)
    os.chmod(image, 0o644)
    before = cli.listing(image)
    source = tap.fresh("source")
    trees.write(source, b"x")
    alice, bob = ((cli.golden_key("demo-" + name),) for name in ("alice", "bob"))
    commands = (("mkdir", "{}:/alice/new"), ("put", source, "{}:/alice/file"), ("touch", "{}:/alice/touched"))
    for keys in ((), bob):
        for argv in commands:
            cli.bad(cli.NO_KEY, *(a.format(image) for a in argv), keys=keys, says="is needed")
    tap.equal(cli.listing(image), before)
    for argv in commands:
        cli.good(*(a.format(image) for a in argv), keys=alice)
    tap.equal(cli.good("cat", image + ":/alice/file", keys=alice).out, b"x")
    clean(image)
    cli.good("mv", image + ":/bob", image + ":/rob")
    cli.good("rm", "-r", image + ":/alice")
    cli.good("rm", "-r", image + ":/rob", keys=bob)
    tap.equal(cli.good("ls", image).out, b"README.txt\nlost+found\n")
    clean(image)


@tap.test
def put_large():
    """put: large files, which two threads copy, with holes and without, encrypted too; full, failing and changing ones"""
    source = tap.fresh_dir("source")
    data = os.urandom(MIB)
    with open(os.path.join(source, "large"), "wb") as f:
        for i in range(21):
            f.write(data[i:] + bytes([i]) * i)
        f.write(b"tail")
    with open(os.path.join(source, "holes"), "wb") as f:
        for at in (0, 40):
            for i in range(9):
                f.seek((at + i) * MIB + 5)
                f.write(data[i:])
        f.truncate(60 * MIB + 7)
    image, key = mkfs("160M"), tap.fresh("key")
    trees.write(key, os.urandom(64))
    cli.good("mkdir", image + ":/plain", image + ":/enc")
    cli.good("encrypt", image + ":/enc", keys=[key])
    for name in ("plain", "enc"):
        cli.good("put", source + "/.", f"{image}:/{name}", keys=[key])
        dest = tap.fresh("dest")
        cli.good("get", f"{image}:/{name}", dest, keys=[key])
        trees.check(trees.snapshot(source), trees.snapshot(dest), grain=4096)
    clean(image)
    # In order on the medium, whoever wrote it: a few extents.
    assert cli.good("stat", image + ":/enc/large", keys=[key]).out.count(b"Extent") <= 4
    image = mkfs("32M")
    cli.bad(cli.FAILED, "put", source, image + ":/", says="the volume is full")
    clean(image)
    for rule in ("write@12=EIO", "write@24=ENOSPC"):
        image = mkfs("64M")
        done = cli.run("put", os.path.join(source, "large"), f"fault({image}, {rule}):/")
        assert done.code == cli.FAILED and 1 <= done.err.count(b"\n") <= 2, f"{rule}: {done!r}"
        done = subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False)
        assert done.returncode in (0, 1), f"{rule}: {done.stdout!r}"


@tap.test
def devices_fail():
    """An error of the device ends put with one message or two, the volume is whole, and only fsck makes it writable again"""
    source = tap.fresh_dir("source")
    for i in range(300):
        trees.write(os.path.join(source, "%d" % i), b"x" * 5000)
    for rule in ("flush@2=EIO", "flush@3=EIO", "flush@5=EIO", "write@3=EIO", "write@20=EIO", "write@150=EIO", "read@12=EIO"):
        image = mkfs("64M")
        done = cli.run("put", source, f"fault({image}, {rule}):/")
        assert done.code == cli.FAILED and 1 <= done.err.count(b"\n") <= 2, f"{rule}: {done!r}"
        done = subprocess.run(["e2fsck", "-fy", image], capture_output=True, check=False)
        assert done.returncode in (0, 1), f"{rule}: {done.stdout!r}"
        clean(image)
        cli.good("put", source, image + ":/")
        clean(image)


@tap.test
def deep():
    """put, chown -R and rm -r go 2,000 levels down"""
    image, top = mkfs(), tap.fresh_dir("deep")
    here = os.open(top, os.O_RDONLY)
    for i in range(2000):
        os.mkdir("directory-%d" % i, dir_fd=here)
        below = os.open("directory-%d" % i, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    cli.good("put", top + "/.", image + ":/top")
    cli.good("chown", "-R", "8:9", image + ":/top")
    out = cli.good("ls", "-lR", image + ":/top").out
    tap.contains(out, b"bottom")
    tap.equal(out.count(b"    8     9 "), 2001)
    clean(image)
    cli.good("rm", "-r", image + ":/top")
    tap.equal(cli.good("ls", image).out, b"lost+found\n")
    clean(image)
    subprocess.run(["rm", "-rf", top], check=True)


@tap.test
def twice():
    """Two writers: the second is refused while the first has the image"""
    image, source = mkfs("512M"), tap.fresh("big")
    with open(source, "wb") as f:
        f.write(b"x" * (256 * MIB))
    process = subprocess.Popen(cli.arguments(["put", source, image + ":/"]))
    time.sleep(0.3)
    if process.poll() is None:
        done = cli.run("mkdir", image + ":/d")
        if process.poll() is None:
            tap.equal(done.code, cli.FAILED, repr(done))
            assert b"in use" in done.err or b"locked" in done.err, repr(done)
    tap.equal(process.wait(), 0)
    clean(image)


@tap.test
def by_nobody():
    """Without root a volume is made, filled with owners of all kinds, and checked"""
    who = cli.as_nobody()
    folder = tap.fresh_dir("open")
    os.chmod(folder, 0o777)
    image = folder + "/new.img"
    cli.good("mkfs", image, "--size", "16M", **who)
    cli.good("mkdir", image + ":/d", **who)
    cli.good("chown", "1234:5678", image + ":/d", **who)
    cli.good("put", os.path.join(os.path.dirname(os.path.abspath(__file__))), image + ":/", **who)
    tap.equal(cli.run("fsck", image, **who).code, 0)
    st = cli.stat(image + ":/d")
    tap.equal((st["uid"], st["gid"]), (1234, 5678))
    clean(image)



tap.main()
