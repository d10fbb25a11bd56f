"""A volume mounted by `inlay mount`: made, mounted, ended, and judged by e2fsck, by Inlay and by the kernel.

Not here: what programs do in it (tests/mount).
Read more: doc/inlay.1, "MOUNTING".

A server that does not answer would keep a test for ever, and no signal but one ends a program that waits for it. So
each mount has a watch: after its time the server is killed, whoever waits gets an error, and the test fails by that.
"""
import contextlib
import errno
import glob
import os
import select
import signal
import subprocess
import threading
import time

import cli
import koracle
import tap
import trees

MIB = 1 << 20
FIELDS = ("type", "mode", "uid", "gid", "mtime", "xattrs", "size", "nlink", "sha256", "target", "rdev")


def available():
    tap.requires("root", "fuse")


def volume(size="64M", *options):
    """The path of a new volume that `inlay mkfs` makes, with nothing in it."""
    image = tap.fresh("live.img")
    cli.good("mkfs", image, "--size", size, *options)
    return image


def key():
    path = tap.fresh("key")
    trees.write(path, os.urandom(64))
    return path


def with_directory(image, key_file, name="enc"):
    """An encrypted directory in it. Returns the name."""
    cli.good("mkdir", f"{image}:/{name}")
    cli.good("encrypt", f"{image}:/{name}", keys=[key_file])
    return name


def wait_for(condition, seconds=10, what="it does not happen"):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            tap.fail(what)
        time.sleep(0.01)


def alive(pid):
    """A zombie is not, once all of its threads are gone: it has nothing open any more."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        return not select.select([fd], [], [], 0)[0]
    finally:
        os.close(fd)


def n_mounts(directory):
    """How many there are on it, one above the other."""
    with open("/proc/self/mountinfo", "rb") as f:
        return sum(line.split()[4] == os.fsencode(directory) for line in f)


def is_mount(directory):
    return n_mounts(directory) > 0


class Mount:
    """One mount in the background. keys: files; options: more arguments of the command."""

    def __init__(self, image, *options, keys=(), directory=None, limit=60):
        available()
        self.dir = directory or tap.fresh_dir("mnt")
        self.hung = False
        self.reports = tap.fresh("asan")
        asan = os.environ.get("ASAN_OPTIONS", "")
        env = {**os.environ, "ASAN_OPTIONS": f"{asan}:log_path={self.reports}"}
        tap.unmount_later(self.dir)
        cli.good("mount", *options, image, self.dir, keys=keys, env=env)
        self.pid = self.status()["process"]
        self.watch = threading.Timer(limit, self.give_up)
        self.watch.daemon = True
        self.watch.start()

    def give_up(self):
        self.hung = True
        self.kill()

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def status(self):
        return cli.good("status", "--json", self.dir).json()

    def kill(self, number=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds=20):
        """Until the server's process is gone."""
        wait_for(lambda: not alive(self.pid), seconds, "the server does not end")
        self.ended()

    def ended(self):
        self.watch.cancel()
        for path in glob.glob(self.reports + "*"):
            with open(path, encoding="utf-8", errors="replace") as f:
                tap.fail("the server: " + f.read()[:3500])
        if self.hung:
            tap.fail("the server was killed, for it did not answer for long")

    def umount(self):
        """As a user ends it: no word, no server, no mount; and nothing to recover."""
        # Whoever looks at all processes of the machine holds for a moment what they have open.
        busy = time.monotonic() + 2
        while (done := cli.run("umount", self.dir)).code and b"is in use" in done.err and time.monotonic() < busy:
            time.sleep(0.1)
        if done.code or done.err:
            tap.fail(f"should succeed in silence: {done!r}")
        if alive(self.pid):
            tap.fail("umount has not waited for the server")
        if is_mount(self.dir):
            tap.fail("umount has left a mount")
        self.ended()

    def put_away(self):
        """However it is: after a test that failed."""
        self.watch.cancel()
        self.kill()
        tap.umount(self.dir)


@contextlib.contextmanager
def mounted(image, *options, **how):
    mount = Mount(image, *options, **how)
    try:
        yield mount
        mount.umount()
    finally:
        if is_mount(mount.dir):
            mount.put_away()


# ---- judges ----------------------------------------------------------------------------------------------------------


def needs_recovery(image):
    with open(image, "rb") as f:
        f.seek(1024 + 0x60)
        return bool(f.read(1)[0] & 4)


def sound(image, replay=False):
    """replay: e2fsck may replay the journal first, and nothing else."""
    if replay:
        done = subprocess.run(["e2fsck", "-fp", "-E", "journal_only", image], capture_output=True, check=False)
        if done.returncode not in (0, 1):
            tap.fail(f"{done.stdout[-1500:]!r}{done.stderr[-500:]!r}")
    elif needs_recovery(image):
        tap.fail("the volume was not left clean")
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, check=False)
    if done.returncode:
        tap.fail(f"{done.stdout[-1500:]!r}{done.stderr[-500:]!r}")
    checked = cli.run("fsck", "--read-only", image)
    if checked.code:
        tap.fail(repr(checked))


def same_to_kernel(image, key_file, wanted, **how):
    """What the kernel shows, with the key, is what the mount has shown."""
    tap.requires("loop", "kernel")
    with tap.mounted(image) as root:
        with open(key_file, "rb") as f:
            koracle.add_key(root, f.read())
        trees.check(wanted, trees.snapshot(root), **{"fields": FIELDS, **how})


@contextlib.contextmanager
def encrypted(*options, size="64M", limit=60):
    """Yields an encrypted directory in a mount, and in the end asks all judges whether it was left as it looked."""
    image, key_file = volume(size), key()
    with_directory(image, key_file)
    with mounted(image, *options, keys=[key_file], limit=limit) as mount:
        yield mount.path("enc")
        seen = trees.snapshot(mount.dir)
    sound(image)
    same_to_kernel(image, key_file, seen)
    os.unlink(image)


# ---- what goes wrong ---------------------------------------------------------------------------------------------------


def errno_of(function, *args, **how):
    """The name of the error that it raises; None: it raises none."""
    try:
        function(*args, **how)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def as_user(uid, function, *args):
    """What the function returns, or the name of its OSError, in a process of this user's, who has no other groups."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        said = "died"
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            said = str(function(*args))
        except OSError as error:
            said = errno.errorcode[error.errno]
        finally:
            os.write(write_end, said.encode())
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as f:
        said = f.read().decode()
    os.waitpid(pid, 0)
    return said
