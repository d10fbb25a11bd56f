# bench/block.py: the rows of the table that are about the block layer.
# Not here: the table itself and the other rows (bench/run.py).
# Read more: HACKING.md, "Speed".
import json
import os
import re
import shutil
import statistics
import subprocess
import time

GIB = 1 << 30
MIB = 1 << 20
SECONDS = 0.5  # of one measured run
RAM_SIZE = 64 * MIB  # more than the caches hold
RAM = f"ram({RAM_SIZE})"
SIZES = ((4096, "4 KiB"), (128 * 1024, "128 KiB"))


class Unable(Exception):
    """This machine cannot run the row."""


def needs(*tools):
    for tool in tools:
        if not shutil.which(tool):
            raise Unable(f"needs {tool}")


# ---- one run ------------------------------------------------------------------------------------------------------------

def load(bench, spec, *options):
    """What `inlay bench block` found."""
    argv = [bench.inlay, "bench", "block", "--json", f"--time={SECONDS}", *options, spec]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def n_bytes(result):
    return result["read"]["bytes"] + result["write"]["bytes"]


def per_second(result):
    """Bytes, by the clock."""
    return n_bytes(result) * 1e9 / result["elapsed_ns"]


def per_core(result, amount):
    """... for each second of CPU time, of all threads and of the kernel."""
    return amount * 1e9 / (result["cpu_user_ns"] + result["cpu_system_ns"])


def cipher_figures(bench, rw, size, unit, *region):
    argv = [bench.program("cipher"), rw, str(size), str(unit), str(SECONDS), *map(str, region)]
    return [float(x) for x in subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()]


def cipher(bench, rw, size, unit):
    """Bytes per second of one core, by the clock: the cipher alone."""
    return cipher_figures(bench, rw, size, unit)[0]


def cipher_per_core(bench, rw, size, unit, region, buffers):
    """Bytes for each second of CPU time: the cipher alone between buffers and random places in a region of memory."""
    return cipher_figures(bench, rw, size, unit, region, buffers)[1]


def fio(rw, *options):
    """4 KiB I/Os per second at depth 32."""
    argv = ["fio", "--name=fio", "--rw=rand" + rw, "--bs=4k", "--iodepth=32", "--norandommap", "--time_based",
            f"--runtime={int(SECONDS * 1000)}ms", "--output-format=json", *options]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}: {done.stderr.strip()}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    if job["error"]:
        raise RuntimeError(f"{' '.join(argv)}: error {job['error']}")
    return job[rw]["iops"]


def rounds(bench, *runs):
    """Run all in turns, every other round from the last to the first, after one that does not count: lists of results."""
    found = [[] for _ in runs]
    for number in range(bench.pairs + 1):
        order = list(enumerate(runs))
        for i, run in order if number % 2 else reversed(order):
            value = run()
            if number:
                found[i].append(value)
    return found


def duel(bench, what, ours, reference, target):
    a, b = rounds(bench, ours, reference)
    bench.ratio(what, rate(statistics.median(a)), rate(statistics.median(b)),
                statistics.median(x / y for x, y in zip(a, b)), target)


def rate(value):
    return f"{value / 1e6:.2f} M/s" if value >= 1e6 else f"{value / 1e3:.1f} k/s"


def speed(value):
    return f"{value / 1e9:.2f} GB/s"


# ---- rows ---------------------------------------------------------------------------------------------------------------

def bench_layer(bench):
    """block-layer: 4 KiB random reads at depth 32 beside fio on the same file."""
    needs("fio")
    memory, disk = bench.path("layer"), bench.disk_path("layer")
    for what, path, direct in (("tmpfs", memory, False), ("page cache", disk, False), ("disk, direct", disk, True)):
        if not os.path.exists(path):
            bench.noise(path, 512 * MIB)
        spec = f'file("{path}"{", direct" if direct else ""})'
        duel(bench, f"block-layer: 4 KiB reads, {what} / fio io_uring",
             lambda spec=spec: load(bench, spec)["ios_per_second"],
             lambda path=path, direct=direct: fio("read", "--ioengine=io_uring", f"--filename={path}", "--readonly",
                                                  f"--direct={int(direct)}", "--invalidate=0", f"--size={512 * MIB}"), 0.95)
    os.unlink(memory)
    os.unlink(disk)


def bench_ram(bench):
    """block-ram: bios per second of one core; the clock is not read for each."""
    def run(*options):
        result = load(bench, "ram(256K)", "--bs=512", "--sample=0", *options)
        return per_core(result, result["ios"])

    one, many = rounds(bench, run, lambda: run("--plug=32"))
    for what, values in (("one by one", one), ("32 at a time", many)):
        bench.least(f"block-ram: 512-byte reads in cache, {what}", rate(statistics.median(values)),
                    statistics.median(values), 5e6, "5.00 M/s")


def bench_crypt(bench):
    """block-crypt: the fallback beside the device alone and the cipher alone, one after the other."""
    path = bench.path("crypt")
    bench.noise(path, 256 * MIB)
    for what, spec in (("ram", RAM), ("tmpfs", f'file("{path}")')):
        for size, name in SIZES:
            for rw in ("read", "write"):
                options = (f"--rw={rw}", f"--bs={size}", "--overwrite")
                both, device, alone = rounds(
                    bench, lambda: load(bench, spec, *options, "--key=raw", "--unit=4096"),
                    lambda: load(bench, spec, *options), lambda: cipher(bench, rw, size, 4096))
                both, device = ([per_core(r, n_bytes(r)) for r in results] for results in (both, device))
                limit = [1 / (1 / d + 1 / c) for d, c in zip(device, alone)]
                bench.ratio(f"block-crypt: {name} {rw}s, {what} / device then cipher", speed(statistics.median(both)),
                            speed(statistics.median(limit)), statistics.median(b / m for b, m in zip(both, limit)), 0.9)
    os.unlink(path)


def bench_memory(bench):
    """block-memory: encrypted I/O to memory beside the cipher alone: as many buffers, places in a region of the same size.

    Plugged, all buffers are in use, and with both sides the one that was used last is the next: a queue that callbacks
    keep full does not use a number of buffers that could be told.
    """
    for size, name in reversed(SIZES):
        for rw in ("write", "read"):
            for depth in (1, 32):
                options = (f"--rw={rw}", f"--bs={size}", f"--depth={depth}", f"--plug={depth}", "--sample=0", "--key=raw",
                           "--unit=4096")
                both, alone = rounds(bench, lambda: load(bench, RAM, *options),
                                     lambda: cipher_per_core(bench, rw, size, 4096, RAM_SIZE, depth))
                both = [per_core(r, n_bytes(r)) for r in both]
                what = f"block-memory: {name} {rw}s, {depth} buffer{'s' if depth > 1 else ''}, ram / cipher alone"
                bench.ratio(what, speed(statistics.median(both)), speed(statistics.median(alone)),
                            statistics.median(b / a for b, a in zip(both, alone)),
                            0.8 if (rw, size) == ("write", 128 * 1024) else None)


def bench_delay(bench):
    """block-delay: the fallback on a device that takes 100 us for each I/O: both at the same time."""
    spec = f"fault({RAM}, delay=100us)"
    for size, name, depth in ((4096, "4 KiB", 32), (128 * 1024, "128 KiB", 8)):
        for rw in ("read", "write"):
            options = (f"--rw={rw}", f"--bs={size}", f"--depth={depth}")
            both, device, alone = rounds(
                bench, lambda: per_second(load(bench, spec, *options, "--key=raw", "--unit=4096")),
                lambda: per_second(load(bench, spec, *options)), lambda: cipher(bench, rw, size, 4096))
            limit = [min(d, c) for d, c in zip(device, alone)]
            bench.ratio(f"block-delay: {name} {rw}s, 100 us / slower of the two", speed(statistics.median(both)),
                        speed(statistics.median(limit)), statistics.median(b / m for b, m in zip(both, limit)), 0.9)


def bench_slots(bench):
    """block-slots: what a key costs on an engine that does nothing."""
    runs = [[float(x) for x in subprocess.run([bench.program("slots")], check=True, capture_output=True,
                                              text=True).stdout.split()] for _ in range(bench.pairs)]
    plain, slot, request = (statistics.median(column) for column in zip(*runs))
    bench.row("block-slots: a bio without a key", f"{plain:.0f} ns", "-", "-")
    bench.limit("block-slots: more for a slot that is hit", slot, "ns", 100)
    bench.row("block-slots: more for a key with the request", f"{request:.0f} ns", "-", "-")


def bench_keys(bench):
    """block-keys: 10,000 keys in 32 slots: hit rate."""
    for what, options in (("alike", ()), ("Zipf 0.99", ("--zipf=0.99",))):
        results = [load(bench, f"engine({RAM}, slots=32)", "--key=raw", "--keys=10000", *options)
                   for _ in range(bench.pairs)]
        counters = [r["device"]["counters"] for r in results]
        hits = statistics.median(c["slot_hits"] / (c["slot_hits"] + c["slot_programs"]) for c in counters)
        programs = statistics.median(c["slot_programs"] * 1e9 / r["elapsed_ns"] for c, r in zip(counters, results))
        bench.row(f"block-keys: 10,000 keys, 32 slots, {what}: programs, hits", rate(programs), "-", f"{hits:.3f}")


# ---- beside others ------------------------------------------------------------------------------------------------------

class Server:
    """A program that serves an NBD volume on a socket as long as the block runs."""

    def __init__(self, socket, argv):
        self.socket, self.argv = socket, argv

    def __enter__(self):
        self.child = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(200):
            if os.path.exists(self.socket) or self.child.poll() is not None:
                break
            time.sleep(0.05)
        if self.child.poll() is not None or not os.path.exists(self.socket):
            self.__exit__()
            raise Unable(f"{self.argv[0]} does not start")
        return "nbd+unix:///?socket=" + self.socket

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()
        if os.path.exists(self.socket):
            os.unlink(self.socket)


def luks_volume(bench):
    """A LUKS volume of 256 MiB with noise in it, and the file with its passphrase, which protects nothing."""
    needs("qemu-img", "qemu-nbd")
    image, word = bench.path("luks"), bench.path("luks-passphrase")
    with open(word, "w", encoding="ascii") as f:
        f.write("bench")
    create = ["qemu-img", "create", "-q", "-f", "luks", "--object", f"secret,id=word,file={word}", "-o",
              "key-secret=word,iter-time=10", image, "256M"]
    for _ in range(4):  # it measures the processor first, and gives up where that is busy with other things
        if subprocess.run(create, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            break
    else:
        subprocess.run(create, check=True)
    with open(image, "r+b") as f:
        f.seek(os.path.getsize(image) - 256 * MIB)
        for _ in range(256):
            f.write(os.urandom(MIB))
    return image, word


def ours_beside_luks(bench, path, rw):
    """Data units of 512 bytes, as LUKS has them."""
    return load(bench, f'file("{path}")', f"--rw={rw}", "--key=raw", "--unit=512", "--overwrite")["ios_per_second"]


def qemu_img_bench(uri, rw, n):
    """qemu-img bench knows no random places: a step that is no divisor of the size comes near."""
    done = subprocess.run(["qemu-img", "bench", "-f", "raw", "-c", str(n), "-d", "32", "-s", "4096", "-S", str(MIB + 4096),
                           *(["-w", "-t", "writeback"] if rw == "write" else []), uri], check=True, capture_output=True,
                          text=True)
    return n / float(re.search(r"completed in ([\d.]+) seconds", done.stdout).group(1))


def bench_qemu(bench):
    """block-qemu: qemu-img bench; it takes no passphrase, so qemu-nbd decrypts for it."""
    image, word = luks_volume(bench)
    plain, socket = bench.path("plain"), bench.path("qemu-socket")
    bench.noise(plain, 256 * MIB)
    argv = ["qemu-nbd", "-t", "-k", socket, "--object", f"secret,id=word,file={word}", "--image-opts",
            f"driver=luks,key-secret=word,file.driver=file,file.filename={image}"]
    with Server(socket, argv) as uri:
        for rw in ("read", "write"):
            duel(bench, f"block-qemu: 4 KiB {rw}s, encrypted / LUKS, qemu-img bench",
                 lambda: ours_beside_luks(bench, plain, rw), lambda: qemu_img_bench(uri, rw, 20000), 3)
    os.unlink(image)
    os.unlink(plain)


def bench_nbdkit(bench):
    """block-nbdkit: its luks filter, through fio's nbd engine."""
    needs("fio", "nbdkit")
    image, word = luks_volume(bench)
    plain, socket = bench.path("plain"), bench.path("nbdkit-socket")
    bench.noise(plain, 256 * MIB)
    argv = ["nbdkit", "-f", "-U", socket, "--filter=luks", "file", image, f"passphrase=+{word}"]
    with Server(socket, argv) as uri:
        for rw in ("read", "write"):
            duel(bench, f"block-nbdkit: 4 KiB {rw}s, encrypted / LUKS, nbdkit",
                 lambda: ours_beside_luks(bench, plain, rw),
                 lambda: fio(rw, "--ioengine=nbd", f"--uri={uri}", "--size=256M"), 3)
    os.unlink(image)
    os.unlink(plain)


ROWS = {"block-layer": bench_layer, "block-ram": bench_ram, "block-crypt": bench_crypt, "block-memory": bench_memory,
        "block-delay": bench_delay, "block-slots": bench_slots, "block-keys": bench_keys, "block-qemu": bench_qemu,
        "block-nbdkit": bench_nbdkit}
