#!/usr/bin/env python3
"""The checks of tools/ find what they are for: each gets a copy of the source with one fault planted.

Not here: the checks on the source as it is (tools/run-tests runs those).
Read more: ARCHITECTURE.md, "Folders".
"""
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import tap  # noqa: E402

TOP = os.path.dirname(os.path.dirname(HERE))
FOLDERS = ["include", "base", "crypto", "block", "drivers", "fscrypt", "ext4", "cli", "tools"]


def copy_with(path, line):
    """A copy of the source in which a new file has this line."""
    top = tap.fresh_dir("copy")
    for folder in FOLDERS:
        shutil.copytree(os.path.join(TOP, folder), os.path.join(top, folder), ignore=shutil.ignore_patterns("__pycache__"))
    path = os.path.join(top, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="utf-8") as f:
        f.write(line + "\n")
    return top


def run(tool, *args):
    done = subprocess.run([os.path.join(TOP, "tools", tool), *args], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def caught(tool, path, line):
    status, text = run(tool, copy_with(path, line))
    tap.equal(status, 1, f"{tool} on {line!r} in {path}: {text}")
    tap.contains(text, os.path.dirname(path))


@tap.test
def clean_copy():
    """A copy without a fault is accepted, so what follows is the faults' doing"""
    top = copy_with("base/zz.c", "#include <string.h>")
    for tool in ("check-includes", "check-calls"):
        tap.equal(run(tool, top)[0], 0, tool + run(tool, top)[1])


INCLUDES = [
    ("base/zz.c", '#include "crypto/hash.h"', "base knows no folder but itself"),
    ("base/zz.c", "#include <inlay/block.h>", "base knows no public header but its own"),
    ("crypto/zz.c", '#include "fscrypt/info.h"', "crypto knows nothing above it"),
    ("block/zz.c", "#include <openssl/evp.h>", "OpenSSL stays in crypto"),
    ("block/zz.c", '#include "drivers/drivers.h"', "block names no driver"),
    ("block/zz.c", "#include <linux/fs.h>", "kernel headers stay in drivers"),
    ("drivers/zz.c", "#include <inlay/volume.h>", "a driver knows no volume"),
    ("fscrypt/zz.c", "#include <inlay/volume.h>", "fscrypt names no file system"),
    ("fscrypt/zz.h", "#include <ext2fs/ext2fs.h>", "libext2fs stays in ext4"),
    ("ext4/zz.c", '#include "crypto/cipher.h"', "ext4 does no cryptography"),
    ("ext4/zz.c", "  #  include <sys/ioctl.h>", "ioctls stay in drivers, however they are indented"),
    ("cli/zz.c", '#include "base/secret.h"', "the command is written on the public headers"),
    ("include/inlay/block.h", "#include <inlay/volume.h>", "public headers build on each other in one order"),
    ("newfolder/zz.c", "#include <string.h>", "a new folder needs a row"),
]


for where, text, name in INCLUDES:
    tap.add("check-includes: " + name, lambda path=where, line=text: caught("check-includes", path, line))

CALLS = [
    ("ext4/zz.c", "int x(void) { return ext2fs_lookup(fs, 2, n, 3, 0, &i); }"),
    ("ext4/zz.c", "int x(void) { return ext2fs_file_open(fs, 12, 0, &f); }"),
    ("ext4/zz.c", "int x(void) { return ext2fs_bmap2(fs, 12, 0, 0, BMAP_ALLOC, 0, &r, &p); }"),
    ("fscrypt/zz.c", 'void x(void) { printf("key %s", hex); }'),
    ("block/zz.c", "void x(void) { exit(1); }"),
    ("cli/zz.c", "void x(void) { strcpy(a, b); }"),
]
for where, text in CALLS:
    tap.add(f"check-calls: {where[:4]}: {text.split('{ ')[1].split('(')[0].replace('return ', '')}",
            lambda path=where, line=text: caught("check-calls", path, line))


def library(export, header):
    """A library that exports `export`, beside a copy of the public headers with one more declaration."""
    top, build = copy_with("include/inlay/base.h", header), tap.fresh_dir("build")
    for folder in ("serve", "protect"):
        os.mkdir(os.path.join(build, folder))
    for name, more in (("libinlay.so", export), ("serve/libinlay-fuse.so", []), ("protect/libinlay-protect.so", [])):
        symbols = subprocess.run(["nm", "-D", "--defined-only", "--format=posix",
                                  os.path.join(os.environ["INLAY_BUILD"], name)],
                                 capture_output=True, text=True, check=True).stdout
        names = {s.split("@")[0].split()[0] for s in symbols.splitlines() if s.startswith("inl_")} | set(more)
        code = "".join(f"void {n}(void);\nvoid {n}(void) {{}}\n" for n in sorted(names))
        subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", os.path.join(build, name)],
                       input=code, text=True, check=True)
    done = subprocess.run([os.path.join(top, "tools", "check-symbols"), build], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@tap.test
def symbols_equal():
    """check-symbols: a library that exports what the headers say is accepted"""
    status, text = library([], "/* nothing */")
    tap.equal(status, 0, text)


@tap.test
def symbols_undeclared():
    """check-symbols: an export that no header declares"""
    status, text = library(["inl_secret_door"], "/* nothing */")
    tap.equal(status, 1, text)
    tap.contains(text, "inl_secret_door", "in no public header")


@tap.test
def symbols_missing():
    """check-symbols: a declaration that the library does not export"""
    status, text = library([], "INL_API struct inl_key *\ninl_not_there(int (*each)(void *arg), void *arg);")
    tap.equal(status, 1, text)
    tap.contains(text, "inl_not_there", "not exported")


if __name__ == "__main__":
    tap.main()
