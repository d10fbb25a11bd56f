#!/usr/bin/env python3
"""The programs in examples/ do what they say, on the golden volume of `make run`; so does the demonstration itself.

Not here: the command `inlay` (tests/cli/).
Read more: examples/.
"""
import hashlib
import json
import lzma
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import tap  # noqa: E402

TOP = os.path.dirname(os.path.dirname(HERE))
GOLDEN = os.path.join(TOP, "tests", "golden")
READ_FILE = os.path.join(os.environ["INLAY_BUILD"], "examples", "read-file")
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
def built_outside():
    """An example builds against an installed library with pkg-config alone"""
    root = tap.fresh_dir("root")
    subprocess.run(["meson", "install", "-C", os.environ["INLAY_BUILD"], "--destdir", root, "--quiet", "--no-rebuild"],
                   check=True, stdout=subprocess.DEVNULL)
    found = [base for base, _, files in os.walk(root) if "inlay.pc" in files]
    tap.equal(len(found), 1, "inlay.pc")
    env = {**os.environ, "PKG_CONFIG_PATH": found[0], "PKG_CONFIG_SYSROOT_DIR": root}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "inlay"], env=env, capture_output=True, text=True,
                           check=True).stdout.split()
    program = tap.fresh("read-file")
    subprocess.run(["gcc", os.path.join(TOP, "examples", "read-file.c"), "-o", program, *flags], check=True)
    library = os.path.dirname(found[0])
    done = subprocess.run([program, image(), ALICE, "/alice/poem.txt"], env={**os.environ, "LD_LIBRARY_PATH": library},
                          capture_output=True, check=False)
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
