#!/usr/bin/env python3
"""put and rm that are interrupted or killed: the volume is whole, and running again goes on to the same end.

Not here: a crash after every single write (tests/unit/test_crash.c).
Read more: doc/inlay.1, "IMPORT".
"""
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
KILLS = int(os.environ.get("INLAY_KILLS", "12"))


def source():
    """Long enough to be caught in the middle: many files, big ones, links, and directories."""
    path = tap.fresh_dir("source")
    m = trees.Maker(path, "long", 4096)
    for i in range(4000):
        trees.write(os.path.join(m.dir("many", str(i % 10)), b"file-%d" % i), m.rng.randbytes(2000))
    block = m.rng.randbytes(MIB)
    for i in range(3):
        with open(m.path("big-%d" % i), "wb") as f:
            for j in range(32):
                f.write(b"%d %d" % (i, j) + block)
    os.link(m.path("big-1"), m.path("many", "big-again"))
    m.symlinks(1000)
    m.xattrs(500)
    m.metadata()
    return path


_made = []


def wanted():
    """The tree, and what it is; made once."""
    if not _made:
        path = source()
        _made.extend((path, trees.snapshot(path)))
    return _made


def volume():
    """With a small journal: it commits often, so that there is something to find after a kill."""
    image = tap.fresh("new.img")
    with open(image, "wb") as f:
        f.truncate(384 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-O", "encrypt,64bit,metadata_csum", "-J", "size=4", image],
                   check=True, stdout=subprocess.DEVNULL)
    return image


def clean(image):
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    if done.returncode:
        tap.fail(f"e2fsck: {done.stdout.decode(errors='replace')[-3000:]}")


def start_put(image, *options):
    return subprocess.Popen(cli.arguments(["put", *options, wanted()[0], image + ":/copy"]), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


_seconds = []


def duration():
    """How long an undisturbed put takes here."""
    if not _seconds:
        image = volume()
        before = time.monotonic()
        tap.equal(start_put(image).wait(), 0)
        _seconds.append(time.monotonic() - before)
        os.unlink(image)
    return _seconds[0]


def disturb(number, rng):
    """Send a signal to a put at a random moment: the image, the exit code, what it said; the image again if it was too late."""
    for _ in range(20):
        image = volume()
        process = start_put(image)
        time.sleep(rng.random() * duration() * 0.9)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
        if process.returncode and (number == signal.SIGKILL or process.returncode != -number): # else: it had hardly begun
            return image, process.returncode, out + err
        os.unlink(image)
    return tap.fail("twenty imports were over before they could be disturbed")


def whole_files(image, allow_unfinished):
    """What has its final time has its final content."""
    dest = tap.fresh("back")
    if cli.run("stat", image + ":/copy").code == 0:
        cli.good("get", image + ":/copy/.", dest, timeout=120)
    else:
        os.mkdir(dest)
    there, full = trees.snapshot(dest), wanted()[1]
    unfinished = 0
    for path, row in there.items():
        if row["type"] != "file":
            continue
        assert path in full, f"{path!r} was not in the source"
        if row["mtime"] == full[path]["mtime"]:
            tap.equal((row["size"], row["sha256"]), (full[path]["size"], full[path]["sha256"]), f"{path!r} passes for whole")
        else:
            unfinished += 1
    assert unfinished <= allow_unfinished, f"{unfinished} unfinished files"
    subprocess.run(["rm", "-rf", dest], check=True)
    return sum(row["type"] == "file" for row in there.values()) - unfinished


def is_over(image):
    """Was the put killed when nothing but the end of the process was missing?"""
    return cli.run("xattr", "get", "user.inlay.unfinished", image + ":/copy").code != 0 and (
        sum(p.startswith(b"copy/") for p in cli.listing(image)) == len(wanted()[1]) - 1)


def resumed(image):
    """Run again: the same tree as at once; what was complete was left alone."""
    before = {p: row["ino"] for p, row in cli.listing(image).items()}
    finished = {p: row["mtime"] for p, row in cli.listing(image).items() if row["type"] == "file"}
    cli.good("put", wanted()[0], image + ":/copy", timeout=120)
    after = cli.listing(image)
    for path, mtime in finished.items():
        if after[path]["mtime"] == mtime:
            tap.equal(after[path]["ino"], before[path], f"{path!r} was complete, and was written again")
    clean(image)
    dest = tap.fresh("back")
    cli.good("get", image + ":/copy", dest, timeout=120)
    trees.check(wanted()[1], trees.snapshot(dest))
    tap.equal(cli.good("xattr", "list", image + ":/copy").out, b"", "the mark of an unfinished import")
    subprocess.run(["rm", "-rf", dest], check=True)
    os.unlink(image)


@tap.test
def interrupted():
    """Ctrl-C in the middle of put: exit 130, one line, a clean volume without unfinished files; running again completes"""
    tap.requires("xattrs")
    rng = random.Random("interrupt")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        image, code, said = disturb(number, rng)
        tap.equal(code, cli.INTERRUPTED, repr(said))
        tap.contains(said.lower(), b"interrupted", b"again")
        tap.equal(len(said.splitlines()), 1, repr(said))
        clean(image)
        whole_files(image, 0)
        resumed(image)


@tap.test
def killed():
    """SIGKILL in the middle of put, many times: what has its final time is whole; fsck finds a clean volume; running again completes"""
    tap.requires("xattrs")
    rng = random.Random(os.environ.get("INLAY_SEED", "kill"))
    n_whole = 0
    for i in range(KILLS):
        image, code, said = disturb(signal.SIGKILL, rng)
        tap.equal(code, -signal.SIGKILL, repr(said))
        n_whole += whole_files(image, 1)
        done = cli.run("fsck", image)
        tap.equal(done.code, 0, repr(done))
        whole_files(image, 1)
        if i % 3 == 0 and not is_over(image):
            resumed(image)
        else:
            os.unlink(image)
    assert n_whole or KILLS < 5, "nothing was ever whole"


@tap.test
def rm_killed():
    """SIGKILL and Ctrl-C in the middle of rm -r: the volume is clean, and running again removes the rest"""
    tap.requires("xattrs")
    image = volume()
    cli.good("put", wanted()[0], image + ":/copy", timeout=120)
    rng = random.Random("rm")
    caught, longest = 0, None
    for i in range(13):
        copy = tap.fresh("copy.img")
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)
        if longest is None:
            before = time.monotonic()
            cli.good("rm", "-r", copy + ":/copy")
            longest = time.monotonic() - before
            continue
        number = (signal.SIGKILL, signal.SIGINT)[i % 2]
        process = subprocess.Popen(cli.arguments(["rm", "-r", copy + ":/copy"]), stderr=subprocess.PIPE)
        time.sleep(rng.random() * longest)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        if process.returncode:
            caught += 1
            assert process.returncode in (-number, cli.INTERRUPTED), repr(said)
        done = cli.run("fsck", copy)
        tap.equal(done.code, 0, repr(done))
        cli.good("rm", "-rf", copy + ":/copy")
        clean(copy)
        tap.equal(cli.good("ls", copy).out, b"lost+found\n")
        os.unlink(copy)
    assert caught, "every rm was over before it could be disturbed"


tap.main()
