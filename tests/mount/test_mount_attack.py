#!/usr/bin/env python3
"""Attacks on the locks of a mount: what is held across one, who keeps others from one, and what looks like one and is none.

Not here: what locks do when nobody minds (test_mount_lock.py); the ioctls as such (test_mount_ioctls.py).
Read more: SECURITY.md; doc/socket.md; ARCHITECTURE.md, "The life of a lock".

A server that an attack has stopped would keep a test for ever: each step has its time, and each mount a watch.
"""
import contextlib
import ctypes
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import cli  # noqa: E402
import fscryptctl as ctl  # noqa: E402
import keyscript  # noqa: E402
import live  # noqa: E402
import memory  # noqa: E402
import tap  # noqa: E402
import trees  # noqa: E402

MIB = 1 << 20
A, B = keyscript.USERS["A"], keyscript.USERS["B"]
OF_USER_MAX = 4  # threads that look into the memory of one user's processes
SOON = 4  # seconds: what takes a moment has happened then, on a slow machine as well
ABSENT, PRESENT = "absent", "present"
REMOVE, STATUS = 2, 3
REPORT_SIZE = 12032
REPORT = 3 << 30 | REPORT_SIZE << 16 | 0xb1 << 8 | 3
IN_ATTRIB, IN_DONT_FOLLOW = 0x4, 0x02000000
MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Volume:
    """A volume with an encrypted directory, where everybody may write."""

    _made = {}

    def __init__(self, size="32M"):
        if size not in self._made:
            image, key_file = live.volume(size), live.key()
            live.with_directory(image, key_file)
            cli.good("chmod", "777", image + ":/enc")
            self._made[size] = (image, key_file)
        self.image, self.key_file = map(tap.copy, self._made[size])
        self.key = keyscript.identifier(read(self.key_file))


@contextlib.contextmanager
def attacked(*options, volume=None, limit=25, judged=True):
    """Yields a mount with the key, which has it in mount.key; in the end the volume is sound."""
    volume = volume or Volume()
    with live.mounted(volume.image, "-o", "allow_other", *options, keys=[volume.key_file], limit=limit) as mount:
        mount.key, mount.key_file, mount.enc = volume.key, volume.key_file, mount.path("enc")
        yield mount
    if judged:
        live.sound(volume.image)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def unlock(mount):
    cli.good("unlock", mount.dir, keys=[mount.key_file], timeout=SOON)


def lock(mount, seconds=SOON):
    """All of it, and nobody is busy."""
    cli.good("lock", mount.dir, mount.key.hex(), timeout=seconds)


def state(mount):
    rows = [row["state"] for row in mount.status()["keys"] if row.get("identifier") == mount.key.hex()]
    return rows[0] if rows else ABSENT


def links(directory):
    """What all symbolic links in it say."""
    return [os.readlink(entry.path) for entry in os.scandir(directory) if entry.is_symlink()]


def forked(function, *args):
    """The function in a process of its own, until it is ended. Returns its number."""
    pid = os.fork()
    if not pid:
        try:
            function(*args)
        finally:
            os._exit(0)
    return pid


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def stop(mount):
    """Its server does nothing any more when this returns."""
    def is_stopped():
        tasks = f"/proc/{mount.pid}/task"
        return all(read(f"{tasks}/{task}/stat").rpartition(b")")[2].split()[0] == b"T" for task in os.listdir(tasks))

    mount.kill(signal.SIGSTOP)
    live.wait_for(is_stopped, SOON, "the server does not stop")


def gone(pid):
    return os.waitpid(pid, os.WNOHANG)[0] == pid


# ---- what is held across a lock ---------------------------------------------------------------------------------------


@tap.test
def held_link():
    """A symbolic link that is held by O_PATH and by inotify: its target is not read after the lock, and is after an unlock"""
    target = "/very/secret/target"
    with attacked() as mount:
        os.symlink(target, mount.path("enc", "link"))
        tap.equal(links(mount.enc), [target])
        held = os.open(mount.path("enc", "link"), os.O_PATH | os.O_NOFOLLOW)
        watch = _libc.inotify_init1(os.O_CLOEXEC)
        assert _libc.inotify_add_watch(watch, os.fsencode(mount.path("enc", "link")), IN_DONT_FOLLOW | IN_ATTRIB) > 0
        tap.equal(os.readlink("", dir_fd=held), target)
        lock(mount)
        locked = links(mount.enc)
        assert target not in locked, "by its no-key name"
        tap.equal(os.readlink("", dir_fd=held), locked[0], "by the descriptor")
        tap.equal(live.as_user(A, lambda: links(mount.enc) == locked), "True", "by another user")
        unlock(mount)
        tap.equal((links(mount.enc), os.readlink("", dir_fd=held)), ([target], target))
        os.close(held)
        os.close(watch)


def next_names(fd, size):
    """The names of one getdents64(), without dots; None: there are no more."""
    buf = ctypes.create_string_buffer(size)
    n = _libc.syscall(217 if os.uname().machine == "x86_64" else 61, fd, buf, size)
    if n < 0:
        raise OSError(ctypes.get_errno(), "getdents64")
    names, at = [], 0
    while at < n:
        length, = struct.unpack_from("<H", buf.raw, at + 16)
        names.append(buf.raw[at + 19:at + length].split(b"\0")[0].decode())
        at += length
    return [name for name in names if name.strip(".")] if n else None


def all_names(fd):
    out = []
    while (names := next_names(fd, 1 << 16)) is not None:
        out += names
    return out


@tap.test
def read_ahead():
    """A directory that was opened without the key, and half read with it: no name after the lock, neither on nor again"""
    with attacked() as mount:
        for i in range(120):
            os.mkfifo(mount.path("enc", f"secret-{i:04}-" + "x" * 100))
        lock(mount)
        here = os.open(mount.enc, os.O_RDONLY | os.O_DIRECTORY)
        unlock(mount)
        first = next_names(here, 8192)
        assert first and all(name.startswith("secret-") for name in first), first
        lock(mount)
        rest = all_names(here)
        tap.equal([name for name in rest if name.startswith("secret-")], [], "read on")
        os.lseek(here, 0, os.SEEK_SET)
        again = all_names(here)
        tap.equal((len(again), [name for name in again if name.startswith("secret-")]), (120, []), "read again")
        os.close(here)


# ---- what keeps others from locking -----------------------------------------------------------------------------------


def look_into(directory, path, page, go, out):
    """An ioctl of the mount of `directory` whose argument lies in a page of `path`, when the pipe `go` ends."""
    fd, where = os.open(path, os.O_RDONLY), os.open(directory, os.O_RDONLY)
    area = mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)
    area.madvise(mmap.MADV_RANDOM)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    os.write(out, b"ready\n")
    os.read(go, 1)
    said = ctl.said_by(ctl.at, where, ctl.SET_POLICY, address + page * mmap.PAGESIZE)
    os.write(out, (said + "\n").encode())


class Looking:
    """n processes that do so, with pages that lie far apart, when they are told to go."""

    def __init__(self, directory, path, n):
        self.n, self.pids = n, []
        go_read, self.go_write = os.pipe()
        self.said_read, said_write = os.pipe()
        os.set_blocking(self.said_read, False)
        size = os.stat(path).st_size // mmap.PAGESIZE
        for i in range(n):
            self.pids.append(forked(self.child, directory, path, i * size // n, go_read, said_write))
        os.close(go_read)
        os.close(said_write)
        tap.equal(self.said(n), ["ready"] * n)

    def child(self, directory, path, page, go, out):
        os.close(self.go_write)
        look_into(directory, path, page, go, out)

    def go(self):
        os.close(self.go_write)
        self.go_write = -1

    def said(self, n):
        """What n of them say; fewer: the others have nothing to say in time."""
        out, end = b"", time.monotonic() + SOON
        while out.count(b"\n") < n and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                out += os.read(self.said_read, 4096)
            time.sleep(0.01)
        return out.decode().split()

    def kill(self):
        """Who waits for a server is gone when that answers, or is gone."""
        for pid in self.pids:
            kill(pid)

    def end(self):
        self.kill()
        for pid in self.pids:
            live.wait_for(lambda p=pid: gone(p), SOON, "a process that has asked does not end")
        os.close(self.said_read)
        if self.go_write >= 0:
            os.close(self.go_write)


def with_holes(mount):
    """A file without a page that the kernel has kept."""
    trees.write(mount.path("holes"), b"")
    os.truncate(mount.path("holes"), 64 * MIB)
    return mount.path("holes")


@contextlib.contextmanager
def rescued(*mounts):
    """Servers that do not go on are ended: before those who wait for them are waited for."""
    try:
        yield
    except BaseException:
        for mount in mounts:
            mount.kill(signal.SIGCONT)
            mount.kill()
        raise


@tap.test
def pointer_into_itself():
    """Ioctls whose argument is in a file of the same mount, which nobody has read yet: all are answered, and locks are done"""
    n = 40
    with attacked() as mount:
        looking = Looking(mount.dir, with_holes(mount), n)
        try:
            with rescued(mount):
                # All at once: there are fewer that serve.
                stop(mount)
                looking.go()
                time.sleep(0.3)
                mount.kill(signal.SIGCONT)
                # Of holes a policy is made that this directory cannot have.
                said = looking.said(n)
                tap.equal((len(said), set(said) - {"EAGAIN"}), (n, {"ENOTEMPTY"}), "answers")
                lock(mount)
        finally:
            looking.end()


@tap.test
def pointer_into_another():
    """Ioctls whose argument is in a file of a mount that is stopped: neither locks nor the end of the server wait"""
    n, volume = 40, Volume()
    with attacked() as stopped:
        mount = live.Mount(volume.image, "-o", "allow_other", keys=[volume.key_file], limit=25)
        looking = Looking(mount.dir, with_holes(stopped), n)
        try:
            stop(stopped)
            looking.go()
            tap.equal(looking.said(n - OF_USER_MAX), ["EAGAIN"] * (n - OF_USER_MAX), "one too many")
            cli.good("lock", mount.dir, volume.key.hex(), timeout=SOON)
            cli.good("unlock", mount.dir, keys=[volume.key_file], timeout=SOON)
            trees.write(mount.path("enc", "file"), b"data")
            cli.good("lock", mount.dir, volume.key.hex(), timeout=SOON)
            mount.kill(signal.SIGTERM)
            if memory.is_sanitized(mount.pid):
                stopped.kill(signal.SIGCONT)  # at its end LeakSanitizer stops all threads: it would wait for those
            mount.wait(SOON)
        finally:
            mount.kill()
            stopped.kill(signal.SIGCONT)
            looking.end()
            mount.put_away()
    live.sound(volume.image)


def socket_of(mount):
    st = os.stat(mount.dir)
    return f"/run/inlay/{os.major(st.st_dev)}:{os.minor(st.st_dev)}"


def connected(path):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(SOON)
    peer.connect(path)
    return peer


def be_a_nuisance(path, uid):
    """As this user: many that say nothing, and one after the other that says a little."""
    ctl.become(uid)
    silent = []
    while True:
        with contextlib.suppress(OSError):
            if len(silent) < 12:
                silent.append(connected(path))
            dribbling = connected(path)
            dribbling.send(b"x")
            dribbling.recv(100)
        time.sleep(0.02)


@tap.test
def silent_peers():
    """Another user's peers at the socket that say nothing, or nonsense: neither locks nor the end of the server wait for them"""
    pids = []
    try:
        with attacked(judged=False) as mount:
            with rescued(mount):
                pids.append(forked(be_a_nuisance, socket_of(mount), A))
                time.sleep(0.5)
                lock(mount)
                tap.equal(state(mount), ABSENT)
                unlock(mount)
                start = time.monotonic()
        took = time.monotonic() - start
        assert took < SOON, f"the server took {took:.1f} s to end"
    finally:
        for pid in pids:
            kill(pid)
            os.waitpid(pid, 0)


def asked(mount, op, version, name):
    """(error, state) that the server answers to such a message."""
    with connected(socket_of(mount)) as peer:
        peer.send(struct.pack("<IHHIIB7x16s64x", 0x59414c49, 1, op, 0, 0, version, name))
        answer = peer.recv(64)
    return struct.unpack_from("<iI", answer, 8)


@tap.test
def unknown_spec():
    """The name of a key in a version that there is not: refused, and nothing is taken away by half"""
    with attacked() as mount:
        trees.write(mount.path("enc", "file"), b"data")
        os.symlink("target", mount.path("enc", "link"))
        for version in (0, 3, 255):
            for op in (STATUS, REMOVE):
                tap.equal(asked(mount, op, version, mount.key)[0], -22, f"op {op}, version {version}")
            tap.equal(state(mount), PRESENT)
            tap.equal((sorted(os.listdir(mount.enc)), read(mount.path("enc", "file"))), (["file", "link"], b"data"))
        lock(mount)
        tap.equal((state(mount), "target" in links(mount.enc)), (ABSENT, False))


def replaced(first_image, volume):
    """Whether the next mount, while the server of the one before it has not ended yet, has got the number of that one."""
    first = live.Mount(first_image, limit=25)
    try:
        place = socket_of(first)
        stop(first)
        _libc.umount2(os.fsencode(first.dir), MNT_DETACH)
        with attacked(volume=volume) as mount:
            same = socket_of(mount) == place
            made = os.lstat(place).st_ino
            first.kill(signal.SIGCONT)
            first.wait(SOON)
            if same:
                tap.equal(os.path.exists(place) and os.lstat(place).st_ino, made, "the socket")
                tap.equal(asked(mount, STATUS, 2, mount.key), (0, 2), "who listens there")
        return same
    finally:
        first.put_away()


@tap.test
def socket_of_the_next():
    """A server that ends late: the socket of the next mount, which has its number, stays there"""
    first_image, volume = live.volume("32M"), Volume()
    # Somebody else may mount something meanwhile.
    if not any(replaced(first_image, volume) for _ in range(4)):
        raise tap.Skip("other mounts have got the number")


def hold_many(directory, n, opened, over):
    """That many new files, until the pipe `over` ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (n + 100, n + 100))
    for i in range(n):
        os.open(f"{directory}/{i}", os.O_CREAT | os.O_RDONLY, 0o600)
    os.write(opened, b"x")
    os.read(over, 1)


def cpu_seconds(pid):
    user, system = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@tap.test
def many_open():
    """Thousands of files that are open during a lock: each close is a little work for the server, not a look at all others"""
    n = 14000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < n + 100:
        raise tap.Skip("so many files may not be open")
    opened, over = os.pipe(), os.pipe()
    with attacked(volume=Volume("64M"), judged=False) as mount:
        pid = forked(lambda: (os.close(over[1]), hold_many(mount.enc, n, opened[1], over[0])))
        try:
            os.close(opened[1])
            tap.equal(os.read(opened[0], 1), b"x", "what says that they are open")
            tap.equal(ctl.remove_key(mount.dir, mount.key), ctl.FILES_BUSY)
            before = cpu_seconds(mount.pid)
            os.close(over[1])
            live.wait_for(lambda: ctl.key_status(mount.dir, mount.key)[0] == ctl.ABSENT, 10, "the closes have not completed it")
            took = cpu_seconds(mount.pid) - before
            assert took < n * 3e-5, f"{took:.2f} s for {n} closes"
        finally:
            kill(pid)
            os.waitpid(pid, 0)
            os.close(opened[0])
            os.close(over[0])


# ---- what looks like a lock --------------------------------------------------------------------------------------------

# As root, in a world where no other mounts are. What becomes of /run/user and /tmp/inlay-UID is in the steps.
PLACES = r"""
set -e
mount --make-rprivate /
for dir in $(awk '/ fuse.inlay / { print $5 }' /proc/self/mountinfo); do umount -l "$dir"; done
mknod -m 666 "$WORK.fuse" c 10 229
mount --bind "$WORK.fuse" /dev/fuse
mount -t tmpfs -o mode=755 none /run/user
# fusermount3 wants a name.
{ cat /etc/passwd; echo "attacked:x:$U:$U::/:/bin/sh"; } >"$WORK.passwd"
mount --bind "$WORK.passwd" /etc/passwd
cd "$WORK"
user() { setpriv --reuid=$U --regid=$U --clear-groups --inh-caps=-all "$@"; }
begin() { user "$INLAY" mount image mnt --key key; test "$(user cat mnt/enc/file)" = data; }
end() { user fusermount3 -u mnt; while ! user "$INLAY" ls image >/dev/null 2>&1; do sleep 0.05; done; }
judge() {
    code=0; user "$INLAY" lock >said 2>&1 || code=$?
    if user cat mnt/enc/file >/dev/null 2>&1; then echo "$1: exit $code, still readable"; else echo "$1: exit $code, locked"; fi
}
trap 'set +e; umount -l mnt 2>/dev/null; rm -rf /tmp/inlay-$U' EXIT
trap 'exit 1' TERM

setpriv --reuid=$OTHER --clear-groups mkdir -m 700 /tmp/inlay-$U
begin; judge squatted; end
rmdir /tmp/inlay-$U

begin; mkdir -m 700 /run/user/$U; chown $U /run/user/$U
judge comes; end

begin; rm -r /run/user/$U
judge goes; end
"""


@tap.test
def places():
    """The folder of the socket is another user's, is not the first choice any more, or is gone: a lock of all still locks"""
    live.available()
    tap.requires("unshare", "fusermount3", "setpriv")
    cli.as_nobody()
    volume, work = Volume(), tap.fresh_dir("places")
    for source, name in ((volume.image, "image"), (volume.key_file, "key")):
        os.rename(source, f"{work}/{name}")
    trees.write(f"{work}/data", b"data")
    cli.good("put", f"{work}/data", f"{work}/image:/enc/file", keys=[f"{work}/key"])
    os.mkdir(f"{work}/mnt")
    for path in (work, *(f"{work}/{name}" for name in ("image", "key", "mnt"))):
        os.chown(path, A, A)
    env = {**os.environ, "INLAY": os.path.abspath(cli.command()), "WORK": work, "U": str(A), "OTHER": str(B)}
    done = subprocess.run(["timeout", "-k", "1", "20", "unshare", "-m", "sh", "-c", PLACES], env=env, check=False,
                          capture_output=True, text=True)
    tap.equal(done.stdout.splitlines(), [f"{what}: exit 0, locked" for what in ("squatted", "comes", "goes")], done.stderr)
    live.sound(f"{work}/image")


# ---- what is left ------------------------------------------------------------------------------------------------------


def report(fd):
    """The first piece of a report by the ioctl."""
    buffer = bytearray(struct.pack("<IIQQII", 0, 0, 0, 0, 0, 0).ljust(REPORT_SIZE, b"\0"))
    return bytes(ctl.raw(fd, REPORT, buffer))


@contextlib.contextmanager
def searched():
    """AddressSanitizer may move what is on the stack to memory of its own, where nobody can wipe it: not here."""
    before = os.environ.get("ASAN_OPTIONS", "")
    os.environ["ASAN_OPTIONS"] = before + ":detect_stack_use_after_return=0"
    try:
        with attacked() as mount:
            yield mount
    finally:
        os.environ["ASAN_OPTIONS"] = before


@tap.test
def reported():
    """The path of what was busy, which reports have told: not in the server's memory after the last close"""
    secret = "secret" + os.urandom(12).hex()
    with searched() as mount:
        trees.write(mount.path("enc", secret), b"data")
        held, here = os.open(mount.path("enc", secret), os.O_RDONLY), os.open(mount.dir, os.O_RDONLY)
        said = cli.run("lock", mount.dir, mount.key.hex(), timeout=SOON)
        tap.equal(said.code, cli.PARTLY, repr(said))
        tap.contains(said.err, secret.encode())
        tap.contains(report(here), secret.encode())
        os.close(held)
        # Not by another report, that would write over the one before.
        live.wait_for(lambda: ctl.key_status(here, mount.key)[0] == ctl.ABSENT, SOON, "the last close has not completed the lock")
        # What is left is wiped a moment after the status says so.
        time.sleep(0.5)
        tap.equal(memory.find(mount.pid, {"the path": secret.encode()}), {})
        assert secret.encode() not in report(here), "a report after the lock"
        os.close(here)


tap.main()
