#!/usr/bin/env python3
# bench/run.py: how fast, in how little memory: each row beside its reference, measured in turns, in the same run.
# Not here: the rows about the block layer (bench/block.py), about writing volumes (bench/change.py), about mounting them (bench/mount.py); checks of correctness (tests/); figures of other machines.
# Read more: HACKING.md, "Speed".
"""Print a table of speeds and of memory, or the rows whose name contains one of the words.

Volumes are written by the kernel, which takes root and a loop device; without them those rows say so, as do rows whose
reference is not installed. Everything lies in memory (/dev/shm, or the folder in BENCH_DIR): about 4 GiB are needed;
but what is about a disk lies in the build folder (or BENCH_DISK): 512 MiB. Ratios are medians over pairs of runs.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests", "lib"))
sys.dont_write_bytecode = True
import block  # noqa: E402
import change  # noqa: E402
import koracle  # noqa: E402
import mount  # noqa: E402
from block import Unable  # noqa: E402

KEY = bytes(range(1, 65))
GIB = 1 << 30
MIB = 1 << 20
WIDTH = 64  # columns, of what a row is about


class Bench:
    def __init__(self, build, work, disk, pairs):
        self.build, self.work, self.disk, self.pairs = build, work, disk, pairs
        self.inlay = os.path.join(build, "cli", "inlay")
        self.key = self.path("key")
        self.mounts, self.missed, self.has_kernel = [], 0, None
        with open(self.key, "wb") as f:
            f.write(KEY)

    def path(self, name):
        return os.path.join(self.work, name)

    def disk_path(self, name):
        return os.path.join(self.disk, name)

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    def noise(self, path, size):
        """A file of random bytes, on the medium."""
        pieces(path, size)
        with open(path, "rb") as f:
            os.fsync(f.fileno())

    # ---- measuring

    def measure(self, *argv):
        """Seconds and peak memory in bytes."""
        result = self.path("result")
        subprocess.run([self.program("measure"), result, *argv], check=True, stdout=subprocess.DEVNULL)
        with open(result, encoding="ascii") as f:
            seconds, kilobytes, status = f.read().split()
        if status != "0":
            raise RuntimeError(f"{' '.join(argv)}: exit status {status}")
        return float(seconds), int(kilobytes) * 1024

    def duel(self, ours, reference):
        """Run both in turns, after one round that does not count: two medians in seconds, and the median ratio."""
        ours(), reference()
        pairs = [(ours(), reference()) for _ in range(self.pairs)]
        return (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs),
                statistics.median(b / a for a, b in pairs))

    # ---- volumes

    def needs_kernel(self):
        if self.has_kernel is None:
            self.has_kernel = koracle.available()
        if not self.has_kernel:
            raise Unable("needs root, a loop device and a kernel with fscrypt")

    def volume(self, name, size, encrypted, fill, *options):
        """An image whose folder /tree was filled through the kernel."""
        image, directory = self.path(name + ".img"), self.path(name + ".mnt")
        with open(image, "wb") as f:
            f.truncate(size)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "encrypt", "-m", "0", *options, image], check=True)
        self.mount(image, directory)
        tree = os.path.join(directory, "tree")
        os.mkdir(tree)
        if encrypted:
            koracle.set_policy(tree, koracle.add_key(directory, KEY))
        fill(tree)
        self.umount(directory)
        return image

    def mount(self, image, directory):
        os.makedirs(directory, exist_ok=True)
        koracle.mount(image, directory)
        self.mounts.append(directory)
        return directory

    def umount(self, directory):
        koracle.umount(directory)
        self.mounts.remove(directory)

    def close(self):
        for directory in list(self.mounts):
            self.umount(directory)

    # ---- the table

    def row(self, what, ours, reference, value, target="", met=True, spread=""):
        self.missed += not met
        verdict = "" if not target else "met" if met else "MISSED"
        print(f"{what:{WIDTH}} {ours:>12} {reference:>12} {value:>7} {target:>11}  {verdict:6} {spread}".rstrip(), flush=True)

    def ratio(self, what, ours, reference, ratio, target=None, spread=""):
        """spread: of the ratio, over the rounds."""
        self.row(what, ours, reference, f"{ratio:.2f}", *([f">= {target:.2f}", ratio >= target] if target else ["", True]), spread)

    def least(self, what, shown, value, least, least_shown):
        self.row(what, shown, "-", f"{value / least:.2f}", f">= {least_shown}", value >= least)

    def limit(self, what, value, unit, limit, digits=0):
        self.row(what, f"{value:.{digits}f} {unit}", "-", "-", f"< {limit} {unit}", value < limit)


def pieces(path, total):
    block = os.urandom(MIB)
    with open(path, "wb") as f:
        for _ in range(total // MIB):
            f.write(block)


def small_files(tree):
    for i in range(20000):
        with open(os.path.join(tree, f"file-{i:05d}"), "wb") as f:
            f.write(bytes([i & 255, i >> 8]) * 512)


def big_tree(tree):
    """100,000 names: 40 levels deep, 300 per folder, every second file with a second name."""
    made, deep = 0, tree
    for level in range(40):
        for side in range(5):
            folder = os.path.join(deep, f"side-{side}")
            os.mkdir(folder)
            for i in range(250):
                path = os.path.join(folder, f"a file of some length {i}")
                with open(path, "wb") as f:
                    f.write(b"%d" % i)
                made += 1
                if i % 2:
                    os.link(path, os.path.join(folder, f"another name {i}"))
                    made += 1
        for i in range(625):
            os.symlink(f"side-0/a file of some length {i}", os.path.join(deep, f"link {i}"))
            made += 1
        deep = os.path.join(deep, f"level {level}")
        os.mkdir(deep)
    return made


# What is asked of AES-256-XTS, by bytes of a data unit, of the implementation that is used and of others by their names.
# These are ratios to OpenSSL; the one that is used is also measured by what the CPU's AES units do with nothing to load or
# store, and, where no cache helps, by memcpy.
BEST = {4096: 3.5, 512: 5.0}
OTHERS = {("vaes-avx2", 4096): 2.0, ("aesni", 4096): 1.0, ("aesni", 512): 1.3}
OF_UNITS, OF_MEMCPY = {4096: 0.85}, 0.8


def contests(bench):
    """(mode, unit, size, direction) -> ({ours: rounds}, {peer: rounds}), GB/s, ours best first."""
    out, found = subprocess.run([bench.program("ciphers")], check=True, capture_output=True, text=True).stdout, {}
    for line in out.splitlines():
        mode, unit, size, direction, whose, name, *values = line.split()
        pair = found.setdefault((mode, int(unit), int(size), direction), ({}, {}))
        pair[whose == "peer"][name] = [float(v) for v in values]
    return found


def bench_ciphers(bench):
    """ciphers: AES-XTS from one buffer of 64 KiB, or 256 MiB, to another, on one core: ours beside others, all in turns."""
    for (mode, unit, size, direction), (ours, peers) in contests(bench).items():
        best, in_cache, full = next(iter(ours)), size <= MIB, mode == "AES-256-XTS"

        def row(name, peer, target=None):
            bench.ratio(f"ciphers: {mode} {unit}/{'64K' if in_cache else '256M'} {direction}, {name} / {peer}",
                        f"{statistics.median(ours[name]):.2f} GB/s", f"{statistics.median(peers[peer]):.2f} GB/s",
                        statistics.median(a / b for a, b in zip(ours[name], peers[peer])), target)

        row(best, "OpenSSL", BEST[unit] if in_cache and full else None)
        if "libgcrypt" in peers:
            row(best, "libgcrypt")
        if in_cache and full:
            if "AES-units" in peers:
                row(best, "AES-units", OF_UNITS.get(unit))
            for name in [n for n in ours if n != best]:
                row(name, "OpenSSL", OTHERS.get((name, unit)))
        if not in_cache:
            row(best, "memcpy", OF_MEMCPY)


def bench_xts(bench):
    """xts: a keyed read of memory, decrypted by the fallback, beside decryption by OpenSSL with a prepared key."""
    out = subprocess.run([bench.program("xts")], check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        unit, openssl, block = line.split()
        bench.ratio(f"xts: keyed read of ram(1M), {unit}-byte units / OpenSSL", f"{block} GB/s", f"{openssl} GB/s",
                    float(block) / float(openssl))


def bench_crc32c(bench):
    """crc32c: in cache, one thread: every implementation of this CPU, best first, beside libext2fs's."""
    out = subprocess.run([bench.program("crc")], check=True, capture_output=True, text=True).stdout
    seen = set()
    for line in out.splitlines():
        size, name, ours, theirs, ratio = line.split()
        target = 5.0 if size == "4096" and size not in seen and name != "table" else None
        seen.add(size)
        bench.ratio(f"crc32c: {name}, {size} bytes / libext2fs", f"{ours} GB/s", f"{theirs} GB/s", float(ratio), target)


def bench_keysetup(bench):
    """keysetup: a file's key, from the master key to a key that is started on ram(1M); its parts; its end."""
    out = subprocess.run([bench.program("keysetup")], check=True, capture_output=True, text=True).stdout
    ns = {name: float(value) for name, value in (line.split() for line in out.splitlines())}
    bench.limit("keysetup: a file's key, as fscrypt/ does it", ns["set-up"] / 1000, "µs", 2, 2)
    for what, value in (("with its eviction", ns["set-up"] + ns["evict"]), ("HKDF alone", ns["derive"]),
                        ("inl_key_new alone", ns["key-new"]), ("inl_key_start alone", ns["key-start"]),
                        ("in another one's place, in a full cache", ns["again"]),
                        ("a context, got and put, of a key that is ready", ns["ready"])):
        bench.row(f"keysetup: {what}", f"{value / 1000:.2f} µs", "-", "-")


def bench_cat(bench):
    """cat: 1 GiB."""
    bench.needs_kernel()
    image = bench.volume("cat", GIB + 192 * MIB, True, lambda tree: pieces(os.path.join(tree, "big"), GIB))
    plain = bench.path("plain")
    pieces(plain, GIB)
    for what, spec in (("fallback", image), ("engine, 1 slot", f"engine({image}, slots=1)")):
        ours, reference, ratio = bench.duel(
            lambda: bench.measure(bench.inlay, "cat", "--key", bench.key, spec + ":/tree/big")[0],
            lambda: bench.measure("cat", plain)[0])
        bench.ratio(f"cat: 1 GiB, {what} / cat of a plain file", f"{GIB / ours / 1e9:.2f} GB/s",
                    f"{GIB / reference / 1e9:.2f} GB/s", ratio, 0.6)
    os.unlink(image)
    os.unlink(plain)


def export(bench, *argv):
    """Run a command that makes the folder `out`; removing it takes no part in the time."""
    out = bench.path("out")
    subprocess.run(["rm", "-rf", out], check=True)
    return bench.measure(*argv, out)


def bench_export(bench):
    """export: 20,000 files of 1 KiB."""
    bench.needs_kernel()
    image = bench.volume("small", 256 * MIB, True, small_files, "-N", "30000")
    plain = bench.volume("plain", 256 * MIB, False, small_files, "-N", "30000")
    mounted = bench.mount(plain, bench.path("plain.mnt"))
    ours, reference, ratio = bench.duel(
        lambda: export(bench, bench.inlay, "get", "--quiet", "--key", bench.key, image + ":/tree")[0],
        lambda: export(bench, "cp", "-a", os.path.join(mounted, "tree"))[0])
    n_files = len(os.listdir(bench.path("out")))
    if n_files != 20000:
        raise RuntimeError(f"{n_files} files were exported")
    bench.umount(mounted)
    bench.ratio("export: 20,000 files of 1 KiB / cp -a, plain", f"{20000 / ours:,.0f} /s",
                f"{20000 / reference:,.0f} /s", ratio, 1.0)


def bench_memory(bench):
    """memory: peak while exporting a big tree."""
    bench.needs_kernel()
    made = []
    image = bench.volume("tree", 768 * MIB, True, lambda tree: made.append(big_tree(tree)), "-N", "110000")
    seconds, peak = export(bench, bench.inlay, "get", "--quiet", "--key", bench.key, image + ":/tree")
    found = sum(len(files) for _, _, files in os.walk(bench.path("out")))
    if found != made[0]:
        raise RuntimeError(f"{made[0]} files were made, {found} exported")
    bench.limit(f"memory: get of {found:,} files, 40 levels, {seconds:.1f} s", peak / MIB, "MiB", 64)


def bench_open(bench):
    """open: a sparse image of 1 TiB, and the listing of its root. Needs no kernel."""
    image = bench.path("huge.img")
    with open(image, "wb") as f:
        f.truncate(1 << 40)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "encrypt", "-E",
                    "lazy_itable_init=1,lazy_journal_init=1,nodiscard", image], check=True)
    runs = [bench.measure(bench.inlay, "ls", image + ":/") for _ in range(bench.pairs)]
    bench.limit("open: ls of 1 TiB, time", statistics.median(s for s, _ in runs) * 1000, "ms", 100)
    bench.limit("open: ls of 1 TiB, memory", max(peak for _, peak in runs) / MIB, "MiB", 64)


ROWS = {"ciphers": bench_ciphers, "xts": bench_xts, "crc32c": bench_crc32c, "keysetup": bench_keysetup, "open": bench_open,
        "cat": bench_cat, "export": bench_export, "memory": bench_memory, **change.ROWS, **mount.ROWS, **block.ROWS}


def workplaces(build):
    """In memory, and on a disk."""
    memory = os.environ.get("BENCH_DIR", "/dev/shm" if os.path.isdir("/dev/shm") else None)
    return (tempfile.TemporaryDirectory(prefix="inlay-bench-", dir=folder)
            for folder in (memory, os.environ.get("BENCH_DISK", build)))


def is_wanted(name, words):
    return not words or name in words or (name not in mount.BY_NAME and any(word in name for word in words))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="of: " + " ".join(ROWS))
    parser.add_argument("--pairs", type=int, default=7, help="measured runs of each side (7)")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a target is missed")
    parser.add_argument("--build", metavar="FOLDER", help="measure what is built there (build, which is brought up to date)")
    o = parser.parse_args()
    build = os.path.abspath(o.build or os.path.join(TOP, "build"))
    if not o.build:
        subprocess.run([os.path.join(TOP, "tools", "run-tests"), "--build", "gcc"], check=True)
    print(f"{'':{WIDTH}} {'inlay':>12} {'reference':>12} {'ratio':>7} {'target':>11}")
    memory, disk = workplaces(build)
    with memory as work, disk as on_disk:
        bench = Bench(build, work, on_disk, o.pairs)
        try:
            for name, run in ROWS.items():
                if not is_wanted(name, o.words):
                    continue
                try:
                    run(bench)
                except Unable as why:
                    print(f"{name}: not measured: {why}", flush=True)
                except (RuntimeError, subprocess.CalledProcessError) as why:
                    print(f"{name}: FAILED: {why}", flush=True)
                    bench.missed += 1
        finally:
            bench.close()
            subprocess.run(["rm", "-rf", bench.path("out")], check=False)
    sys.exit(1 if o.check and bench.missed else 0)


if __name__ == "__main__":
    main()
