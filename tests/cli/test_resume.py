#!/usr/bin/env python3
"""Exports that are interrupted, killed, or meet damage: what is there is right, and running again goes on.

Not here: wrong usage (test_errors.py).
Read more: doc/inlay.1, "get".
"""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import ext4  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20


def long_tree(path):
    """Long enough to be caught in the middle: many files, and big ones."""
    m = trees.Maker(path, "long", 4096)
    for i in range(600):
        trees.write(os.path.join(m.dir("many", str(i % 10)), b"file-%d" % i), m.rng.randbytes(3000))
    block = m.rng.randbytes(MIB)
    for i in range(4):
        with open(m.path("big-%d" % i), "wb") as f:
            for j in range(48):
                f.write(b"%d %d" % (i, j) + block)
    os.link(m.path("big-1"), m.path("many", "big-again"))


def small_tree(path):
    m = trees.Maker(path, "small", 4096)
    for i in range(40):
        trees.write(os.path.join(m.dir("d%d" % (i % 4)), b"file-%02d" % i), m.rng.randbytes(20000))


def image(kind):
    mkfs = ("-b", "4096", "-O", "^has_journal" if kind == "checksums" else "^has_journal,^metadata_csum")
    return tap.served(mkfs, 256 * MIB, long_tree) if kind == "long" else tap.served(mkfs, 8 * MIB, small_tree)


def whole(kind):
    """What an undisturbed export gives; itself checked against the recipe."""
    dest, source = tap.fresh("whole"), tap.fresh_dir("again")
    cli.good("get", image(kind), dest, timeout=120)
    (long_tree if kind == "long" else small_tree)(source)
    wanted, got = trees.snapshot(source), trees.snapshot(dest)
    got = {p: row for p, row in got.items() if p != b"lost+found"}
    trees.check(wanted, got, fields=("type", "size", "sha256"))
    subprocess.run(["rm", "-rf", source], check=True)
    return dest


_whole = {}


def wanted(kind):
    if kind not in _whole:
        dest = whole(kind)
        _whole[kind] = trees.snapshot(dest)
        subprocess.run(["rm", "-rf", dest], check=True)
    return _whole[kind]


def written(path):
    return sum(os.lstat(os.path.join(b, n)).st_blocks for b, _, names in os.walk(path) for n in names) * 512


def disturb(number, after):
    """Start an export, send it a signal once so many bytes were written. Returns the folder, the exit code, stderr."""
    for _ in range(5):
        dest = tap.fresh("dest")
        process = subprocess.Popen(cli.arguments(["get", image("long"), dest]), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and written(dest) < after:
            time.sleep(0.001)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        if process.returncode != 0:
            return dest, process.returncode, out + err
        subprocess.run(["rm", "-rf", dest], check=True)
    return tap.fail("five exports were over before they could be interrupted")


def nothing_wrong(dest, allow_unfinished):
    """Every file that is there is whole, except at most one after a kill."""
    full, there = wanted("long"), trees.snapshot(dest)
    wrong = [p for p, row in there.items() if row["type"] == "file" and (p not in full or row["sha256"] != full[p]["sha256"])]
    assert len(wrong) <= allow_unfinished, wrong
    for path in wrong:
        assert path not in full or there[path]["mtime"] != full[path]["mtime"], f"{path!r} is unfinished and has its final time"
    assert len(there) < len(full), "nothing was left to do"


def resumed(dest):
    unfinished = {p: row["ino"] for p, row in trees.snapshot(dest).items()}
    full = wanted("long")
    same = {p for p, row in trees.snapshot(dest).items()
            if row["type"] == "file" and row["mtime"] == full.get(p, {}).get("mtime")}
    cli.good("get", image("long"), dest, timeout=120)
    there = trees.snapshot(dest)
    trees.check(full, there)
    assert all(there[p]["ino"] == unfinished[p] for p in same), "files that were complete were written again"
    return len(same)


@tap.test
def interrupted():
    """Ctrl-C in the middle of get: exit 130, says how to go on, leaves no unfinished file; running again completes"""
    dest, code, said = disturb(signal.SIGINT, 70 * MIB)
    tap.equal(code, cli.INTERRUPTED, repr(said))
    tap.contains(said.lower(), b"interrupted", b"again")
    tap.equal(len(said.splitlines()), 1, repr(said))
    nothing_wrong(dest, 0)
    assert resumed(dest) > 0, "no file was complete when it was interrupted"


@tap.test
def terminated():
    """SIGTERM: the same"""
    dest, code, said = disturb(signal.SIGTERM, 20 * MIB)
    assert code in (cli.INTERRUPTED, 143), (code, said)
    nothing_wrong(dest, 0)
    resumed(dest)


@tap.test
def hung_up():
    """SIGHUP: the same"""
    dest, code, said = disturb(signal.SIGHUP, 20 * MIB)
    tap.equal(code, cli.INTERRUPTED, repr(said))
    nothing_wrong(dest, 0)
    resumed(dest)


@tap.test
def killed():
    """SIGKILL in the middle of get: at most one unfinished file, recognisable; running again completes"""
    for after in (1, 30 * MIB):
        dest, code, _ = disturb(signal.SIGKILL, after)
        tap.equal(code, -signal.SIGKILL)
        nothing_wrong(dest, 1)
        resumed(dest)
        subprocess.run(["rm", "-rf", dest], check=True)


@tap.test
def again_changes_nothing():
    """Running a complete export again writes nothing"""
    dest = tap.fresh("dest")
    cli.good("get", image("small"), dest)
    before = {p: (row["ino"], row["mtime"], os.lstat(os.path.join(os.fsencode(dest), p)).st_ctime_ns)
              for p, row in trees.snapshot(dest).items() if row["type"] == "file"}
    cli.good("get", image("small"), dest)
    after = {p: (row["ino"], row["mtime"], os.lstat(os.path.join(os.fsencode(dest), p)).st_ctime_ns)
             for p, row in trees.snapshot(dest).items() if row["type"] == "file"}
    tap.equal(after, before)


def damaged(kind):
    """A copy with one thing broken. Returns it and the paths that are hurt."""
    path = tap.copy(image("checksums" if kind == "inode" else "small"))
    volume = ext4.Volume(path)
    if kind == "extents":
        cli.patch(path, volume.find(b"/d1/file-05").at + 40, b"\0\0")
        return path, {b"d1/file-05"}
    if kind == "inode":
        cli.patch(path, volume.find(b"/d2/file-10").at + 16, b"\xff" * 4)
        return path, {b"d2/file-10"}
    if kind == "directory":
        inode = volume.find(b"/d3")
        cli.patch(path, inode.extents()[0].pblk * volume.block_size + 28, b"\x01\0")
        return path, {p for p in wanted("small") if p.startswith(b"d3/")}
    if kind == "far block":
        cli.patch(path, volume.find(b"/d0/file-04").at + 40 + 12 + 8, b"\xff\xff\xff\x7f")
        return path, {b"d0/file-04"}
    raise KeyError(kind)


def keep_going(kind):
    path, hurt = damaged(kind)
    dest = tap.fresh("dest")
    result = cli.run("get", path, dest)
    assert result.code in (cli.FAILED, cli.NOT_READABLE) and len(result.err.splitlines()) == 1, result
    dest = tap.fresh("dest")
    result = cli.run("get", "--keep-going", path, dest)
    tap.equal(result.code, cli.PARTLY, repr(result))
    assert any(os.path.basename(p) in result.err or os.path.dirname(p) in result.err for p in hurt), result
    there, full = trees.snapshot(dest), wanted("small")
    for name, row in full.items():
        if name not in hurt and row["type"] == "file":
            tap.equal(there.get(name, {}).get("sha256"), row["sha256"], repr(name))
    for name in hurt:
        assert name not in there or there[name].get("sha256") != full[name].get("sha256"), f"{name!r} passes for whole"
    tap.equal(cli.run("get", "--keep-going", path, dest).code, cli.PARTLY, "the second run")


for one in ("extents", "inode", "directory", "far block"):
    tap.add(f"damaged {one}: get stops and says so; --keep-going brings everything else, exit 5", lambda one=one: keep_going(one))

tap.main()
