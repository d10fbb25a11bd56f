# bench/mount.py: the rows about mounted file systems: contents, small files, compiling, mounting.
# Not here: the table, measuring, other rows (bench/run.py).
# Read more: HACKING.md, "Speed".
"""Rows of bench/run.py. The references are other file systems in user space, those of them that are installed, and the kernel's.

What they keep lies in memory, as our image does. In each round all have their turn, in an order that changes; ratios are of
the same round. Ours is an encrypted directory of a mount; libfuse's pass-through example, with the same options, encrypts
nothing: it is what FUSE takes.
"""
import json
import os
import shutil
import statistics
import subprocess
import time

from block import Unable, needs

MIB = 1 << 20
OPTIONS = ("-O", "encrypt,64bit,metadata_csum,stable_inodes", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")
EXAMPLE = "/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c"  # of Debian's libfuse3-dev
READ_AHEAD_KB, N_BACKGROUND = 4096, 64  # as serve/mount.c has them
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


# ---- file systems --------------------------------------------------------------------------------------------------

class Server:
    """A file system in a process of its own; `dir` is where to work in it."""
    name = None

    def __init__(self, bench, size=0):
        self.bench, self.size, self.process = bench, size, None
        self.point, self.source = (bench.path(f"mount-{self.name}-{what}") for what in ("dir", "source"))
        os.mkdir(self.point)
        self.dir = self.point
        self.make()

    def make(self):
        os.mkdir(self.source)

    def argv(self):
        raise NotImplementedError

    def start(self):
        # In the foreground it is our child, whose end can be waited for.
        self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, **QUIET)
        for _ in range(1000):
            if os.path.ismount(self.point):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.stop()
        raise RuntimeError(f"{self.argv()[0]} does not mount")

    def stop(self):
        if not self.process:
            return
        if os.path.ismount(self.point):
            subprocess.run(["umount", self.point] if not os.geteuid() else ["fusermount3", "-u", self.point], check=True)
        else:
            self.process.terminate()
        self.process.wait()
        self.process = None

    def again(self):
        """What was cached of it is cached no more."""
        self.stop()
        self.start()

    def peak(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))

    def free(self):
        self.stop()
        for path in (self.point, self.source):
            subprocess.run(["rm", "-rf", path], check=False)


class Inlay(Server):
    name = "inlay"

    def make(self):
        make_image(self.source, self.size)
        inlay = self.bench.inlay
        subprocess.run([inlay, "mkdir", self.source + ":/d"], check=True)
        subprocess.run([inlay, "encrypt", self.source + ":/d", "--key", self.bench.key], check=True, **QUIET)
        self.dir = os.path.join(self.point, "d")

    def argv(self):
        return [self.bench.inlay, "mount", "-f", "--key", self.bench.key, self.source, self.point]

    def free(self):
        self.stop()
        subprocess.run(["e2fsck", "-fn", self.source], check=True, **QUIET)
        super().free()


class PassThrough(Server):
    name = "pass-through"

    def make(self):
        self.program = self.bench.path("passthrough_ll")
        if not os.path.exists(self.program):
            if not os.path.exists(EXAMPLE):
                raise Unable("needs libfuse's example passthrough_ll.c")
            flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True)
            subprocess.run(["cc", "-O2", "-w", "-o", self.program, EXAMPLE, *flags.stdout.split()], check=True)
        super().make()

    def argv(self):
        return [self.program, "-f", "-o", f"source={self.source},writeback,cache=always,timeout=86400,clone_fd,default_permissions",
                self.point]

    def start(self):
        """What ours asks for when it begins, and the example does not."""
        super().start()
        device = os.stat(self.point).st_dev
        write_to(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", READ_AHEAD_KB)
        control = self.bench.path("control")
        os.makedirs(control, exist_ok=True)
        if subprocess.run(["mount", "-t", "fusectl", "none", control], check=False, **QUIET).returncode:
            return
        write_to(os.path.join(control, str(os.minor(device)), "max_background"), N_BACKGROUND)
        write_to(os.path.join(control, str(os.minor(device)), "congestion_threshold"), N_BACKGROUND * 3 // 4)
        subprocess.run(["umount", control], check=True)


class Gocryptfs(Server):
    name = "gocryptfs"

    def make(self):
        needs("gocryptfs")
        super().make()
        subprocess.run(["gocryptfs", "-init", "-q", "-scryptn", "10", "-passfile", passphrase(self.bench), self.source], check=True)

    def argv(self):
        return ["gocryptfs", "-q", "-fg", "-passfile", passphrase(self.bench), self.source, self.point]


class Securefs(Server):
    name = "securefs"

    def make(self):
        needs("securefs")
        super().make()
        subprocess.run(["securefs", "create", "--pass", "secret", "-r", "1", self.source], check=True, **QUIET)

    def argv(self):
        return ["securefs", "mount", "--pass", "secret", self.source, self.point]


class Fuse2fs(Server):
    name = "fuse2fs"

    def make(self):
        needs("fuse2fs")
        make_image(self.source, self.size)

    def argv(self):
        return ["fuse2fs", "-f", self.source, self.point]


class Kernel(Server):
    """Plain ext4 on a loop device."""
    name = "ext4"

    def make(self):
        self.bench.needs_kernel()
        make_image(self.source, self.size)

    def start(self):
        self.bench.mount(self.source, self.point)

    def stop(self):
        if self.point in self.bench.mounts:
            self.bench.umount(self.point)


def write_to(path, number):
    try:
        with open(path, "w", encoding="ascii") as f:
            f.write(str(number))
    except OSError:
        pass  # not allowed here: it stays as it is


def make_image(path, size, *options):
    with open(path, "wb") as f:
        f.truncate(size)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", *OPTIONS, *options, path], check=True)


def passphrase(bench):
    """Of volumes with nothing in them."""
    path = bench.path("passphrase")
    with open(path, "w", encoding="ascii") as f:
        f.write("secret\n")
    return path


class Contest:
    """Servers beside each other. Those that cannot be had here are named, and left out."""

    def __init__(self, bench, name, kinds, size):
        if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount3"):
            raise Unable("needs FUSE")
        self.bench, self.servers = bench, {}
        for kind in kinds:
            try:
                self.servers[kind.name] = kind(bench, size)
            except Unable as why:
                print(f"{name}: without {kind.name}: {why}", flush=True)
                subprocess.run(["rm", "-rf", bench.path(f"mount-{kind.name}-dir")], check=True)

    def __enter__(self):
        for server in self.servers.values():
            server.start()
        return self

    def __exit__(self, *_):
        for server in self.servers.values():
            server.free()

    def turns(self, number):
        """All of them; who is first in one round is last in the next."""
        servers = list(self.servers.values())
        first = number % len(servers)
        return servers[first:] + servers[:first]


def show(bench, what, seconds, amount, unit, targets):
    """A row for each reference. seconds: name -> rounds; targets: name -> the least ratio, or None."""
    def shown(name):
        value = amount / statistics.median(seconds[name])
        return f"{value:,.0f} {unit}"

    for name in [n for n in seconds if n != Inlay.name]:
        ratios = sorted(b / a for a, b in zip(seconds[Inlay.name], seconds[name]))
        bench.ratio(f"{what} / {name}", shown(Inlay.name), shown(name), statistics.median(ratios), targets.get(name),
                    f"{ratios[0]:.2f} to {ratios[-1]:.2f}")


# ---- contents ------------------------------------------------------------------------------------------------------

TOTAL = 512  # MiB, in one file or in four
WORK = (  # name, what fio calls it, bytes of an I/O, MiB of all jobs, the least of the pass-through, of gocryptfs
    ("1 MiB writes", "write", "1m", TOTAL, 0.9, 2.0),
    ("1 MiB reads", "read", "1m", TOTAL, 0.9, 1.0),
    ("4 KiB random reads", "randread", "4k", 96, 0.85, 1.0),
    ("4 KiB random writes", "randwrite", "4k", 96, 0.85, 1.0),
)


def fio(directory, rw, unit, total, n_jobs):
    """Seconds. fio drops what is cached of a file before it begins; writes end with an fsync."""
    out = subprocess.run(["fio", f"--name=file-{n_jobs}", f"--directory={directory}", f"--rw={rw}", f"--bs={unit}", "--ioengine=psync",
                          "--thread", f"--numjobs={n_jobs}", "--group_reporting", f"--size={TOTAL // n_jobs}M",
                          f"--io_size={total // n_jobs}M", "--fallocate=none", "--end_fsync=1", "--invalidate=1",
                          "--output-format=json"], check=True, capture_output=True, text=True).stdout
    job = json.loads(out)["jobs"][0]
    side = job["write" if "write" in rw else "read"]
    if side["io_bytes"] != total * MIB:
        raise RuntimeError(f"fio did {side['io_bytes']} bytes of {total} MiB in {directory}")
    return side["runtime"] / 1000


def remove_files(directory):
    for name in os.listdir(directory):
        os.unlink(os.path.join(directory, name))


def bench_contents(bench):
    """mount-contents: new files are written, read, read and written at random; the kernel's cache of them is empty before."""
    needs("fio")
    with Contest(bench, "mount-contents", (Inlay, PassThrough, Gocryptfs, Securefs), 1536 * MIB) as contest:
        for n_jobs in (1, 4):
            rounds = min(bench.pairs, 4)
            seconds = {work: {name: [] for name in contest.servers} for work in WORK}
            for number in range(rounds):
                for server in contest.turns(number):
                    remove_files(server.dir)
                for work in WORK:
                    for server in contest.turns(number):
                        seconds[work][server.name].append(fio(server.dir, *work[1:4], n_jobs))
            for work in WORK:
                show(bench, f"mount-contents: {work[0]}, {n_jobs} job{'s'[:n_jobs - 1]}", seconds[work], work[3], "MiB/s",
                     {"pass-through": work[4], "gocryptfs": work[5], "securefs": 1.0})


# ---- small files ---------------------------------------------------------------------------------------------------

N_FILES = 20000


def clocked(fn, directory):
    """Seconds, until what was done is durable, as far as who is asked for that knows it."""
    start = time.monotonic()
    fn(directory)
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:
        pass
    os.close(fd)
    return time.monotonic() - start


def create(directory):
    content = bytes(range(256)) * 4
    for i in range(N_FILES):
        fd = os.open(f"{directory}/file-{i:05d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, content)
        os.close(fd)


def read(directory):
    found = 0
    for name in os.listdir(directory):
        fd = os.open(f"{directory}/{name}", os.O_RDONLY)
        found += len(os.read(fd, 4096))
        os.close(fd)
    if found != N_FILES * 1024:
        raise RuntimeError(f"{found} bytes were read in {directory}")


def delete(directory):
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")


def files_round(servers, seconds):
    """One round of all servers; seconds: what was done -> name -> rounds."""
    for server in servers:
        os.mkdir(os.path.join(server.dir, "files"))
    for fn, found in seconds.items():
        for server in servers:
            if fn is read:
                server.again()
            found.setdefault(server.name, []).append(clocked(fn, os.path.join(server.dir, "files")))
    for server in servers:
        os.rmdir(os.path.join(server.dir, "files"))


def bench_files(bench):
    """mount-files: 20,000 files of 1 KiB in one directory: made; read after a new mount; removed.

    The pass-through has no part in it: it holds a descriptor for each file that the kernel knows. fuse2fs, which takes more than
    a minute, has part in one round only.
    """
    with Contest(bench, "mount-files", (Inlay, Gocryptfs, Securefs, Fuse2fs), 512 * MIB) as contest:
        seconds, seconds_once = ({fn: {} for fn in (create, read, delete)} for _ in range(2))
        slow = contest.servers.pop(Fuse2fs.name, None)
        for number in range(min(bench.pairs, 5)):
            files_round(contest.turns(number), seconds)
        if slow:
            contest.servers[Fuse2fs.name] = slow
            files_round([contest.servers[Inlay.name], slow], seconds_once)
        for fn in seconds:
            what = f"mount-files: {fn.__name__} {N_FILES:,} of 1 KiB"
            show(bench, what, seconds[fn], N_FILES, "/s", {"gocryptfs": 1.5, "securefs": 1.0})
            if slow:
                show(bench, what, seconds_once[fn], N_FILES, "/s", {"fuse2fs": 5.0})


# ---- compiling -----------------------------------------------------------------------------------------------------

MAKEFILE = """\
OBJECTS := $(patsubst %.c,%.o,$(wildcard base/*.c ext4/*.c))
library.a: $(OBJECTS)
\tar rcs $@ $(OBJECTS)
%.o: %.c
\t$(CC) -std=gnu11 -D_GNU_SOURCE -O0 -I. -Iinclude -MMD -c -o $@ $<
clean:
\trm -f library.a */*.o */*.d
"""


def bench_make(bench):
    """mount-make: `make -j2` of what is in base/ and ext4/, in a directory of ours and in one of the kernel's ext4."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    needs("make", "cc")
    with Contest(bench, "mount-make", (Inlay, Kernel), 512 * MIB) as contest:
        for server in contest.servers.values():
            for folder in ("base", "block", "ext4", "fscrypt", "include"):
                shutil.copytree(os.path.join(top, folder), os.path.join(server.dir, folder))
            with open(os.path.join(server.dir, "Makefile"), "w", encoding="ascii") as f:
                f.write(MAKEFILE)
        seconds = {name: [] for name in contest.servers}
        for number in range(min(bench.pairs, 3)):
            for server in contest.turns(number):
                subprocess.run(["make", "-s", "-C", server.dir, "clean"], check=True)
                server.again()
                seconds[server.name].append(bench.measure("make", "-s", "-j2", "-C", server.dir)[0])
        if Kernel.name in seconds:
            show_compiled(bench, seconds)


def show_compiled(bench, seconds):
    ours, theirs = (statistics.median(seconds[kind.name]) for kind in (Inlay, Kernel))
    ratios = sorted(a / b for a, b in zip(seconds[Inlay.name], seconds[Kernel.name]))
    value = statistics.median(ratios)
    bench.row("mount-make: time of make -j2 / kernel's ext4, loop mount", f"{ours:.2f} s", f"{theirs:.2f} s", f"{value:.2f}", "<= 1.30",
              value <= 1.3, f"{ratios[0]:.2f} to {ratios[-1]:.2f}")


# ---- mounting, memory ----------------------------------------------------------------------------------------------

class Large(Inlay):
    """1 TiB, a million files in its root."""

    def make(self):
        make_image(self.source, 1 << 40, "-N", "1300000")
        subprocess.run([self.bench.program("creates"), self.source, "1000000"], check=True, **QUIET)

    def free(self):
        self.stop()
        Server.free(self)


def time_mount(bench, large):
    """The command returns when programs can use it."""
    seconds = bench.measure(bench.inlay, "mount", "--key", bench.key, large.source, large.point)[0]
    subprocess.run([bench.inlay, "umount", large.point], check=True)
    return seconds


def add_files(directory, n):
    os.mkdir(directory)
    for i in range(n):
        os.close(os.open(f"{directory}/file-{i:06d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def bench_large(bench):
    """mount-large: a million files in 1 TiB: how long mounting takes; memory after all were seen, and 100,000 more were made."""
    large = Large(bench)
    try:
        bench.limit("mount-large: mount of 1 TiB, a million files",
                    statistics.median(time_mount(bench, large) for _ in range(bench.pairs)) * 1000, "ms", 100)
        large.start()
        seen = subprocess.run(["find", large.point, "-type", "f", "-newermt", "2001-01-01"], check=True, capture_output=True).stdout
        if seen.count(b"\n") != 1000000:
            raise RuntimeError(f"find found {seen.count(bytes([10]))} files")
        bench.limit("mount-large: memory after a find over them", large.peak() / MIB, "MiB", 100)
        add_files(os.path.join(large.point, "more"), 100000)
        bench.limit("mount-large: memory after 100,000 more were made", large.peak() / MIB, "MiB", 100)
    finally:
        large.free()


BY_NAME = ("mount-large",)  # picked by no part of its name: it takes a minute
ROWS = {"mount-contents": bench_contents, "mount-files": bench_files, "mount-make": bench_make, "mount-large": bench_large}
