#!/usr/bin/env python3
"""The programs in examples/ do what they say, on the golden volume of `make run` or on devices; so does the demonstration.

Not here: the command `inlay` (tests/cli/).
Read more: examples/.
"""
import hashlib
import json
import lzma
import os
import re
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import tap  # noqa: E402

TOP = os.path.dirname(os.path.dirname(HERE))
GOLDEN = os.path.join(TOP, "tests", "golden")
READ_FILE, QUEUE_DEPTH, DRIVER, ENGINE_RESET, VOLUME, ENCRYPT, MOUNT = (
    os.path.join(os.environ["INLAY_BUILD"], "examples", name) for name in (
        "read-file", "queue-depth", "driver", "engine-reset", "volume", "encrypt", "mount"))
BLOCK = 4096
ALICE, BOB = (os.path.join(GOLDEN, f"demo-{who}.key") for who in ("alice", "bob"))


def image():
    path = tap.fresh("demo.img")
    with lzma.open(os.path.join(GOLDEN, "demo.img.xz")) as packed, open(path, "wb") as f:
        f.write(packed.read())
    return path


def run(*argv):
    return subprocess.run(argv, capture_output=True, check=False, timeout=60)


@tap.test
def every_file():
    """read-file prints every file of the demonstration volume, with the key that it needs"""
    volume, n_files = image(), 0
    with open(os.path.join(GOLDEN, "demo.json"), encoding="utf-8") as f:
        files = json.load(f)["files"]
    for path, row in files.items():
        if row["type"] != "file":
            continue
        done = run(READ_FILE, volume, BOB if path.startswith("bob/") else ALICE, "/" + path)
        tap.equal(done.returncode, 0, f"{path}: {done.stderr!r}")
        tap.equal(hashlib.sha256(done.stdout).hexdigest(), row["sha256"], path)
        n_files += 1
    if n_files < 10:
        tap.fail(f"only {n_files} files in the manifest")


@tap.test
def wrong_key():
    """read-file refuses a wrong key, a short key, a missing file, with one line each and without output"""
    volume, short = image(), tap.fresh("short.key")
    with open(short, "wb") as f:
        f.write(b"fifteen bytes..")
    for key, path in ((BOB, "/alice/poem.txt"), (short, "/README.txt"), (ALICE, "/alice/no such file"),
                      (volume + ".none", "/README.txt")):
        done = run(READ_FILE, volume, key, path)
        tap.equal(done.returncode, 1, f"{key} {path}")
        tap.equal(done.stdout, b"", f"{key} {path}")
        tap.equal(done.stderr.count(b"\n"), 1, f"{done.stderr!r}")


@tap.test
def usage():
    """read-file without arguments says how it is used"""
    done = run(READ_FILE)
    tap.equal(done.returncode, 2)
    tap.contains(done.stderr.decode(), "usage:")


@tap.test
def mounted():
    """mount serves a device in memory: files can be made there, the image stays as it was, a signal ends it"""
    tap.requires("root", "fuse")
    volume, folder = image(), tap.fresh("mnt")
    os.mkdir(folder)
    with open(volume, "rb") as f:
        before = hashlib.sha256(f.read()).hexdigest()
    with subprocess.Popen([MOUNT, "64M", volume, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        try:
            tap.contains(server.stdout.readline().decode(), "mounted on")
            with open(os.path.join(folder, "new"), "wb") as f:
                f.write(b"new" * 100000)
            with open(os.path.join(folder, "new"), "rb") as f:
                tap.equal(f.read(), b"new" * 100000)
            tap.contains(os.listdir(folder), "README.txt")
        finally:
            server.terminate()
            server.wait(30)
        tap.equal(server.returncode, 0, server.stderr.read().decode())
    tap.equal(os.listdir(folder), [], "something is still mounted")
    with open(volume, "rb") as f:
        tap.equal(hashlib.sha256(f.read()).hexdigest(), before, "the image")


def zeros(n_blocks):
    path = tap.fresh("disk.img")
    with open(path, "wb") as f:
        f.truncate(n_blocks * BLOCK)
    return path


@tap.test
def queue_depth():
    """queue-depth writes and reads back every block, on whatever device, and the medium holds none of it in the clear"""
    for spec in ("{}", "file({})", "engine({}, slots=1)", "engine({}, slots=1, threads=2)", "engine({}, slots=0)",
                 "fault({}, delay=50us)", "file({}, bounce=64K)"):
        n_blocks = 777
        path = zeros(n_blocks + 3)
        done = run(QUEUE_DEPTH, spec.format(path), str(n_blocks))
        tap.equal(done.returncode, 0, f"{spec}: {done.stderr!r}")
        tap.equal(done.stdout, b"777 blocks written and read back, 32 at a time, 0 wrong\n", spec)
        with open(path, "rb") as f:
            medium = f.read()
        for n in range(n_blocks):
            block = medium[n * BLOCK:(n + 1) * BLOCK]
            if len({block[i:i + 16] for i in range(0, BLOCK, 16)}) != BLOCK // 16:
                tap.fail(f"{spec}: block {n} repeats itself, as its plaintext does")
            if n and struct.pack("<Q", n) in block:
                tap.fail(f"{spec}: block {n} holds its number")
        tap.equal(medium[n_blocks * BLOCK:], bytes(3 * BLOCK), f"{spec}: behind what was to be written")
        os.unlink(path)


@tap.test
def queue_depth_errors():
    """queue-depth ends with one line and status 1 when the device is missing, too small, or fails; and with its usage"""
    path = zeros(100)
    # The first 32 blocks are one write: what fails once is tried again in parts, so the error has to come later, or twice.
    for spec, count, text in ((path + ".none", "1", "No such file"), (path, "101", "No space left"),
                              (f"fault({path}, write@*=EIO)", "100", "write block 0: Input/output error"),
                              (f"fault({path}, write@9=ENOSPC)", "100", "No space left"),
                              (f"fault({path}, read@40=EIO)", "100", "read block"),
                              (f"fault({path}, flush@1=EIO)", "100", "flush: Input/output error"),
                              (f"engine({path}, faults=program@*)", "10", "write block")):
        done = run(QUEUE_DEPTH, spec, count)
        tap.equal(done.returncode, 1, f"{spec}: {done.stderr!r}")
        tap.equal(done.stdout, b"", spec)
        tap.equal(done.stderr.count(b"\n"), 1, f"{done.stderr!r}")
        tap.contains(done.stderr.decode(), "queue-depth: ", text)
    for argv in ((), (path,), (path, "0"), (path, "-1"), (path, "1x"), (path, "1", "2")):
        done = run(QUEUE_DEPTH, *argv)
        tap.equal(done.returncode, 2, repr(argv))
        tap.contains(done.stderr.decode(), "usage:")


@tap.test
def driver():
    """driver: its device gives back what was written, saw only ciphertext, and refuses a damaged block"""
    done = run(DRIVER)
    tap.equal(done.returncode, 0, repr(done.stderr))
    tap.equal(done.stdout.decode().splitlines(), ["with key: Never hands out a damaged block.", "without:  (ciphertext)",
                                                  "damaged:  " + os.strerror(74)])


@tap.test
def driver_is_small():
    """driver.c has fewer than 150 lines and needs inlay/driver.h alone"""
    with open(os.path.join(TOP, "examples", "driver.c"), encoding="ascii") as f:
        text = f.read()
    if text.count("\n") >= 150:
        tap.fail(f"{text.count(chr(10))} lines")
    tap.equal(re.findall(r"#include <(inlay/[^>]+)>", text), ["inlay/driver.h"])


@tap.test
def engine_reset():
    """engine-reset: every block of two keys over one slot survives every reset"""
    for spec in ((), ("engine(ram(16M), slots=1, threads=3, latency=20us)",),
                 ("fault(engine(fault(ram(16M), delay=20us), slots=2, threads=1))",)):
        done = run(ENGINE_RESET, *spec)
        tap.equal(done.returncode, 0, f"{spec}: {done.stderr!r}")
        m = re.fullmatch(rb"2048 blocks, 2 keys, slots: (\d), resets: (\d+), programs: (\d+), wrong: 0, errors: 0\n",
                         done.stdout)
        if not m:
            tap.fail(f"{spec}: {done.stdout!r}")
        slots, resets, programs = map(int, m.groups())
        if resets < 8 or programs < 2 or (slots == 1 and programs < resets):
            tap.fail(f"{spec}: {done.stdout!r}")
    done = run(ENGINE_RESET, "ram(16M)")
    tap.equal((done.returncode, done.stdout), (1, b""))
    tap.contains(done.stderr.decode(), "no engine")


def new_volume():
    path = zeros(4096)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", path], check=True, stdout=subprocess.DEVNULL)
    return path


@tap.test
def volume():
    """volume: makes a directory and a file, replaces the file, and e2fsck and debugfs find what was written"""
    path = new_volume()
    for text in ("first", "second, which is longer"):
        done = run(VOLUME, path, "folder", "note", text)
        tap.equal((done.returncode, done.stdout, done.stderr), (0, b"note\n", b""))
        done = run("e2fsck", "-fn", path)
        tap.equal(done.returncode, 0, repr(done.stdout))
        tap.equal(run("debugfs", "-R", "cat /folder/note", path).stdout.decode(), text)
    tap.contains(run("debugfs", "-R", "ea_list /folder/note", path).stdout, b'user.made-by (8) = "volume.c"')
    for argv, code in (((path, "folder", "note/", "x"), 1), ((path, "lost+found/", "x", "x"), 1), ((path + ".none", "a", "b", "c"), 1),
                       ((path, "folder", "note"), 2)):
        done = run(VOLUME, *argv)
        tap.equal((done.returncode, done.stdout), (code, b""), repr(argv))
        tap.equal(done.stderr.count(b"\n"), 1, repr(done.stderr))
    tap.equal(run("e2fsck", "-fn", path).returncode, 0)


@tap.test
def encrypt():
    """encrypt: what it puts into an encrypted directory read-file gets out again, and the image does not have as it was"""
    path, text = new_volume(), b"a text that is nowhere else, " * 4000
    subprocess.run(["tune2fs", "-O", "encrypt", path], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run([ENCRYPT, path, ALICE, "vault", "secret"], input=text, capture_output=True, check=False)
    tap.equal((done.returncode, done.stdout, done.stderr), (0, b"", b""))
    tap.equal(run("e2fsck", "-fn", path).returncode, 0)
    tap.equal(run(READ_FILE, path, ALICE, "/vault/secret").stdout, text)
    assert run(READ_FILE, path, BOB, "/vault/secret").returncode
    with open(path, "rb") as f:
        assert text[:20] not in f.read(), "plaintext in the image"
    for argv, code in (((path, ALICE, "vault", "again"), 1), ((path, ALICE + ".none", "x", "y"), 1), ((path, ALICE, "x"), 2)):
        done = run(ENCRYPT, *argv)
        tap.equal((done.returncode, done.stdout, done.stderr.count(b"\n")), (code, b"", 1), repr(argv))


@tap.test
def classes():
    """classes.sh: what a key of the machine encrypts stays readable when the key of a user is locked"""
    tap.requires("fuse")
    done = subprocess.run(["sh", os.path.join(TOP, "examples", "classes.sh"), tap.fresh_dir("classes")], capture_output=True,
                          text=True, check=False, timeout=60)
    tap.equal(done.returncode, 0, done.stderr)
    locked, unlocked = done.stdout.split("while locked:\n")[1].split("unlocked:\n")
    tap.contains(locked, "wake at 7")
    tap.equal("diary" in locked, False, locked)
    tap.contains(unlocked, "dear diary")


@tap.test
def built_outside():
    """Every example builds against an installed library with pkg-config alone"""
    root = tap.fresh_dir("root")
    subprocess.run(["meson", "install", "-C", os.environ["INLAY_BUILD"], "--destdir", root, "--quiet", "--no-rebuild"],
                   check=True, stdout=subprocess.DEVNULL)
    found = [base for base, _, files in os.walk(root) if "inlay.pc" in files]
    tap.equal(len(found), 1, "inlay.pc")
    env = {**os.environ, "PKG_CONFIG_PATH": found[0], "PKG_CONFIG_SYSROOT_DIR": root}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "inlay-fuse"], env=env, capture_output=True, text=True,
                           check=True).stdout.split()
    programs = {}
    for name in sorted(os.listdir(os.path.join(TOP, "examples"))):
        if name.endswith(".c"):
            programs[name] = tap.fresh(name[:-2])
            subprocess.run(["gcc", os.path.join(TOP, "examples", name), "-o", programs[name], *flags], check=True)
    env = {**os.environ, "LD_LIBRARY_PATH": os.path.dirname(found[0])}
    for name, argv in (("queue-depth.c", ("ram(1M)", "100")), ("driver.c", ()), ("engine-reset.c", ())):
        subprocess.run([programs[name], *argv], env=env, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([programs["volume.c"], new_volume(), "a", "b", "c"], env=env, check=True, stdout=subprocess.DEVNULL)
    tap.equal(subprocess.run([programs["encrypt.c"]], env=env, check=False, stderr=subprocess.DEVNULL).returncode, 2)
    done = subprocess.run([programs["read-file.c"], image(), ALICE, "/alice/poem.txt"], env=env, capture_output=True,
                          check=False)
    tap.equal(done.returncode, 0, repr(done.stderr))
    tap.equal(done.stdout, run(READ_FILE, image(), ALICE, "/alice/poem.txt").stdout)


@tap.test
def headers():
    """Every public header compiles alone, as C and as C++"""
    folder = os.path.join(TOP, "include", "inlay")
    for name in sorted(os.listdir(folder)):
        for language in ("c", "c++"):
            subprocess.run(["clang", "-x", language, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I",
                            os.path.join(TOP, "include"), "-"], input=f"#include <inlay/{name}>\n", text=True, check=True)


@tap.test
def demonstration():
    """tools/demo: ends well, and finds a damaged copy"""
    done = run(os.path.join(TOP, "tools", "demo"), os.environ["INLAY"])
    tap.equal(done.returncode, 0, done.stderr.decode("utf-8", "replace"))
    tap.contains(done.stdout.decode(), "16 files, each byte for byte", "What to type next", "to-bob-17.txt")
    fake = tap.fresh("inlay")
    with open(fake, "w", encoding="ascii") as f:
        f.write(f'#!/bin/sh\n"{os.environ["INLAY"]}" "$@" || exit\n'
                '[ "$1" != get ] || for last; do :; done; [ "$1" != get ] || echo x >>"$last/alice/poem.txt"\n')
    os.chmod(fake, 0o755)
    if run(os.path.join(TOP, "tools", "demo"), fake).returncode == 0:
        tap.fail("a changed file went unnoticed")


if __name__ == "__main__":
    tap.main()
