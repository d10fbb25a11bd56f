#!/usr/bin/env python3
"""mv to where things are encrypted differently: what arrives is what was there, and at every moment one of the two is whole.

Not here: what can be renamed (test_write.py, "mv"); crashes that lose writes in another order (tests/unit/test_crash.c).
Read more: doc/inlay.1, "mv".
"""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import koracle as k  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
TEMP = b".inlay-moving"
RAW = [trees.pattern(f"key {i}", 64) for i in range(2)]
TIMES = ("atime", "mtime", "crtime")
_keys = []


def keys():
    """The two keys as files."""
    if not _keys:
        for i, raw in enumerate(RAW):
            _keys.append(tap.fresh(f"{i}.key"))
            trees.write(_keys[-1], raw)
    return tuple(_keys)


def volume(size="64M"):
    """/plain, and /one and /two, each encrypted with its key."""
    image = tap.fresh("new.img")
    cli.good("mkfs", image, "--size", size)
    cli.good("mkdir", image + ":/plain", image + ":/one", image + ":/two")
    for key, name in zip(keys(), ("one", "two")):
        done = cli.run("encrypt", f"{image}:/{name}", keys=[key])
        tap.equal(done.code, 0, repr(done))
    return image


def clean(image):
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    if done.returncode:
        tap.fail(f"e2fsck: {done.stdout.decode(errors='replace')[-3000:]}")


def names(image, path):
    return cli.good("ls", "-a", f"{image}:{path}", keys=keys()).out.split()


def copied(*args, **how):
    """A mv that copies: success, and one line per source that says so."""
    how.setdefault("keys", keys())
    done = cli.run("mv", *args, **how)
    lines = done.err.splitlines()
    tap.equal((done.code, done.out), (0, b""), repr(done))
    tap.equal(len(lines), sum(not a.startswith("-") for a in args) - 1, repr(done))
    for line in lines:
        tap.contains(line, b"inlay: mv: ", b"encrypted differently from", b": copied")


def refused(code, image, *args, says=(), known=None):
    """A mv that fails in a line, and changes nothing."""
    before = cli.listing(image, keys=keys())
    cli.bad(code, "mv", *args, says=says, keys=keys() if known is None else known)
    tap.equal(cli.listing(image, keys=keys()), before)
    clean(image)


def seen_by_kernel(image, path):
    """What the kernel shows below a path, with both keys."""
    clean(image)
    with tap.mounted(image) as root:
        for raw in RAW:
            k.add_key(root, raw)
        return trees.snapshot(os.path.join(root, path))


def times(image, path):
    """{path: times} of a directory and all below it"""
    rows = cli.good("ls", "-laR", "--json", f"{image}:{path}", keys=keys()).json()
    paths = [path, *(row["path"] for row in rows)]
    rows = cli.good("stat", "--json", *(f"{image}:{p}" for p in paths), keys=keys()).json()
    return {p[len(path):]: [row[t] for t in TIMES] for p, row in zip(paths, rows)}


# ---- what arrives ----------------------------------------------------------------------------------------------------


def everything():
    source = tap.fresh_dir("source")
    m = trees.Maker(source, "transfer", 4096)
    m.sizes()
    m.sparse()
    m.preallocated()
    m.fragmented(8)
    m.symlinks(4000)
    m.nested(2, 2)
    m.hard_links()
    m.xattrs(1500)
    m.metadata()
    return source


@tap.test
def round_trip():
    """A tree of everything, from plain to one key to the other: the kernel sees what was there, in no more room"""
    tap.requires("loop", "xattrs", "kernel")
    image, source = volume("256M"), everything()
    wanted = trees.snapshot(source)
    cli.good("put", source, image + ":/plain/tree")
    copied(image + ":/plain/tree", image + ":/one/", keys=keys()[:1])
    trees.check(wanted, seen_by_kernel(image, "one/tree"), grain=4096)
    copied(image + ":/one/tree", image + ":/two/wood")
    trees.check(wanted, seen_by_kernel(image, "two/wood"), grain=4096)
    tap.equal((names(image, "/plain"), names(image, "/one"), names(image, "/two")), ([], [], [b"wood"]))
    key = cli.good("keyid", stdin=RAW[1]).out.split()[0].decode()
    for path in ("wood/sizes/size-1", "wood/nested", "wood/links/link"):
        tap.equal(cli.stat(f"{image}:/two/{path}", keys=keys())["encryption"]["key_identifier"], key)


@tap.test
def of_the_kernel():
    """What the kernel has encrypted, policies of version 1 and 2, other modes: moved, and read by it again"""
    tap.requires("loop", "kernel")
    image, content = tap.fresh("kernel.img"), trees.pattern("content", 300000)
    k.mkfs(image, 64 * MIB, "-O", "stable_inodes")
    with tap.mounted(image) as root:
        first, second, old = k.add_key(root, RAW[0]), k.add_key(root, RAW[1]), k.add_key(root, RAW[0], v1=True)
        for name, key, policy in (("v2", first, {}), ("v1", old, {"flags": 0}), ("lblk", second, {"flags": 3 | k.LBLK_64})):
            os.mkdir(os.path.join(root, name))
            k.set_policy(os.path.join(root, name), key, **policy)
        os.makedirs(os.path.join(root, "v2/tree/sub"))
        trees.write(os.path.join(root, "v2/tree/sub/file"), content)
        os.symlink("sub/file", os.path.join(root, "v2/tree/link"))
        wanted = trees.snapshot(os.path.join(root, "v2/tree"))
    for a, b in (("v2", "v1"), ("v1", "lblk"), ("lblk", "v2")):
        copied(f"{image}:/{a}/tree", f"{image}:/{b}/tree")
        clean(image)
        with tap.mounted(image) as root:
            for raw in RAW:
                k.add_key(root, raw)
            k.add_key(root, RAW[0], v1=True)
            trees.check(wanted, trees.snapshot(os.path.join(root, b, "tree")))


@tap.test
def out_of_it():
    """Out of an encrypted directory things are renamed, and stay encrypted; back into it too"""
    image, file = volume(), tap.fresh("file")
    trees.write(file, b"secret")
    cli.good("put", file, image + ":/one/file", keys=keys())
    before = cli.stat(image + ":/one/file", keys=keys())
    for there, back in (("/one/file", "/plain/file"), ("/plain/file", "/one/again")):
        cli.good("mv", image + ":" + there, image + ":" + back, keys=keys())
        after = cli.stat(image + ":" + back, keys=keys())
        tap.equal((after["inode"], after["encryption"]), (before["inode"], before["encryption"]))
    cli.good("mv", image + ":/one/again", image + ":/plain/file", keys=keys())
    copied(image + ":/plain/file", image + ":/two")
    tap.equal(cli.good("cat", image + ":/two/file", keys=keys()).out, b"secret")
    clean(image)


@tap.test
def keeps():
    """Times of all kinds, hard links within; one to the outside becomes a copy, a device is renamed; no journal, small inodes"""
    tap.requires("root")
    image, source = volume(), tap.fresh_dir("source")
    trees.write(source + "/a", b"twins")
    os.link(source + "/a", source + "/b")
    os.mkdir(source + "/dir")
    os.link(source + "/a", source + "/dir/c")
    os.mknod(source + "/device", 0o640 | 0o020000, os.makedev(9, 300))
    for path, ns in (("dir", 5), ("a", 10 ** 18 + 1), ("device", 7), (".", 9)):
        os.utime(os.path.join(source, path), ns=(ns, ns + 1))
    cli.good("put", source, image + ":/plain/tree")
    cli.good("ln", image + ":/plain/tree/a", image + ":/plain/outside")
    before = times(image, "/plain/tree")
    copied(image + ":/plain/tree", image + ":/one/tree")
    tap.equal(times(image, "/one/tree"), before)
    rows = cli.listing(image, keys=keys())
    tap.equal(len({rows[b"one/tree/" + p]["ino"] for p in (b"a", b"b", b"dir/c")}), 1)
    tap.equal((rows[b"one/tree/a"]["nlink"], rows[b"plain/outside"]["nlink"]), (3, 1))
    cli.good("mv", image + ":/one/tree/device", image + ":/two/device", keys=keys())
    copied(image + ":/plain/outside", image + ":/two")
    clean(image)
    for options in (("-O", "encrypt,^has_journal"), ("-O", "encrypt", "-I", "128")):
        image = tap.fresh("odd.img")
        k.mkfs(image, 32 * MIB, *options)
        assert not cli.run("mkdir", image + ":/one").code and not cli.run("encrypt", image + ":/one", keys=keys()[:1]).code
        assert not cli.run("put", source, image + ":/tree").code
        done = cli.run("mv", image + ":/tree", image + ":/one", keys=keys())
        tap.equal(done.code, 0, repr(done))
        tap.contains(done.err, b": copied")
        tap.equal(names(image, "/"), [b"lost+found", b"one"])
        clean(image)


@tap.test
def replaces():
    """What has the name is replaced: a file by a file, an empty directory by a directory; several go into a directory"""
    image, file = volume(), tap.fresh("file")
    trees.write(file, b"new")
    for name in ("first", "second", "third"):
        cli.good("put", file, f"{image}:/plain/{name}")
    cli.good("mkdir", image + ":/plain/dir", image + ":/one/in", image + ":/one/in/dir", keys=keys())
    cli.good("touch", image + ":/one/old", keys=keys())
    copied(image + ":/plain/first", image + ":/one/old")
    copied(image + ":/plain/second", image + ":/plain/third", image + ":/plain/dir", image + ":/one/in")
    tap.equal(names(image, "/one/in"), [b"dir", b"second", b"third"])
    tap.equal(cli.good("cat", image + ":/one/old", image + ":/one/in/third", keys=keys()).out, b"newnew")
    tap.equal(names(image, "/plain"), [])
    clean(image)


# ---- what is refused -------------------------------------------------------------------------------------------------


@tap.test
def refuses():
    """What cannot be replaced, -n, into itself, --exchange, the reserved name, what may not be removed: nothing is changed"""
    tap.requires("debugfs")
    image, file = volume(), tap.fresh("file")
    trees.write(file, b"x")
    for path in ("/plain/file", "/one/file", "/one/full/file", "/plain/dir/deep/file"):
        cli.good("mkdir", "-p", image + ":" + os.path.dirname(path), keys=keys())
        cli.good("put", file, image + ":" + path, keys=keys())
    cli.good("mkdir", "-p", image + ":/one/full/dir/x", image + ":/plain/dir/enc", image + ":/plain/.inlay-moving", keys=keys())
    done = cli.run("encrypt", image + ":/plain/dir/enc", keys=keys()[1:])
    tap.equal(done.code, 0, repr(done))
    plain, one = image + ":/plain", image + ":/one"
    refused(cli.FAILED, image, "-n", plain + "/file", one + "/file", says="not replaced")
    refused(cli.FAILED, image, "-n", plain + "/file", one, says="not replaced")
    refused(cli.FAILED, image, plain + "/dir", one + "/file", says="not a directory")
    refused(cli.FAILED, image, plain + "/dir", one + "/full", says="not empty")
    refused(cli.FAILED, image, plain + "/dir", plain + "/dir/enc", says="into itself")
    refused(cli.FAILED, image, "--exchange", plain + "/dir", one + "/full", says="encrypted differently")
    refused(cli.FAILED, image, plain + "/.inlay-moving", one, says="reserved")
    subprocess.run(["debugfs", "-w", "-R", "set_inode_field /plain/dir/deep/file flags 0x80010", image], check=True,
                   capture_output=True)
    refused(cli.FAILED, image, plain + "/dir", one + "/new", says=("deep/file", "immutable"))


@tap.test
def locked():
    """A key that is missing, of the source or of what is deep inside, is named before anything is written: exit 3"""
    image, file = volume(), tap.fresh("file")
    trees.write(file, b"secret")
    cli.good("mkdir", "-p", image + ":/plain/tree/a", image + ":/plain/tree/b")
    cli.good("put", file, image + ":/two/file", keys=keys())
    cli.good("mv", image + ":/two/file", image + ":/plain/tree/b/file", keys=keys())
    name = cli.good("keyid", stdin=RAW[1]).out.split()[0]
    for what in ("/plain/tree", "/plain/tree/b/file", "/two"):
        refused(cli.NO_KEY, image, image + ":" + what, image + ":/one/new", says=(what, name), known=keys()[:1])
    refused(cli.NO_KEY, image, image + ":/plain/tree", image + ":/one/new", known=keys()[1:])


# ---- what comes between ----------------------------------------------------------------------------------------------


@tap.test
def full():
    """A volume that becomes full: one message, the source is whole, and nothing is left of the copy"""
    image, source = volume("32M"), tap.fresh_dir("source")
    for i in range(30):
        trees.write(os.path.join(source, "%d" % i), trees.pattern(i, MIB // 2))
    cli.good("put", source, image + ":/plain/tree")
    before = times(image, "/plain/tree")
    cli.bad(cli.FAILED, "mv", image + ":/plain/tree", image + ":/one", says=("tree/", "is full"), keys=keys())
    tap.equal((times(image, "/plain/tree"), names(image, "/one")), (before, []))
    clean(image)
    dest = tap.fresh("back")
    cli.good("get", image + ":/plain/tree", dest)
    trees.check(trees.snapshot(source), trees.snapshot(dest))


def state(image):
    """The names in /plain and in /one."""
    rows = [os.path.split(p) for p in cli.listing(image, keys=keys())]
    return tuple([name for where, name in rows if where == top] for top in (b"plain", b"one"))


@tap.test
def stops():
    """A crash at any write: the source is whole, or the copy; the same command ends it and leaves nothing over"""
    first, image, source = volume("16M"), tap.fresh("crash.img"), tap.fresh_dir("source")
    for i in range(3):
        os.mkdir(os.path.join(source, "%d" % i))
        trees.write(os.path.join(source, "%d" % i, "file"), trees.pattern(i, 9000))
    cli.good("put", source, first + ":/plain/tree")
    wanted, seen = trees.snapshot(source), set()
    for n in (1, 5, *range(9, 100)):
        subprocess.run(["cp", "--sparse=always", first, image], check=True)
        device = f"fault({image}, write@{n}..1000000=drop)"
        cli.run("mv", device + ":/plain/tree", device + ":/one/tree", keys=keys())
        found, dest = state(image), tap.fresh("back")
        seen.add(repr(found))
        cli.good("get", image + (":/plain/tree" if b"tree" in found[0] else ":/one/tree"), dest, keys=keys())
        trees.check(wanted, trees.snapshot(dest))
        cli.run("mv", image + ":/plain/tree", image + ":/one/tree", keys=keys())
        tap.equal(state(image), ([], [b"tree"]), f"write {n}: {found}")
        clean(image)
        if found == ([], [b"tree"]):
            break
    for wanted in (([b"tree"], []), ([b"tree"], [TEMP]), ([TEMP], [b"tree"]), ([], [b"tree"])):
        assert repr(wanted) in seen, f"never met: {wanted}, only {seen}"
    assert repr(([b"tree"], [b"tree"])) not in seen, "both at once: the two renames should be one transaction"


@tap.test
def fails():
    """An error of the device: the source is whole, or the copy"""
    image, file = volume("16M"), tap.fresh("file")
    trees.write(file, trees.pattern("file", 3 * MIB))
    cli.good("put", file, image + ":/plain/file")
    for rule in ("write@2=EIO", "flush@1=EIO", "flush@2=EIO", "flush@3=EIO", "read@12=EIO"):
        broken = tap.copy(image)
        device = f"fault({broken}, {rule})"
        done = cli.run("mv", device + ":/plain/file", device + ":/one/file", keys=keys())
        assert done.code == cli.FAILED and 1 <= done.err.count(b"\n") <= 3, f"{rule}: {done!r}"
        done = subprocess.run(["e2fsck", "-fy", broken], capture_output=True, check=False)
        assert done.returncode in (0, 1), f"{rule}: {done.stdout!r}"
        where = "/plain/file" if b"file" in names(broken, "/plain") else "/one/file"
        assert cli.good("cat", broken + ":" + where, keys=keys()).out == trees.pattern("file", 3 * MIB), rule


@tap.test
def interrupted():
    """A signal during the copy: exit 130, the source is where it was, nothing is left of the copy"""
    image, file = volume("64M"), tap.fresh("file")
    trees.write(file, trees.pattern("file", 24 * MIB))
    cli.good("mkdir", image + ":/plain/tree")
    cli.good("put", file, image + ":/plain/tree/file")
    device = f"fault({image}, write@*=delay:40ms)"
    for pause in (0.3, 0.6, 1.0):
        process = subprocess.Popen(cli.arguments(["mv", device + ":/plain/tree", device + ":/one/"], keys()),
                                   stderr=subprocess.PIPE)
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
        if process.returncode != -signal.SIGINT:  # else: it had hardly begun
            break
    tap.equal(process.returncode, cli.INTERRUPTED, repr(err))
    tap.contains(err, b"interrupted")
    tap.equal((names(image, "/plain"), names(image, "/one")), ([b"tree"], []))
    clean(image)
    copied(image + ":/plain/tree", image + ":/one/")
    assert cli.good("cat", image + ":/one/tree/file", keys=keys()).out == trees.pattern("file", 24 * MIB)
    clean(image)


tap.main()
