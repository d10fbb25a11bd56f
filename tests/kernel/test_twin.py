#!/usr/bin/env python3
"""The kernel twin: random operations, the same ones by Inlay on an image and by the kernel on its equal, have equal results.

Not here: the operations, and what is compared of an inode (tests/unit/twin.c); crashes.
Read more: HACKING.md, "Tests".

  test_twin.py [--ops N] [--seed S]     N operations on each kind of volume; without it a few hundred

After each batch e2fsck finds Inlay's image clean, and the kernel and Inlay see the same in both images. Every other batch
is done by the kernel on both, so that each goes on with what the other has left: a clean volume, or one that it was using
when it crashed.

Where directories are encrypted, nonces are random: the twins are equal in what is seen with the keys. Now and then one of
them becomes a copy of the other, and a batch runs on both without keys: then no-key names are the same, too.
"""
import argparse
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tap  # noqa: E402

MIB = 1 << 20
BATCHES = (150, 60, 300, 90, 1200)  # operations; an odd number of sizes, as those who do them take turns
OPTIONS = argparse.ArgumentParser(description=__doc__)
OPTIONS.add_argument("--ops", type=int)
OPTIONS.add_argument("--seed", type=int, default=1)
OPTIONS = OPTIONS.parse_args()


def program():
    build = os.environ.get("INLAY_BUILD") or os.path.dirname(os.path.dirname(os.environ["INLAY"]))
    return os.path.join(build, "tests", "twin")


def twin(*args):
    """What the program says, by lines. Its exit status must be 0."""
    done = subprocess.run([program(), *map(str, args)], capture_output=True, check=False, timeout=600)
    lines = done.stdout.decode("latin-1").splitlines()
    if done.returncode:
        tap.fail(f"twin {' '.join(map(str, args))}: exit {done.returncode}\n" + "\n".join(lines[-12:]) + "\n" +
                 done.stderr.decode(errors="replace")[-2000:])
    return lines


def same(ours, theirs, what, log=None):
    """Both say the same; else the first lines that differ, and those before, or what was done to that path."""
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if a != b:
            before = ours[max(0, i - 8):i]
            if log:
                name = a.split(" ")[0].split("/")[-1]
                before = [line for line in log if name in line.replace("/", " ").split(" ")][-25:]
            tap.fail("\n".join([what + ":", *before, "  " + a, "but", "  " + b]))
    tap.equal(len(ours), len(theirs), what + ": lines")


def fsck(image, what, encrypted=False):
    """By e2fsck; where there are policies by way of Inlay, which also looks for two inodes with the same nonce."""
    command = [os.environ["INLAY"], "fsck", "--read-only"] if encrypted else ["e2fsck", "-fn"]
    done = subprocess.run([*command, image], capture_output=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        tap.fail(f"{what}: {command[0]} says {done.returncode}\n{said[-2500:]}")


def needs_recovery(image):
    with open(image, "rb") as f:
        f.seek(1024 + 0x60)
        return bool(f.read(1)[0] & 4)


def kernel(image, *args, mount=()):
    with tap.mounted(image, *mount) as root:
        return twin(args[0], "kernel", root, *args[1:])


def kernel_crash(image, *args):
    """The same; the image becomes what lay on the medium when it was done."""
    with tap.mounted(image, "commit=300") as root:
        lines = twin(args[0], "kernel", root, *args[1:])
        copy = tap.copy(image)
    os.replace(copy, image)
    return lines


def sees(image, other, what, ours, options):
    """All four views, by Inlay and by the kernel on both images, are the same."""
    seen = kernel(image, "dump", *options, mount=("ro",))
    same(seen, kernel(other, "dump", *options, mount=("ro",)), what + ": what the kernel sees, and what its own has", ours)
    for which in (image, other):
        same(twin("dump", "inlay", which, *options), seen, what + ": what Inlay sees, and what the kernel sees")


def batch(image, other, number, how, args, options):
    """The same operations on both. Every other time that it is its turn, who changes Inlay's image crashes."""
    by_inlay, crash = number % 2 == 0, number % 4 > 1 and how != "no journal"
    args = ("run", *args, *(["old"] if how == "old" else []), *(["crash"] if crash else []), *options)
    what = f"batch {number} (seed {args[1]}), by {'Inlay' if by_inlay else 'the kernel'}{', which crashed' if crash else ''}"
    if by_inlay:
        ours = twin(args[0], "inlay", image, *args[1:])
    else:
        ours = (kernel_crash if crash else kernel)(image, *args)
    same(ours, kernel(other, *args), what)
    tap.equal(needs_recovery(image), crash, what + ": needs recovery")
    if crash and (number % 8 == 2 if by_inlay else how == "orphan file"):
        kernel(image, "mend")
    elif crash:
        twin("mend", "inlay", image)
    fsck(image, what, encrypted=any(option.startswith("policy=") for option in options))
    sees(image, other, what, ours, options)


def locked_batch(image, other, number, how, args, options):
    """By Inlay and by the kernel, on what one of them has left."""
    source, target = (image, other) if number % 4 > 1 else (other, image)
    shutil.copyfile(source, target)
    what = f"locked batch {number} (seed {args[0]})"
    args = ("run", *args, *(["old"] if how == "old" else []), "locked", *options)
    ours = twin(args[0], "inlay", image, *args[1:])
    same(ours, kernel(other, *args), what)
    for which in (image, other):
        fsck(which, what, encrypted=True)
    sees(image, other, what + ", seen without keys", ours, ("locked", *options))
    sees(image, other, what + ", seen with keys", ours, options)


def make_image(size, mkfs):
    image = tap.fresh("ours.img")
    with open(image, "wb") as f:
        f.truncate(size)
    subprocess.run(["mke2fs", "-q", "-F", *mkfs, image], check=True, stdout=subprocess.DEVNULL)
    return image


def twins(mkfs, how, policies=()):
    tap.requires("root", "loop", "kernel")
    image = make_image(192 * MIB, mkfs)
    other = tap.copy(image)
    options = ["policy=" + policy for policy in policies]
    number, left = 0, OPTIONS.ops or (400 if policies else 600)
    while left > 0:
        n = min(BATCHES[number % len(BATCHES)], left)
        batch(image, other, number, how, (OPTIONS.seed * 1000003 + number, n), options)
        number, left = number + 1, left - n
        if policies and number % 2 == 0:
            locked_batch(image, other, number, how, (OPTIONS.seed * 1000003 + number + 500000, 50), options)
            left -= 50
    os.unlink(image)
    os.unlink(other)


for title, mkfs_args, how in (
        ("4 KiB blocks", ("-t", "ext4", "-b", "4096"), ""),
        ("a checksum seed, an orphan file", ("-t", "ext4", "-b", "4096", "-O", "metadata_csum_seed,orphan_file,encrypt"),
         "orphan file"),
        ("1 KiB blocks, a small journal", ("-t", "ext4", "-b", "1024", "-J", "size=1"), ""),
        ("no checksums, 32 bits", ("-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"), ""),
        ("no extents", ("-t", "ext3", "-b", "1024", "-I", "256"), ""),
        ("no index of directories, small groups", ("-t", "ext4", "-b", "2048", "-g", "2048", "-O", "^dir_index"), ""),
        ("inodes of 128 bytes, checksums of groups only",
         ("-t", "ext4", "-b", "1024", "-I", "128", "-O", "^metadata_csum,uninit_bg"), "old"),
        ("no journal", ("-t", "ext4", "-b", "4096", "-O", "^has_journal"), "no journal")):
    tap.add(title, lambda args=(mkfs_args, how): twins(*args))

# VERSION:FLAGS:LOG2_UNIT:KEY:KEY_LEN. Flags: 0 to 3 pad names to 4, 8, 16, 32 bytes; 8 is IV_INO_LBLK_64, 16 IV_INO_LBLK_32.
PER_FILE, UNITS_512, LBLK_64, LBLK_32, V1 = "2:3:0:1:64", "2:0:9:2:32", "2:9:0:1:64", "2:18:0:2:32", "1:2:0:3:64"
for title, mkfs_args, how, policies in (
        ("encrypted, 4 KiB blocks", ("-t", "ext4", "-b", "4096", "-O", "encrypt,stable_inodes"), "",
         (PER_FILE, UNITS_512, LBLK_64, LBLK_32, V1)),
        ("encrypted, 1 KiB blocks, a small journal",
         ("-t", "ext4", "-b", "1024", "-O", "encrypt,stable_inodes", "-J", "size=1"), "",
         (UNITS_512, "2:11:0:1:64", "1:1:0:3:64", "2:2:10:2:64")),
        ("encrypted, inodes of 128 bytes, no checksums",
         ("-t", "ext4", "-b", "1024", "-I", "128", "-O", "encrypt,^metadata_csum"), "old", (PER_FILE, V1, UNITS_512)),
        ("encrypted, no extents, no index of directories",
         ("-t", "ext3", "-b", "4096", "-I", "256", "-O", "encrypt,stable_inodes,^dir_index"), "",
         (LBLK_64, V1, "2:1:0:1:32")),
        ("encrypted, no journal", ("-t", "ext4", "-b", "4096", "-O", "encrypt,^has_journal"), "no journal",
         (PER_FILE, "2:2:11:2:32"))):
    tap.add(title, lambda args=(mkfs_args, how, policies): twins(*args))


def full(mkfs, policies=()):
    """Where the last block goes to is no question of right and wrong: no twin, but one volume that all see the same of."""
    tap.requires("root", "loop", "kernel")
    image = make_image(9 * MIB // 4, mkfs)
    refusals, crypt = 0, ["policy=" + policy for policy in policies]
    batches = -(-(OPTIONS.ops or 900) // 150)
    for number in range(4 * batches):
        if number >= batches and refusals:
            break
        crash = number % 2 == 1
        args = ("inlay", image, OPTIONS.seed * 1000003 + number, 150, *(["crash"] if crash else []), *crypt)
        refusals += sum(line.endswith("= ENOSPC") for line in twin("run", *args))
        if crash:
            twin("mend", "inlay", image)
        fsck(image, f"batch {number} (seed {args[2]})", encrypted=bool(policies))
        same(twin("dump", "inlay", image, *crypt), kernel(image, "dump", *crypt, mount=("ro",)), "what Inlay and the kernel see")
    assert refusals, "it never was full"
    os.unlink(image)


for title, mkfs_args, policies in (
        ("no room", ("-t", "ext4", "-b", "1024", "-J", "size=1", "-m", "0"), ()),
        ("no room, encrypted", ("-t", "ext4", "-b", "1024", "-J", "size=1", "-m", "0", "-O", "encrypt"), (PER_FILE,)),
        ("no room, no extents", ("-t", "ext3", "-b", "1024", "-J", "size=1"), ()),
        ("no inodes", ("-t", "ext4", "-b", "1024", "-J", "size=1", "-N", "64"), ())):
    tap.add(title, lambda args=(mkfs_args, policies): full(*args))

sys.argv[1:] = []
tap.main()
